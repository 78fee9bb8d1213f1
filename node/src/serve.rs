//! `trefoil serve`: brings a node up, keeps it running, and takes it down in the reverse order.
//!
//! ```text
//! data directory -> identity -> HTTP that says why the node is not ready
//!   -> gossip, peers' server, metadata plane -> cluster (formed or joined)
//!   -> data plane recovered from blocks and journal -> member's tasks -> HTTP with all routes
//! ```
//! SIGTERM and SIGINT: say goodbye, refuse new work, flush, stop. A second signal ends the process at once;
//! nothing that was acknowledged depends on a clean stop.

mod network;

use crate::{
    backend::NodeBackend,
    cluster::{Cluster, follow, known_cut_offs::KnownCutOffs, known_deletions::KnownDeletions},
    config::{self, ServeArgs, Settings},
    data_dir::DataDir,
    data_plane::{DataPlane, MetadataWish, Parts, StorePolicy, WISHES_WAITING_MAX},
    formats,
    front::{Front, until_true},
    gossip_driver::Gossip,
    logging, open_files, seeds, snapshot,
    stop_signal::StopSignal,
    telemetry::{Telemetry, collectors::NodeCollector},
    transport::{
        identity::LocalIdentity, metadata::MetadataTransport, replication::ReplicationSender,
    },
};
use anyhow::Context;
use network::Network;
use std::{sync::Arc, time::Duration};
use tokio::{
    runtime::Runtime,
    sync::{mpsc, watch},
};
use trefoil_api::{Api, ApiLimits, Backend, WriteLimits};
use trefoil_gossip::NodeInfo;
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
    let (ground, own) = Ground::open(&mut settings)?;
    let network = Network::start(&settings, &ground.identity, &clients).await?;
    let starting = start_metadata(&settings, &ground, own, &network);
    let Some(metadata) = stop_signal.unless(starting).await? else {
        return Ok(());
    };
    let description = description(&network.info, ground.lineage);
    let joining = join(&settings, &metadata, description.clone(), &network);
    let Some(cluster_id) = stop_signal.unless(joining).await? else {
        return Ok(());
    };
    ground.identity.set_cluster(cluster_id);
    tracing::info!(cluster = %cluster_id, "belongs to a cluster");
    let (parts, wanted) = ground.parts(cluster_id, &settings, &metadata, &network, &clients);
    let recovering = recover(parts, &network.front, &metadata);
    let Some(plane) = stop_signal.unless(recovering).await? else {
        return Ok(());
    };
    let member = Member::start(
        &settings,
        metadata,
        plane,
        (&network, &ground.identity),
        wanted,
    );
    member.answer_clients(&settings, &network, &clients);

    let removed = tokio::select! {
        () = stop_signal.come() => false,
        () = member.metadata.removed(description) => true,
        // Nothing that it promised is lost, but it can promise nothing more. What a restart finds on the disk is
        // the truth.
        error = member.metadata.failed() => return Err(error.into()),
    };
    match removed {
        true => tracing::error!("this node was removed from its cluster: it stops"),
        false => tracing::info!("stopping"),
    }
    tokio::spawn(async move {
        stop_signal.come().await;
        std::process::exit(130);
    });
    member.stop(network).await?;
    anyhow::ensure!(
        !removed,
        "this node was removed from its cluster; only with an empty data directory can it join again, as a new node"
    );
    tracing::info!("stopped");
    Ok(())
}

/// What a node has on its disk before it speaks to anybody.
struct Ground {
    directory: DataDir,
    disk: Arc<dyn Disk>,
    identity: Arc<LocalIdentity>,
    lineage: LineageId,
    /// Whether the data directory was made in this run.
    fresh: bool,
    journal: JournalOptions,
}

impl Ground {
    /// Also gives the identity that the metadata plane goes on with.
    fn open(settings: &mut Settings) -> anyhow::Result<(Self, formation::Identity)> {
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
        let (node, lineage, fresh) = (own.node(), own.lineage(), own.is_fresh());
        if own.cluster().is_none() {
            // Before anybody can count on this node.
            DataPlane::prepare(&disk, directory.path(), lineage)?;
        }
        let identity = Arc::new(LocalIdentity::new(node, own.incarnation(), own.cluster()));
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"), node = %node, name = settings.node_name,
            data = %directory.path().display(), "starting"
        );
        let ground = Self {
            directory,
            disk,
            identity,
            lineage,
            fresh,
            journal,
        };
        Ok((ground, own))
    }

    /// What the data plane of this member is made of, and what it will want of the metadata plane.
    fn parts(
        &self,
        cluster: ClusterId,
        settings: &Settings,
        metadata: &MetadataPlane,
        network: &Network,
        clients: &tokio::runtime::Handle,
    ) -> (Parts, mpsc::Receiver<MetadataWish>) {
        let sender = ReplicationSender::new(
            network.connections.clone(),
            tokio::runtime::Handle::current(),
        );
        let (wishes, wanted) = mpsc::channel(WISHES_WAITING_MAX);
        let (node, incarnation) = (self.identity.node, self.identity.incarnation);
        let parts = Parts {
            disk: self.disk.clone(),
            directory: self.directory.path().to_owned(),
            identity: trefoil_shard::Identity {
                cluster,
                node,
                incarnation,
            },
            lineage: self.lineage,
            fresh: self.fresh,
            clock: Arc::default(),
            settings: settings.clone(),
            journal: self.journal.clone(),
            replication: trefoil_shard::Settings::default(),
            policy: first_policy(&metadata.state(), node),
            sender: Arc::new(sender),
            wishes,
            runtime: clients.clone(),
        };
        (parts, wanted)
    }
}

