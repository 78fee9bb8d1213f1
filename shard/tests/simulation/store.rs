//! What a node stores, in the small: items in a head and in blocks, with deletions that erase what is older than they are.

use std::collections::{BTreeMap, BTreeSet};
use trefoil_model::{DeletionVersion, Millis, ShardId, ShardSet, TimeRange};

/// One item. Its id is unique in a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Item {
    pub(crate) id: u32,
    pub(crate) shard: ShardId,
    /// What deletions select by.
    pub(crate) class: u8,
    pub(crate) at: Millis,
}

/// Bytes of an item in a parcel's body.
const ITEM_BYTES: usize = 9;

/// The length of a window here.
pub(crate) const WINDOW: Millis = trefoil_model::WINDOW_MILLIS;

impl Item {
    pub(crate) fn window(&self) -> TimeRange {
        let start = self.at.div_euclid(WINDOW) * WINDOW;
        TimeRange {
            start,
            end: start + WINDOW,
        }
    }
}

/// A parcel's body.
pub(crate) fn encode(items: &[Item]) -> Vec<u8> {
    let mut body = Vec::with_capacity(items.len() * ITEM_BYTES);
    for item in items {
        body.extend_from_slice(&item.id.to_le_bytes());
        body.extend_from_slice(&item.shard.0.to_le_bytes());
        body.push(item.class);
        body.extend_from_slice(&((item.at / 1000) as u16).to_le_bytes());
    }
    body
}

/// The items of a parcel's body.
pub(crate) fn decode(body: &[u8]) -> impl Iterator<Item = Item> + '_ {
    body.chunks_exact(ITEM_BYTES).map(|b| Item {
        id: u32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        shard: ShardId(u16::from_le_bytes([b[4], b[5]])),
        class: b[6],
        at: Millis::from(u16::from_le_bytes([b[7], b[8]])) * 1000,
    })
}

/// An immutable block of one window.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    id: u64,
    pub(crate) items: BTreeSet<Item>,
    /// The shards of the items that it was written with, without those that have ended since.
    shards: ShardSet,
    /// All deletions up to this are applied to it.
    version: DeletionVersion,
    range: TimeRange,
    readable: bool,
}

impl Block {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    fn is_damage(&self, shards: &ShardSet, range: TimeRange) -> bool {
        let touched = !self.shards.intersection(shards).is_empty();
        !self.readable && touched && self.range.overlaps(&range)
    }

    pub(crate) fn version(&self) -> DeletionVersion {
        self.version
    }

    pub(crate) fn break_it(&mut self) {
        self.readable = false;
    }

    pub(crate) fn is_readable(&self) -> bool {
        self.readable || self.shards.is_empty()
    }

    /// By tombstones, which are never lifted.
    pub(crate) fn drop_shards(&mut self, shards: &ShardSet) {
        self.items.retain(|item| !shards.contains(item.shard));
        self.shards = self.shards.difference(shards);
    }
}

/// A block that cannot be read: what it held.
#[derive(Clone, Debug)]
pub(crate) struct Lost {
    pub(crate) block: u64,
    pub(crate) shards: ShardSet,
    pub(crate) range: TimeRange,
}

/// A node's store. Only the blocks survive a crash, as the manifest last had them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    head: Vec<(Item, DeletionVersion)>,
    pub(crate) blocks: Vec<Block>,
    last_block: u64,
    /// Which class each deletion deletes.
    deletions: BTreeMap<DeletionVersion, u8>,
    /// The newest deletion that was known, forgotten or not.
    newest: DeletionVersion,
    /// Deletions up to this one are forgotten: a message that comes late does not bring them back.
    forgotten: DeletionVersion,
}

impl Store {
    /// The store as a restart finds it.
    pub(crate) fn with_blocks(blocks: Vec<Block>) -> Self {
        Self {
            last_block: blocks
                .iter()
                .map(|block| block.id)
                .max()
                .unwrap_or_default(),
            blocks,
            ..Self::default()
        }
    }

    /// Whether a known deletion erases an item of this version.
    fn is_deleted(&self, item: &Item, version: DeletionVersion) -> bool {
        let mut later = self.deletions.range(version.next()..);
        later.any(|(_, class)| *class == item.class)
    }

