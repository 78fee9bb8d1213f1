//! When this owner may say that a deletion is applied to everything that it stores, so that the cluster can forget it.
//!
//! A deletion that all owners have confirmed is forgotten: nobody can erase an item by it any more. So nothing may be
//! left that is older: no block, no parcel in the journal that a peer could fetch or a restart replay, no view that is
//! being copied. And nothing older may come afterwards, by whatever way.
//!
//! ```text
//! learnt --grace--> closed: older items are not taken any more
//!                   --> what came before is trimmed from the journal, older views are copied
//!                   --> the driver finds no older block --> confirmed
//! ```
//! In memory only. A restart begins anew, with what the metadata plane says that this node has confirmed; until the
//! driver is sure that it knows that, it gives the core no message with items.

use crate::{Offset, Replication, replication::Step};
use std::{collections::BTreeMap, time::Duration};
use trefoil_model::{DeletionVersion, TenantId};

/// What this owner has confirmed, and what it is about to.
#[derive(Debug, Default)]
pub(crate) struct Forgetting {
    /// By tenant: items of lower versions are not taken.
    closed: BTreeMap<TenantId, DeletionVersion>,
    /// By tenant: confirmed up to this deletion, by the metadata plane's word.
    confirmed: BTreeMap<TenantId, DeletionVersion>,
    /// By tenant: what is to be confirmed next. A newer deletion waits until this one is.
    waiting: BTreeMap<TenantId, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    version: DeletionVersion,
    learnt_at: Duration,
    closed: Option<Closed>,
}

/// What there was when a tenant was closed for older items.
#[derive(Debug)]
struct Closed {
    /// The end of the journal's last parcel.
    journal: Offset,
    /// Exports with ids up to this one may give older items.
    exports: u64,
}

impl Replication {
    /// Whether items of this version are too old to be taken: they would stay for ever, though a deletion was meant
    /// for them.
    pub(crate) fn is_closed_for(&self, tenant: TenantId, version: DeletionVersion) -> bool {
        let closed = self.forgetting.closed.get(&tenant);
        closed.is_some_and(|closed| version < *closed) && !self.faults.closed_taken
    }

    /// Takes what this node has confirmed, and what is forgotten, by the metadata plane's word.
    pub(crate) fn on_confirmed(&mut self, confirmed: &BTreeMap<TenantId, DeletionVersion>) {
        let forgetting = &mut self.forgetting;
        for (tenant, version) in confirmed {
            for known in [&mut forgetting.closed, &mut forgetting.confirmed] {
                let known = known.entry(*tenant).or_default();
                *known = (*known).max(*version);
            }
            if forgetting
                .waiting
                .get(tenant)
                .is_some_and(|waiting| waiting.version <= *version)
            {
                forgetting.waiting.remove(tenant);
            }
        }
    }

    /// Closes tenants for what is older than deletions that have been known for long enough.
    pub(crate) fn tick_forgetting(&mut self, step: &mut Step<'_>) {
        let forgetting = &mut self.forgetting;
        for (tenant, newest) in self.deletions.iter() {
            let confirmed = forgetting.confirmed.get(tenant).copied();
            if *newest > confirmed.unwrap_or_default() {
                forgetting.waiting.entry(*tenant).or_insert(Waiting {
                    version: *newest,
                    learnt_at: step.now,
                    closed: None,
                });
            }
        }
        let grace = self.settings.deletion_grace;
        for (tenant, waiting) in &mut forgetting.waiting {
            if waiting.closed.is_none() && step.now >= waiting.learnt_at + grace {
                let closed = forgetting.closed.entry(*tenant).or_default();
                *closed = (*closed).max(waiting.version);
                waiting.closed = Some(Closed {
                    journal: self.journal.last_parcel_end(),
                    exports: self.last_id,
                });
            }
        }
    }

    /// The deletions that are applied to everything here but perhaps to blocks: all that is older has left the journal,
    /// no view with it is given to others, and none is taken. The driver looks at its blocks, and has the metadata plane
    /// note that this node confirms them.
    #[must_use]
    pub fn deletions_to_confirm(&self) -> Vec<(TenantId, DeletionVersion)> {
        let is_gone = |closed: &Closed| {
            self.journal.floor >= closed.journal && !self.exports.has_up_to(closed.exports)
        };
        let waiting = self.forgetting.waiting.iter();
        waiting
            .filter(|(_, waiting)| waiting.closed.as_ref().is_some_and(is_gone))
            .map(|(tenant, waiting)| (*tenant, waiting.version))
            .collect()
    }
}
