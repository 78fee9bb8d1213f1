//! Snapshots of the cluster: each node makes its part, the one that was asked sees that they are enough, then all keep theirs.
//!
//! ```text
//! coordinator  --prepare-->  every live member: barrier, flush, blocks under a second name     (NAME.part)
//!              <--shards--   those of which all that was acknowledged is in the part
//!              --keep----->  who has prepared, if every shard is in some part                  (NAME)
//!              --discard-->  all of them, if not
//! ```
//! A part proves what an answer to a query proves: a barrier that began after the request says that the node lacks
//! nothing. So one owner of each shard is enough, and who has no part is named in a warning. A part that nobody keeps, because
//! its coordinator is gone, is removed after some time, and at a start.

use super::{
    Cluster,
    admin::{is_present, refused, shard_ranges},
};
use crate::{
    clock,
    data_plane::Pinned,
    formats,
    query::{
        question,
        source::{listed, owned_by},
    },
    snapshot::{self, about::About},
};
use bytes::Bytes;
use futures::future::join_all;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tonic::Status;
use trefoil_api::{ApiError, Snapshot};
use trefoil_model::{NodeId, PlacementTable, ShardId, ShardSet, TimeRange};
use trefoil_raft::State;
use trefoil_store_blocks::PinnedVersion;

/// The kind of a [`Step`] among the calls of the `Queries` service.
pub(super) const KIND_SNAPSHOT: u32 = 11;
/// How long a node may take to make its part: mostly the flush of its head.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(120);
/// How long of that it may take to prove that it is complete.
const BARRIER_TIMEOUT: Duration = Duration::from_secs(20);
/// How often it proves and pins at most, as long as damage is found in between.
const PIN_TRIES: u32 = 3;
/// How long a node may take to rename or to remove a folder.
const FINISH_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a part waits for being kept. Far longer than the slowest other part takes.
const PREPARED_KEPT: Duration = Duration::from_secs(600);
/// How often gossip is asked whether a node is gone.
const GONE_CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Everything.
const ALL_TIME: TimeRange = TimeRange {
    start: i64::MIN,
    end: i64::MAX,
};

/// What a node is told to do about a snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Step {
    name: String,
    action: Action,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Action {
    /// Make a part.
    Prepare {
        /// The place in the metadata plane's log up to which the store must know what is decided.
        index: u64,
        /// When the request came, milliseconds of UTC.
        taken_at: i64,
        /// Only what is in blocks already.
        skips_head: bool,
    },
    /// Give it its name.
    Keep,
    /// Remove it.
    Discard,
}

/// What a node has in its part; empty for other steps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Prepared {
    shards: ShardSet,
    /// Of those, what lost data for good before.
    lost: ShardSet,
}

/// The parts, and why others are not there.
#[derive(Default)]
struct Parts {
    made: Vec<(NodeId, Prepared)>,
    failed: Vec<(NodeId, String)>,
}

impl Parts {
    fn missing(&self, shards: u16) -> ShardSet {
        let made = self.made.iter();
        made.fold(ShardSet::all(shards), |left, (_, part)| {
            left.difference(&part.shards)
        })
    }

    /// The shards that lost data in every part that has them.
    fn lost(&self) -> ShardSet {
        let all = self.made.iter();
        let lost = all.fold(ShardSet::new(), |lost, (_, part)| lost.union(&part.lost));
        self.made.iter().fold(lost, |lost, (_, part)| {
            lost.difference(&part.shards.difference(&part.lost))
        })
    }
}

/// Held while a snapshot is made: each one flushes all heads.
struct Turn<'a>(&'a Mutex<Option<String>>);

