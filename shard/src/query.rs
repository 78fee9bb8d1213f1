//! Parts of queries that this node is to evaluate: wait for barriers until every shard is provably complete.
//!
//! A shard is complete when this node is Serving and, together with the partners whose barriers *began after
//! the query* arrived, holds so many owners that every majority is met: n - majority + 1 of the old and of
//! the new owners. A joining partner counts for the new owners only.

use crate::{
    Action, QueryId, QueryReady, QueryRequest, Replication, Trust, barrier::Proof, quorum,
    replication::Step,
};
use std::{collections::BTreeMap, time::Duration};
use trefoil_model::{NodeId, ShardEntry, ShardSet};

/// A part that is not ready.
#[derive(Debug)]
struct OpenQuery {
    request: QueryRequest,
    arrived: Duration,
    /// The own journal must be applied up to here.
    applied_at: crate::Offset,
    /// Asked partners, with the first of the pair's barriers that counts.
    asked: BTreeMap<NodeId, u64>,
    /// What partners have proved, under the present numbers.
    proved: BTreeMap<NodeId, Partner>,
    hedged: bool,
}

#[derive(Debug, Default)]
struct Partner {
    serving: ShardSet,
    joining: ShardSet,
}

/// All parts that are not ready.
#[derive(Debug, Default)]
pub(crate) struct Queries {
    open: BTreeMap<QueryId, OpenQuery>,
}

impl Queries {
    pub(crate) fn cancel(&mut self, query: QueryId) {
        self.open.remove(&query);
    }

    pub(crate) fn open_count(&self) -> usize {
        self.open.len()
    }
}

impl Replication {
    pub(crate) fn on_query(&mut self, step: &mut Step<'_>, request: QueryRequest) {
        let id = request.query;
        let refuse = self.queries.open.len() >= self.settings.queries_max
            || request.deadline <= step.now
            || self.queries.open.contains_key(&id);
        if refuse {
            step.out.push(Action::QueryReady(QueryReady {
                query: id,
                complete: ShardSet::new(),
                refused: request.shards,
                gaps: ShardSet::new(),
            }));
            return;
        }
        let query = OpenQuery {
            request,
            arrived: step.now,
            applied_at: self.journal.durable,
            asked: BTreeMap::new(),
            proved: BTreeMap::new(),
            hedged: false,
        };
        self.queries.open.insert(id, query);
        self.ask_partners(step, id, false);
        self.answer_query(step, id);
    }

    /// The shards that this node can evaluate, if it is complete.
    fn evaluable(&self, request: &QueryRequest) -> ShardSet {
        let mut serving = self.serving();
        if self.faults.amnesiac_serves {
            serving = serving.union(&self.replicas.with_trust(Trust::Amnesiac));
        }
        if !self.deletions_are_known() {
            return ShardSet::new();
        }
        let damaged = self.replicas.damaged(Some(request.range));
        let evaluable = serving.intersection(&request.shards);
        match self.faults.damage_ignored {
            true => evaluable,
            false => evaluable.difference(&damaged),
        }
    }

    /// Asks partners for barriers: as few as are needed, or all.
    fn ask_partners(&mut self, step: &mut Step<'_>, id: QueryId, all: bool) {
        let Some(query) = self.queries.open.get(&id) else {
            return;
        };
        let shards = self.evaluable(&query.request);
        let mut partners: Vec<NodeId> = Vec::new();
        for (_, entry) in self.rows.within(&shards) {
            let configuration = &entry.configuration;
            for owners in [&configuration.old, &configuration.new] {
                let here = usize::from(owners.contains(self.me.node));
                let chosen = partners
                    .iter()
                    .filter(|node| owners.contains(**node))
                    .count();
                let needed = owners.meets_every_majority().saturating_sub(here + chosen);
                let mut others: Vec<NodeId> = owners
                    .iter()
                    .filter(|node| *node != self.me.node && !partners.contains(node))
                    .collect();
                // Those that can be reached first; among equals a different one for each query.
                let turn = id.0 as usize % others.len().max(1);
                others.rotate_left(turn);
                others.sort_by_key(|node| !self.peers.get(node).is_some_and(|peer| peer.up));
                let take = if all { others.len() } else { needed };
                partners.extend(others.into_iter().take(take));
            }
        }
        for partner in partners {
            let asked = self.queries.open.get(&id).map(|query| &query.asked);
            if asked.is_some_and(|asked| !asked.contains_key(&partner)) {
                let barrier = self.want_barrier(step, partner);
                if let Some(query) = self.queries.open.get_mut(&id) {
                    query.asked.insert(partner, barrier);
                }
            }
        }
    }

