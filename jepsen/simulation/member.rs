//! What a node does as a member: it follows the metadata plane and gossip, carries out the core's wishes, measures the
//! clocks, and leads when it is the leader. A thin copy of `node/src/cluster`; the decisions are the product's.

mod lead;

use crate::{coverage::Seen, network::Class, process::Process};
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::mpsc::Receiver;
use trefoil_model::{DeletionVersion, Millis, NodeId, Signal, TenantId, key_hash};
use trefoil_raft::{Command, MemberState, MetadataError, Reply, State};
use trefoil_shard::{Event, Proposal, ReplicaReport};
use trefoil_store_metrics::Deletion;

/// How long a member is dead before another takes its place: shorter than in production, where no simulation would see
/// it.
pub(crate) const REPLACE_AFTER: Duration = Duration::from_secs(30);
/// How often the others are asked for their time, and the same while nothing is known.
const CLOCK_INTERVAL: Duration = Duration::from_secs(5);
const CLOCK_FIRST_INTERVAL: Duration = Duration::from_millis(100);
/// How long an answer about the time may take.
const CLOCK_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the leader may take to take a report.
const REPORT_TIMEOUT: Duration = Duration::from_millis(800);
/// How often the node describes itself anew to the others.
const DESCRIBE_INTERVAL: Duration = Duration::from_secs(2);

/// What the replication core wants from the metadata plane.
pub(crate) enum MetadataWish {
    /// Propose this.
    Propose(Proposal),
    /// Bring the state up to date soon.
    Refresh,
    /// Tell the leader how far the replicas are.
    Report(ReplicaReport),
}

/// What the metadata plane says of what the store must not show.
#[derive(Default)]
pub(crate) struct StorePolicy {
    /// By tenant, the newest deletion and those that are not forgotten.
    pub(crate) deletions: Vec<(TenantId, DeletionVersion, Vec<Deletion>)>,
    /// Equal on two nodes only when all of this is.
    pub(crate) epoch: u64,
}

/// What a member remembers of the others.
#[derive(Default)]
pub(crate) struct Member {
    /// The last report of every node, at the leader.
    reports: Mutex<BTreeMap<NodeId, ReplicaReport>>,
    /// Since when a node seems dead, by this node's boot clock.
    dead_since: Mutex<BTreeMap<NodeId, Duration>>,
    /// By how much the median of the clocks is ahead of this node's.
    offset: Mutex<Option<Millis>>,
}

impl Member {
    /// Starts the member's tasks; they end with the process.
    pub(crate) fn start(process: &Arc<Process>, wishes: Receiver<MetadataWish>) {
        process.spawn(follow_metadata(process.clone()));
        process.spawn(follow_peers(process.clone()));
        process.spawn(lead::run(process.clone()));
        process.spawn(measure_clocks(process.clone()));
        process.spawn(carry_out(process.clone(), wishes));
        process.spawn(keep_described(process.clone()));
    }

    /// By how much the cluster's clock is ahead, once it is known.
    pub(crate) fn clock_offset(&self) -> Option<Millis> {
        *self.offset.lock()
    }
}

async fn follow_metadata(process: Arc<Process>) {
    let (Some(metadata), Some(plane)) = (process.metadata.get(), process.plane.get()) else {
        return;
    };
    let mut states = metadata.watch();
    loop {
        let state = states.borrow_and_update().clone();
        process
            .world
            .registers
            .lock()
            .saw_state(&process.world, &state);
        // The store first: the core must not claim a deletion that the store does not apply.
        plane.set_policy(store_policy(&state));
        plane.feed(Event::Metadata {
            table: state.placement().clone(),
            deletions: Arc::new(deletion_versions(&state)),
        });
        if states.changed().await.is_err() {
            return;
        }
    }
}

/// What the store of a node must not show, by the metadata plane's word.
pub(crate) fn store_policy(state: &State) -> StorePolicy {
    let mut policy = StorePolicy::default();
    let mut epoch = Vec::new();
    for tenant in state.tenants() {
        let deletions = state.deletions(tenant.id);
        let deletions = deletions.filter(|deletion| deletion.signal == Signal::Metrics);
        let deletions = deletions.map(|deletion| Deletion {
            version: deletion.version,
            matchers: Vec::new(),
            range: deletion.range,
        });
        epoch.extend_from_slice(&tenant.id.0.to_le_bytes());
        epoch.extend_from_slice(&tenant.deletions_newest.0.to_le_bytes());
        let newest = tenant.deletions_newest;
        (policy.deletions).push((tenant.id, newest, deletions.collect()));
    }
    policy.epoch = key_hash(TenantId(0), &epoch);
    policy
}

fn deletion_versions(state: &State) -> BTreeMap<TenantId, DeletionVersion> {
    state
        .tenants()
        .map(|tenant| (tenant.id, tenant.deletions_newest))
        .filter(|(_, newest)| *newest > DeletionVersion(0))
        .collect()
}

async fn follow_peers(process: Arc<Process>) {
    let Some(plane) = process.plane.get() else {
        return;
    };
    let mut views = process.gossip().watch();
    loop {
        let view = views.borrow_and_update().clone();
        for member in view.iter() {
            let node = member.identity.node;
            let now = process.world.boot(process.machine);
            let mut dead_since = process.member.dead_since.lock();
            if member.state.is_active() {
                dead_since.remove(&node);
            } else {
                dead_since.entry(node).or_insert(now);
            }
            drop(dead_since);
            let incarnation = member.info.incarnation;
            plane.feed(match member.state.is_active() {
                true => Event::PeerUp { node, incarnation },
                false => Event::PeerDown { node },
            });
        }
        if views.changed().await.is_err() {
            return;
        }
    }
}

