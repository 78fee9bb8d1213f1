//! The state as a set of rows: the form in which it is materialised and travels in snapshots.
//!
//! ```text
//! key = section (1 byte) + id          value = bincode of the record
//!   1  cluster    (nothing)              6  value      key bytes
//!   2  member     node id, u64           7  lease      name bytes
//!   3  shard      shard id, u16          8  movement   number, u64
//!   4  tenant     tenant id, u32         9  client     client id, u128
//!   5  deletion   tenant u32 + version u64
//! ```
//! Integers in keys are big endian, so that keys sort as ids do. The log position and Raft's
//! membership are not rows; the container of the rows keeps them.

use super::{ClusterRecord, State};
use crate::{MetadataError, codec};
use imbl::{OrdMap, ordmap::DiffItem};
use serde::{Serialize, de::DeserializeOwned};
use std::sync::Arc;
use trefoil_model::{DeletionVersion, NodeId, ShardEntry, TenantId};

const CLUSTER: u8 = 1;
const MEMBER: u8 = 2;
const SHARD: u8 = 3;
const TENANT: u8 = 4;
const DELETION: u8 = 5;
const VALUE: u8 = 6;
const LEASE: u8 = 7;
const MOVEMENT: u8 = 8;
const CLIENT: u8 = 9;

/// A row's key and its new value; without a value the row goes.
pub(crate) type RowChange = (Vec<u8>, Option<Vec<u8>>);

fn key(section: u8, id: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + id.len());
    key.push(section);
    key.extend_from_slice(id);
    key
}

fn deletion_id(id: &(TenantId, DeletionVersion)) -> Vec<u8> {
    let mut bytes = id.0.0.to_be_bytes().to_vec();
    bytes.extend_from_slice(&id.1.0.to_be_bytes());
    bytes
}

/// What must change in the rows of `before` to get those of `after`; in no particular order, each
/// key once. The cost follows what changed, not what there is.
pub(crate) fn changes(before: &State, after: &State) -> Result<Vec<RowChange>, MetadataError> {
    let mut out = Vec::new();
    if before.cluster != after.cluster {
        put(&mut out, CLUSTER, &[], &after.cluster)?;
    }
    placement_changes(before, after, &mut out)?;
    differ(&mut out, MEMBER, &before.members, &after.members, |id| {
        id.0.to_be_bytes().to_vec()
    })?;
    differ(&mut out, TENANT, &before.tenants, &after.tenants, |id| {
        id.0.to_be_bytes().to_vec()
    })?;
    differ(
        &mut out,
        DELETION,
        &before.deletions,
        &after.deletions,
        deletion_id,
    )?;
    differ(&mut out, VALUE, &before.values, &after.values, |id| {
        id.as_bytes().to_vec()
    })?;
    differ(&mut out, LEASE, &before.leases, &after.leases, |id| {
        id.as_bytes().to_vec()
    })?;
    differ(
        &mut out,
        MOVEMENT,
        &before.movements,
        &after.movements,
        |id| id.to_be_bytes().to_vec(),
    )?;
    differ(&mut out, CLIENT, &before.clients, &after.clients, |id| {
        id.to_be_bytes().to_vec()
    })?;
    Ok(out)
}

/// A row's key and value.
pub(crate) type Row = (Vec<u8>, Vec<u8>);

/// All rows of a state.
pub(crate) fn all(state: &State) -> Result<Vec<Row>, MetadataError> {
    let mut out = Vec::new();
    put(&mut out, CLUSTER, &[], &state.cluster)?;
    let empty = State {
        cluster: state.cluster.clone(),
        ..State::default()
    };
    out.extend(changes(&empty, state)?);
    let rows = out
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)));
    Ok(rows.collect())
}

fn placement_changes(
    before: &State,
    after: &State,
    out: &mut Vec<RowChange>,
) -> Result<(), MetadataError> {
    if Arc::ptr_eq(&before.placement, &after.placement) {
        return Ok(());
    }
    for (shard, entry) in after.placement.iter() {
        if before.placement.get(shard) != Some(entry) {
            put(out, SHARD, &shard.0.to_be_bytes(), entry)?;
        }
    }
    Ok(())
}

