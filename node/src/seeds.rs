//! Where the seed list leads. Names are resolved again and again: behind a headless service the
//! addresses come and go with the nodes, and a name server may be away at the start.
//!
//! A name counts with all of its addresses. One that does not resolve costs the others no time and is
//! told once, until it resolves again. Resolving is passed in, so that tests need no name server.

use crate::gossip_driver::{Gossip, View};
use anyhow::Context;
use futures::{StreamExt, stream::FuturesUnordered};
use std::{
    collections::{BTreeSet, VecDeque},
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, watch};
use trefoil_gossip::seeds::Seed;
use trefoil_model::NodeId;
use trefoil_raft::{BootstrapSettings, MemberState, State};

/// How often the seeds are asked while no member is known.
const INTERVAL_ALONE: Duration = Duration::from_millis(250);
/// How often the seeds are asked once members are known: heals a cluster whose halves forgot each other.
const INTERVAL: Duration = Duration::from_secs(10);
/// How often members are looked for where they last were, while none is known.
const RECALL_INTERVAL_ALONE: Duration = Duration::from_secs(1);
/// How long a name may take to resolve. System resolvers give up after 5 to 30 s.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often addresses are counted while no cluster was found or joined.
const COUNT_INTERVAL: Duration = Duration::from_secs(2);
/// How long a count stands, if later ones are smaller. A pod that is going away is in the headless service for as long
/// as it takes to stop.
const COUNTED_FOR: Duration = Duration::from_secs(60);
/// Addresses of one name that are used; the largest cluster has fewer nodes.
const ADDRESSES_MAX: usize = 1024;

/// All addresses of a seed.
///
/// # Errors
/// When the name does not resolve now.
pub(crate) async fn resolve(seed: Seed) -> io::Result<Vec<SocketAddr>> {
    if let Some(address) = seed.address() {
        return Ok(vec![address]);
    }
    let found = tokio::net::lookup_host((seed.host.as_str(), seed.port));
    let addresses = tokio::time::timeout(RESOLVE_TIMEOUT, found).await??;
    Ok(addresses.take(ADDRESSES_MAX).collect())
}

/// The settings under which this node founds a cluster, counted anew until nobody looks at them. The largest count of
/// late stands: a name server that knows only some of the addresses for a moment must not let two clusters begin,
/// and addresses of nodes that are going away are forgotten soon.
pub(crate) async fn keep_judging<F, R>(
    seeds: Vec<Seed>,
    expect: usize,
    resolve: F,
) -> watch::Receiver<BootstrapSettings>
where
    F: Fn(Seed) -> R + Send + Sync + 'static,
    R: Future<Output = io::Result<Vec<SocketAddr>>> + Send,
{
    let settings = move |seed_addresses| BootstrapSettings {
        expect,
        seed_addresses,
    };
    let mut counts = Counts::default();
    let begun = Instant::now();
    let first = counts.note(Duration::ZERO, count_addresses(&seeds, &resolve).await);
    let (judged, looked_at) = watch::channel(settings(first));
    tokio::spawn(async move {
        while tokio::time::timeout(COUNT_INTERVAL, judged.closed())
            .await
            .is_err()
        {
            let count = count_addresses(&seeds, &resolve).await;
            judged.send_replace(settings(counts.note(begun.elapsed(), count)));
        }
    });
    looked_at
}

/// To how many addresses the seeds led of late; as many entries as there are intervals in that time.
#[derive(Default)]
struct Counts(VecDeque<(Duration, usize)>);

impl Counts {
    /// Takes the count of a moment, and gives the largest of late.
    fn note(&mut self, now: Duration, count: usize) -> usize {
        let late = |at: Duration| at + COUNTED_FOR > now;
        self.0.retain(|(at, _)| late(*at));
        self.0.push_back((now, count));
        self.0
            .iter()
            .map(|(_, count)| *count)
            .max()
            .unwrap_or(count)
    }
}

