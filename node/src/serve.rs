//! `trefoil serve`: brings a node up, keeps it running, and takes it down in the reverse order.
//!
//! ```text
//! data directory -> identity -> HTTP that says why the node is not ready
//!   -> gossip, peers' server, metadata plane -> cluster (formed or joined)
//!   -> data plane recovered from blocks and journal -> member's tasks -> HTTP with all routes
//! ```
//! SIGTERM and SIGINT: say goodbye, refuse new work, flush, stop. A second signal ends the process at once;
//! nothing that was acknowledged depends on a clean stop.

use crate::{
    backend::NodeBackend,
    cluster::{Cluster, follow, known_cut_offs::KnownCutOffs, known_deletions::KnownDeletions},
    config::{self, Listen, ServeArgs, Settings},
    data_dir::DataDir,
    data_plane::{DataPlane, Parts, StorePolicy, WISHES_WAITING_MAX},
    formats,
    front::{Front, Listeners, until_true},
    gossip_driver::Gossip,
    logging, open_files,
    peer_handler::Handlers,
    seeds, snapshot,
    stop_signal::StopSignal,
    telemetry::{Telemetry, collectors::NodeCollector},
    transport::{
        client::Connections, directory::Directory, identity::LocalIdentity, key::PeerKey,
        metadata::MetadataTransport, replication::ReplicationSender, server,
    },
};
use anyhow::Context;
use std::{io::ErrorKind, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, net::UdpSocket, runtime::Runtime, sync::watch};
use trefoil_api::{Api, ApiLimits, Backend, WriteLimits};
use trefoil_gossip::{Load, NodeInfo, NodePhase, seeds::Seed};
use trefoil_model::{ClusterId, LineageId, NodeId};
use trefoil_raft::{
    Addresses, MemberDescription, MetadataPlane, PeerView, PlaneOptions, State, formation,
};
use trefoil_store_journal::JournalOptions;
use trefoil_store_metrics::MetricsError;
use trefoil_store_pages::{Disk, RealDisk, is_full_disk};

/// How long requests that are under way may take to end at a stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a stop may take in all: [`STOP_TIMEOUT`], twice 5 s at most for late samples of pairs, a last flush and sync of the disk.
pub(crate) const STOP_SECONDS_MAX: u64 = 30;
/// How often a start on a full disk looks for space; each try reads the journal anew.
const SPACE_INTERVAL: Duration = Duration::from_secs(3);
/// How often the node describes itself anew to the others.
const DESCRIBE_INTERVAL: Duration = Duration::from_secs(2);

/// Runs a node until a signal ends it.
///
/// # Errors
/// When the node cannot start; the text says what to change.
pub(crate) fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let settings = Settings::load(args)?;
    logging::start(settings.log_format, &settings.log_level)?;
    let variables = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for warning in config::unknown_variables(variables) {
        tracing::warn!("{warning}");
    }
    let control = runtime("control", 2)?;
    let clients = runtime(
        "clients",
        std::thread::available_parallelism().map_or(2, Into::into),
    )?;
    let handle = clients.handle().clone();
    let outcome = control.block_on(serve(settings, handle));
    clients.shutdown_timeout(Duration::from_secs(2));
    control.shutdown_timeout(Duration::from_secs(2));
    outcome
}

fn runtime(name: &'static str, threads: usize) -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(name)
        .enable_all()
        .build()
        .with_context(|| format!("start the {name} threads"))
}