async fn carry_out(process: Arc<Process>, mut wishes: Receiver<MetadataWish>) {
    let Some(metadata) = process.metadata.get() else {
        return;
    };
    while let Some(wish) = wishes.recv().await {
        match wish {
            MetadataWish::Propose(Proposal::RecordAmnesia { shards, lineage }) => {
                let command = Command::RecordAmnesia {
                    node: process.who().node,
                    shards,
                    lineage,
                };
                let done = metadata.propose(command).await.is_ok();
                let name = process.name();
                process
                    .world
                    .tell(format_args!("{name} has its loss recorded: {done}"));
            }
            MetadataWish::Report(report) => send_report(&process, report).await,
            MetadataWish::Refresh => drop(metadata.read_linearizable().await),
        }
    }
}

async fn send_report(process: &Arc<Process>, report: ReplicaReport) {
    let leader = process
        .metadata
        .get()
        .and_then(trefoil_raft::MetadataPlane::leader);
    let (Some(leader), from) = (leader, process.who().node) else {
        return;
    };
    if leader == from {
        process.member.reports.lock().insert(from, report);
        return;
    }
    let Some(machine) = process.machine_of(leader) else {
        return;
    };
    let sent = process
        .world
        .ask(process, (machine, leader, Class::Other), move |leader| {
            Box::pin(async move {
                leader.member.reports.lock().insert(from, report);
            })
        });
    // The next one follows after a second.
    tokio::time::timeout(REPORT_TIMEOUT, sent).await.ok();
}

async fn measure_clocks(process: Arc<Process>) {
    loop {
        if let Some(offset) = measure(&process).await {
            *process.member.offset.lock() = Some(offset);
        }
        let known = process.member.clock_offset().is_some();
        let pause = if known {
            CLOCK_INTERVAL
        } else {
            CLOCK_FIRST_INTERVAL
        };
        tokio::time::sleep(pause).await;
    }
}

/// The median of all clocks, relative to this node's; none when most members did not answer.
async fn measure(process: &Arc<Process>) -> Option<Millis> {
    let state = process.metadata.get()?.state();
    let me = process.who().node;
    state.member(me)?;
    let dead = process.member.dead_since.lock().clone();
    let owns = |node| {
        state
            .placement()
            .iter()
            .any(|(_, e)| e.configuration.has_owner(node))
    };
    let others: Vec<NodeId> = state
        .members()
        .filter(|member| member.state == MemberState::Active && member.node != me)
        .map(|member| member.node)
        .filter(|node| !dead.contains_key(node) || owns(*node))
        .collect();
    let mut asked = tokio::task::JoinSet::new();
    for node in others.iter().copied() {
        let process = process.clone();
        asked.spawn(async move {
            let machine = process.machine_of(node)?;
            let sent = process.world.wall(process.machine);
            let answer = process
                .world
                .ask(&process, (machine, node, Class::Other), |other| {
                    Box::pin(async move { other.world.wall(other.machine) })
                });
            let theirs = tokio::time::timeout(CLOCK_TIMEOUT, answer)
                .await
                .ok()?
                .ok()?;
            let received = process.world.wall(process.machine);
            Some(theirs - (sent + received) / 2)
        });
    }
    let mut offsets = vec![0];
    while let Some(answer) = asked.join_next().await {
        offsets.extend(answer.ok().flatten());
    }
    offsets.sort_unstable();
    let middle = offsets.len() / 2;
    let median = match offsets.len() % 2 {
        1 => offsets[middle],
        _ => (offsets[middle - 1] + offsets[middle]) / 2,
    };
    (offsets.len() * 2 > others.len() + 1).then_some(median)
}

/// Describes this node to the others when it has become a member.
async fn keep_described(process: Arc<Process>) {
    let mut told = None;
    loop {
        let cluster = process
            .metadata
            .get()
            .and_then(trefoil_raft::MetadataPlane::cluster);
        if cluster != told {
            told = cluster;
            process.gossip().update(&process, process.describe(cluster));
        }
        tokio::time::sleep(DESCRIBE_INTERVAL).await;
    }
}

impl Process {
    /// The tenant of this name, made when it is new, as the product's coordinator has it before a write.
    pub(crate) async fn tenant(&self, name: &str) -> Result<TenantId, MetadataError> {
        let Some(metadata) = self.metadata.get() else {
            return Err(MetadataError::NoLeader {
                reason: "the node is starting".to_owned(),
            });
        };
        metadata.catch_up().await?;
        if let Some(tenant) = metadata.state().tenant_id(name) {
            return Ok(tenant);
        }
        let command = Command::CreateTenant {
            name: name.to_owned(),
        };
        match metadata.propose(command).await? {
            Reply::Tenant(tenant) => {
                self.world.saw(Seen::TenantCreated);
                Ok(tenant)
            }
            other => Err(MetadataError::Encoding {
                what: "reply to CreateTenant",
                reason: format!("{other:?}"),
            }),
        }
    }
}