/// To how many addresses the seeds lead. A seed that does not resolve now counts as one, so that a
/// name server that is away does not make the list look empty.
async fn count_addresses<F, R>(seeds: &[Seed], resolve: F) -> usize
where
    F: Fn(Seed) -> R,
    R: Future<Output = io::Result<Vec<SocketAddr>>>,
{
    let mut addresses = BTreeSet::new();
    let mut unresolved = 0;
    let mut answers: FuturesUnordered<R> = seeds.iter().cloned().map(resolve).collect();
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(found) if !found.is_empty() => addresses.extend(found),
            _ => unresolved += 1,
        }
    }
    addresses.len() + unresolved
}

/// Reports every address that the seeds lead to, again and again, until nobody listens.
pub(crate) async fn look_for<F, R>(
    seeds: Vec<Seed>,
    resolve: F,
    found: mpsc::Sender<SocketAddr>,
    view: watch::Receiver<Arc<View>>,
) where
    F: Fn(Seed) -> R + Send + Sync,
    R: Future<Output = io::Result<Vec<SocketAddr>>> + Send,
{
    let mut unresolved = BTreeSet::new();
    loop {
        let ask = |seed: &Seed| {
            let answer = resolve(seed.clone());
            let seed = seed.clone();
            async move { (seed, answer.await) }
        };
        let mut answers: FuturesUnordered<_> = seeds.iter().map(ask).collect();
        while let Some((seed, answer)) = answers.next().await {
            tell(&mut unresolved, &seed, &answer);
            for address in answer.unwrap_or_default() {
                if found.send(address).await.is_err() {
                    return;
                }
            }
        }
        let members = view.borrow().members.clone();
        let pause = match members.iter().any(|member| member.state.is_active()) {
            true => INTERVAL,
            false => INTERVAL_ALONE,
        };
        tokio::time::sleep(pause).await;
    }
}

/// Looks for members that gossip does not know where the metadata plane last had them, as long as this node runs: after
/// many changes of addresses a fixed seed list may lead nowhere.
pub(crate) async fn recall(node: NodeId, metadata: watch::Receiver<Arc<State>>, gossip: Gossip) {
    loop {
        let view = gossip.view();
        let active: BTreeSet<NodeId> = view
            .members
            .iter()
            .filter(|member| member.state.is_active())
            .map(|member| member.identity.node)
            .collect();
        let absent = absent_members(&metadata.borrow(), node, &active);
        for seed in absent {
            for address in resolve(seed).await.unwrap_or_default() {
                gossip.announce(address).await;
            }
        }
        let pause = match active.is_empty() {
            true => RECALL_INTERVAL_ALONE,
            false => INTERVAL,
        };
        tokio::time::sleep(pause).await;
    }
}

/// Where the members that are not active were when they last said so.
fn absent_members(state: &State, node: NodeId, active: &BTreeSet<NodeId>) -> Vec<Seed> {
    state
        .members()
        .filter(|member| member.state != MemberState::Removed)
        .filter(|member| member.node != node && !active.contains(&member.node))
        .filter_map(|member| member.description.addresses.peer.parse().ok())
        .collect()
}

/// Logs a seed that stops or begins to resolve.
fn tell(unresolved: &mut BTreeSet<Seed>, seed: &Seed, answer: &io::Result<Vec<SocketAddr>>) {
    match answer {
        Ok(addresses) if !addresses.is_empty() => {
            if unresolved.remove(seed) {
                tracing::info!(%seed, ?addresses, "seed resolves again");
            }
        }
        Ok(_) if unresolved.insert(seed.clone()) => {
            tracing::warn!(%seed, "seed has no address; it is tried again");
        }
        Err(error) if unresolved.insert(seed.clone()) => {
            tracing::warn!(%seed, %error, "seed does not resolve; it is tried again");
        }
        Ok(_) | Err(_) => {}
    }
}

