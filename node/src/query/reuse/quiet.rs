//! Which windows have not changed for a while, of those that are not wholly in blocks.
//!
//! The present window gets samples all the time: pieces of it would be worthless before they are asked for.

use std::{collections::HashMap, time::Instant};
use trefoil_model::{TenantId, Window};
use trefoil_store_metrics::Stamp;

/// Windows that are remembered; all are forgotten when they are more, which costs that pieces are kept a little later.
const WINDOWS_MAX: usize = 4_096;

#[derive(Default)]
pub(super) struct Quiet {
    seen: HashMap<(TenantId, Window), (Stamp, Instant)>,
}

impl Quiet {
    /// Takes note of a window's stamp.
    pub(super) fn see(&mut self, tenant: TenantId, window: Window, stamp: Stamp, now: Instant) {
        let key = (tenant, window);
        if stamp.is_in_blocks() {
            self.seen.remove(&key);
            return;
        }
        if self
            .seen
            .get(&key)
            .is_some_and(|(known, _)| *known == stamp)
        {
            return;
        }
        if self.seen.len() >= WINDOWS_MAX {
            self.seen.clear();
        }
        self.seen.insert(key, (stamp, now));
    }

    /// Since when a window was seen with the stamp that it was last seen with.
    pub(super) fn since(&self, tenant: TenantId, window: Window) -> Option<Instant> {
        let seen = self.seen.get(&(tenant, window));
        seen.map(|(_, since)| *since)
    }
}
