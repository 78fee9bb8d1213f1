//! The state of one shard on four nodes, small enough to be copied and hashed millions of times.
//!
//! A journal is the list of its records since the replica's tenure began; an offset counts records over all
//! tenures. Blocks need no place of their own: what a node's blocks hold up to a position is what its
//! journal held up to there, so a flush only raises the floor below which records cannot be listed one by
//! one any more.

use std::fmt;
use std::hash::{Hash, Hasher};

/// How many nodes there are: three owners and a spare.
pub(crate) const NODES: usize = 4;
/// Most records that a journal holds in one tenure. A step that would need more does not happen;
/// [`crate::explorer::Search::clipped`] counts those.
pub(crate) const RECORDS_MAX: usize = 6;
/// Most rows that the placement table goes through.
pub(crate) const ROWS_MAX: usize = 9;

/// A node, `0..NODES`.
pub(crate) type Node = usize;
/// The number of a configuration: an index into [`State::rows`].
pub(crate) type Number = u8;

/// A set of nodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct NodeSet(pub u8);

impl NodeSet {
    pub(crate) const ABC: Self = Self(0b0111);
    pub(crate) const ABD: Self = Self(0b1011);
    pub(crate) const ACD: Self = Self(0b1101);

    pub(crate) fn has(self, node: Node) -> bool {
        self.0 >> node & 1 == 1
    }

    pub(crate) fn insert(&mut self, node: Node) {
        self.0 |= 1 << node;
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(crate) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn without(self, node: Node) -> Self {
        Self(self.0 & !(1 << node))
    }

    pub(crate) fn len(self) -> u32 {
        self.0.count_ones()
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Node> {
        (0..NODES).filter(move |node| self.has(*node))
    }

    /// Whether `some` of these have a majority.
    pub(crate) fn has_majority(self, some: Self) -> bool {
        some.and(self).len() > self.len() / 2
    }

    /// Whether `some` of these meet every majority.
    pub(crate) fn meets_every_majority(self, some: Self) -> bool {
        some.and(self).len() + self.len() / 2 >= self.len()
    }
}

impl fmt::Debug for NodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter()
            .try_for_each(|node| write!(f, "{}", node_name(node)))
    }
}

/// The name of a node in counter-examples.
pub(crate) fn node_name(node: Node) -> char {
    ['A', 'B', 'C', 'D'][node]
}

/// A set of items; there are at most two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub(crate) struct Items(pub u8);

impl Items {
    pub(crate) fn one(write: usize) -> Self {
        Self(1 << write)
    }

    pub(crate) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// A place in a journal of one lineage: how many records lie before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Position {
    pub(crate) lineage: u8,
    pub(crate) offset: u8,
}

/// One record of a journal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Record {
    /// A parcel that was pushed by a coordinator, or fetched from a peer that held it.
    Parcel(Items),
    /// "Content of `source` up to `covered`": a copy of blocks.
    Import {
        source: u8,
        covered: Position,
        items: Items,
    },
}

impl Record {
    pub(crate) fn items(self) -> Items {
        match self {
            Self::Parcel(items) | Self::Import { items, .. } => items,
        }
    }
}

/// The records of a replica's present tenure.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Journal {
    /// Records of earlier tenures.
    pub(crate) base: u8,
    records: [Option<Record>; RECORDS_MAX],
    length: u8,
}

impl Journal {
    /// The place behind the last record.
    pub(crate) fn end(&self) -> u8 {
        self.base + self.length
    }

    /// The records behind a place, with what is before the tenure left out.
    pub(crate) fn behind(&self, offset: u8) -> impl Iterator<Item = Record> + '_ {
        let skip = usize::from(offset.saturating_sub(self.base));
        self.records[..usize::from(self.length)]
            .iter()
            .skip(skip)
            .flatten()
            .copied()
    }

    /// Whether a record was appended; it is not when the journal is full.
    #[must_use]
    pub(crate) fn append(&mut self, record: Record) -> bool {
        let Some(slot) = self.records.get_mut(usize::from(self.length)) else {
            return false;
        };
        *slot = Some(record);
        self.length += 1;
        true
    }

    /// The items of all records.
    pub(crate) fn items(&self) -> Items {
        self.behind(self.base)
            .fold(Items::default(), |all, record| all.or(record.items()))
    }

    /// The items that came as parcels: their numbers are held.
    pub(crate) fn held(&self) -> Items {
        let parcel = |record| match record {
            Record::Parcel(items) => items,
            Record::Import { .. } => Items::default(),
        };
        self.behind(self.base)
            .map(parcel)
            .fold(Items::default(), Items::or)
    }

    /// The journal after its replica was dropped.
    pub(crate) fn dropped(&self) -> Self {
        Self {
            base: self.end(),
            ..Self::default()
        }
    }
}

impl Hash for Journal {
    /// Only what is in use: most of a state would otherwise be empty places.
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u8(self.base);
        self.records[..usize::from(self.length)].hash(hasher);
    }
}

