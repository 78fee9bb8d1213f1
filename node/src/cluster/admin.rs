//! What operators ask about the cluster: every node's own account, put together by the one that is asked.

use super::{
    Cluster,
    known_series::{KIND_KNOWN_SERIES, KnownAsk},
    retention::Retention,
    snapshots::KIND_SNAPSHOT,
};
use crate::{clock, query::question};
use bytes::Bytes;
use futures::{StreamExt, future::join_all};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, time::Duration};
use tonic::Status;
use trefoil_api::{ApiError, admin};
use trefoil_model::{NodeId, ShardEntry, ShardId, ShardSet, TenantId, WINDOW_MILLIS, Window};
use trefoil_raft::{Command, Member, MemberState, MetadataError, Refusal, Reply, State};

/// The kind of [`NodeAccount`] among the calls of the `Queries` service.
pub(crate) const KIND_ACCOUNT: u32 = 2;
/// The kind of a [`DigestsAsk`].
pub(crate) const KIND_DIGESTS: u32 = 3;
/// The kind of a question for the node's wall clock, milliseconds of UTC.
pub(crate) const KIND_CLOCK: u32 = 4;
/// The kind of a question whether the node's store knows the metadata plane's state at a place of its log.
pub(crate) const KIND_FOLLOWED: u32 = 5;
/// The kind of a request to rewrite the blocks that still have what was deleted.
pub(crate) const KIND_CLEAN: u32 = 6;
/// The kind of a question what changes of owners wait for, as the leader of the metadata plane knows it. An older program refuses it.
const KIND_WAITING: u32 = 12;
/// How long a node may take to give its account.
const ACCOUNT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a node may take to compute digests.
const DIGESTS_TIMEOUT: Duration = Duration::from_secs(120);
/// Unequal windows that are listed; more are only counted by `equal`.
const UNEQUAL_LISTED_MAX: usize = 1000;

/// What a node says of itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct NodeAccount {
    serving: ShardSet,
    filling: ShardSet,
    series: u64,
    bytes: u64,
    /// Bytes that have come for replicas that are being filled, by the shards that were copied together.
    copied: Vec<(ShardSet, u64)>,
}

/// Which digests are wanted.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct DigestsAsk {
    start: i64,
    end: i64,
}

impl DigestsAsk {
    /// Asks about all windows of which some part is in the range: nodes look at those that begin between `start` and `end`.
    fn overlapping(request: &admin::DigestsRequest) -> Self {
        Self {
            start: request
                .start
                .map_or(i64::MIN, |start| Window::containing(start).start()),
            end: request.end.unwrap_or(i64::MAX),
        }
    }
}

/// The digest of one shard and tenant in one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WindowDigest {
    pub(crate) tenant: TenantId,
    pub(crate) shard: ShardId,
    /// Start of the window.
    pub(crate) window: i64,
    pub(crate) items: u64,
    pub(crate) digest: u128,
}

impl Cluster {
    /// This node's account of itself.
    pub(crate) fn account(&self) -> NodeAccount {
        let status = self.plane.status();
        let stats = self.plane.engine().statistics();
        NodeAccount {
            serving: status.serving,
            filling: status.filling.union(&status.damaged),
            copied: status.copied,
            series: stats.series_active.values().sum(),
            bytes: stats.block_bytes + self.plane.journal().bytes_on_disk(),
        }
    }