async fn serve(mut settings: Settings, clients: tokio::runtime::Handle) -> anyhow::Result<()> {
    let mut stop_signal = StopSignal::listen()?;
    let directory = DataDir::open(&settings.data_dir)?;
    let unfinished = snapshot::folder::clean(directory.path());
    if unfinished > 0 {
        tracing::warn!(unfinished, "removed what was left of snapshots");
    }
    let journal = JournalOptions::default();
    settings.journal_bytes_max = open_files::journal_bytes_within(
        open_files::raise_limit(),
        settings.journal_bytes_max,
        journal.segment_bytes,
    );
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let own = formation::Identity::open(disk.clone(), &directory.path().join("meta"))
        .context("read the node's identity")?;
    let fresh = own.is_fresh();
    if own.cluster().is_none() {
        // Before anybody can count on this node.
        DataPlane::prepare(&disk, directory.path(), own.lineage())?;
    }
    let (node, lineage) = (own.node(), own.lineage());
    let identity = Arc::new(LocalIdentity::new(node, own.incarnation(), own.cluster()));
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"), node = %node, name = settings.node_name,
        data = %directory.path().display(), "starting"
    );

    let seeds: Vec<Seed> = settings
        .seeds
        .iter()
        .map(|s| s.parse())
        .collect::<Result<_, _>>()?;
    let bound = bind(&settings).await?;
    let http_address = bound.front.http.local_addr()?;
    let (stop, stopping) = watch::channel(false);
    let front = Front::start(bound.front, &clients, &stopping);
    let info = describe(&settings, &identity, &bound.peer, http_address, &seeds).await?;
    let peers = Arc::new(Directory::default());
    let key = PeerKey::new(settings.cluster_key, identity.clone());
    let listening = bound.peer.local_addr()?.ip();
    let connections = Connections::new(identity.clone(), peers.clone(), key.clone());
    let connections = Arc::new(connections.leaving_from(listening));
    let handlers = Arc::new(Handlers::default());
    handlers.evaluators.set(clients.clone()).ok();
    let peer_server = tokio::spawn(server::serve(
        bound.peer,
        identity.clone(),
        key,
        handlers.clone(),
        until_true(stopping.clone()),
    ));
    let gossip = Gossip::start(
        bound.gossip,
        info.clone(),
        seeds.clone(),
        settings.cluster_key,
        peers.clone(),
    )?;

    let mut options = PlaneOptions::new(directory.path().join("meta"));
    options.replace_after = settings.replace_after;
    let transport = Arc::new(MetadataTransport::new(connections.clone()));
    let starting = trefoil_raft::MetadataPlane::start(
        options,
        own,
        disk.clone(),
        transport,
        follow_view(&gossip),
    );
    front.is_starting(|| "it reads its metadata; on a full disk it waits for space".to_owned());
    let metadata = tokio::select! {
        started = starting => started.context("start the metadata plane")?,
        () = stop_signal.come() => return Ok(()),
    };
    handlers.metadata.set(metadata.clone()).ok();
    tokio::spawn(seeds::recall(node, metadata.watch(), gossip.clone()));

    let forming = metadata.clone();
    front.is_starting(move || {
        let reason = forming.forming_reason();
        reason.unwrap_or_else(|| "it is not part of a cluster yet".to_owned())
    });
    let cluster_id = tokio::select! {
        joined = join(&settings, &metadata, &seeds, &info, lineage, stopping.clone()) => joined?,
        () = stop_signal.come() => return Ok(()),
    };
    identity.set_cluster(cluster_id);
    tracing::info!(cluster = %cluster_id, "belongs to a cluster");

    let sender = Arc::new(ReplicationSender::new(
        connections.clone(),
        tokio::runtime::Handle::current(),
    ));
    let (wishes, wanted) = tokio::sync::mpsc::channel(WISHES_WAITING_MAX);
    let parts = Parts {
        disk,
        directory: directory.path().to_owned(),
        identity: trefoil_shard::Identity {
            cluster: cluster_id,
            node,
            incarnation: identity.incarnation,
        },
        lineage,
        fresh,
        clock: Arc::default(),
        settings: settings.clone(),
        journal,
        replication: trefoil_shard::Settings::default(),
        policy: first_policy(&metadata.state(), node),
        sender,
        wishes,
        runtime: clients.clone(),
    };
    let plane = tokio::select! {
        recovered = recover(parts, &front, &metadata) => recovered?,
        () = stop_signal.come() => return Ok(()),
    };
    handlers.plane.set(plane.clone()).ok();
    let cluster = Cluster::new(
        settings.clone(),
        identity.clone(),
        metadata.clone(),
        plane.clone(),
        gossip.clone(),
        peers,
        connections,
    );
    handlers.cluster.set(cluster.clone()).ok();
    cluster.start(wanted);
    plane.start_maintenance();
    tokio::spawn(keep_described(
        cluster.clone(),
        gossip.clone(),
        info.clone(),
    ));

    let telemetry = Arc::new(Telemetry::new(NodeCollector::new(cluster.clone())));
    let backend = Arc::new(NodeBackend::new(cluster.clone(), telemetry));
    handlers.backend.set(backend.clone()).ok();
    backend.release_held(&clients);
    let holding = backend.clone();
    let backend: Arc<dyn Backend> = backend;
    let limits = ApiLimits {
        write: WriteLimits {
            type_and_unit_labels: settings.type_and_unit_labels,
            ..WriteLimits::default()
        },
        write_timeout: settings.write_timeout,
        query_timeout: settings.query_timeout,
        queries_at_once_max: settings.query_concurrency,
        ..ApiLimits::default()
    };
    front.serve(&Api::new(backend, limits, settings.otlp));
    tracing::info!(http = %info.http, peer = %info.peer, "serving");

    tokio::select! {
        () = stop_signal.come() => {}
        // Nothing that it promised is lost, but it can promise nothing more. What a restart finds on the disk is
        // the truth.
        error = metadata.failed() => return Err(error.into()),
    }
    tracing::info!("stopping");
    tokio::spawn(async move {
        stop_signal.come().await;
        std::process::exit(130);
    });
    // While the others listen to this node; what comes meanwhile goes the same way behind the last request.
    holding.store_late_before_stop().await;
    gossip.leave().await;
    stop.send_replace(true);
    if tokio::time::timeout(STOP_TIMEOUT, front.ended())
        .await
        .is_err()
    {
        tracing::warn!("requests that were under way are cut off");
    }
    holding.store_late_before_stop().await;
    cluster.give_deltas_back().await;
    let closing = plane.clone();
    tokio::task::spawn_blocking(move || closing.close()).await?;
    metadata.shutdown().await;
    peer_server.abort();
    tracing::info!("stopped");
    Ok(())
}