impl<'a> Turn<'a> {
    fn take(running: &'a Mutex<Option<String>>, name: &str) -> Result<Self, ApiError> {
        let mut present = running.lock();
        if let Some(other) = &*present {
            return Err(unavailable(format!(
                "no snapshot was made: this node is busy with snapshot {other}; try again when that is done"
            )));
        }
        *present = Some(name.to_owned());
        Ok(Self(running))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

/// Blocks, and what they prove.
struct Proven {
    /// What is decided, from before the blocks.
    facts: Arc<State>,
    pin: PinnedVersion,
    /// The shards of which all that was acknowledged is in the blocks.
    shards: ShardSet,
    /// Of those, what lost data for good before.
    lost: ShardSet,
}

impl Cluster {
    /// Makes a snapshot of the cluster.
    ///
    /// # Errors
    /// As `Backend::snapshot`.
    pub(crate) async fn snapshot(self: Arc<Self>, skips_head: bool) -> Result<Snapshot, ApiError> {
        self.check_enabled()?;
        let now = self.clock.now().unwrap_or_else(clock::wall);
        let name = snapshot::new_name(now);
        let _alone = Turn::take(&self.snapshot, &name)?;
        let state = match self.metadata.read_linearizable().await {
            Ok(state) => state,
            Err(error) => return Err(self.without_majority(&refused(error))),
        };
        if let Some(refusal) = formats::snapshot_refusal(&state) {
            return Err(unavailable(refusal));
        }
        let prepare = Action::Prepare {
            index: state.applied().index,
            taken_at: now,
            skips_head,
        };
        let members: Vec<NodeId> = (state.members())
            .filter(|member| is_present(member))
            .map(|member| member.node)
            .collect();
        let shards = state.placement().shards.len() as u16;
        if shards == 0 {
            return Err(unavailable("the cluster has not begun yet".to_owned()));
        }
        let prepared = self
            .tell_all(&members, &name, prepare, PREPARE_TIMEOUT)
            .await;
        let parts = match prepared.missing(shards).is_empty() {
            true => self.keep_parts(&name, prepared).await,
            false => prepared,
        };
        let missing = parts.missing(shards);
        if missing.is_empty() {
            tracing::info!(name, parts = parts.made.len(), "a snapshot was made");
            let warnings = self.warnings_about(&parts);
            return Ok(Snapshot { name, warnings });
        }
        // Best effort: a part that nobody keeps goes by itself.
        self.tell_all(&members, &name, Action::Discard, FINISH_TIMEOUT)
            .await;
        Err(unavailable(format!(
            "no snapshot was made: {} of {shards} shards are in no part of {name} ({})",
            missing.len(),
            self.reasons(&parts.failed, &parts.made, &missing),
        )))
    }

    /// What is said when the metadata plane does not answer: which nodes are not there is what an operator wants to know.
    fn without_majority(&self, error: &ApiError) -> ApiError {
        let (state, others) = (self.metadata.state(), self.others_active());
        let away = state.members().filter(|member| {
            is_present(member)
                && member.node != self.identity.node
                && !others.contains(&member.node)
        });
        let away: Vec<String> = away.map(|member| self.node_name(member.node)).collect();
        unavailable(format!(
            "no snapshot was made: {error}; down are: {}",
            away.join(", ")
        ))
    }

    /// Has those keep their parts who made one.
    async fn keep_parts(&self, name: &str, prepared: Parts) -> Parts {
        let nodes: Vec<NodeId> = prepared.made.iter().map(|(node, _)| *node).collect();
        let kept = self
            .tell_all(&nodes, name, Action::Keep, FINISH_TIMEOUT)
            .await;
        let has_kept = |node: &NodeId| kept.made.iter().any(|(kept, _)| kept == node);
        let made = prepared.made.into_iter();
        Parts {
            made: made.filter(|(node, _)| has_kept(node)).collect(),
            failed: [prepared.failed, kept.failed].concat(),
        }
    }

    fn warnings_about(&self, parts: &Parts) -> Vec<String> {
        let failed = parts.failed.iter();
        let mut warnings: Vec<String> = failed
            .map(|(node, why)| format!("{} has no part of it: {why}", self.node_name(*node)))
            .collect();
        let lost = parts.lost();
        if !lost.is_empty() {
            warnings.push(format!(
                "{} shards lost data for good before (shards {})",
                lost.len(),
                listed(&lost)
            ));
        }
        warnings
    }

    /// Which nodes did not do what was needed.
    fn reasons(
        &self,
        failed: &[(NodeId, String)],
        made: &[(NodeId, Prepared)],
        missing: &ShardSet,
    ) -> String {
        let owned = |node| owned_by(&self.plane.routing(), node);
        let unproven = made
            .iter()
            .filter(|(node, _)| !owned(*node).intersection(missing).is_empty())
            .map(|(node, _)| (*node, "it cannot prove that it is complete".to_owned()));
        let all = failed.iter().cloned().chain(unproven);
        let texts = all.map(|(node, why)| format!("{}: {why}", self.node_name(node)));
        texts.collect::<Vec<_>>().join("; ")
    }

    /// Tells some nodes, this one included, to do something, and waits for those that gossip does not hold for gone.
    async fn tell_all(
        &self,
        nodes: &[NodeId],
        name: &str,
        action: Action,
        timeout: Duration,
    ) -> Parts {
        let step = Step {
            name: name.to_owned(),
            action,
        };
        let told = nodes.iter().map(|node| {
            let step = &step;
            async move {
                let outcome = match *node == self.identity.node {
                    true => self.take_step(step.clone()).await,
                    false => tokio::select! {
                        answer = self.ask(*node, KIND_SNAPSHOT, step, timeout) => answer,
                        () = self.gone(*node) => Err(Status::unavailable("it is down")),
                    },
                };
                (*node, outcome)
            }
        });
        let mut parts = Parts::default();
        for (node, outcome) in join_all(told).await {
            match outcome {
                Ok(prepared) => parts.made.push((node, prepared)),
                Err(status) => parts.failed.push((node, status.message().to_owned())),
            }
        }
        parts
    }

    /// Resolves when gossip holds a node for down.
    async fn gone(&self, node: NodeId) {
        while self.others_active().contains(&node) {
            tokio::time::sleep(GONE_CHECK_INTERVAL).await;
        }
    }

    /// Does what a peer's step says.
    ///
    /// # Errors
    /// When the step is malformed, or this node cannot do it.
    pub(super) async fn answer_snapshot(&self, body: &Bytes) -> Result<Bytes, Status> {
        let step: Step = question::decode(body)?;
        question::encode(&self.take_step(step).await?)
    }

    async fn take_step(&self, step: Step) -> Result<Prepared, Status> {
        let Step { name, action } = step;
        if !snapshot::is_name(&name) {
            return Err(Status::invalid_argument("no name of a snapshot"));
        }
        match action {
            Action::Prepare {
                index,
                taken_at,
                skips_head,
            } => self.prepare(name, (index, taken_at), skips_head).await,
            Action::Keep => {
                let plane = self.plane.clone();
                blocking(move || Ok(plane.keep_snapshot(&name)?)).await?;
                Ok(Prepared::default())
            }
            Action::Discard => {
                let plane = self.plane.clone();
                blocking(move || Ok(plane.discard_snapshot(&name, true)?)).await?;
                Ok(Prepared::default())
            }
        }
    }

    /// Makes this node's part.
    async fn prepare(
        &self,
        name: String,
        (index, taken_at): (u64, i64),
        skips_head: bool,
    ) -> Result<Prepared, Status> {
        let until = Instant::now() + PREPARE_TIMEOUT;
        let followed = self.has_followed(index).await;
        followed.map_err(|error| Status::unavailable(error.to_string()))?;
        let Proven {
            facts,
            pin,
            shards,
            lost,
        } = self.pin_proven(skips_head, until).await?;
        let about = About {
            name,
            taken_at,
            cluster: (self.identity.cluster()).map_or_else(String::new, |c| c.to_string()),
            node: self.identity.node.to_string(),
            node_name: self.settings.node_name.clone(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            shards_all: facts.placement().shards.len() as u16,
            skips_head,
            shards: shard_ranges(&shards),
            lost: shard_ranges(&lost),
            blocks: 0,
            tenants: About::tenants_of(&facts),
        };
        self.expire(about.name.clone());
        let (plane, node) = (self.plane.clone(), self.identity.node);
        let prepared = blocking(move || {
            let name = about.name.clone();
            let linked = plane.prepare_snapshot(&pin, about, node, left(until))?;
            tracing::info!(
                name,
                blocks = linked.blocks,
                bytes = linked.bytes,
                files_copied = linked.files_copied,
                "made a part of a snapshot"
            );
            Ok(Prepared { shards, lost })
        });
        prepared.await
    }

    /// Proves what is complete, and pins blocks that have it. All of it again where damage was found meanwhile: what was
    /// repaired since may be in the head alone. The last try goes without the shards that were hit.
    async fn pin_proven(&self, skips_head: bool, until: Instant) -> Result<Proven, Status> {
        let mut tries = PIN_TRIES;
        loop {
            tries -= 1;
            let generation = self.plane.damage_generation();
            // Before the blocks are pinned: what is forgotten by now has left them.
            let facts = self.metadata.state();
            let (complete, lost) = self.provable(skips_head, left(until)).await?;
            let plane = self.plane.clone();
            let pinned =
                blocking(move || plane.pin_for_snapshot(!skips_head, generation, left(until)));
            let Pinned { pin, shards, hit } = pinned.await?;
            if tries > 0 && !complete.intersection(&hit).is_empty() {
                tracing::warn!(shards = listed(&hit), "damage was found during a snapshot");
                continue;
            }
            let same = unchanged(
                self.identity.node,
                facts.placement(),
                self.metadata.state().placement(),
            );
            let shards = complete.intersection(&shards).intersection(&same);
            let lost = lost.intersection(&shards);
            return Ok(Proven {
                facts,
                pin,
                shards,
                lost,
            });
        }
    }

    /// Removes a part that nobody keeps; also one that is only finished when its coordinator has gone away.
    fn expire(&self, name: String) {
        let plane = self.plane.clone();
        tokio::spawn(async move {
            tokio::time::sleep(PREPARED_KEPT).await;
            let discarded = blocking(move || Ok(plane.discard_snapshot(&name, false)?)).await;
            if let Err(error) = discarded {
                tracing::warn!(
                    error = error.message(),
                    "remove a snapshot that nobody kept"
                );
            }
        });
    }

    /// The shards of which this node has everything that was acknowledged by now, and those of them that lost data for good.
    /// Without the head nothing is proved: those that it serves, and what is known of their losses.
    async fn provable(
        &self,
        skips_head: bool,
        patience: Duration,
    ) -> Result<(ShardSet, ShardSet), Status> {
        if skips_head {
            return Ok((self.plane.status().serving, self.plane.gaps()));
        }
        let own = owned_by(&self.plane.routing(), self.identity.node);
        if own.is_empty() {
            return Ok((own.clone(), own));
        }
        let ready = self
            .plane
            .query(own, ALL_TIME, BARRIER_TIMEOUT.min(patience))
            .await;
        let ready = ready.ok_or_else(|| Status::unavailable("it stops"))?;
        Ok((ready.complete.clone(), ready.gaps.clone()))
    }
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

/// The shards of which a node is the same owner: where its replica was dropped and filled again meanwhile, its record has
/// another lineage, or counts from another configuration. Other owners may come and go.
fn unchanged(node: NodeId, before: &PlacementTable, after: &PlacementTable) -> ShardSet {
    let rows = before.shards.iter().zip(&after.shards);
    let same = rows.enumerate().filter(|(_, (before, after))| {
        let own = before.owners.get(&node);
        own.is_some() && own == after.owners.get(&node)
    });
    same.map(|(shard, _)| ShardId(shard as u16)).collect()
}

/// Work that waits for a disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Status::internal(error.to_string()))?
        .map_err(|error| Status::unavailable(format!("{error:#}")))
}

fn unavailable(message: String) -> ApiError {
    ApiError::Unavailable {
        message,
        retry_after: Duration::from_secs(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_model::{
        Configuration, ConfigurationNumber, LineageId, OwnerRecord, OwnerSet, ShardEntry,
    };

    fn part(shards: &[u16], lost: &[u16]) -> Prepared {
        let set = |shards: &[u16]| shards.iter().copied().map(ShardId).collect();
        Prepared {
            shards: set(shards),
            lost: set(lost),
        }
    }

    #[test]
    fn a_shard_is_there_when_one_part_has_it() {
        let mut parts = Parts::default();
        assert_eq!(parts.missing(3), ShardSet::all(3));
        parts.made.push((NodeId(1), part(&[0, 1], &[0, 1])));
        assert_eq!(listed(&parts.missing(3)), "2");
        parts.made.push((NodeId(2), part(&[1, 2], &[])));
        assert!(parts.missing(3).is_empty());
        assert_eq!(listed(&parts.lost()), "0", "another part has shard 1 whole");
    }

    #[test]
    fn one_snapshot_at_a_time() {
        let running = Mutex::default();
        let turn = Turn::take(&running, "a").map_err(drop);
        assert!(turn.is_ok());
        match Turn::take(&running, "b").map(drop) {
            Err(ApiError::Unavailable { message, .. }) => {
                assert!(message.contains("snapshot a;"), "{message}");
            }
            other => panic!("{other:?}"),
        }
        drop(turn);
        assert!(Turn::take(&running, "b").is_ok());
    }

    #[test]
    fn only_the_own_record_decides_whether_a_replica_is_the_same() {
        let record = |lineage, counts_from| OwnerRecord {
            lineage: LineageId(lineage),
            counts_from: ConfigurationNumber(counts_from),
            born_serving: false,
        };
        let row = |number, owners: &[(u64, OwnerRecord)]| {
            let set = || OwnerSet::from_iter(owners.iter().map(|(node, _)| NodeId(*node)));
            ShardEntry {
                configuration: Configuration {
                    number: ConfigurationNumber(number),
                    old: set(),
                    new: set(),
                },
                owners: owners.iter().map(|(n, r)| (NodeId(*n), *r)).collect(),
            }
        };
        let before = row(3, &[(1, record(1, 1))]);
        let table = |row: &ShardEntry| PlacementTable {
            shards: vec![row.clone()],
        };
        let same = |after: &ShardEntry| {
            let same = unchanged(NodeId(1), &table(&before), &table(after));
            same.contains(ShardId(0))
        };
        assert!(same(&before));
        let joined = row(4, &[(1, record(1, 1)), (2, record(2, 4))]);
        assert!(same(&joined), "another owner");
        assert!(
            !same(&row(5, &[(1, record(1, 5))])),
            "it left and came back"
        );
        assert!(!same(&row(4, &[(1, record(9, 4))])), "it lost all");
        assert!(!same(&row(4, &[(2, record(2, 4))])), "it left");
        let never = unchanged(NodeId(7), &table(&before), &table(&joined));
        assert!(never.is_empty(), "it was none");
    }

    /// Pins the bytes of docs/formats/peer.md.
    #[test]
    fn golden_steps() {
        let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
        let step = |action| Step {
            name: "ab".to_owned(),
            action,
        };
        let prepare = Action::Prepare {
            index: 7,
            taken_at: -1,
            skips_head: true,
        };
        for (action, expected) in [
            (prepare, "04026162000701"),
            (Action::Keep, "0402616201"),
            (Action::Discard, "0402616202"),
        ] {
            let bytes = question::encode(&step(action)).expect("small");
            let expected = match action {
                Action::Prepare { .. } => format!("{expected}01"),
                _ => expected.to_owned(),
            };
            assert_eq!(hex(&bytes), expected);
        }
        let bytes = question::encode(&part(&[0, 1], &[1])).expect("small");
        assert_eq!(hex(&bytes), "0401030102");
    }
}