    pub(crate) fn apply(&mut self, accepted: &ShardSet, version: DeletionVersion, body: &[u8]) {
        for item in decode(body).filter(|item| accepted.contains(item.shard)) {
            if !self.is_deleted(&item, version) {
                self.head.push((item, version));
            }
        }
    }

    /// The newest deletion that everything here has applied.
    pub(crate) fn newest(&self) -> DeletionVersion {
        self.newest
    }

    /// Takes the newest deletion, and that those up to `forgotten` are not to be applied any more.
    pub(crate) fn forget(&mut self, newest: DeletionVersion, forgotten: DeletionVersion) {
        self.newest = newest.max(self.newest);
        self.forgotten = forgotten.max(self.forgotten);
        self.deletions.retain(|version, _| *version > forgotten);
    }

    pub(crate) fn learn(&mut self, version: DeletionVersion, class: u8) {
        self.newest = version.max(self.newest);
        if version <= self.forgotten {
            return;
        }
        if self.deletions.insert(version, class).is_some() {
            return;
        }
        self.head
            .retain(|(item, of)| *of >= version || item.class != class);
    }

    /// Takes what is deleted out of the blocks, which takes its time: until then they hide it.
    pub(crate) fn rewrite(&mut self) {
        for block in self.blocks.iter_mut().filter(|block| block.readable) {
            let deletions = self.deletions.range(block.version.next()..);
            let classes: BTreeSet<u8> = deletions.map(|(_, class)| *class).collect();
            block.items.retain(|item| !classes.contains(&item.class));
            block.version = self.newest.max(block.version);
        }
    }

    pub(crate) fn drop_shards(&mut self, shards: &ShardSet) {
        self.head.retain(|(item, _)| !shards.contains(item.shard));
        for block in &mut self.blocks {
            block.drop_shards(shards);
        }
    }

    /// The head becomes blocks, one per window.
    pub(crate) fn flush(&mut self) {
        let known = self.newest;
        let mut windows: BTreeMap<Millis, (BTreeSet<Item>, DeletionVersion)> = BTreeMap::new();
        for (item, version) in self.head.drain(..) {
            let window = windows.entry(item.window().start).or_default();
            window.0.insert(item);
            window.1 = window.1.max(version).max(known);
        }
        for (start, (items, version)) in windows {
            self.last_block += 1;
            self.blocks.push(Block {
                id: self.last_block,
                shards: items.iter().map(|item| item.shard).collect(),
                items,
                version,
                range: TimeRange {
                    start,
                    end: start + WINDOW,
                },
                readable: true,
            });
        }
    }

    /// Makes a block that holds something unreadable.
    pub(crate) fn damage(&mut self, which: usize) -> Option<u64> {
        let mut full: Vec<&mut Block> = self
            .blocks
            .iter_mut()
            .filter(|block| block.readable && !block.items.is_empty())
            .collect();
        let count = full.len();
        let block = full.get_mut(which % count.max(1))?;
        block.readable = false;
        Some(block.id)
    }

    /// Whether reading these would meet an unreadable block.
    pub(crate) fn meets_damage(&self, shards: &ShardSet, range: TimeRange) -> bool {
        self.blocks
            .iter()
            .any(|block| block.is_damage(shards, range))
    }

    /// Puts an unreadable block that holds something of these away, as whoever reads it notices.
    pub(crate) fn notice(&mut self, shards: &ShardSet, range: TimeRange) -> Option<Lost> {
        let damaged = |block: &Block| block.is_damage(shards, range);
        let at = self.blocks.iter().position(damaged)?;
        let block = self.blocks.remove(at);
        Some(Lost {
            block: block.id,
            shards: block.shards,
            range: block.range,
        })
    }

    /// All readable items of these shards and times.
    pub(crate) fn read(&self, shards: &ShardSet, range: TimeRange) -> impl Iterator<Item = Item> {
        let readable = self.blocks.iter().filter(|block| block.readable);
        let blocks = readable.flat_map(|block| {
            let items = block.items.iter().copied();
            items.filter(|item| !self.is_deleted(item, block.version))
        });
        let all = blocks.chain(self.head.iter().map(|(item, _)| *item));
        all.filter(move |item| shards.contains(item.shard) && range.contains(item.at))
    }
}