/// Makes this node part of a cluster. One that belongs to one already goes on at once, and tells the
/// others about its addresses meanwhile, unless it stops before they could be told.
async fn join(
    settings: &Settings,
    metadata: &MetadataPlane,
    seeds: &[Seed],
    info: &NodeInfo,
    lineage: LineageId,
    stopping: watch::Receiver<bool>,
) -> anyhow::Result<ClusterId> {
    let expect = settings.bootstrap_expect;
    let bootstrap = seeds::keep_judging(seeds.to_vec(), expect, seeds::resolve).await;
    let description = MemberDescription {
        name: info.name.clone(),
        zone: info.zone.clone(),
        weight: 100,
        addresses: Addresses {
            peer: info.peer.to_string(),
            http: info.http.to_string(),
        },
        version: info.version.clone(),
        format_level_max: formats::LEVEL_MAX,
        lineage,
    };
    if let Some(cluster) = info.cluster {
        let metadata = metadata.clone();
        tokio::spawn(async move {
            let formed = tokio::select! {
                biased;
                () = until_true(stopping) => return,
                formed = metadata.form(bootstrap, description) => formed,
            };
            if let Err(error) = formed {
                tracing::error!(%error, "this node cannot go on as a member");
                std::process::exit(1);
            }
        });
        return Ok(cluster);
    }
    metadata
        .form(bootstrap, description)
        .await
        .context("become part of a cluster")
}

/// What the store must not show while it recovers.
fn first_policy(state: &State, node: NodeId) -> StorePolicy {
    let known = KnownDeletions::default().of(state);
    let selected = KnownCutOffs::default().of(state);
    follow::store_policy(state, (known, selected), node)
}

/// Recovers the data plane; on a full disk as soon as there is space, and when what it had stored presupposes deletions
/// that this node has not heard of again, as soon as it has. Peers are served meanwhile with what the metadata plane
/// knows, clients are sent elsewhere.
async fn recover(
    mut parts: Parts,
    front: &Front,
    metadata: &MetadataPlane,
) -> anyhow::Result<Arc<DataPlane>> {
    front.is_starting(|| "it reads its blocks and its journal".to_owned());
    let mut told = false;
    let mut states = metadata.watch();
    loop {
        let node = parts.identity.node;
        parts.policy = first_policy(&states.borrow_and_update(), node);
        let attempt = parts.clone();
        match tokio::task::spawn_blocking(move || DataPlane::recover(attempt)).await? {
            Err(error) if is_full_disk(error.as_ref()) => {
                if !told {
                    told = true;
                    tracing::error!(
                        "the disk is full; the start goes on when there is space: {error:#}"
                    );
                    front.is_starting(|| {
                        "its disk is full; it goes on when there is space".to_owned()
                    });
                }
                tokio::time::sleep(SPACE_INTERVAL).await;
            }
            Err(error) if awaits_deletion(&error) => {
                tracing::info!("the start goes on when the metadata plane is heard: {error:#}");
                front.is_starting(|| {
                    "it has not heard again what was deleted before it stopped".to_owned()
                });
                states
                    .changed()
                    .await
                    .context("hear what was deleted before the stop")?;
            }
            done => return done,
        }
    }
}

