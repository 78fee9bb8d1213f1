//! A rehearsal of the stateful set without Kubernetes: what the manifests say is played by a controller, a kubelet, a
//! client service and a name server of a few hundred lines, with pods in network namespaces of their own.
//!
//! Under a load through the client service all pods are replaced, then three become five and five become three. No request may
//! fail that is sent once more to another pod, and no answer may be incomplete. Needs root.
//!
//! What is not rehearsed: the scheduler, the network of a real cluster, images, limits of memory.

mod controller;
mod dns;
mod manifests;
mod pods;

use anyhow::ensure;
use controller::Controller;
use dns::Names;
use manifests::StatefulSet;
use pods::Pods;
use std::{
    path::Path,
    time::{Duration, Instant},
};
use trefoil_jepsen::{
    Exclusive, HttpClient, Load, LoadPlan, Service, check_answers_of,
    site::{Site, SiteKind, SitePlan},
    trefoil_binary,
};

/// Pods at most.
const PODS_MAX: usize = 5;
/// Clients of the service, each with a writer and a querier.
const CLIENTS: usize = 6;
/// How long the load goes on before the first change and after the last.
const SETTLE: Duration = Duration::from_secs(5);
/// After rest, replicas must be equal within this time (D3).
const EQUAL_WAIT_MAX: Duration = Duration::from_secs(10);
/// Longer than any answer of the last check may take.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);

#[test]
fn an_update_and_scaling_fail_no_request() -> anyhow::Result<()> {
    if let Err(reason) = Site::possible(SiteKind::Namespaces) {
        ensure!(
            std::env::var_os("TREFOIL_REQUIRE_NAMESPACES").is_none(),
            "namespaces are required, but: {reason}"
        );
        println!("not run: {reason}");
        return Ok(());
    }
    trefoil_binary()?;
    let set = StatefulSet::print()?;
    let _alone = Exclusive::take()?;
    let folder = tempfile::tempdir()?;
    let site = Site::create(&SitePlan::new(
        SiteKind::Namespaces,
        PODS_MAX,
        folder.path(),
    ))?;
    // Every thread goes where clients are, and stays there until it ends.
    let door = site.door();
    door.enter()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .on_thread_start(move || {
            // A thread that stays outside reaches no pod, and so fails the rehearsal.
            if let Err(error) = door.enter() {
                eprintln!("a thread of the clients: {error:#}");
            }
        })
        .enable_all()
        .build()?;
    runtime.block_on(rehearse(site, &set, folder.path()))
}

async fn rehearse(site: Site, set: &StatefulSet, folder: &Path) -> anyhow::Result<()> {
    let (pods, names, service) = (Pods::default(), Names::default(), Service::default());
    let answering = dns::serve(names.clone()).await?;
    let publishing = pods::publish(pods.clone(), set.clone(), service.clone(), names.clone());
    let publishing = tokio::spawn(publishing);
    let mut controller = Controller::begin(site, set, &pods, folder)?;
    let done = act(&mut controller, set, &service).await;
    if done.is_err() {
        controller.print_logs();
    }
    let (stops, clients) = (controller.figures(), service.figures());
    eprintln!(
        "longest start {:.1?}; {} pods stopped, longest hook {:.1?}, longest end {:.1?}, 0 killed; {} answers of names",
        pods.longest_start(),
        stops.stopped,
        stops.longest_hook,
        stops.longest_end,
        names.answered()
    );
    eprintln!(
        "{} requests: {} not taken at first, {} of them by another pod, {} failed; the slowest took {:.1?}",
        clients.requests, clients.first_failures, clients.retried, clients.failed, clients.slowest
    );
    for reason in clients.reasons {
        eprintln!("  {reason}");
    }
    answering.abort();
    publishing.abort();
    done?;
    let complaints = pods.complaints();
    ensure!(complaints.is_empty(), "{complaints:?}");
    ensure!(clients.failed == 0, "{} requests failed", clients.failed);
    Ok(())
}

async fn act(
    controller: &mut Controller,
    set: &StatefulSet,
    service: &Service,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    let tell = |what: &str| eprintln!("{:>4} s  {what}", begun.elapsed().as_secs());
    tell("three pods start");
    controller.wait_available(0..set.replicas).await?;
    let plan = LoadPlan::default();
    let mut load = Load::start_at_service("rehearsal", service, CLIENTS, &plan);
    load.go_on(SETTLE).await;
    tell("all are replaced");
    controller.update().await?;
    tell("five pods");
    controller.scale_up(PODS_MAX).await?;
    tell("three pods again");
    controller.scale_down(set.replicas).await?;
    load.go_on(SETTLE).await;
    load.stop().await?;
    tell("the load has ended");
    load.check_honesty()?;
    let requests = load.check_no_failures()?;
    let equal = controller.wait_equal(EQUAL_WAIT_MAX).await?;
    let client = HttpClient::new(ANSWER_WAIT_MAX);
    for (name, url) in controller.urls() {
        check_answers_of(&client, &name, &url, &load.ledgers()).await?;
    }
    tell(&format!(
        "{requests} attempts succeeded, replicas were equal after {equal:.1?}"
    ));
    Ok(())
}
