//! Exemplars: single observations with labels of their own, mostly the id of a trace, beside the samples of a series.
//!
//! They travel in parcels, so every owner of a series gets them, and live in memory; each flush has them [saved](saved), and a start reads
//! what was saved before it replays the journal. What a tenant may have, and what all tenants may have together, is bounded; the
//! exemplars that came first go first. A deletion takes those that it erases at once. Because owners drop them at different moments they are in no digest, and a copy of
//! shards to another owner leaves them out: they are examples, not data that anything is computed from.
//!
//! ```text
//! entry = shard u16 LE | text canonical labels of the series | text canonical labels of the exemplar
//!         | zigzag varint timestamp | value f64 LE
//! ```

mod saved;

pub(crate) use saved::read_saved;

use crate::Matcher;
use crate::body::{unzigzag, zigzag};
use crate::deletion::{Deletion, selects};
use crate::engine::Policy;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use trefoil_model::{
    DeletionVersion, Labels, Millis, ShardId, ShardSet, TenantId, TimeRange, read_varint,
    write_varint,
};

/// Bytes of all tenants' exemplars. Above it, the tenant with the most loses its first one.
const BYTES_MAX: usize = 64 << 20;

/// Memory of an exemplar beside its texts, about.
const ENTRY_BYTES: usize = 160;

/// An observation.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// Its own labels.
    pub labels: Labels,
    /// What was observed.
    pub value: f64,
    /// When, in milliseconds.
    pub time: Millis,
}

/// One exemplar of a series, in the order in which they are listed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    series: Arc<[u8]>,
    time: Millis,
    labels: Box<[u8]>,
    value_bits: u64,
    shard: ShardId,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.series.len() + self.labels.len() + ENTRY_BYTES
    }
}

#[derive(Default)]
struct OfTenant {
    /// With the newest deletion version that each came with.
    sorted: BTreeMap<Arc<Entry>, DeletionVersion>,
    /// The same, the first to arrive in front.
    arrived: VecDeque<Arc<Entry>>,
    bytes: usize,
}

impl OfTenant {
    /// Drops the first to arrive and gives its bytes.
    fn drop_first(&mut self) -> usize {
        let Some(first) = self.arrived.pop_front() else {
            return 0;
        };
        self.bytes -= first.bytes();
        self.sorted.remove(&first);
        first.bytes()
    }

    /// Keeps those that satisfy the condition, and gives the bytes of the others.
    fn retain(&mut self, is_kept: impl Fn(&Entry) -> bool) -> usize {
        let before = self.bytes;
        self.arrived.retain(|entry| is_kept(entry));
        self.sorted.retain(|entry, _| is_kept(entry));
        self.bytes = self.arrived.iter().map(|entry| entry.bytes()).sum();
        before - self.bytes
    }
}

/// Those of all tenants.
#[derive(Default)]
struct OfAll {
    tenants: BTreeMap<TenantId, OfTenant>,
    bytes: usize,
    /// Grows with each change.
    changes: u64,
}

impl OfAll {
    /// Keeps those of a tenant that satisfy the condition.
    fn retain(&mut self, tenant: TenantId, is_kept: impl Fn(&Entry) -> bool) {
        if let Some(own) = self.tenants.get_mut(&tenant) {
            let gone = own.retain(is_kept);
            self.bytes -= gone;
            // Each has bytes.
            self.changes += u64::from(gone > 0);
        }
    }

    /// The exemplars of a tenant in order, with their deletion versions: pointers, so that no lock is held while they
    /// are looked at.
    fn of(&self, tenant: TenantId) -> Vec<(Arc<Entry>, DeletionVersion)> {
        let own = self.tenants.get(&tenant).into_iter();
        let own = own.flat_map(|one| &one.sorted);
        own.map(|(entry, version)| (Arc::clone(entry), *version))
            .collect()
    }
}

/// The exemplars of a node.
pub(crate) struct Exemplars {
    of_all: Mutex<OfAll>,
    per_tenant_max: usize,
}

/// The series of exemplars, with those of each in order of time.
pub(crate) type BySeries = BTreeMap<Vec<u8>, Vec<Exemplar>>;

impl Exemplars {
    /// At most so many of each tenant.
    pub(crate) fn new(per_tenant_max: usize) -> Self {
        Self {
            of_all: Mutex::default(),
            per_tenant_max,
        }
    }