async fn start_metadata(
    settings: &Settings,
    ground: &Ground,
    own: formation::Identity,
    network: &Network,
) -> anyhow::Result<MetadataPlane> {
    let mut options = PlaneOptions::new(ground.directory.path().join("meta"));
    options.replace_after = settings.replace_after;
    let transport = Arc::new(MetadataTransport::new(network.connections.clone()));
    let view = follow_view(&network.gossip);
    let front = &network.front;
    front.is_starting(|| "it reads its metadata; on a full disk it waits for space".to_owned());
    let metadata = MetadataPlane::start(options, own, ground.disk.clone(), transport, view)
        .await
        .context("start the metadata plane")?;
    network.handlers.metadata.set(metadata.clone()).ok();
    let (node, gossip) = (ground.identity.node, network.gossip.clone());
    tokio::spawn(seeds::recall(node, metadata.watch(), gossip));
    let forming = metadata.clone();
    front.is_starting(move || {
        let reason = forming.forming_reason();
        reason.unwrap_or_else(|| "it is not part of a cluster yet".to_owned())
    });
    Ok(metadata)
}

/// What this node says of itself to the others.
fn description(info: &NodeInfo, lineage: LineageId) -> MemberDescription {
    MemberDescription {
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
    }
}

/// Makes this node part of a cluster. One that belongs to one already goes on at once, and tells the
/// others about its addresses meanwhile, unless it stops before they could be told.
async fn join(
    settings: &Settings,
    metadata: &MetadataPlane,
    description: MemberDescription,
    network: &Network,
) -> anyhow::Result<ClusterId> {
    let (expect, info) = (settings.bootstrap_expect, &network.info);
    let bootstrap = seeds::keep_judging(network.seeds.clone(), expect, seeds::resolve).await;
    if let Some(cluster) = info.cluster {
        let (metadata, stopping) = (metadata.clone(), network.stop.subscribe());
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

/// A node that belongs to its cluster and has all that it had stored.
struct Member {
    metadata: MetadataPlane,
    plane: Arc<DataPlane>,
    cluster: Arc<Cluster>,
    backend: Arc<NodeBackend>,
}

impl Member {
    /// Begins with what a member does by itself, and with the questions of the others.
    fn start(
        settings: &Settings,
        metadata: MetadataPlane,
        plane: Arc<DataPlane>,
        (network, identity): (&Network, &Arc<LocalIdentity>),
        wanted: mpsc::Receiver<MetadataWish>,
    ) -> Self {
        let handlers = &network.handlers;
        handlers.plane.set(plane.clone()).ok();
        let cluster = Cluster::new(
            settings.clone(),
            identity.clone(),
            metadata.clone(),
            plane.clone(),
            network.gossip.clone(),
            network.peers.clone(),
            network.connections.clone(),
        );
        handlers.cluster.set(cluster.clone()).ok();
        cluster.start(wanted);
        plane.start_maintenance();
        let (gossip, info) = (network.gossip.clone(), network.info.clone());
        tokio::spawn(keep_described(cluster.clone(), gossip, info));
        let telemetry = Arc::new(Telemetry::new(NodeCollector::new(cluster.clone())));
        let backend = Arc::new(NodeBackend::new(cluster.clone(), telemetry));
        handlers.backend.set(backend.clone()).ok();
        Self {
            metadata,
            plane,
            cluster,
            backend,
        }
    }

    fn answer_clients(
        &self,
        settings: &Settings,
        network: &Network,
        clients: &tokio::runtime::Handle,
    ) {
        self.backend.release_held(clients);
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
        let backend: Arc<dyn Backend> = self.backend.clone();
        let api = Api::new(backend, limits, settings.otlp.clone());
        network.front.serve(&api);
        let info = &network.info;
        tracing::info!(http = %info.http, peer = %info.peer, "serving");
    }

    /// Takes everything down in the reverse order.
    async fn stop(self, network: Network) -> anyhow::Result<()> {
        // While the others listen to this node; what comes meanwhile goes the same way behind the last request.
        self.backend.store_late_before_stop().await;
        network.gossip.leave().await;
        network.stop.send_replace(true);
        let ended = tokio::time::timeout(STOP_TIMEOUT, network.front.ended()).await;
        if ended.is_err() {
            tracing::warn!("requests that were under way are cut off");
        }
        self.backend.store_late_before_stop().await;
        self.cluster.give_deltas_back().await;
        let closing = self.plane.clone();
        tokio::task::spawn_blocking(move || closing.close()).await?;
        self.metadata.shutdown().await;
        network.peer_server.abort();
        Ok(())
    }
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
