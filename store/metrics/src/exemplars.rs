//! Exemplars: single observations with labels of their own, mostly the id of a trace, beside the samples of a series.
//!
//! They travel in parcels, so every owner of a series gets them, and live in memory only: a start has those of the part of
//! the journal that is not in blocks yet. What a tenant may have, and what all tenants may have together, is bounded; the
//! exemplars that came first go first. Because owners drop them at different moments they are in no digest, and a copy of
//! shards to another owner leaves them out: they are examples, not data that anything is computed from.
//!
//! ```text
//! entry = shard u16 LE | text canonical labels of the series | text canonical labels of the exemplar
//!         | zigzag varint timestamp | value f64 LE
//! ```

use crate::Matcher;
use crate::body::{unzigzag, zigzag};
use crate::deletion::selects;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use trefoil_model::{
    Labels, Millis, ShardId, ShardSet, TenantId, TimeRange, read_varint, write_varint,
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
    sorted: BTreeSet<Arc<Entry>>,
    /// The same, the first to arrive in front.
    arrived: VecDeque<Arc<Entry>>,
    bytes: usize,
}

impl OfTenant {
    fn drop_first(&mut self) {
        if let Some(first) = self.arrived.pop_front() {
            self.bytes -= first.bytes();
            self.sorted.remove(&first);
        }
    }
}

/// The exemplars of a node.
pub(crate) struct Exemplars {
    of_tenants: Mutex<BTreeMap<TenantId, OfTenant>>,
    per_tenant_max: usize,
}

/// The series of exemplars, with those of each in order of time.
pub(crate) type BySeries = BTreeMap<Vec<u8>, Vec<Exemplar>>;

impl Exemplars {
    /// At most so many of each tenant.
    pub(crate) fn new(per_tenant_max: usize) -> Self {
        Self {
            of_tenants: Mutex::default(),
            per_tenant_max,
        }
    }

    /// Keeps exemplars; those that are there already change nothing.
    pub(crate) fn add(&self, tenant: TenantId, found: Vec<FoundExemplar>) {
        let mut of_tenants = self.of_tenants.lock();
        let own = of_tenants.entry(tenant).or_default();
        for found in found {
            let entry = Arc::new(Entry {
                series: found.series.into(),
                time: found.time,
                labels: found.labels.into(),
                value_bits: found.value.to_bits(),
                shard: found.shard,
            });
            if own.sorted.insert(Arc::clone(&entry)) {
                own.bytes += entry.bytes();
                own.arrived.push_back(entry);
            }
            while own.arrived.len() > self.per_tenant_max {
                own.drop_first();
            }
        }
        while of_tenants.values().map(|one| one.bytes).sum::<usize>() > BYTES_MAX {
            let largest = of_tenants.values_mut().max_by_key(|one| one.bytes);
            largest.into_iter().for_each(OfTenant::drop_first);
        }
        of_tenants.retain(|_, one| !one.arrived.is_empty());
    }

    /// The exemplars in `range` of the series of `shards` that satisfy all matchers of one of the alternatives.
    pub(crate) fn find(
        &self,
        tenant: TenantId,
        alternatives: &[Vec<Matcher>],
        range: TimeRange,
        shards: &ShardSet,
    ) -> BySeries {
        let of_tenants = self.of_tenants.lock();
        let mut found = BySeries::new();
        let all = of_tenants
            .get(&tenant)
            .into_iter()
            .flat_map(|one| &one.sorted);
        // Neighbours are of one series, which is looked at once.
        let mut last: Option<(&Entry, bool)> = None;
        for entry in all {
            let entry: &Entry = entry;
            let is_wanted = match last {
                Some((before, is_wanted)) if before.series == entry.series => is_wanted,
                _ => {
                    shards.contains(entry.shard)
                        && alternatives.iter().any(|one| selects(one, &entry.series))
                }
            };
            last = Some((entry, is_wanted));
            if is_wanted && range.contains(entry.time) {
                let of_series = found.entry(entry.series.to_vec()).or_default();
                of_series.push(Exemplar {
                    // They were checked when they were read.
                    labels: Labels::from_canonical(&entry.labels).unwrap_or_default(),
                    value: f64::from_bits(entry.value_bits),
                    time: entry.time,
                });
            }
        }
        found
    }

    /// Forgets those of these shards.
    pub(crate) fn drop_shards(&self, shards: &ShardSet) {
        let mut of_tenants = self.of_tenants.lock();
        for own in of_tenants.values_mut() {
            own.arrived.retain(|entry| !shards.contains(entry.shard));
            own.sorted.retain(|entry| !shards.contains(entry.shard));
            own.bytes = own.arrived.iter().map(|entry| entry.bytes()).sum();
        }
    }

    /// How many there are, and their bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        let of_tenants = self.of_tenants.lock();
        let counts = of_tenants.values().map(|one| one.arrived.len());
        let bytes = of_tenants.values().map(|one| one.bytes);
        (counts.sum(), bytes.sum())
    }
}

/// An exemplar in a body.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FoundExemplar {
    pub(crate) shard: ShardId,
    pub(crate) series: Vec<u8>,
    pub(crate) labels: Vec<u8>,
    pub(crate) time: Millis,
    pub(crate) value: f64,
}

/// Appends an entry.
pub(crate) fn write_exemplar(
    shard: ShardId,
    series: &[u8],
    exemplar: &Exemplar,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(&shard.0.to_le_bytes());
    for text in [series, exemplar.labels.canonical()] {
        write_varint(out, text.len() as u64);
        out.extend_from_slice(text);
    }
    write_varint(out, zigzag(exemplar.time));
    out.extend_from_slice(&exemplar.value.to_bits().to_le_bytes());
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
        let found = exemplars.find(TENANT, &wanted, range, &ShardSet::all(shards));
        found.into_values().flatten().map(|one| one.time).collect()
    }

    #[test]
    fn the_first_to_come_go_first_and_nothing_is_kept_twice() {
        let exemplars = Exemplars::new(3);
        exemplars.add(TENANT, vec![found(1, 9), found(2, 3), found(1, 9)]);
        assert_eq!(exemplars.size().0, 2);
        exemplars.add(TENANT, vec![found(1, 200), found(1, 1)]);
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
        exemplars.add(TenantId(2), vec![found(1, 1)]);
        (0..70).for_each(|time| exemplars.add(TENANT, vec![large(time)]));
        assert!(exemplars.size().1 <= BYTES_MAX);
        assert_eq!(times(&exemplars, "m.*", 8).first(), Some(&7));
        let of_tenants = exemplars.of_tenants.lock();
        assert_eq!(of_tenants[&TenantId(2)].arrived.len(), 1);
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