    /// The cluster as this node sees it, with every reachable node's account.
    pub(crate) async fn describe(&self) -> admin::Cluster {
        let state = self.metadata.state();
        let status = self.metadata.status();
        let members: Vec<Member> = state
            .members()
            .filter(|member| is_present(member))
            .map(|member| (**member).clone())
            .collect();
        let (accounts, waiting) = tokio::join!(self.accounts(&members), self.movements_wait_for());
        let role = |node: NodeId| match () {
            () if status.voters.contains(&node) => "voter",
            () if status.learners.contains(&node) => "learner",
            () => "none",
        };
        let view = self.gossip.view();
        let mut nodes: Vec<admin::Node> = members
            .iter()
            .map(|member| {
                let account = accounts.get(&member.node);
                let known = view.members.iter().find(|m| m.identity.node == member.node);
                let mut node = describe_member(member, account);
                role(member.node).clone_into(&mut node.role);
                if member.node == self.identity.node {
                    "alive".clone_into(&mut node.state);
                    node.incarnation = self.identity.incarnation.to_string();
                    node.phase = format!("{:?}", self.phase()).to_lowercase();
                } else if let Some(known) = known {
                    node.state = format!("{:?}", known.state).to_lowercase();
                    node.phase = format!("{:?}", known.info.phase).to_lowercase();
                    node.http = known.info.http.to_string();
                    node.peer = known.info.peer.to_string();
                    node.incarnation = known.info.incarnation.to_string();
                    node.version.clone_from(&known.info.version);
                }
                if member.state == MemberState::Draining {
                    "draining".clone_into(&mut node.phase);
                }
                node
            })
            .collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        admin::Cluster {
            cluster_id: self.identity.cluster().map(|cluster| cluster.to_string()),
            answered_by: self.settings.node_name.clone(),
            leader: status.leader.map(|leader| self.node_name(leader)),
            term: status.term,
            applied_index: status.last_applied.index,
            replication_factor: replication_factor(&state),
            retention_hours: Retention::of(&state).map(Retention::hours),
            format_level: state.format_level(),
            waiting,
            nodes,
            configurations: self.configurations(&state, &accounts),
            recoveries: state
                .recoveries()
                .iter()
                .map(|r| self.recovery(r))
                .collect(),
        }
    }

    /// Why changes of owners that should be made are not, in words, as the leader has it. Empty when it does not answer.
    async fn movements_wait_for(&self) -> Vec<String> {
        match self.metadata.leader() {
            Some(leader) if leader != self.identity.node => {
                let asked = self.ask(leader, KIND_WAITING, &(), ACCOUNT_TIMEOUT);
                asked.await.unwrap_or_default()
            }
            _ => self.waiting.lock().clone(),
        }
    }

    fn recovery(&self, recovery: &trefoil_raft::Recovery) -> admin::Recovery {
        let voters = recovery.voters_before.iter();
        let mut voters_before: Vec<String> = voters.map(|node| self.node_name(*node)).collect();
        voters_before.sort_unstable();
        admin::Recovery {
            node: self.node_name(recovery.node),
            at: recovery.at,
            voters_before,
        }
    }

    fn configurations(
        &self,
        state: &State,
        accounts: &BTreeMap<NodeId, NodeAccount>,
    ) -> Vec<admin::Configuration> {
        let mut groups: Vec<(admin::Configuration, ShardSet)> = Vec::new();
        for (shard, entry) in state.placement().iter() {
            let configuration = &entry.configuration;
            let names = |owners: &trefoil_model::OwnerSet| -> Vec<String> {
                owners.iter().map(|node| self.node_name(node)).collect()
            };
            let replica = |node: NodeId| {
                let state = match accounts.get(&node) {
                    Some(account) if account.serving.contains(shard) => "serving",
                    Some(_) => "filling",
                    None => "unknown",
                };
                admin::Replica {
                    node: self.node_name(node),
                    state: state.to_owned(),
                }
            };
            let described = admin::Configuration {
                shards: Vec::new(),
                number: 0,
                old: names(&configuration.old),
                new: names(&configuration.new),
                replicas: configuration.all_owners().iter().map(replica).collect(),
            };
            let number = configuration.number.0;
            let alike = |group: &&mut (admin::Configuration, ShardSet)| {
                (&group.0.old, &group.0.new, &group.0.replicas)
                    == (&described.old, &described.new, &described.replicas)
            };
            match groups.iter_mut().find(alike) {
                Some((group, shards)) => {
                    group.number = group.number.max(number);
                    shards.insert(shard);
                }
                None => groups.push((
                    admin::Configuration {
                        number,
                        ..described
                    },
                    [shard].into_iter().collect(),
                )),
            }
        }
        let ranged = |(group, shards): (admin::Configuration, ShardSet)| admin::Configuration {
            shards: shard_ranges(&shards),
            ..group
        };
        groups.into_iter().map(ranged).collect()
    }

    /// The shards that each member that answers says it serves.
    pub(super) async fn replicas_serving(&self) -> BTreeMap<NodeId, ShardSet> {
        let state = self.metadata.state();
        let members: Vec<Member> = state
            .members()
            .map(|member| (**member).clone())
            .filter(is_present)
            .collect();
        let accounts = self.accounts(&members).await.into_iter();
        accounts
            .map(|(node, account)| (node, account.serving))
            .collect()
    }