fn differ<K: Ord + Clone, V: PartialEq + Clone + Serialize>(
    out: &mut Vec<RowChange>,
    section: u8,
    before: &OrdMap<K, V>,
    after: &OrdMap<K, V>,
    id: impl Fn(&K) -> Vec<u8>,
) -> Result<(), MetadataError> {
    if before.ptr_eq(after) {
        return Ok(());
    }
    for item in before.diff(after) {
        match item {
            DiffItem::Add(k, v) | DiffItem::Update { new: (k, v), .. } => {
                put(out, section, &id(k), v)?;
            }
            DiffItem::Remove(k, _) => out.push((key(section, &id(k)), None)),
        }
    }
    Ok(())
}

fn put<V: Serialize + ?Sized>(
    out: &mut Vec<RowChange>,
    section: u8,
    id: &[u8],
    value: &V,
) -> Result<(), MetadataError> {
    out.push((key(section, id), Some(codec::encode_bare(value)?)));
    Ok(())
}

/// Builds a state from its rows.
#[derive(Default)]
pub(crate) struct Rebuild {
    state: State,
    shards: Vec<(u16, ShardEntry)>,
    has_cluster: bool,
}

impl Rebuild {
    /// Takes one row, in any order.
    ///
    /// # Errors
    /// [`MetadataError::Encoding`] when the row is not one.
    pub(crate) fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), MetadataError> {
        let malformed = || MetadataError::Encoding {
            what: "row",
            reason: format!("the key {key:02x?} is malformed"),
        };
        let (section, id) = key.split_first().ok_or_else(malformed)?;
        let text = || String::from_utf8(id.to_vec()).map_err(|_| malformed());
        let state = &mut self.state;
        match *section {
            CLUSTER => {
                state.cluster = record::<ClusterRecord>(value)?;
                self.has_cluster = true;
            }
            MEMBER => {
                let id = NodeId(u64::from_be_bytes(fixed(id).ok_or_else(malformed)?));
                state.members.insert(id, record(value)?);
            }
            SHARD => {
                let id = u16::from_be_bytes(fixed(id).ok_or_else(malformed)?);
                self.shards.push((id, record(value)?));
            }
            TENANT => {
                let tenant: super::Tenant = record(value)?;
                state.insert_tenant(tenant);
            }
            DELETION => {
                let deletion: Arc<super::Deletion> = record(value)?;
                let id = (deletion.tenant, deletion.version);
                state.deletions.insert(id, deletion);
            }
            VALUE => {
                state.values.insert(text()?, record(value)?);
            }
            LEASE => {
                state.leases.insert(text()?, record(value)?);
            }
            MOVEMENT => {
                let id = u64::from_be_bytes(fixed(id).ok_or_else(malformed)?);
                state.movements.insert(id, record(value)?);
            }
            CLIENT => {
                let id = u128::from_be_bytes(fixed(id).ok_or_else(malformed)?);
                state.clients.insert(id, record(value)?);
            }
            _ => return Err(malformed()),
        }
        Ok(())
    }

    /// The state at `applied`.
    ///
    /// # Errors
    /// [`MetadataError::Encoding`] when the cluster's row or a row of the placement table is
    /// missing.
    pub(crate) fn finish(mut self, applied: super::LogPosition) -> Result<State, MetadataError> {
        let incomplete = |reason: &str| MetadataError::Encoding {
            what: "rows",
            reason: reason.to_owned(),
        };
        if !self.has_cluster {
            return Err(incomplete("the cluster's row is missing"));
        }
        self.shards.sort_by_key(|(shard, _)| *shard);
        let whole = (0u16..)
            .zip(&self.shards)
            .all(|(want, (shard, _))| want == *shard);
        if !whole {
            return Err(incomplete("a shard's row is missing"));
        }
        let shards = self.shards.into_iter().map(|(_, entry)| entry).collect();
        self.state.placement = Arc::new(trefoil_model::PlacementTable { shards });
        self.state.applied = applied;
        Ok(self.state)
    }
}

fn record<T: DeserializeOwned>(value: &[u8]) -> Result<T, MetadataError> {
    codec::decode_bare(value)
}

fn fixed<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}