/// Whether what the journal holds cannot become blocks, because it presupposes a deletion that is not known here yet.
pub(crate) fn awaits_deletion(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let cause = cause.downcast_ref::<MetricsError>();
        matches!(cause, Some(MetricsError::UnknownDeletion { .. }))
    })
}

struct Bound {
    front: Listeners,
    peer: TcpListener,
    gossip: UdpSocket,
}

async fn bind(settings: &Settings) -> anyhow::Result<Bound> {
    let http = TcpListener::bind(settings.http)
        .await
        .with_context(|| taken("--http", settings.http))?;
    let peer = TcpListener::bind(settings.peer)
        .await
        .with_context(|| taken("--peer", settings.peer))?;
    let address = peer.local_addr()?;
    let gossip = UdpSocket::bind(address)
        .await
        .with_context(|| taken("--peer, UDP", address))?;
    let front = Listeners {
        http,
        otlp_http: bind_other("--otlp-http", settings.otlp_http).await?,
        otlp_grpc: bind_other("--otlp-grpc", settings.otlp_grpc).await?,
    };
    Ok(Bound {
        front,
        peer,
        gossip,
    })
}

/// Listens for a protocol that the node can do without.
async fn bind_other(flag: &str, listen: Listen) -> anyhow::Result<Option<TcpListener>> {
    match listen {
        Listen::Off => Ok(None),
        Listen::At(address) => {
            let bound = TcpListener::bind(address).await;
            bound.map(Some).with_context(|| taken(flag, address))
        }
        Listen::IfFree(address) => match TcpListener::bind(address).await {
            Ok(listener) => Ok(Some(listener)),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                tracing::warn!(%error, "does without {flag}: cannot listen at {address}");
                Ok(None)
            }
            Err(error) => Err(error).with_context(|| taken(flag, address)),
        },
    }
}

fn taken(flag: &str, address: SocketAddr) -> String {
    format!("listen at {address} ({flag}); if another program has it, choose another address")
}

async fn describe(
    settings: &Settings,
    identity: &LocalIdentity,
    peer: &TcpListener,
    mut http: SocketAddr,
    seeds: &[Seed],
) -> anyhow::Result<NodeInfo> {
    let advertise = settings.advertise.as_deref();
    let peer = seeds::reachable_address(peer.local_addr()?, advertise, seeds).await?;
    if http.ip().is_unspecified() {
        http.set_ip(peer.ip());
    }
    Ok(NodeInfo {
        node: identity.node,
        name: settings.node_name.clone(),
        zone: settings.zone.clone(),
        http,
        peer,
        incarnation: identity.incarnation,
        cluster: identity.cluster(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        load: Load::default(),
        phase: NodePhase::Bootstrapping,
    })
}

/// Gossip's view as the metadata plane wants it.
fn follow_view(gossip: &Gossip) -> watch::Receiver<PeerView> {
    let (sender, receiver) = watch::channel(PeerView::default());
    let mut views = gossip.watch();
    tokio::spawn(async move {
        loop {
            let view = views.borrow_and_update().clone();
            let members = view.members.iter();
            sender.send_replace(PeerView {
                seen: members.clone().map(|member| member.identity.node).collect(),
                alive: members
                    .filter(|member| member.state.is_active())
                    .map(|member| member.identity.node)
                    .collect(),
            });
            if views.changed().await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// Describes this node to the others whenever something about it has changed.
async fn keep_described(cluster: Arc<Cluster>, gossip: Gossip, mut info: NodeInfo) {
    let mut interval = tokio::time::interval(DESCRIBE_INTERVAL);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = cluster.described_anew.notified() => {}
        }
        let account = cluster.load();
        let phase = cluster.phase();
        let new = NodeInfo {
            cluster: cluster.identity.cluster(),
            load: account,
            phase,
            ..info.clone()
        };
        if new != info {
            info = new;
            gossip.update(info.clone()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_taken_address_is_done_without() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let without = bind_other("--otlp-http", Listen::IfFree(address)).await;
        assert!(without.unwrap().is_none());
        bind_other("--otlp-http", Listen::At(address))
            .await
            .unwrap_err();
        // An address for documentation, which no machine has.
        let foreign = SocketAddr::from(([192, 0, 2, 1], 4318));
        let wrong = bind_other("--otlp-http", Listen::IfFree(foreign)).await;
        let error = format!("{:#}", wrong.unwrap_err());
        assert!(error.contains("192.0.2.1:4318"), "{error}");
    }
}