    async fn accounts(&self, members: &[Member]) -> BTreeMap<NodeId, NodeAccount> {
        let asked = members.iter().map(|member| async {
            let account = self
                .ask(member.node, KIND_ACCOUNT, &(), ACCOUNT_TIMEOUT)
                .await;
            (member.node, account)
        });
        let answers = join_all(asked).await.into_iter();
        let mut accounts: BTreeMap<NodeId, NodeAccount> = answers
            .filter_map(|(node, account)| Some((node, account.ok()?)))
            .collect();
        accounts.insert(self.identity.node, self.account());
        accounts
    }

    /// Asks a node for an account; fails at once for this node, which knows itself.
    pub(super) async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        node: NodeId,
        kind: u32,
        question: &Q,
        timeout: Duration,
    ) -> Result<A, Status> {
        if node == self.identity.node {
            return Err(Status::invalid_argument("a node does not ask itself"));
        }
        let body = question::encode(question)?;
        let exchange = async {
            let mut chunks = self.connections.evaluate(node, kind, body, timeout).await?;
            let mut answer = Vec::new();
            while let Some(chunk) = chunks.next().await {
                answer.extend_from_slice(&chunk?.body);
            }
            question::decode(&answer)
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(Status::deadline_exceeded(format!(
                "no answer within {timeout:?}"
            ))),
        }
    }

    /// Answers a peer that asks for an account, for digests, or for something about deletions.
    ///
    /// # Errors
    /// When the kind is unknown or the question is malformed.
    pub(crate) async fn answer_peer(&self, kind: u32, body: &Bytes) -> Result<Bytes, Status> {
        match kind {
            KIND_ACCOUNT => question::encode(&self.account()),
            KIND_CLOCK => question::encode(&clock::wall()),
            KIND_DIGESTS => {
                let ask: DigestsAsk = question::decode(body)?;
                question::encode(&self.own_digests(ask).await?)
            }
            KIND_FOLLOWED => {
                let wanted = question::decode(body)?;
                question::encode(&self.answer_followed(wanted).await?)
            }
            KIND_CLEAN => question::encode(&super::deletions::clean(self.plane.clone()).await?),
            KIND_KNOWN_SERIES => {
                let ask: KnownAsk = question::decode(body)?;
                question::encode(&self.answer_known(&ask).await?)
            }
            KIND_WAITING => question::encode(&*self.waiting.lock()),
            KIND_SNAPSHOT => self.answer_snapshot(body).await,
            other => Err(Status::unimplemented(format!(
                "unknown question of kind {other}"
            ))),
        }
    }

    async fn own_digests(&self, ask: DigestsAsk) -> Result<Vec<WindowDigest>, Status> {
        let plane = self.plane.clone();
        let work = tokio::task::spawn_blocking(move || plane.all_digests(ask.start, ask.end));
        let digests = work
            .await
            .map_err(|error| Status::internal(error.to_string()))?;
        digests.ok_or_else(|| Status::unavailable("its blocks could not all be read; ask again"))
    }

    /// Compares the content of all replicas.
    ///
    /// # Errors
    /// When this node cannot compute its own digests.
    pub(crate) async fn compare(
        &self,
        request: &admin::DigestsRequest,
    ) -> Result<admin::Digests, ApiError> {
        let state = self.metadata.state();
        let ask = DigestsAsk::overlapping(request);
        let members: Vec<Member> = state
            .members()
            .filter(|member| is_present(member))
            .map(|member| (**member).clone())
            .collect();
        let asked = members.iter().map(|member| async move {
            let digests = if member.node == self.identity.node {
                self.own_digests(ask).await
            } else {
                self.ask(member.node, KIND_DIGESTS, &ask, DIGESTS_TIMEOUT)
                    .await
            };
            (member.node, digests)
        });
        let mut comparison = Comparison::default();
        for (node, digests) in join_all(asked).await {
            match digests {
                Ok(digests) => comparison.add(node, digests),
                Err(status) => comparison.unreachable.push(admin::Unreachable {
                    node: self.node_name(node),
                    reason: status.message().to_owned(),
                }),
            }
        }
        Ok(comparison.finish(self, &state))
    }

    /// Changes of owners that are under way.
    pub(crate) async fn describe_movements(&self) -> admin::Movements {
        let state = self.metadata.state();
        let open: Vec<_> = state.movements().filter(|m| m.ended.is_none()).collect();
        let members: Vec<Member> = state
            .members()
            .map(|m| (**m).clone())
            .filter(|member| is_present(member) && !open.is_empty())
            .collect();
        let (accounts, waiting) = tokio::join!(self.accounts(&members), self.movements_wait_for());
        let movements = open.into_iter().map(|movement| {
            let progress = progress(&movement.shards, &movement.incoming, &accounts);
            admin::Movement {
                shards: shard_ranges(&movement.shards),
                from: movement.outgoing.first().map(|node| self.node_name(*node)),
                to: movement
                    .incoming
                    .first()
                    .map(|node| self.node_name(*node))
                    .unwrap_or_default(),
                step: progress.step.to_owned(),
                copied_bytes: progress.copied_bytes,
                total_bytes: progress.total_bytes,
                since: movement.began_at,
            }
        });
        admin::Movements {
            pace_bytes_per_second: self.settings.movement_bytes_per_second,
            waiting,
            movements: movements.collect(),
        }
    }

    /// Begins to move all replicas off a node.
    ///
    /// # Errors
    /// When the node is unknown or the metadata plane does not take the command.
    pub(crate) async fn drain(&self, text: &str) -> Result<admin::Accepted, ApiError> {
        let node = self.known_node(text)?;
        let state = self.metadata.state();
        let goes_on = |member: &Member| member.node != node && member.state == MemberState::Active;
        if !state.members().any(|member| goes_on(member)) {
            return Err(ApiError::Conflict(
                "there is no other active node that could take its replicas; add one first"
                    .to_owned(),
            ));
        }
        self.command(Command::SetDraining {
            node,
            draining: true,
        })
        .await?;
        let name = self.node_name(node);
        let left = state.members().filter(|member| goes_on(member)).count();
        let fewer = match leaves_fewer_copies(left, replication_factor(&state)) {
            true => format!(
                ". Only {left} others take replicas, so there will be fewer copies of everything. To take it back: \
                 trefoil cluster undrain {name}"
            ),
            false => String::new(),
        };
        Ok(admin::Accepted {
            message: format!(
                "{name} is being drained; watch it with: trefoil cluster status{fewer}"
            ),
        })
    }

    /// Lets a node that is being drained take replicas again.
    ///
    /// # Errors
    /// As [`Cluster::drain`]; when the node is not being drained.
    pub(crate) async fn undrain(&self, text: &str) -> Result<admin::Accepted, ApiError> {
        let node = self.known_node(text)?;
        let name = self.node_name(node);
        let state = self.metadata.read_linearizable().await.map_err(refused)?;
        let member = state.members().find(|member| member.node == node);
        let why_not = match member {
            Some(member) if member.superseded_by.is_some() => "is gone: a newer node has its name",
            Some(member) if member.state == MemberState::Draining => "",
            _ => "is not being drained",
        };
        if !why_not.is_empty() {
            return Err(ApiError::Conflict(format!("{name} {why_not}")));
        }
        self.command(Command::SetDraining {
            node,
            draining: false,
        })
        .await?;
        Ok(admin::Accepted {
            message: format!("{name} takes replicas again; watch it with: trefoil cluster status"),
        })
    }

    /// Takes a node that owns nothing out of the cluster.
    ///
    /// # Errors
    /// As [`Cluster::drain`]; when the node still owns shards.
    pub(crate) async fn remove(&self, text: &str) -> Result<admin::Accepted, ApiError> {
        let node = self.known_node(text)?;
        let name = self.node_name(node);
        let owned = self.owned_shards(node);
        if owned > 0 {
            return Err(ApiError::Conflict(format!(
                "{name} still owns {owned} shards; move them first with: trefoil cluster drain {text}"
            )));
        }
        self.command(Command::RemoveMember { node }).await?;
        Ok(admin::Accepted {
            message: format!("{name} was removed; its id never comes back"),
        })
    }

    fn owned_shards(&self, node: NodeId) -> usize {
        let state = self.metadata.state();
        let entries = state.placement().iter();
        entries
            .filter(|(_, entry)| entry.configuration.has_owner(node))
            .count()
    }

    fn known_node(&self, text: &str) -> Result<NodeId, ApiError> {
        self.find_node(text).ok_or_else(|| {
            ApiError::NotFound(format!(
                "no node is called {text:?}; see: trefoil cluster status"
            ))
        })
    }

    pub(super) async fn command(&self, command: Command) -> Result<Reply, ApiError> {
        self.metadata.propose(command).await.map_err(refused)
    }
}

