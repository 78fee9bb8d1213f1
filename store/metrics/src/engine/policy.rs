//! What the metadata plane wants gone: deletions and retention cut-offs. Replaced whole, so that a view
//! keeps the one that it began with.

use crate::deletion::Deletion;
use std::collections::BTreeMap;
use trefoil_model::{DeletionVersion, Millis, TenantId};

#[derive(Clone, Default)]
pub(crate) struct Policy {
    deletions: BTreeMap<TenantId, Vec<Deletion>>,
    cut_offs: BTreeMap<TenantId, Millis>,
}

impl Policy {
    pub(crate) fn with_deletions(&self, tenant: TenantId, deletions: Vec<Deletion>) -> Self {
        let mut policy = self.clone();
        policy.deletions.insert(tenant, deletions);
        policy
    }

    pub(crate) fn with_cut_off(&self, tenant: TenantId, cut_off: Millis) -> Self {
        let mut policy = self.clone();
        let known = policy.cut_offs.entry(tenant).or_insert(cut_off);
        *known = cut_off.max(*known);
        policy
    }

    pub(crate) fn deletions(&self, tenant: TenantId) -> &[Deletion] {
        self.deletions.get(&tenant).map_or(&[], Vec::as_slice)
    }

    /// The newest deletion of a tenant.
    pub(crate) fn deletion_version(&self, tenant: TenantId) -> DeletionVersion {
        let versions = self
            .deletions(tenant)
            .iter()
            .map(|deletion| deletion.version);
        versions.max().unwrap_or_default()
    }

    /// Samples before this are gone.
    pub(crate) fn cut_off(&self, tenant: TenantId) -> Millis {
        self.cut_offs.get(&tenant).copied().unwrap_or(Millis::MIN)
    }
}
