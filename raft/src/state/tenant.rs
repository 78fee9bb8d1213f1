//! Tenants, their limits, their retention cut-offs and their deletions.
//!
//! Deletions of a tenant are numbered from 1. One is forgotten when every owner has confirmed it
//! and all older ones are forgotten; its number stays used, and `deletions_forgotten` says up to
//! where items that were written under an older version can no longer be told apart and must be
//! refused.

use super::limits::{
    CUT_OFFS_MAX, DELETIONS_PENDING_MAX, NAME_BYTES_MAX, PROPOSAL_BYTES_MAX, SELECTOR_BYTES_MAX,
    TENANTS_MAX,
};
use super::refusal::check_text;
use super::{MemberState, Refusal, Reply, State};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use trefoil_model::{DeletionVersion, Millis, NodeId, Signal, TenantId, TimeRange};

/// The tenant of requests that name none. It has id 0 and exists from the beginning.
pub(super) const ANONYMOUS: &str = "anonymous";

/// Everything of one signal that a selector matches and that is older than an instant is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutOff {
    /// The tenant's retention number when this cut-off was last advanced.
    pub number: u64,
    /// The signal.
    pub signal: Signal,
    /// What it is about; empty: everything of the signal.
    pub selector: String,
    /// Items before this instant are gone.
    pub before: Millis,
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its id, never used again.
    pub id: TenantId,
    /// The name that clients send; unique.
    pub name: String,
    /// Its limits as JSON; none: the defaults.
    pub limits: Option<String>,
    /// Rises by one whenever a cut-off advances; 0: there is none.
    pub retention_number: u64,
    /// One per signal and selector, in order of first appearance.
    pub cut_offs: Vec<CutOff>,
    /// The version of the newest deletion; 0: there was none.
    pub deletions_newest: DeletionVersion,
    /// Deletions up to this version were applied by all owners and are forgotten.
    pub deletions_forgotten: DeletionVersion,
}

impl Tenant {
    pub(super) fn new(id: TenantId, name: &str) -> Self {
        Self {
            id,
            name: name.to_owned(),
            limits: None,
            retention_number: 0,
            cut_offs: Vec::new(),
            deletions_newest: DeletionVersion(0),
            deletions_forgotten: DeletionVersion(0),
        }
    }
}

/// A deletion that not all owners have confirmed yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    /// The tenant.
    pub tenant: TenantId,
    /// Its version: it erases items of smaller versions.
    pub version: DeletionVersion,
    /// The signal.
    pub signal: Signal,
    /// Which series, streams or traces.
    pub selector: String,
    /// Which times.
    pub range: TimeRange,
    /// Who has applied it to everything that it stores.
    pub confirmed: BTreeSet<NodeId>,
}

/// Forgets the cut-offs of selectors that the one of everything, if it is at this place, has reached: they hide nothing more.
fn forget_passed(cut_offs: &mut Vec<CutOff>, at: usize) {
    let (signal, whole) = (cut_offs[at].signal, cut_offs[at].before);
    if cut_offs[at].selector.is_empty() {
        let goes_on = |cut: &CutOff| cut.selector.is_empty() || cut.before > whole;
        cut_offs.retain(|cut| cut.signal != signal || goes_on(cut));
    }
}

impl State {
    /// All tenants, ascending by id.
    pub fn tenants(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.tenants.values()
    }

    /// The tenant with this id.
    #[must_use]
    pub fn tenant(&self, tenant: TenantId) -> Option<&Arc<Tenant>> {
        self.tenants.get(&tenant)
    }

    /// The id of the tenant with this name.
    #[must_use]
    pub fn tenant_id(&self, name: &str) -> Option<TenantId> {
        self.tenant_ids.get(name).copied()
    }

    /// A tenant's deletions that are not forgotten, ascending by version.
    pub fn deletions(&self, tenant: TenantId) -> impl Iterator<Item = &Arc<Deletion>> {
        let first = (tenant, DeletionVersion(0));
        let last = (tenant, DeletionVersion(u64::MAX));
        self.deletions
            .range(first..=last)
            .map(|(_, deletion)| deletion)
    }

    /// All deletions that are not forgotten, ascending by tenant and version.
    pub fn deletions_pending(&self) -> impl Iterator<Item = &Arc<Deletion>> {
        self.deletions.values()
    }

    pub(super) fn insert_tenant(&mut self, tenant: Tenant) {
        self.tenant_ids.insert(tenant.name.clone(), tenant.id);
        self.tenants.insert(tenant.id, Arc::new(tenant));
    }

    pub(super) fn create_tenant(&mut self, name: &str) -> Result<Reply, Refusal> {
        check_text("tenant name", name, NAME_BYTES_MAX)?;
        if let Some(id) = self.tenant_id(name) {
            return Ok(Reply::Tenant(id));
        }
        if self.tenants.len() >= TENANTS_MAX {
            return Err(Refusal::limit("number of tenants", TENANTS_MAX));
        }
        // Tenants are never removed, so the largest id is the newest one. 0 is `anonymous`, also when a
        // write names it before the command that begins the cluster was applied.
        let newest = self.tenants.get_max().map_or(TenantId(0), |(id, _)| *id);
        let id = match name {
            ANONYMOUS => TenantId(0),
            _ => newest.next(),
        };
        self.insert_tenant(Tenant::new(id, name));
        Ok(Reply::Tenant(id))
    }

