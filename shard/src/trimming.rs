//! How much of the journal is kept: what a restart needs, what peers that are behind need within a budget
//! of bytes, and what stands behind a view that is being copied.

use crate::{Action, Offset, Replication, replication::Step};

impl Replication {
    /// Raises the floor as far as nobody minds.
    pub(crate) fn trim(&mut self, step: &mut Step<'_>) {
        let budget = self.settings.journal_bytes_max;
        let over_budget = Offset(self.journal.end.0.saturating_sub(budget));
        let mut below = self.journal.flushed;
        for node in self.rows.peers_of(self.me.node) {
            let kept = self.peers.get(&node).and_then(|peer| peer.kept);
            below = below.min(kept.unwrap_or(self.journal.floor));
        }
        below = below.max(over_budget).min(self.journal.flushed);
        let pinned = self.exports.needs_behind();
        if let Some(pinned) = pinned.filter(|_| !self.faults.pinned_trimmed) {
            below = below.min(pinned);
        }
        if below > self.journal.floor {
            self.journal.trim(below);
            step.out.push(Action::Trim { below });
        }
    }
}