    /// Keeps exemplars that came with this deletion version; those that are there already stay.
    pub(crate) fn add(
        &self,
        tenant: TenantId,
        version: DeletionVersion,
        found: Vec<FoundExemplar>,
    ) {
        let mut of_all = self.of_all.lock();
        let OfAll {
            tenants,
            bytes,
            changes,
        } = &mut *of_all;
        let own = tenants.entry(tenant).or_default();
        for found in found {
            let entry = Arc::new(Entry {
                series: found.series.into(),
                time: found.time,
                labels: found.labels.into(),
                value_bits: found.value.to_bits(),
                shard: found.shard,
            });
            if let Some(known) = own.sorted.get_mut(&entry) {
                *changes += u64::from(*known < version);
                *known = version.max(*known);
                continue;
            }
            *changes += 1;
            own.bytes += entry.bytes();
            *bytes += entry.bytes();
            own.sorted.insert(Arc::clone(&entry), version);
            own.arrived.push_back(entry);
            while own.arrived.len() > self.per_tenant_max {
                *bytes -= own.drop_first();
            }
        }
        while *bytes > BYTES_MAX {
            let largest = tenants.values_mut().max_by_key(|one| one.bytes);
            let Some(largest) = largest else { break };
            // All that it has too much at once, so that tenants are compared seldom.
            while *bytes > BYTES_MAX && !largest.arrived.is_empty() {
                *bytes -= largest.drop_first();
            }
        }
        tenants.retain(|_, one| !one.arrived.is_empty());
    }

    /// The exemplars in `range` of the series of `shards` that satisfy all matchers of one of the alternatives and that
    /// no deletion erases. `go_on` is asked before each series is looked at; its error ends the search.
    ///
    /// # Errors
    /// Those of `go_on`.
    pub(crate) fn find<E>(
        &self,
        tenant: TenantId,
        wanted: &WantedExemplars<'_>,
        mut go_on: impl FnMut() -> Result<(), E>,
    ) -> Result<BySeries, E> {
        let all = self.of_all.lock().of(tenant);
        let mut found = BySeries::new();
        for of_series in all.chunk_by(|a, b| a.0.series == b.0.series) {
            go_on()?;
            let first = &of_series[0].0;
            let is_wanted = wanted.shards.contains(first.shard)
                && (wanted.alternatives.iter()).any(|one| selects(one, &first.series));
            if !is_wanted {
                continue;
            }
            let deletions = wanted.deletions.iter();
            let deletions: Vec<_> = deletions.filter(|d| d.selects(&first.series)).collect();
            let kept = of_series.iter().filter(|(entry, version)| {
                let erases = |d: &&Deletion| *version < d.version && d.range.contains(entry.time);
                wanted.range.contains(entry.time) && !deletions.iter().any(erases)
            });
            let kept: Vec<Exemplar> = kept
                .map(|(entry, _)| Exemplar {
                    // They were checked when they were read.
                    labels: Labels::from_canonical(&entry.labels).unwrap_or_default(),
                    value: f64::from_bits(entry.value_bits),
                    time: entry.time,
                })
                .collect();
            if !kept.is_empty() {
                found.insert(first.series.to_vec(), kept);
            }
        }
        Ok(found)
    }

    /// Forgets what these deletions erase: the metadata plane may forget the deletions later.
    pub(crate) fn erase(&self, tenant: TenantId, deletions: &[Deletion]) {
        if deletions.is_empty() {
            return;
        }
        let all = self.of_all.lock().of(tenant);
        let is_erased = |(entry, version): &(Arc<Entry>, DeletionVersion)| {
            let of_entry = |d: &Deletion| *version < d.version && d.range.contains(entry.time);
            let mut deletions = deletions.iter().filter(|d| of_entry(d));
            deletions.any(|d| d.selects(&entry.series))
        };
        let erased: BTreeSet<Arc<Entry>> = all
            .into_iter()
            .filter(is_erased)
            .map(|(entry, _)| entry)
            .collect();
        if erased.is_empty() {
            return;
        }
        self.of_all
            .lock()
            .retain(tenant, |entry| !erased.contains(entry));
    }

    /// Forgets what deletions and retention have taken since it came, or came behind them.
    pub(crate) fn enforce(&self, policy: &Policy) {
        let tenants: Vec<TenantId> = self.of_all.lock().tenants.keys().copied().collect();
        for tenant in tenants {
            self.erase(tenant, policy.erasing(tenant));
            let cut_off = policy.cut_off(tenant);
            let all = self.of_all.lock().of(tenant);
            if all.iter().any(|(entry, _)| entry.time < cut_off) {
                self.of_all
                    .lock()
                    .retain(tenant, |entry| entry.time >= cut_off);
            }
        }
    }