    fn tenant_mut(&mut self, tenant: TenantId) -> Result<&mut Tenant, Refusal> {
        self.tenants
            .get_mut(&tenant)
            .map(Arc::make_mut)
            .ok_or(Refusal::UnknownTenant { tenant })
    }

    pub(super) fn set_limits(
        &mut self,
        tenant: TenantId,
        limits: Option<&str>,
    ) -> Result<Reply, Refusal> {
        if limits.is_some_and(|text| text.len() > PROPOSAL_BYTES_MAX) {
            return Err(Refusal::limit("length of limits", PROPOSAL_BYTES_MAX));
        }
        self.tenant_mut(tenant)?.limits = limits.map(str::to_owned);
        Ok(Reply::Done)
    }

    pub(super) fn change_limits(
        &mut self,
        tenant: TenantId,
        expected: Option<&str>,
        limits: Option<&str>,
    ) -> Result<Reply, Refusal> {
        if self.tenant_mut(tenant)?.limits.as_deref() != expected {
            return Err(Refusal::ConditionFailed {
                position: 0,
                present: None,
            });
        }
        self.set_limits(tenant, limits)
    }

    pub(super) fn advance_retention(
        &mut self,
        tenant: TenantId,
        signal: Signal,
        selector: &str,
        before: Millis,
    ) -> Result<Reply, Refusal> {
        if selector.len() > SELECTOR_BYTES_MAX {
            return Err(Refusal::limit("length of selector", SELECTOR_BYTES_MAX));
        }
        let tenant = self.tenant_mut(tenant)?;
        let same = |cut: &CutOff| cut.signal == signal && cut.selector == selector;
        match tenant.cut_offs.iter().position(same) {
            Some(at) if tenant.cut_offs[at].before >= before => {}
            Some(at) => {
                tenant.retention_number += 1;
                tenant.cut_offs[at].number = tenant.retention_number;
                tenant.cut_offs[at].before = before;
                forget_passed(&mut tenant.cut_offs, at);
            }
            None if tenant.cut_offs.len() >= CUT_OFFS_MAX => {
                return Err(Refusal::limit("number of cut-offs", CUT_OFFS_MAX));
            }
            None => {
                tenant.retention_number += 1;
                tenant.cut_offs.push(CutOff {
                    number: tenant.retention_number,
                    signal,
                    selector: selector.to_owned(),
                    before,
                });
                let at = tenant.cut_offs.len() - 1;
                forget_passed(&mut tenant.cut_offs, at);
            }
        }
        Ok(Reply::Retention(tenant.retention_number))
    }

    pub(super) fn create_deletion(
        &mut self,
        tenant: TenantId,
        signal: Signal,
        selector: &str,
        range: TimeRange,
    ) -> Result<Reply, Refusal> {
        check_text("selector", selector, SELECTOR_BYTES_MAX)?;
        if range.start >= range.end {
            return Err(Refusal::invalid("time range", "it is empty"));
        }
        if self.deletions(tenant).count() >= DELETIONS_PENDING_MAX {
            return Err(Refusal::limit(
                "number of pending deletions",
                DELETIONS_PENDING_MAX,
            ));
        }
        let record = self.tenant_mut(tenant)?;
        record.deletions_newest = record.deletions_newest.next();
        let version = record.deletions_newest;
        let deletion = Deletion {
            tenant,
            version,
            signal,
            selector: selector.to_owned(),
            range,
            confirmed: BTreeSet::new(),
        };
        self.deletions.insert((tenant, version), Arc::new(deletion));
        Ok(Reply::Deletion(version))
    }

    pub(super) fn confirm_deletions(
        &mut self,
        node: NodeId,
        tenant: TenantId,
        up_to: DeletionVersion,
    ) -> Result<Reply, Refusal> {
        self.present_member(node)?;
        let unconfirmed: Vec<DeletionVersion> = self
            .deletions(tenant)
            .filter(|deletion| deletion.version <= up_to && !deletion.confirmed.contains(&node))
            .map(|deletion| deletion.version)
            .collect();
        for version in unconfirmed {
            if let Some(deletion) = self.deletions.get_mut(&(tenant, version)) {
                Arc::make_mut(deletion).confirmed.insert(node);
            }
        }
        self.forget_confirmed_deletions();
        Ok(Reply::Done)
    }

    /// Forgets deletions that all who store data have confirmed, oldest first, without gaps.
    pub(super) fn forget_confirmed_deletions(&mut self) {
        if self.deletions.is_empty() {
            return;
        }
        let required = self.nodes_that_store();
        let mut held_back = BTreeSet::new();
        let mut forgotten = Vec::new();
        for (key, deletion) in &self.deletions {
            if held_back.contains(&key.0) || !required.is_subset(&deletion.confirmed) {
                held_back.insert(key.0);
            } else {
                forgotten.push(*key);
            }
        }
        for key in forgotten {
            self.deletions.remove(&key);
            if let Ok(tenant) = self.tenant_mut(key.0) {
                tenant.deletions_forgotten = key.1;
            }
        }
    }

    /// The owners of any shard; before there is a table, all members.
    fn nodes_that_store(&self) -> BTreeSet<NodeId> {
        if self.placement.is_empty() {
            return self
                .members()
                .filter(|member| member.state != MemberState::Removed)
                .map(|member| member.node)
                .collect();
        }
        self.placement
            .iter()
            .flat_map(|(_, entry)| entry.owners.keys().copied())
            .collect()
    }
}