/// The address that others reach this node at: the advertised host, the bound address, or the one
/// that the route to a seed leaves from.
///
/// # Errors
/// When the advertised host does not resolve, or no route leads to any seed.
pub(crate) async fn reachable_address(
    bound: SocketAddr,
    advertise: Option<&str>,
    seeds: &[Seed],
) -> anyhow::Result<SocketAddr> {
    if let Some(host) = advertise {
        let mut addresses = tokio::net::lookup_host((host, bound.port()))
            .await
            .with_context(|| format!("resolve the advertised host {host}"))?;
        return addresses
            .next()
            .with_context(|| format!("the advertised host {host} has no address"));
    }
    if !bound.ip().is_unspecified() {
        return Ok(bound);
    }
    for seed in seeds {
        // One that does not resolve is told by those who go on trying.
        for address in resolve(seed.clone()).await.unwrap_or_default() {
            let probe = UdpSocket::bind(if address.is_ipv4() {
                "0.0.0.0:0"
            } else {
                "[::]:0"
            })?;
            if probe.connect(address).is_ok()
                && let Ok(local) = probe.local_addr()
            {
                return Ok(SocketAddr::new(local.ip(), bound.port()));
            }
        }
    }
    if seeds.is_empty() {
        return Ok(SocketAddr::from(([127, 0, 0, 1], bound.port())));
    }
    anyhow::bail!("no route leads to any seed; give --advertise HOST")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn address(last: u8) -> SocketAddr {
        ([10, 0, 0, last], 9191).into()
    }

    fn seed(text: &str) -> Seed {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn a_name_is_asked_again_and_counts_with_all_its_addresses() {
        let asked = AtomicUsize::new(0);
        // The name server is away, then knows two nodes, then one of them has moved.
        let name_server = |seed: Seed| {
            assert_eq!(seed.host, "nodes");
            let answer = match asked.fetch_add(1, Ordering::Relaxed) {
                0 => Err(io::Error::other("no name server")),
                1 => Ok(vec![address(1), address(2)]),
                _ => Ok(vec![address(1), address(3)]),
            };
            std::future::ready(answer)
        };
        let (found, mut addresses) = mpsc::channel(4);
        let (_view, members) = watch::channel(Arc::new(View::default()));
        let looking = look_for(vec![seed("nodes")], name_server, found, members);
        let listening = async {
            let mut heard = Vec::new();
            while heard.len() < 4 {
                heard.extend(addresses.recv().await);
            }
            addresses.close();
            heard
        };
        let (heard, ()) = tokio::join!(listening, looking);
        assert_eq!(heard, [address(1), address(2), address(1), address(3)]);
    }

    #[tokio::test]
    async fn a_name_that_hangs_does_not_hold_up_the_others() {
        let name_server = |seed: Seed| async move {
            match seed.host.as_str() {
                "hangs" => std::future::pending().await,
                _ => Ok(vec![address(1)]),
            }
        };
        let (found, mut addresses) = mpsc::channel(4);
        let (_view, members) = watch::channel(Arc::new(View::default()));
        let seeds = vec![seed("hangs"), seed("answers")];
        let looking = tokio::spawn(look_for(seeds, name_server, found, members));
        assert_eq!(addresses.recv().await, Some(address(1)));
        looking.abort();
    }

    #[tokio::test]
    async fn a_list_that_does_not_resolve_is_not_an_empty_one() {
        let name_server = |seed: Seed| {
            let answer = match seed.host.as_str() {
                "away" => Err(io::Error::other("no name server")),
                "empty" => Ok(Vec::new()),
                _ => Ok(vec![address(1), address(2)]),
            };
            std::future::ready(answer)
        };
        let count = async |list: &[&str]| {
            let seeds: Vec<Seed> = list.iter().map(|text| seed(text)).collect();
            count_addresses(&seeds, name_server).await
        };
        assert_eq!(count(&[]).await, 0);
        assert_eq!(count(&["two"]).await, 2);
        assert_eq!(count(&["two", "same"]).await, 2);
        assert_eq!(count(&["away", "empty"]).await, 2);
    }

    #[test]
    fn the_largest_count_of_late_stands() {
        let mut counts = Counts::default();
        let mut note = |seconds, count| counts.note(Duration::from_secs(seconds), count);
        assert_eq!(note(0, 6), 6);
        assert_eq!(note(30, 2), 6);
        assert_eq!(note(59, 3), 6);
        assert_eq!(note(60, 3), 3);
        assert_eq!(note(61, 5), 5);
        assert_eq!(note(200, 3), 3);
        assert_eq!(counts.0.len(), 1);
    }

    #[tokio::test]
    async fn addresses_need_no_name_server() {
        let found = resolve(seed("[::1]:9")).await.unwrap();
        assert_eq!(found, [SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 9))]);
    }
}
