//! Leases: a right that one node holds for a term.
//!
//! The holder counts the term from *before* it asked, on its boot clock, and acts only up to 0.8 of
//! it; the state machine counts the whole term from the grant, by the leader's clock, which never
//! runs fast. Every effect of a lease carries its fencing number, so a late effect of an old holder
//! is refused.

use super::limits::{LEASE_TERM_MS_MAX, LEASES_MAX, NAME_BYTES_MAX};
use super::refusal::check_text;
use super::{Refusal, Reply, State};
use serde::{Deserialize, Serialize};
use trefoil_model::{Incarnation, NodeId};

/// A lease that was granted, and not given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Who holds it.
    pub holder: NodeId,
    /// Which run of the holder.
    pub incarnation: Incarnation,
    /// For how long, from the newest grant.
    pub term_ms: u64,
    /// Higher than that of every holder before.
    pub fencing: u64,
    /// The leader's clock at the newest grant.
    pub(crate) granted_at_ms: u64,
}

impl Lease {
    /// How long nobody else can get it, by the leader's clock; 0: anyone can.
    fn remaining_ms(&self, now_ms: u64) -> u64 {
        (self.granted_at_ms.saturating_add(self.term_ms)).saturating_sub(now_ms)
    }
}

impl State {
    /// The leases that were granted and not given back, by name. One whose term is over stays until
    /// somebody else takes it.
    pub fn leases(&self) -> impl Iterator<Item = (&str, &Lease)> {
        self.leases
            .iter()
            .map(|(name, lease)| (name.as_str(), lease))
    }

    /// The lease with this name.
    #[must_use]
    pub fn lease(&self, name: &str) -> Option<&Lease> {
        self.leases.get(name)
    }

    /// For how long nobody but its holder can get the lease, by the leader's clock.
    #[must_use]
    pub fn lease_remaining_ms(&self, name: &str) -> u64 {
        let now_ms = self.cluster.clock.passed_ms();
        self.lease(name)
            .map_or(0, |lease| lease.remaining_ms(now_ms))
    }

    /// Whether nobody else was given the lease since `fencing` was: an effect of it may still be
    /// recorded.
    pub(super) fn lease_is_held(&self, name: &str, fencing: u64) -> bool {
        self.lease(name)
            .is_some_and(|lease| lease.fencing == fencing)
    }

    pub(super) fn acquire_lease(
        &mut self,
        name: &str,
        holder: NodeId,
        incarnation: Incarnation,
        term_ms: u64,
    ) -> Result<Reply, Refusal> {
        check_text("lease name", name, NAME_BYTES_MAX)?;
        if term_ms == 0 || term_ms > LEASE_TERM_MS_MAX {
            return Err(Refusal::limit(
                "lease term in milliseconds",
                LEASE_TERM_MS_MAX as usize,
            ));
        }
        self.present_member(holder)?;
        let now_ms = self.cluster.clock.passed_ms();
        let fencing = match self.leases.get(name) {
            Some(lease) if lease.holder == holder && lease.incarnation == incarnation => {
                lease.fencing
            }
            Some(lease) if lease.remaining_ms(now_ms) > 0 => {
                return Err(Refusal::LeaseHeld {
                    holder: lease.holder,
                    remaining_ms: lease.remaining_ms(now_ms),
                });
            }
            Some(_) => self.cluster.sequence,
            None => {
                self.make_room_for_lease(now_ms)?;
                self.cluster.sequence
            }
        };
        let lease = Lease {
            holder,
            incarnation,
            term_ms,
            fencing,
            granted_at_ms: now_ms,
        };
        self.leases.insert(name.to_owned(), lease);
        Ok(Reply::Lease { fencing })
    }

    fn make_room_for_lease(&mut self, now_ms: u64) -> Result<(), Refusal> {
        if self.leases.len() < LEASES_MAX {
            return Ok(());
        }
        self.leases = std::mem::take(&mut self.leases)
            .into_iter()
            .filter(|(_, lease)| lease.remaining_ms(now_ms) > 0)
            .collect();
        match self.leases.len() < LEASES_MAX {
            true => Ok(()),
            false => Err(Refusal::limit("number of leases", LEASES_MAX)),
        }
    }

    pub(super) fn release_lease(&mut self, name: &str, fencing: u64) -> Reply {
        if self.lease_is_held(name, fencing) {
            self.leases.remove(name);
        }
        Reply::Done
    }
}
