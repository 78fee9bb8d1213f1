//! When this node may say that a deletion is applied to everything that it stores.
//!
//! What is confirmed by all owners is forgotten, and then nothing may hold an item that the deletion would still
//! have to erase: no block, no head, and no parcel in the journal that a peer could fetch or a restart could replay.
//!
//! ```text
//! learnt --GRACE--> everything under an older version has arrived: note the journal's end
//!                   --> the journal's floor is above it, all blocks carry the version --> confirmed
//! ```
//! In memory only: a restart learns the deletions again and begins anew.

use super::{DataPlane, MetadataWish};
use crate::clock;
use parking_lot::Mutex;
use std::{collections::BTreeMap, time::Duration};
use trefoil_model::{DeletionVersion, TenantId};
use trefoil_shard::{Message, Offset};
use trefoil_store_blocks::VisibleBlock;

/// How long requests may be under way that were stamped before their coordinator learnt of a deletion. What is
/// later than that is refused once the deletion is forgotten, so nothing hangs on it but a client's retry.
const GRACE: Duration = Duration::from_secs(30);

/// The deletions that wait for this node, and those that nobody waits for any more.
#[derive(Default)]
pub(super) struct Deletions {
    /// By tenant, the newest deletion that this node has not confirmed.
    waiting: Mutex<BTreeMap<TenantId, Waiting>>,
    /// By tenant, up to where deletions are forgotten.
    forgotten: Mutex<BTreeMap<TenantId, DeletionVersion>>,
}

struct Waiting {
    version: DeletionVersion,
    learnt_at: Duration,
    /// The end of the journal after the grace.
    below: Option<Offset>,
}

impl Deletions {
    /// Takes what the metadata plane says: the newest deletion of each tenant that this node has not confirmed,
    /// and up to where deletions are forgotten.
    pub(super) fn learn(
        &self,
        now: Duration,
        unconfirmed: &BTreeMap<TenantId, DeletionVersion>,
        forgotten: BTreeMap<TenantId, DeletionVersion>,
    ) {
        let mut waiting = self.waiting.lock();
        waiting.retain(|tenant, known| unconfirmed.get(tenant) == Some(&known.version));
        for (tenant, version) in unconfirmed {
            waiting.entry(*tenant).or_insert(Waiting {
                version: *version,
                learnt_at: now,
                below: None,
            });
        }
        *self.forgotten.lock() = forgotten;
    }

    /// The deletions that are applied to everything now. `end` and `floor` are the journal's; `in_blocks` says
    /// whether all blocks carry a version.
    pub(super) fn applied(
        &self,
        now: Duration,
        end: Offset,
        floor: Offset,
        in_blocks: impl Fn(TenantId, DeletionVersion) -> bool,
    ) -> Vec<(TenantId, DeletionVersion)> {
        let mut applied = Vec::new();
        for (tenant, waiting) in self.waiting.lock().iter_mut() {
            if now.saturating_sub(waiting.learnt_at) < GRACE {
                continue;
            }
            let below = *waiting.below.get_or_insert(end);
            if floor >= below && in_blocks(*tenant, waiting.version) {
                applied.push((*tenant, waiting.version));
            }
        }
        applied
    }

    /// Whether a message brings items that a forgotten deletion may have been meant for: nobody can tell any
    /// more, so they are refused and come again under a newer version.
    pub(super) fn are_forgotten_for(&self, message: &Message) -> bool {
        let Message::Push(push) = message else {
            return false;
        };
        let forgotten = self.forgotten.lock();
        push.parcels.iter().any(|(_, parcel)| {
            let header = parcel.header();
            let forgotten = forgotten.get(&header.tenant);
            forgotten.is_some_and(|forgotten| header.deletion < *forgotten)
        })
    }
}

impl DataPlane {
    /// Has the metadata plane note which deletions are applied to everything here. Said again until it has.
    pub(super) fn confirm_deletions(&self) {
        let pin = self.manifest.pin();
        let in_blocks = |tenant, version| {
            let of_tenant = |block: VisibleBlock| block.meta.tenant(tenant).copied();
            let mut summaries = pin.all_blocks().filter_map(of_tenant);
            summaries.all(|summary| summary.deletion_version >= version)
        };
        let floor = self.status().journal_floor;
        // The end of the last parcel: what stands behind it are records of the core.
        let end = Offset(self.engine.applied_position());
        let applied = self.deletions.applied(clock::boot(), end, floor, in_blocks);
        for (tenant, version) in applied {
            self.wish(MetadataWish::ConfirmDeletions(tenant, version));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: TenantId = TenantId(3);

    fn waiting_for(version: u64) -> Deletions {
        let deletions = Deletions::default();
        learn(&deletions, Duration::ZERO, version);
        deletions
    }

    fn learn(deletions: &Deletions, now: Duration, version: u64) {
        let unconfirmed = [(TENANT, DeletionVersion(version))].into();
        deletions.learn(now, &unconfirmed, BTreeMap::new());
    }

    #[test]
    fn confirmed_only_when_neither_journal_nor_blocks_have_older_items() {
        let deletions = waiting_for(4);
        let expected = vec![(TENANT, DeletionVersion(4))];
        let applied = |now, end, floor, blocks: u64| {
            let in_blocks = |_, version: DeletionVersion| blocks >= version.0;
            deletions.applied(now, Offset(end), Offset(floor), in_blocks)
        };
        assert_eq!(
            applied(Duration::ZERO, 100, 100, 4),
            [],
            "requests are under way"
        );
        assert_eq!(
            applied(GRACE, 200, 199, 4),
            [],
            "peers may fetch older parcels"
        );
        assert_eq!(
            applied(GRACE * 2, 300, 200, 3),
            [],
            "a block was not rewritten yet"
        );
        assert_eq!(applied(GRACE * 2, 300, 200, 4), expected);
    }

    #[test]
    fn a_newer_deletion_begins_anew_and_a_confirmed_one_goes() {
        let deletions = waiting_for(4);
        learn(&deletions, GRACE, 5);
        let all = |now| deletions.applied(now, Offset(9), Offset(9), |_, _| true);
        assert_eq!(all(GRACE), []);
        assert_eq!(all(GRACE * 2), [(TENANT, DeletionVersion(5))]);
        deletions.learn(GRACE * 2, &BTreeMap::new(), BTreeMap::new());
        assert_eq!(all(GRACE * 3), []);
    }
}
