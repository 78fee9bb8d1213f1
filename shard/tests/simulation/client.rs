//! Clients that remember everything: what was sent, what was acknowledged, and what every answer had to
//! contain.

use crate::{
    node::TENANT,
    store::{Item, encode},
    world::{What, World},
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use trefoil_model::{DeletionVersion, NodeId, ShardSet, Signal, TimeRange};
use trefoil_shard::{Event, QueryId, QueryRequest, RequestId, WriteOutcome, WriteRequest};

/// An item that was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) item: Item,
    /// The deletions that its coordinator knew.
    pub(crate) version: DeletionVersion,
    pub(crate) acknowledged: bool,
}

/// Something that comes back to a client, or is due at one.
#[derive(Debug)]
pub(crate) enum Ticket {
    /// A part arrives at its evaluator.
    Ask(QueryId, usize, ShardSet),
    /// An evaluator answers.
    Part {
        query: QueryId,
        evaluator: NodeId,
        complete: ShardSet,
        refused: ShardSet,
        items: BTreeSet<Item>,
    },
    /// A part is given up.
    Late(QueryId),
}

#[derive(Debug)]
struct OpenQuery {
    coordinator: usize,
    range: TimeRange,
    /// What was acknowledged before it began.
    must: Vec<u32>,
    pending: Vec<(QueryId, NodeId, ShardSet)>,
    excluded: Vec<(NodeId, ShardSet)>,
    complete: ShardSet,
    items: BTreeSet<Item>,
    tries: u32,
}

/// All clients.
#[derive(Debug, Default)]
pub(crate) struct Client {
    pub(crate) sent: Vec<Sent>,
    writes: BTreeMap<RequestId, (usize, Vec<u32>)>,
    queries: BTreeMap<u64, OpenQuery>,
    parts: BTreeMap<QueryId, u64>,
    last: u64,
    pub(crate) acknowledged: u64,
    pub(crate) unavailable: u64,
    pub(crate) answered: u64,
    pub(crate) partial: u64,
    /// The first promise that was broken.
    pub(crate) broken: Option<String>,
}

