//! What one node's core says to its driver around a restart and around a lost block: one replica, no peers, a
//! journal that is durable when the test says so.

mod comparing;
mod copying;
mod deadlines;
mod deletions;

use std::{collections::BTreeMap, sync::Arc, time::Duration};
use trefoil_model::{
    ClusterId, Configuration, ConfigurationNumber, DeletionVersion, Incarnation, LineageId, NodeId,
    OwnerRecord, OwnerSet, PlacementTable, ShardEntry, ShardId, ShardSet, TenantId, TimeRange,
};
use trefoil_shard::{
    Action, Event, Faults, Identity, JournalPort, Loss, Offset, Proposal, Record, RecoveredJournal,
    Recovery, Replication, Settings, Span,
};

const NODE: NodeId = NodeId(1);
const LINEAGE: LineageId = LineageId(7);
const TENANT: TenantId = TenantId(1);
const WINDOW: TimeRange = TimeRange {
    start: 0,
    end: 7_200_000,
};

#[derive(Default)]
struct Journal {
    records: Vec<(Span, Record)>,
}

impl Journal {
    fn end(&self) -> Offset {
        self.records.last().map_or(Offset(0), |(span, _)| span.end)
    }
}

impl JournalPort for Journal {
    fn append(&mut self, record: Record) -> Span {
        let start = self.end();
        let end = Offset(start.0 + 10);
        let span = Span { start, end };
        self.records.push((span, record));
        span
    }
}

/// A node and what it has asked for.
struct Node {
    core: Replication,
    journal: Journal,
    actions: Vec<Action>,
    now: Duration,
}

impl Node {
    fn start(mut journal: Journal, found: RecoveredJournal, loss: Loss) -> Self {
        let (settings, faults) = (Settings::default(), Faults::default());
        let mut recovery = Recovery::new(settings, faults, NODE, None).expect("nothing is read");
        for (span, record) in &journal.records {
            recovery.replay(*span, record);
        }
        let identity = Identity {
            cluster: ClusterId(1),
            node: NODE,
            incarnation: Incarnation(u128::from(found.end.0) + 1),
        };
        let mut actions = Vec::new();
        let now = Duration::ZERO;
        let core = recovery.finish(now, identity, found, loss, &mut journal, &mut actions);
        Self {
            core,
            journal,
            actions,
            now: Duration::from_secs(1),
        }
    }

    fn fresh() -> Self {
        let found = found(0, 0, 0);
        Self::start(Journal::default(), found, Loss::Fresh(LINEAGE))
    }

    fn feed(&mut self, event: Event) {
        self.core
            .step(self.now, event, &mut self.journal, &mut self.actions);
    }

    fn sync(&mut self) {
        let end = self.journal.end();
        self.feed(Event::Durable { end });
        self.feed(Event::Applied { end });
    }

    /// The metadata plane says that the node owns one shard alone, and which deletion is the newest.
    fn learn(&mut self, number: u64, lineage: LineageId, deletion: u64) {
        self.learn_owners(&[NODE], number, lineage, deletion);
    }

    fn learn_owners(&mut self, nodes: &[NodeId], number: u64, lineage: LineageId, deletion: u64) {
        let owners: OwnerSet = nodes.iter().copied().collect();
        let record = |node: &NodeId| {
            let own = *node == NODE;
            let record = OwnerRecord {
                lineage: if own { lineage } else { LINEAGE },
                counts_from: ConfigurationNumber(if own { number } else { 1 }),
                born_serving: !own || number == 1,
            };
            (*node, record)
        };
        let entry = ShardEntry {
            configuration: Configuration {
                number: ConfigurationNumber(number),
                old: owners.clone(),
                new: owners,
            },
            owners: nodes.iter().map(record).collect(),
        };
        self.feed(Event::Metadata {
            table: Arc::new(PlacementTable {
                shards: vec![entry],
            }),
            deletions: Arc::new(BTreeMap::from([(TENANT, DeletionVersion(deletion))])),
        });
    }

    fn proposed_lineage(&self) -> Option<LineageId> {
        self.actions.iter().find_map(|action| match action {
            Action::Propose(Proposal::RecordAmnesia { lineage, .. }) => Some(*lineage),
            _ => None,
        })
    }

    fn repaired(&self) -> bool {
        let repaired = Action::Repaired {
            shards: shard(),
            range: WINDOW,
        };
        self.actions.contains(&repaired)
    }
}

fn found(floor: u64, end: u64, flushed: u64) -> RecoveredJournal {
    RecoveredJournal {
        floor: Offset(floor),
        end: Offset(end),
        flushed: Offset(flushed),
    }
}

fn shard() -> ShardSet {
    ShardSet::from_iter([ShardId(0)])
}

/// A journal in which one replica was born, serving.
fn journal_of_a_replica() -> Journal {
    let mut node = Node::fresh();
    node.learn(1, LINEAGE, 4);
    node.sync();
    assert_eq!(node.core.status().serving, shard());
    node.journal
}

#[test]
fn a_journal_that_begins_behind_the_blocks_was_lost_in_part() {
    for (flushed, lost) in [(20, false), (10, true)] {
        let journal = journal_of_a_replica();
        let found = found(20, journal.end().0, flushed);
        let mut node = Node::start(journal, found, Loss::None);
        node.learn(1, LINEAGE, 4);
        node.sync();
        let serving = node.core.status().serving;
        assert_eq!(serving.is_empty(), lost, "flushed to {flushed}");
        assert_eq!(node.proposed_lineage().is_some(), lost);
    }
}

#[test]
fn nothing_is_flushed_before_deletions_are_known_again() {
    let journal = journal_of_a_replica();
    let found = found(0, journal.end().0, 0);
    let mut node = Node::start(journal, found, Loss::None);
    node.sync();
    assert_eq!(node.core.checkpoint(), None, "deletion 4 was known");
    node.learn(1, LINEAGE, 3);
    assert_eq!(node.core.checkpoint(), None);
    node.learn(1, LINEAGE, 4);
    assert!(node.core.checkpoint().is_some());
}

#[test]
fn a_repair_is_said_once_it_is_durable() {
    let journal = journal_of_a_replica();
    let found = found(0, journal.end().0, 0);
    let mut node = Node::start(journal, found, Loss::None);
    node.learn(1, LINEAGE, 4);
    node.sync();
    node.feed(Event::Damaged {
        shards: ShardSet::all(2),
        range: WINDOW,
    });
    let gone = Action::Repaired {
        shards: ShardSet::from_iter([ShardId(1)]),
        range: WINDOW,
    };
    assert!(node.actions.contains(&gone), "shard 1 is nowhere wanted");
    assert_eq!(node.core.damaged(WINDOW), shard());
    let lineage = node.proposed_lineage().expect("a loss is recorded");
    // Nobody else has it: when the loss is recorded, what is left is all that there is.
    node.sync();
    node.learn(2, lineage, 4);
    assert!(!node.repaired(), "it is not durable");
    assert_eq!(node.core.damaged(WINDOW), shard());
    node.sync();
    assert!(node.repaired());
    assert_eq!(node.core.damaged(WINDOW), ShardSet::new());
}
