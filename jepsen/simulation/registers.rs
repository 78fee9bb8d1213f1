//! Compare-and-set on keys of the metadata plane, through different nodes, and what a linearizable register allows.
//!
//! Every write has a value of its own and the plane gives every write a version, so the check is direct: a version names
//! one value for ever; a version is replaced by at most one successful write; no operation sees less than what
//! was completed before it began; and what was refused has no effect.

use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use trefoil_model::ClusterId;
use trefoil_raft::State;

/// How many keys there are.
pub(crate) const KEYS: u64 = 3;

/// The history of all keys.
#[derive(Default)]
pub(crate) struct Registers {
    /// The value of every version that was seen anywhere, by key.
    versions: BTreeMap<(u64, u64), Vec<u8>>,
    /// The highest version that a completed operation has seen.
    completed: BTreeMap<u64, u64>,
    /// The versions that successful writes replaced.
    replaced: BTreeSet<(u64, u64)>,
    /// Values of writes that were refused.
    refused: BTreeSet<Vec<u8>>,
    clusters: BTreeSet<ClusterId>,
    last: u64,
}

impl Registers {
    pub(crate) fn key(number: u64) -> String {
        format!("simulated/register/{number}")
    }

    /// A value that no other write has.
    pub(crate) fn fresh(&mut self) -> Vec<u8> {
        self.last += 1;
        self.last.to_le_bytes().to_vec()
    }

    /// What an operation that begins now must at least see.
    pub(crate) fn floor(&self, key: u64) -> u64 {
        self.completed.get(&key).copied().unwrap_or_default()
    }

    /// A read that began when the floor was this has seen this version (0: no value).
    pub(crate) fn read(
        &mut self,
        key: u64,
        floor: u64,
        seen: (u64, Vec<u8>),
    ) -> Result<(), String> {
        let (version, value) = seen;
        if version < floor {
            return Err(format!(
                "register {key}: a read saw version {version} after {floor} was complete"
            ));
        }
        self.note(key, version, value)?;
        self.complete(key, version);
        Ok(())
    }

    /// A write that began when the floor was this has replaced `expected` by `version`.
    pub(crate) fn wrote(
        &mut self,
        key: u64,
        floor: u64,
        replaced: (u64, u64),
        value: Vec<u8>,
    ) -> Result<(), String> {
        let (expected, version) = replaced;
        if expected < floor || version <= expected {
            return Err(format!(
                "register {key}: version {version} replaced {expected} after {floor} was complete"
            ));
        }
        if !self.replaced.insert((key, expected)) {
            return Err(format!(
                "register {key}: version {expected} was replaced twice"
            ));
        }
        self.note(key, version, value)?;
        self.complete(key, version);
        Ok(())
    }

    /// A write was refused: it must never be seen.
    pub(crate) fn refused(&mut self, value: Vec<u8>) -> Result<(), String> {
        let seen = self.versions.values().any(|found| *found == value);
        self.refused.insert(value);
        match seen {
            true => Err("a write of a register was refused and had an effect".to_owned()),
            false => Ok(()),
        }
    }

    fn complete(&mut self, key: u64, version: u64) {
        let completed = self.completed.entry(key).or_default();
        *completed = version.max(*completed);
    }

    fn note(&mut self, key: u64, version: u64, value: Vec<u8>) -> Result<(), String> {
        if version == 0 {
            return Ok(());
        }
        if self.refused.contains(&value) {
            return Err(format!(
                "register {key}: a write that was refused is there as version {version}"
            ));
        }
        match self.versions.entry((key, version)) {
            std::collections::btree_map::Entry::Occupied(known) if *known.get() != value => {
                Err(format!("register {key}: version {version} has two values"))
            }
            entry => {
                entry.or_insert(value);
                Ok(())
            }
        }
    }

    /// Looks at a version of the state on some node.
    pub(crate) fn saw_state(&mut self, world: &World, state: &State) {
        for key in 0..KEYS {
            if let Some(value) = state.value(&Self::key(key))
                && let Err(how) = self.note(key, value.version, value.bytes.clone())
            {
                world.broken(how);
            }
        }
        if let Some(cluster) = state.cluster()
            && self.clusters.insert(cluster)
            && self.clusters.len() > 1
        {
            world.broken(format!("two clusters have begun: {:?}", self.clusters));
        }
    }
}