pub(super) fn is_present(member: &Member) -> bool {
    member.state != MemberState::Removed
}

/// Owners per shard, by the placement table.
fn replication_factor(state: &State) -> u16 {
    let owners = |(_, entry): (ShardId, &ShardEntry)| entry.configuration.new.iter().count();
    state.placement().iter().map(owners).min().unwrap_or(0) as u16
}

/// Whether there will be fewer copies when only `left` nodes take replicas, with `present` owners per shard or with what the
/// shards were about to get: a node that has only just come owns nothing yet.
fn leaves_fewer_copies(left: usize, present: u16) -> bool {
    let wanted = trefoil_shard::placement::replication_factor(left + 1);
    left < wanted.max(usize::from(present))
}

fn describe_member(member: &Member, account: Option<&NodeAccount>) -> admin::Node {
    let account = account.cloned().unwrap_or_default();
    admin::Node {
        id: member.node.to_string(),
        name: member.description.name.clone(),
        zone: member.description.zone.clone(),
        state: "unknown".to_owned(),
        phase: "unknown".to_owned(),
        role: String::new(),
        http: member.description.addresses.http.clone(),
        peer: member.description.addresses.peer.clone(),
        incarnation: String::new(),
        version: member.description.version.clone(),
        format_level_max: member.description.format_level_max,
        replicas_serving: account.serving.len() as u32,
        replicas_filling: account.filling.len() as u32,
        series: account.series,
        bytes: account.bytes,
    }
}