    /// Forgets those of these shards.
    pub(crate) fn drop_shards(&self, shards: &ShardSet) {
        let mut of_all = self.of_all.lock();
        for tenant in of_all.tenants.keys().copied().collect::<Vec<_>>() {
            of_all.retain(tenant, |entry| !shards.contains(entry.shard));
        }
    }

    /// The number of the last change.
    pub(crate) fn changes(&self) -> u64 {
        self.of_all.lock().changes
    }

    /// How many there are, and their bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        let of_all = self.of_all.lock();
        let counts = of_all.tenants.values().map(|one| one.arrived.len());
        (counts.sum(), of_all.bytes)
    }
}

/// Which exemplars of a tenant are asked for.
pub(crate) struct WantedExemplars<'w> {
    /// A series satisfies all matchers of one of them.
    pub(crate) alternatives: &'w [Vec<Matcher>],
    pub(crate) range: TimeRange,
    pub(crate) shards: &'w ShardSet,
    pub(crate) deletions: &'w [Deletion],
}

/// An exemplar in a body.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundExemplar {
    /// The shard that the coordinator gave its series.
    pub shard: ShardId,
    /// Canonical labels of its series, checked.
    pub series: Vec<u8>,
    /// Its own canonical labels, checked.
    pub labels: Vec<u8>,
    /// Milliseconds.
    pub time: Millis,
    /// What was observed.
    pub value: f64,
}

/// Appends an entry.
pub(crate) fn write_exemplar(
    shard: ShardId,
    series: &[u8],
    exemplar: &Exemplar,
    out: &mut Vec<u8>,
) {
    let observed = (exemplar.time, exemplar.value.to_bits());
    write_entry(shard, series, exemplar.labels.canonical(), observed, out);
}

fn write_entry(
    shard: ShardId,
    series: &[u8],
    labels: &[u8],
    (time, value_bits): (Millis, u64),
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(&shard.0.to_le_bytes());
    for text in [series, labels] {
        write_varint(out, text.len() as u64);
        out.extend_from_slice(text);
    }
    write_varint(out, zigzag(time));
    out.extend_from_slice(&value_bits.to_le_bytes());
}