/// The trust in a replica.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub(crate) enum Trust {
    /// There is no replica.
    #[default]
    None,
    Serving,
    /// A new owner that never lost anything.
    Joining,
    /// It may lack what it acknowledged.
    Amnesiac,
}

/// One node's replica.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Replica {
    /// The number that the node follows, durably.
    pub(crate) follows: Number,
    pub(crate) trust: Trust,
    pub(crate) journal: Journal,
    /// Records before this place can only be copied as blocks.
    pub(crate) floor: u8,
    /// The lineage of the node's journal.
    pub(crate) lineage: u8,
    /// The owners with which it has caught up since it follows its number.
    pub(crate) caught_up_with: NodeSet,
    /// How far it has the other nodes' journals.
    pub(crate) positions: [Option<Position>; NODES],
    /// Items that lie in blocks without a record: only under [`crate::rules::Fault::ImportsUnlisted`].
    pub(crate) unlisted: Items,
}

impl Replica {
    /// What an evaluation would see.
    pub(crate) fn content(&self) -> Items {
        self.journal.items().or(self.unlisted)
    }

    /// The end of the journal.
    pub(crate) fn end(&self) -> Position {
        Position {
            lineage: self.lineage,
            offset: self.journal.end(),
        }
    }
}

/// One row of the placement table: owners before and after a change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub(crate) struct Row {
    pub(crate) old: NodeSet,
    pub(crate) new: NodeSet,
}

impl Row {
    pub(crate) fn simple(owners: NodeSet) -> Self {
        Self {
            old: owners,
            new: owners,
        }
    }

    pub(crate) fn is_joint(self) -> bool {
        self.old != self.new
    }

    pub(crate) fn owners(self) -> NodeSet {
        self.old.or(self.new)
    }
}

/// A client's write and the coordinator that tries it now.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Write {
    /// The number under which the coordinator pushes; it may be stale.
    pub(crate) number: Option<Number>,
    /// The owners that acknowledged under it.
    pub(crate) holders: NodeSet,
    /// Whether the client was told that the write is safe.
    pub(crate) acknowledged: bool,
}

/// Everything.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) replicas: [Replica; NODES],
    /// The table's rows so far; the last is in force.
    rows: [Row; ROWS_MAX],
    rows_length: u8,
    pub(crate) writes: [Write; 2],
    pub(crate) changes_begun: u8,
    pub(crate) losses: u8,
    pub(crate) trims: u8,
    pub(crate) crashes: u8,
}

impl State {
    /// The first `owners` nodes own the shard; their replicas are born Serving and share empty journals.
    pub(crate) fn new(owners: u8) -> Self {
        let set = NodeSet((1 << owners) - 1);
        let mut replicas = [Replica::default(); NODES];
        for node in set.iter() {
            replicas[node].trust = Trust::Serving;
            for peer in set.iter() {
                replicas[node].positions[peer] = Some(Position {
                    lineage: 0,
                    offset: 0,
                });
            }
        }
        let mut rows = [Row::default(); ROWS_MAX];
        rows[0] = Row::simple(set);
        Self {
            replicas,
            rows,
            rows_length: 1,
            writes: [Write::default(); 2],
            changes_begun: 0,
            losses: 0,
            trims: 0,
            crashes: 0,
        }
    }

    /// The number of the row in force.
    pub(crate) fn last(&self) -> Number {
        self.rows_length - 1
    }

    pub(crate) fn row(&self, number: Number) -> Row {
        self.rows[usize::from(number)]
    }

    /// Puts a row in force. There is room: the bounds of every search see to it.
    pub(crate) fn push_row(&mut self, row: Row) {
        self.rows[usize::from(self.rows_length)] = row;
        self.rows_length += 1;
    }

    /// What clients were told is safe.
    pub(crate) fn acknowledged(&self) -> Items {
        let writes = self
            .writes
            .iter()
            .enumerate()
            .filter(|(_, write)| write.acknowledged);
        writes.fold(Items::default(), |all, (index, _)| {
            all.or(Items::one(index))
        })
    }

    /// The same state with the nodes renamed: node `i` becomes `names[i]`.
    pub(crate) fn renamed(&self, names: &[Node; NODES]) -> Self {
        let set = |set: NodeSet| NodeSet(set.iter().fold(0, |all, node| all | 1 << names[node]));
        let mut renamed = *self;
        for (node, replica) in self.replicas.iter().enumerate() {
            let target = &mut renamed.replicas[names[node]];
            *target = *replica;
            target.caught_up_with = set(replica.caught_up_with);
            for (peer, position) in replica.positions.iter().enumerate() {
                target.positions[names[peer]] = *position;
            }
            for record in target.journal.records.iter_mut().flatten() {
                if let Record::Import { source, .. } = record {
                    *source = names[usize::from(*source)] as u8;
                }
            }
        }
        for row in &mut renamed.rows[..usize::from(self.rows_length)] {
            *row = Row {
                old: set(row.old),
                new: set(row.new),
            };
        }
        for write in &mut renamed.writes {
            write.holders = set(write.holders);
        }
        renamed
    }
}
