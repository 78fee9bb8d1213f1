//! What the metadata plane wants gone: deletions and retention cut-offs. Replaced whole, so that a view
//! keeps the one that it began with.

use crate::MetricsError;
use crate::deletion::{Deletion, SelectedCutOff};
use std::collections::BTreeMap;
use trefoil_model::{DeletionVersion, Millis, TenantId};

/// What is known of a tenant's deletions.
#[derive(Clone, Default)]
struct Deletions {
    newest: DeletionVersion,
    pending: Vec<Deletion>,
}

#[derive(Clone, Default)]
pub(crate) struct Policy {
    deletions: BTreeMap<TenantId, Deletions>,
    cut_offs: BTreeMap<TenantId, Millis>,
    selected: BTreeMap<TenantId, Vec<SelectedCutOff>>,
    /// Pending deletions, then the cut-offs of selectors.
    erasing: BTreeMap<TenantId, Vec<Deletion>>,
}

impl Policy {
    pub(crate) fn with_deletions(
        &self,
        tenant: TenantId,
        newest: DeletionVersion,
        pending: Vec<Deletion>,
    ) -> Self {
        let mut policy = self.clone();
        let deletions = Deletions { newest, pending };
        policy.deletions.insert(tenant, deletions);
        policy.note_erasing(tenant);
        policy
    }

    pub(crate) fn with_selected(&self, tenant: TenantId, selected: Vec<SelectedCutOff>) -> Self {
        let mut policy = self.clone();
        policy.selected.insert(tenant, selected);
        policy.note_erasing(tenant);
        policy
    }

    fn note_erasing(&mut self, tenant: TenantId) {
        let mut all = self.deletions(tenant).to_vec();
        all.extend(self.selected(tenant).iter().map(SelectedCutOff::deletion));
        self.erasing.insert(tenant, all);
    }

    pub(crate) fn with_cut_off(&self, tenant: TenantId, cut_off: Millis) -> Self {
        let mut policy = self.clone();
        let known = policy.cut_offs.entry(tenant).or_insert(cut_off);
        *known = cut_off.max(*known);
        policy
    }

    pub(crate) fn deletions(&self, tenant: TenantId) -> &[Deletion] {
        let deletions = self.deletions.get(&tenant);
        deletions.map_or(&[], |deletions| deletions.pending.as_slice())
    }

    /// The cut-offs of a tenant's selectors.
    pub(crate) fn selected(&self, tenant: TenantId) -> &[SelectedCutOff] {
        self.selected.get(&tenant).map_or(&[], Vec::as_slice)
    }

    /// Whatever takes single series out of what is stored: pending deletions and the cut-offs of selectors.
    pub(crate) fn erasing(&self, tenant: TenantId) -> &[Deletion] {
        self.erasing.get(&tenant).map_or(&[], Vec::as_slice)
    }

    /// The newest deletion of a tenant that is known, forgotten ones too: what is written, merged or exported by this
    /// policy has all up to this one applied.
    ///
    /// # Errors
    /// [`MetricsError::UnknownDeletion`] when an item presupposes a newer one. It must not be claimed: those between
    /// would never be applied.
    pub(crate) fn claim(
        &self,
        tenant: TenantId,
        presupposed: impl IntoIterator<Item = DeletionVersion>,
    ) -> Result<DeletionVersion, MetricsError> {
        let deletions = self.deletions.get(&tenant);
        let newest = deletions.map_or(DeletionVersion(0), |deletions| deletions.newest);
        match presupposed.into_iter().max() {
            Some(version) if version > newest => {
                Err(MetricsError::UnknownDeletion { tenant, version })
            }
            _ => Ok(newest),
        }
    }

    /// Samples before this are gone.
    pub(crate) fn cut_off(&self, tenant: TenantId) -> Millis {
        self.cut_offs.get(&tenant).copied().unwrap_or(Millis::MIN)
    }
}