/// Reads `varint count | entries` and gives those of shards in `accepted`; `None` when it is malformed.
pub(crate) fn read_exemplars(bytes: &[u8], accepted: &ShardSet) -> Option<Vec<FoundExemplar>> {
    let mut at = 0;
    let mut found = Vec::new();
    for _ in 0..read_varint(bytes, &mut at)? {
        let shard = ShardId(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        at += 2;
        let mut text = || {
            let length = usize::try_from(read_varint(bytes, &mut at)?).ok()?;
            let text = bytes.get(at..at.checked_add(length)?)?;
            at += length;
            Some(text)
        };
        let (series, labels) = (text()?, text()?);
        let time = unzigzag(read_varint(bytes, &mut at)?);
        let value = f64::from_bits(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        at += 8;
        if !accepted.contains(shard) {
            continue;
        }
        Labels::from_canonical(series).ok()?;
        Labels::from_canonical(labels).ok()?;
        found.push(FoundExemplar {
            shard,
            series: series.to_vec(),
            labels: labels.to_vec(),
            time,
            value,
        });
    }
    (at == bytes.len()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: TenantId = TenantId(1);

    fn exemplar(time: Millis) -> Exemplar {
        Exemplar {
            labels: Labels::from_pairs([("trace_id", "a")]),
            value: 0.5,
            time,
        }
    }

    fn found(shard: u16, time: Millis) -> FoundExemplar {
        let name = format!("m{shard}");
        let series = Labels::from_pairs([("__name__", name.as_str())]);
        FoundExemplar {
            shard: ShardId(shard),
            series: series.canonical().to_vec(),
            labels: exemplar(time).labels.canonical().to_vec(),
            time,
            value: 0.5,
        }
    }

    fn times(exemplars: &Exemplars, name: &str, shards: u16) -> Vec<Millis> {
        let wanted = vec![vec![Matcher::regex("__name__", name).unwrap()]];
        let range = TimeRange { start: 0, end: 100 };
        let wanted = WantedExemplars {
            alternatives: &wanted,
            range,
            shards: &ShardSet::all(shards),
            deletions: &[],
        };
        let found = exemplars.find(TENANT, &wanted, || Ok::<(), ()>(()));
        found
            .unwrap()
            .into_values()
            .flatten()
            .map(|one| one.time)
            .collect()
    }

    #[test]
    fn the_first_to_come_go_first_and_nothing_is_kept_twice() {
        let exemplars = Exemplars::new(3);
        exemplars.add(
            TENANT,
            DeletionVersion(0),
            vec![found(1, 9), found(2, 3), found(1, 9)],
        );
        assert_eq!(exemplars.size().0, 2);
        exemplars.add(TENANT, DeletionVersion(0), vec![found(1, 200), found(1, 1)]);
        assert_eq!(times(&exemplars, "m.*", 8), [1, 3]);
        assert_eq!(times(&exemplars, "m1", 8), [1]);
        assert_eq!(times(&exemplars, "m.*", 2), [1]);
        exemplars.drop_shards(&ShardSet::all(2));
        assert_eq!(times(&exemplars, "m.*", 8), [3]);
        assert_eq!(exemplars.size().0, 1);
    }

    #[test]
    fn all_tenants_together_are_bounded() {
        let exemplars = Exemplars::new(usize::MAX);
        let large = |time| FoundExemplar {
            labels: Labels::from_pairs([("l", "x".repeat(1 << 20).as_str())])
                .canonical()
                .to_vec(),
            ..found(1, time)
        };
        exemplars.add(TenantId(2), DeletionVersion(0), vec![found(1, 1)]);
        (0..70).for_each(|time| exemplars.add(TENANT, DeletionVersion(0), vec![large(time)]));
        assert!(exemplars.size().1 <= BYTES_MAX);
        assert_eq!(times(&exemplars, "m.*", 8).first(), Some(&7));
        let of_all = exemplars.of_all.lock();
        assert_eq!(of_all.tenants[&TenantId(2)].arrived.len(), 1);
        let sum: usize = of_all.tenants.values().map(|one| one.bytes).sum();
        assert_eq!(of_all.bytes, sum);
    }

    #[test]
    fn a_deletion_takes_what_came_before_it() {
        let exemplars = Exemplars::new(10);
        let add = |version, times: &[Millis]| {
            let found = times.iter().map(|time| found(1, *time)).collect();
            exemplars.add(TENANT, DeletionVersion(version), found);
        };
        add(0, &[1, 2, 50]);
        let deletion = Deletion {
            version: DeletionVersion(1),
            matchers: vec![Matcher::regex("__name__", "m1").unwrap()],
            range: TimeRange { start: 0, end: 10 },
        };
        exemplars.erase(TENANT, std::slice::from_ref(&deletion));
        assert_eq!(times(&exemplars, "m1", 8), [50]);
        assert_eq!(exemplars.size().0, 1);
        // A parcel on its way, and one that came behind the deletion.
        add(0, &[3]);
        add(1, &[4]);
        let wanted = WantedExemplars {
            alternatives: &[Vec::new()],
            range: TimeRange { start: 0, end: 100 },
            shards: &ShardSet::all(8),
            deletions: &[deletion],
        };
        let found = exemplars.find(TENANT, &wanted, || Ok::<(), ()>(()));
        let found: Vec<Millis> = found
            .unwrap()
            .into_values()
            .flatten()
            .map(|e| e.time)
            .collect();
        assert_eq!(found, [4, 50]);
    }

    #[test]
    fn a_search_ends_when_it_is_told_to_and_holds_no_lock() {
        let exemplars = Exemplars::new(10);
        exemplars.add(TENANT, DeletionVersion(0), vec![found(1, 1), found(2, 1)]);
        let wanted = WantedExemplars {
            alternatives: &[Vec::new()],
            range: TimeRange { start: 0, end: 100 },
            shards: &ShardSet::all(8),
            deletions: &[],
        };
        let mut series = 0;
        let ended = exemplars.find(TENANT, &wanted, || {
            exemplars.add(TENANT, DeletionVersion(0), vec![found(3, 1)]);
            series += 1;
            if series == 2 { Err("late") } else { Ok(()) }
        });
        assert_eq!(ended, Err("late"));
    }

    #[test]
    fn golden_bytes_and_damage() {
        let mut bytes = vec![1];
        let series = Labels::from_pairs([("a", "b")]);
        write_exemplar(ShardId(7), series.canonical(), &exemplar(3), &mut bytes);
        let expected = b"\x01\x07\x00\x04\x01a\x01b\x0b\x08trace_id\x01a\x06\0\0\0\0\0\0\xe0\x3f";
        assert_eq!(bytes, expected, "{bytes:02x?}");
        let all = ShardSet::all(8);
        assert_eq!(
            read_exemplars(&bytes, &all).map(|found| found.len()),
            Some(1)
        );
        assert_eq!(read_exemplars(&bytes, &ShardSet::all(7)), Some(Vec::new()));
        for end in 0..bytes.len() {
            assert_eq!(read_exemplars(&bytes[..end], &all), None);
        }
    }
}
