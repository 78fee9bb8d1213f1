//! Remembers the digests of windows that are wholly in blocks. Blocks are immutable, so an answer stays right for as
//! long as the same blocks, tombstones, deletions and cut-off make up the window.

use crate::view::WindowDigests;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// Windows remembered; all are forgotten when they are more. 256 shards cost about 16 KiB each.
const WINDOWS_MAX: usize = 1_024;

/// What a window is made of, and the question's key and bucket bits.
type Question = (Vec<u64>, (u64, u32));

#[derive(Default)]
pub(crate) struct DigestCache {
    known: Mutex<HashMap<Question, Arc<WindowDigests>>>,
}

impl DigestCache {
    pub(crate) fn get(&self, identity: &[u64], question: (u64, u32)) -> Option<Arc<WindowDigests>> {
        let known = self.known.lock();
        known.get(&(identity.to_vec(), question)).cloned()
    }

    pub(crate) fn put(
        &self,
        identity: Vec<u64>,
        question: (u64, u32),
        digests: Arc<WindowDigests>,
    ) {
        let mut known = self.known.lock();
        if known.len() >= WINDOWS_MAX {
            known.clear();
        }
        known.insert((identity, question), digests);
    }
}