impl Client {
    /// What was asked of a node that is gone gets no answer.
    pub(crate) fn forget_node(&mut self, index: usize) {
        self.writes.retain(|_, (at, _)| *at != index);
        let gone: Vec<u64> = self
            .queries
            .iter()
            .filter(|(_, query)| query.coordinator == index)
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.queries.remove(&id);
        }
    }

    pub(crate) fn finish_write(
        &mut self,
        _now: Duration,
        request: RequestId,
        outcome: WriteOutcome,
    ) {
        let Some((_, items)) = self.writes.remove(&request) else {
            return;
        };
        match outcome {
            WriteOutcome::Held => {
                self.acknowledged += 1;
                for id in items {
                    self.sent[id as usize].acknowledged = true;
                }
            }
            WriteOutcome::Unavailable => self.unavailable += 1,
        }
    }

    pub(crate) fn range_of(&self, part: QueryId) -> Option<TimeRange> {
        let query = self.parts.get(&part)?;
        Some(self.queries.get(query)?.range)
    }

    fn fresh(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

impl World {
    /// Whether some deletion erases the item.
    pub(crate) fn is_deleted(&self, sent: &Sent) -> bool {
        let classes = self.plane.now.classes.iter().enumerate();
        classes.into_iter().any(|(number, class)| {
            *class == sent.item.class && sent.version < DeletionVersion(number as u64 + 1)
        })
    }

    /// A client writes one item to each of these shards, through this node. Gives the request's number.
    pub(crate) fn write(&mut self, index: usize, shards: &ShardSet, timeout_ms: u64) -> u64 {
        let request = self.client.fresh();
        let Some(core) = &self.nodes[index].core else {
            return request;
        };
        if !self.nodes[index].takes_items {
            // It would stamp the request with deletions from before its stop, so it refuses it.
            return request;
        }
        let groups = core.routing().groups().to_vec();
        let known = self.nodes[index].known_deletion;
        let mut parcels = Vec::new();
        let mut ids = Vec::new();
        for group in groups {
            let here = group.shards.intersection(shards);
            let mut items = Vec::new();
            for shard in here.iter() {
                let item = Item {
                    id: self.client.sent.len() as u32,
                    shard,
                    class: self.dice.below(3) as u8,
                    at: self.dice.below(2) as i64 * crate::store::WINDOW + 1000,
                };
                ids.push(item.id);
                items.push(item);
                self.client.sent.push(Sent {
                    item,
                    version: known,
                    acknowledged: false,
                });
            }
            if !items.is_empty() {
                parcels.push((here, Bytes::from(encode(&items))));
            }
        }
        if parcels.is_empty() {
            return request;
        }
        self.client.writes.insert(RequestId(request), (index, ids));
        let request_event = WriteRequest {
            request: RequestId(request),
            tenant: TENANT,
            signal: Signal::Metrics,
            deletion: known,
            parcels,
            deadline: self.now + Duration::from_millis(timeout_ms),
        };
        self.feed(index, Event::Write(request_event));
        request
    }

    /// A client asks for all shards and these times, through this node.
    pub(crate) fn query(&mut self, index: usize, range: TimeRange) -> u64 {
        let id = self.client.fresh();
        if !self.nodes[index].is_up() {
            return id;
        }
        let must = self.client.sent.iter().filter(|sent| sent.acknowledged);
        let must = must.filter(|sent| range.contains(sent.item.at));
        let query = OpenQuery {
            coordinator: index,
            range,
            must: must.map(|sent| sent.item.id).collect(),
            pending: Vec::new(),
            excluded: Vec::new(),
            complete: ShardSet::new(),
            items: BTreeSet::new(),
            tries: 0,
        };
        self.client.queries.insert(id, query);
        let shards = self.shards();
        self.plan(id, &shards);
        id
    }

    fn plan(&mut self, id: u64, shards: &ShardSet) {
        const TRIES: u32 = 6;
        let Some(query) = self.client.queries.get_mut(&id) else {
            return;
        };
        query.tries += 1;
        let index = query.coordinator;
        let here = self.nodes[index].id;
        let parts = match &self.nodes[index].core {
            Some(core) if query.tries <= TRIES => {
                let up = |node| !self.cut.contains(&(here, node));
                core.routing().plan(here, shards, &query.excluded, up).parts
            }
            _ => Vec::new(),
        };
        for (evaluator, part_shards) in parts {
            let part = QueryId(self.client.fresh());
            self.client.parts.insert(part, id);
            if let Some(query) = self.client.queries.get_mut(&id) {
                query.pending.push((part, evaluator, part_shards.clone()));
            }
            let at = self.index(evaluator);
            if at == index {
                self.on_ticket(Ticket::Ask(part, at, part_shards));
            } else if !self.is_cut(here, evaluator) {
                let delay = Duration::from_micros(self.dice.within(100, 2000));
                self.after(delay, What::Client(Ticket::Ask(part, at, part_shards)));
            }
            self.after(Duration::from_millis(250), What::Client(Ticket::Late(part)));
        }
        self.finish_query(id);
    }

    pub(crate) fn on_ticket(&mut self, ticket: Ticket) {
        match ticket {
            Ticket::Ask(part, index, shards) => {
                let Some(range) = self.client.range_of(part) else {
                    return;
                };
                let request = QueryRequest {
                    query: part,
                    shards,
                    range,
                    deadline: self.now + Duration::from_millis(200),
                };
                self.feed(index, Event::Query(request));
            }
            Ticket::Part {
                query: part,
                evaluator,
                complete,
                refused,
                items,
            } => {
                let Some(id) = self.client.parts.remove(&part) else {
                    return;
                };
                let Some(query) = self.client.queries.get_mut(&id) else {
                    return;
                };
                query.pending.retain(|(pending, _, _)| *pending != part);
                query.complete = query.complete.union(&complete);
                query.items.extend(items);
                if refused.is_empty() {
                    self.finish_query(id);
                } else {
                    query.excluded.push((evaluator, refused.clone()));
                    self.plan(id, &refused);
                }
            }
            Ticket::Late(part) => {
                let Some(id) = self.client.parts.remove(&part) else {
                    return;
                };
                let Some(query) = self.client.queries.get_mut(&id) else {
                    return;
                };
                let late = query
                    .pending
                    .iter()
                    .position(|(pending, _, _)| *pending == part);
                if let Some(at) = late {
                    let (_, evaluator, shards) = query.pending.remove(at);
                    query.excluded.push((evaluator, shards.clone()));
                    self.plan(id, &shards);
                }
            }
        }
    }

    /// Checks D2 on an answer.
    fn finish_query(&mut self, id: u64) {
        let open = self.client.queries.get(&id);
        if open.is_none_or(|query| !query.pending.is_empty()) {
            return;
        }
        let Some(query) = self.client.queries.remove(&id) else {
            return;
        };
        let whole = query.complete == self.shards();
        self.client.answered += u64::from(whole);
        self.client.partial += u64::from(!whole);
        for must in &query.must {
            let sent = self.client.sent[*must as usize];
            let due = query.complete.contains(sent.item.shard) && !self.is_deleted(&sent);
            if due && !query.items.contains(&sent.item) {
                self.client.broken.get_or_insert(format!(
                    "D2: query {id} at node {} lacks acknowledged {:?} at {:?}",
                    query.coordinator + 1,
                    sent.item,
                    self.now,
                ));
            }
        }
        for item in &query.items {
            let known = self.client.sent.get(item.id as usize);
            if known.is_none_or(|sent| sent.item != *item) {
                self.client
                    .broken
                    .get_or_insert(format!("D2: {item:?} was never sent"));
            }
        }
    }
}
