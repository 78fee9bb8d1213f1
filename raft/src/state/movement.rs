//! Facts about movements of shards, for people to see. Nothing is decided by them: what moves is in
//! the placement table.

use super::limits::{MOVEMENTS_MAX, NAME_BYTES_MAX};
use super::refusal::check_text;
use super::{Command, Refusal, Reply, State};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use trefoil_model::{Millis, NodeId, OwnerSet, ShardId, ShardSet};

/// How a movement ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MovementOutcome {
    /// The new owners have the shards.
    Completed,
    /// The old owners kept the shards.
    Abandoned {
        /// Why.
        reason: String,
    },
}

/// A movement of shards between nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Movement {
    /// Its number; later ones have higher numbers.
    pub number: u64,
    /// Why: `join`, `drain`, `replace` or an operator's words.
    pub reason: String,
    /// The shards.
    pub shards: ShardSet,
    /// The nodes that become owners, ascending.
    pub incoming: Vec<NodeId>,
    /// The nodes that stop being owners, ascending.
    pub outgoing: Vec<NodeId>,
    /// When it began.
    pub began_at: Millis,
    /// How and when it ended; none: it is under way.
    pub ended: Option<(MovementOutcome, Millis)>,
}

impl State {
    /// The movements that are remembered, oldest first.
    pub fn movements(&self) -> impl Iterator<Item = &Arc<Movement>> {
        self.movements.values()
    }

    /// The movements that are noted as under way and are not, with how they ended, oldest first. The note of an end can be lost:
    /// it is a command of its own, behind the one that ended the change, and the leader may have ended between them. The
    /// placement table knows.
    #[must_use]
    pub fn movements_over(&self) -> Vec<(u64, MovementOutcome)> {
        let mut claimed = ShardSet::default();
        let mut over = Vec::new();
        let open = self.movements.values().rev();
        for movement in open.filter(|movement| movement.ended.is_none()) {
            // What is under way of a shard is the newest that was noted of it.
            let own = movement.shards.difference(&claimed);
            if !own.iter().any(|shard| self.is_moving(shard, movement)) {
                over.push((movement.number, self.outcome_of(movement)));
            }
            claimed = claimed.union(&movement.shards);
        }
        over.reverse();
        over
    }

    /// Whether the shard is in a change between the nodes of the movement.
    fn is_moving(&self, shard: ShardId, movement: &Movement) -> bool {
        let Some(entry) = self.placement.get(shard) else {
            return false;
        };
        let (old, new) = (&entry.configuration.old, &entry.configuration.new);
        let only = |of: &OwnerSet, not: &OwnerSet| -> Vec<NodeId> {
            of.iter().filter(|node| !not.contains(*node)).collect()
        };
        old != new && only(new, old) == movement.incoming && only(old, new) == movement.outgoing
    }

    fn outcome_of(&self, movement: &Movement) -> MovementOutcome {
        let has_moved = |shard| {
            let owners = self
                .placement
                .get(shard)
                .map(|entry| &entry.configuration.new);
            owners.is_some_and(|owners| {
                let came = movement.incoming.iter().all(|node| owners.contains(*node));
                came && !movement.outgoing.iter().any(|node| owners.contains(*node))
            })
        };
        match movement.shards.iter().all(has_moved) {
            true => MovementOutcome::Completed,
            false => MovementOutcome::Abandoned {
                reason: "not all of its shards have the new owners".to_owned(),
            },
        }
    }

    pub(super) fn begin_movement(&mut self, command: &Command) -> Result<Reply, Refusal> {
        let Command::BeginMovement {
            reason,
            shards,
            incoming,
            outgoing,
            at,
        } = command
        else {
            return Err(Refusal::invalid("command", "it is not a movement"));
        };
        check_text("reason", reason, NAME_BYTES_MAX)?;
        if self.movements.len() >= MOVEMENTS_MAX {
            let ended = self.movements().find(|movement| movement.ended.is_some());
            let Some(number) = ended.map(|movement| movement.number) else {
                return Err(Refusal::limit("number of movements", MOVEMENTS_MAX));
            };
            self.movements.remove(&number);
        }
        let movement = Movement {
            number: self.cluster.sequence,
            reason: reason.clone(),
            shards: shards.clone(),
            incoming: incoming.clone(),
            outgoing: outgoing.clone(),
            began_at: *at,
            ended: None,
        };
        self.movements.insert(movement.number, Arc::new(movement));
        Ok(Reply::Movement(self.cluster.sequence))
    }

    pub(super) fn finish_movement(
        &mut self,
        movement: u64,
        outcome: &MovementOutcome,
        at: Millis,
    ) -> Result<Reply, Refusal> {
        let record = self
            .movements
            .get_mut(&movement)
            .ok_or(Refusal::UnknownMovement { movement })?;
        let record = Arc::make_mut(record);
        if record.ended.is_none() {
            record.ended = Some((outcome.clone(), at));
        }
        Ok(Reply::Done)
    }
}