/// How far a movement is.
#[derive(Debug, PartialEq, Eq)]
struct Progress {
    step: &'static str,
    copied_bytes: u64,
    total_bytes: u64,
}

/// How far the incoming nodes are, by their own accounts. The total is an estimate: replicas are taken to be
/// equally large.
fn progress(
    shards: &ShardSet,
    incoming: &[NodeId],
    accounts: &BTreeMap<NodeId, NodeAccount>,
) -> Progress {
    let known = || incoming.iter().filter_map(|node| accounts.get(node));
    let of_movement = |(copied, _): &&(ShardSet, u64)| !copied.intersection(shards).is_empty();
    let copied = known().flat_map(|account| account.copied.iter().filter(of_movement));
    let copied_bytes = copied.map(|(_, bytes)| bytes).sum();
    let (mut replicas, mut bytes) = (0, 0);
    for account in accounts.values() {
        replicas += account.serving.len() as u64;
        bytes += account.bytes;
    }
    let moved = (shards.len() * incoming.len()) as u64;
    let serves = known().count() == incoming.len()
        && known().all(|account| shards.is_subset(&account.serving));
    Progress {
        step: if serves { "switching" } else { "copying" },
        copied_bytes,
        total_bytes: bytes / replicas.max(1) * moved,
    }
}

/// Shards as ranges with both ends, ascending.
pub(crate) fn shard_ranges(shards: &ShardSet) -> Vec<(u16, u16)> {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for shard in shards.iter() {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == shard.0 => *last = shard.0,
            _ => ranges.push((shard.0, shard.0)),
        }
    }
    ranges
}

/// Items and digest that each node has of something.
type Sums = BTreeMap<NodeId, (u64, u128)>;

/// What the nodes said about the same windows.
#[derive(Default)]
struct Comparison {
    answered: Vec<NodeId>,
    windows: BTreeMap<(TenantId, ShardId, i64), Sums>,
    totals: Sums,
    unreachable: Vec<admin::Unreachable>,
}

impl Comparison {
    fn add(&mut self, node: NodeId, digests: Vec<WindowDigest>) {
        self.answered.push(node);
        let total = self.totals.entry(node).or_default();
        for digest in digests {
            total.0 += digest.items;
            total.1 = total.1.wrapping_add(digest.digest);
            let key = (digest.tenant, digest.shard, digest.window);
            self.windows
                .entry(key)
                .or_default()
                .insert(node, (digest.items, digest.digest));
        }
    }

