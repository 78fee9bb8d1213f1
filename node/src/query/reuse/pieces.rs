//! The pieces that are kept, by question and stretch, and which of them goes first.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use trefoil_model::{Millis, ShardSet, TenantId, Window};
use trefoil_query_promql::{PartKey, Piece};
use trefoil_store_metrics::Stamp;

/// Memory that a piece takes beside its content, in the maps, about.
const PIECE_BYTES: usize = 200;

/// What was asked, but for the first and the last time.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    pub(super) tenant: TenantId,
    pub(super) shards: ShardSet,
    pub(super) part: PartKey,
}

/// An answer for some times of a stretch.
pub(super) struct Kept {
    /// The first of its times.
    pub(super) start: Millis,
    /// The first and the last of the windows that it depends on.
    pub(super) windows: (Window, Window),
    /// What they had.
    pub(super) stamp: Stamp,
    pub(super) piece: Piece,
}

struct Slot {
    kept: Arc<Kept>,
    bytes: usize,
    /// When it was last used, in uses of any piece.
    used: u64,
}

/// All pieces.
#[derive(Default)]
pub(super) struct Pieces {
    of_questions: HashMap<Arc<Question>, BTreeMap<i64, Slot>>,
    /// By their last uses.
    order: BTreeMap<u64, (Arc<Question>, i64)>,
    uses: u64,
    bytes: usize,
}

impl Pieces {
    /// How many there are, and their memory.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.order.len(), self.bytes)
    }

    /// All questions of which something is kept.
    #[cfg(test)]
    pub(super) fn questions(&self) -> impl Iterator<Item = &Arc<Question>> {
        self.of_questions.keys()
    }

    /// The pieces of these stretches, which are the ones used last from now on.
    pub(super) fn take_up(
        &mut self,
        question: &Arc<Question>,
        stretches: impl Iterator<Item = i64>,
    ) -> Vec<Option<Arc<Kept>>> {
        let Some(slots) = self.of_questions.get_mut(question) else {
            return stretches.map(|_| None).collect();
        };
        let (order, uses) = (&mut self.order, &mut self.uses);
        let take_up = |stretch: i64| {
            let slot = slots.get_mut(&stretch)?;
            if let Some(place) = order.remove(&slot.used) {
                *uses += 1;
                slot.used = *uses;
                order.insert(*uses, place);
            }
            Some(Arc::clone(&slot.kept))
        };
        stretches.map(take_up).collect()
    }

    /// Takes these pieces away, if they are still there.
    pub(super) fn remove(&mut self, question: &Arc<Question>, pieces: &[(i64, Arc<Kept>)]) {
        for (stretch, kept) in pieces {
            let slots = self.of_questions.get(question);
            let slot = slots.and_then(|slots| slots.get(stretch));
            if slot.is_some_and(|slot| Arc::ptr_eq(&slot.kept, kept)) {
                self.take_away(question, *stretch);
            }
        }
    }

    /// Takes all pieces of a question away.
    pub(super) fn forget(&mut self, question: &Arc<Question>) {
        let slots = self.of_questions.get(question);
        let stretches: Vec<i64> = slots.into_iter().flatten().map(|(at, _)| *at).collect();
        for stretch in stretches {
            self.take_away(question, stretch);
        }
    }

    /// Keeps a piece in place of the one of the same stretch, unless that is of the same state and longer. Those used longest
    /// ago go until all together take at most `bytes_max`.
    pub(super) fn insert(
        &mut self,
        question: &Arc<Question>,
        stretch: i64,
        kept: Kept,
        bytes_max: usize,
    ) {
        let slots = self.of_questions.get(question);
        if let Some(slot) = slots.and_then(|slots| slots.get(&stretch)) {
            let other = &slot.kept;
            let is_same = other.windows == kept.windows && other.stamp == kept.stamp;
            if is_same && other.piece.steps() > kept.piece.steps() {
                return;
            }
            self.take_away(question, stretch);
        }
        let bytes = PIECE_BYTES + kept.piece.bytes();
        self.uses += 1;
        let slot = Slot {
            kept: Arc::new(kept),
            bytes,
            used: self.uses,
        };
        let known = self.of_questions.get_key_value(question);
        let question = known.map_or(question, |(known, _)| known).clone();
        self.order
            .insert(self.uses, (Arc::clone(&question), stretch));
        self.bytes += bytes;
        if !self.of_questions.contains_key(&question) {
            self.bytes += question_bytes(&question);
        }
        let slots = self.of_questions.entry(question).or_default();
        slots.insert(stretch, slot);
        while self.bytes > bytes_max {
            let Some((_, (question, stretch))) = self.order.first_key_value() else {
                break;
            };
            let (question, stretch) = (Arc::clone(question), *stretch);
            self.take_away(&question, stretch);
        }
    }

    fn take_away(&mut self, question: &Arc<Question>, stretch: i64) {
        let Some(slots) = self.of_questions.get_mut(question) else {
            return;
        };
        if let Some(slot) = slots.remove(&stretch) {
            self.order.remove(&slot.used);
            self.bytes -= slot.bytes;
        }
        if slots.is_empty() {
            self.of_questions.remove(question);
            self.bytes -= question_bytes(question);
        }
    }
}

fn question_bytes(question: &Question) -> usize {
    PIECE_BYTES + question.part.bytes() + size_of_val(question.shards.words())
}