    /// A barrier ended: the queries that waited for it may be complete.
    pub(crate) fn use_proof(&mut self, step: &mut Step<'_>, proof: &Proof) {
        let mut touched = Vec::new();
        for (id, query) in &mut self.queries.open {
            let waits = query.asked.get(&proof.peer);
            if waits.is_none_or(|first| proof.barrier < *first) {
                continue;
            }
            let mut lost = ShardSet::new();
            for (shards, range) in &proof.damaged {
                if range.overlaps(&query.request.range) {
                    lost = lost.union(shards);
                }
            }
            let partner = query.proved.entry(proof.peer).or_default();
            partner.serving = partner.serving.union(&proof.serving.difference(&lost));
            partner.joining = partner.joining.union(&proof.joining.difference(&lost));
            touched.push(*id);
        }
        for id in touched {
            self.answer_query(step, id);
        }
    }

    /// These shards follow new numbers: what partners proved about them is void, and asked for again.
    pub(crate) fn forget_partners(&mut self, shards: &ShardSet) {
        for query in self.queries.open.values_mut() {
            if query.request.shards.intersection(shards).is_empty() {
                continue;
            }
            for partner in query.proved.values_mut() {
                partner.serving = partner.serving.difference(shards);
                partner.joining = partner.joining.difference(shards);
            }
            query.asked.clear();
            query.hedged = false;
        }
    }

    /// Those of `shards` for which this node and its partners meet every majority.
    fn complete(&self, query: &OpenQuery, shards: &ShardSet) -> ShardSet {
        let mut complete = ShardSet::new();
        for (both, entry) in self.rows.within(shards) {
            complete = complete.union(&self.complete_under(query, both, entry));
        }
        complete
    }

    fn complete_under(&self, query: &OpenQuery, shards: ShardSet, entry: &ShardEntry) -> ShardSet {
        let configuration = &entry.configuration;
        let (old, new) = (&configuration.old, &configuration.new);
        let mut complete = shards.clone();
        for owners in [old, new] {
            let is_new = std::ptr::eq(owners, new);
            if is_new && (old == new || self.faults.barrier_old_only) {
                continue;
            }
            let mut sets = vec![(self.me.node, shards.clone())];
            for (node, partner) in &query.proved {
                // A joining owner has not met the majorities of the old owners.
                let joined = is_new && !old.contains(*node);
                let set = match joined {
                    true => partner.serving.union(&partner.joining),
                    false => partner.serving.clone(),
                };
                sets.push((*node, set));
            }
            let sets = sets.iter().map(|(node, set)| (*node, set));
            complete = quorum::owners_with(owners.meets_every_majority(), &complete, owners, sets);
        }
        complete
    }

    fn answer_query(&mut self, step: &mut Step<'_>, id: QueryId) {
        let Some(query) = self.queries.open.get(&id) else {
            return;
        };
        let evaluable = self.evaluable(&query.request);
        let applied = self.journal.applied >= query.applied_at || self.faults.unapplied_evaluated;
        let overdue = step.now >= query.request.deadline;
        let complete = match applied && self.gate_is_open() {
            true => self.complete(query, &evaluable),
            false => ShardSet::new(),
        };
        if complete != evaluable && !overdue {
            return;
        }
        // Waiting does not make a replica trusted that is not, so the rest is refused at once.
        if !applied && !overdue {
            return;
        }
        let Some(query) = self.queries.open.remove(&id) else {
            return;
        };
        step.out.push(Action::QueryReady(QueryReady {
            query: id,
            refused: query.request.shards.difference(&complete),
            gaps: self.replicas.gaps().intersection(&complete),
            complete,
        }));
    }

    /// Looks at all parts again: the own journal moved, or trust changed.
    pub(crate) fn answer_queries(&mut self, step: &mut Step<'_>) {
        let open: Vec<QueryId> = self.queries.open.keys().copied().collect();
        for id in open {
            self.answer_query(step, id);
        }
    }

    /// When a tick has something to do for parts of queries: they are few, and all of them are in a hurry.
    pub(crate) fn queries_due(&self) -> Option<Duration> {
        (!self.queries.open.is_empty()).then_some(Duration::ZERO)
    }

    pub(crate) fn tick_queries(&mut self, step: &mut Step<'_>) {
        let hedge_after = self.settings.hedge_after;
        let due: Vec<QueryId> = self
            .queries
            .open
            .iter()
            .filter(|(_, query)| !query.hedged && step.now >= query.arrived + hedge_after)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            if let Some(query) = self.queries.open.get_mut(&id) {
                query.hedged = true;
            }
            self.ask_partners(step, id, true);
        }
        self.answer_queries(step);
    }
}