    fn finish(self, cluster: &Cluster, state: &State) -> admin::Digests {
        let describe = |node: NodeId, (items, digest): (u64, u128)| admin::NodeDigest {
            node: cluster.node_name(node),
            items,
            digest: format!("{digest:032x}"),
        };
        let mut unequal = Vec::new();
        let mut equal = self.unreachable.is_empty() && !self.windows.is_empty();
        for ((tenant, shard, start), found) in &self.windows {
            let Some(entry) = state.placement().get(*shard) else {
                continue;
            };
            let owners = entry
                .configuration
                .new
                .iter()
                .filter(|n| self.answered.contains(n));
            let of = |node: NodeId| (node, found.get(&node).copied().unwrap_or_default());
            let replicas: Vec<(NodeId, (u64, u128))> = owners.map(of).collect();
            if replicas.windows(2).all(|pair| pair[0].1 == pair[1].1) {
                continue;
            }
            equal = false;
            if unequal.len() < UNEQUAL_LISTED_MAX {
                let name = state
                    .tenant(*tenant)
                    .map(|t| t.name.clone())
                    .unwrap_or_default();
                unequal.push(admin::UnequalWindow {
                    tenant: name,
                    signal: "metrics".to_owned(),
                    shard: shard.0,
                    start: *start,
                    end: start.saturating_add(WINDOW_MILLIS),
                    replicas: replicas.into_iter().map(|(n, d)| describe(n, d)).collect(),
                });
            }
        }
        admin::Digests {
            equal,
            unreachable: self.unreachable,
            compared: self.windows.len() as u64,
            unequal,
            totals: self
                .totals
                .into_iter()
                .map(|(node, total)| describe(node, total))
                .collect(),
        }
    }
}

/// What a client is told when the metadata plane did not do as it wished.
pub(super) fn refused(error: MetadataError) -> ApiError {
    match error {
        MetadataError::Refused(Refusal::ConditionFailed { present, .. }) => {
            let present = present.map_or("the key does not exist".to_owned(), |version| {
                format!("the key has version {version}")
            });
            ApiError::PreconditionFailed(format!("nothing was changed: {present}"))
        }
        MetadataError::Refused(refusal) => ApiError::Conflict(refusal.to_string()),
        error => ApiError::Unavailable {
            message: error.to_string(),
            retry_after: Duration::from_secs(1),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_that_overlap_a_range_are_asked_about() {
        let ask = |start, end| {
            let ask = DigestsAsk::overlapping(&admin::DigestsRequest { start, end });
            (ask.start, ask.end)
        };
        let (first, inside) = (5 * WINDOW_MILLIS, 5 * WINDOW_MILLIS + 7);
        assert_eq!(ask(Some(inside), Some(inside + 1)), (first, inside + 1));
        assert_eq!(ask(Some(first), None), (first, i64::MAX));
        assert_eq!(ask(Some(-1), Some(0)), (-WINDOW_MILLIS, 0));
        assert_eq!(ask(None, Some(1)), (i64::MIN, 1));
    }

    #[test]
    fn a_drain_that_leaves_fewer_copies_is_told_also_while_shards_grow() {
        // (others that take replicas, owners per shard now)
        for (left, present, told) in [
            (2, 3, true),
            (2, 2, true),
            (2, 1, true),
            (1, 2, true),
            (3, 3, false),
            (3, 1, false),
            (4, 3, false),
        ] {
            assert_eq!(leaves_fewer_copies(left, present), told, "{left} {present}");
        }
    }

    #[test]
    fn a_movement_is_as_far_as_its_incoming_nodes_say() {
        let set = |shards: &[u16]| -> ShardSet { shards.iter().copied().map(ShardId).collect() };
        let (old, new) = (NodeId(1), NodeId(2));
        let mut accounts = BTreeMap::from([(
            old,
            NodeAccount {
                serving: set(&[0, 1, 2, 3]),
                bytes: 4000,
                ..NodeAccount::default()
            },
        )]);
        let mut receiver = NodeAccount {
            filling: set(&[1, 2]),
            copied: vec![(set(&[1, 2]), 700), (set(&[3]), 9)],
            ..NodeAccount::default()
        };
        accounts.insert(new, receiver.clone());
        let expected = Progress {
            step: "copying",
            copied_bytes: 700,
            total_bytes: 2000,
        };
        assert_eq!(progress(&set(&[1, 2]), &[new], &accounts), expected);
        receiver.serving = std::mem::take(&mut receiver.filling);
        accounts.insert(new, receiver);
        assert_eq!(progress(&set(&[1, 2]), &[new], &accounts).step, "switching");
    }
}
