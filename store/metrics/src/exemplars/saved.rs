//! Exemplars as records of a file: all that there are, those that came first in front. Drawn in docs/formats/exemplars.md.

use super::{Entry, Exemplars, FoundExemplar, read_exemplars, write_entry};
use crate::MetricsError;
use std::{collections::HashMap, sync::Arc};
use trefoil_model::{DeletionVersion, ShardSet, TenantId, read_varint, write_varint};

/// Byte 0 of a record; another one is refused.
const VERSION: u8 = 1;

/// Bytes of entries in a record, about, before they are compressed.
const ENTRIES_BYTES: usize = 1 << 20;

/// What a record may be, uncompressed: room for an entry of any size that a body can bring.
const CONTENT_BYTES_MAX: usize = ENTRIES_BYTES + crate::BODY_CONTENT_BYTES_MAX;

/// zstd level: they are rewritten at every flush.
const LEVEL: i32 = 1;

impl Exemplars {
    /// All of them, and the number of the last change before.
    ///
    /// # Errors
    /// When memory is short.
    pub(crate) fn save(&self) -> Result<(u64, Vec<Vec<u8>>), MetricsError> {
        let (tenants, changes) = {
            // Pointers only: whoever adds some waits.
            let of_all = self.of_all.lock();
            let tenants: Vec<TenantId> = of_all.tenants.keys().copied().collect();
            let own = tenants.into_iter().map(|tenant| {
                let arrived = of_all.tenants.get(&tenant).map(|own| own.arrived.clone());
                (tenant, arrived.unwrap_or_default(), of_all.of(tenant))
            });
            (own.collect::<Vec<_>>(), of_all.changes)
        };
        let mut records = Vec::new();
        for (tenant, arrived, sorted) in tenants {
            let versions: HashMap<*const Entry, DeletionVersion> = sorted
                .iter()
                .map(|(entry, version)| (Arc::as_ptr(entry), *version))
                .collect();
            let version_of = |entry: &Arc<Entry>| versions.get(&Arc::as_ptr(entry)).copied();
            let entries: Vec<_> = arrived
                .into_iter()
                .map(|entry| (Arc::clone(&entry), version_of(&entry).unwrap_or_default()))
                .collect();
            for of_version in entries.chunk_by(|a, b| a.1 == b.1) {
                let mut rest = of_version;
                while !rest.is_empty() {
                    let count = fitting(rest);
                    let (some, others) = rest.split_at(count);
                    records.push(record(tenant, some)?);
                    rest = others;
                }
            }
        }
        Ok((changes, records))
    }
}

/// How many of these a record takes, one at least.
fn fitting(entries: &[(Arc<Entry>, DeletionVersion)]) -> usize {
    let mut bytes = 0;
    let is_over = |(entry, _): &(Arc<Entry>, DeletionVersion)| {
        bytes += entry.bytes();
        bytes > ENTRIES_BYTES
    };
    let over = entries.iter().position(is_over);
    over.unwrap_or(entries.len()).max(1)
}

/// Entries of one tenant and one version.
fn record(
    tenant: TenantId,
    entries: &[(Arc<Entry>, DeletionVersion)],
) -> Result<Vec<u8>, MetricsError> {
    let mut content = Vec::new();
    let version = entries.first().map_or(0, |(_, version)| version.0);
    write_varint(&mut content, u64::from(tenant.0));
    write_varint(&mut content, version);
    write_varint(&mut content, entries.len() as u64);
    for (entry, _) in entries {
        let observed = (entry.time, entry.value_bits);
        let (series, labels) = (&entry.series, &entry.labels);
        write_entry(entry.shard, series, labels, observed, &mut content);
    }
    let mut record = vec![VERSION];
    record.extend_from_slice(&(content.len() as u32).to_le_bytes());
    let frame = zstd::bulk::compress(&content, LEVEL).map_err(MetricsError::Compression)?;
    record.extend_from_slice(&frame);
    Ok(record)
}

/// What a record holds: of which tenant, with which deletion version they came, and the exemplars; `None` when it is malformed or of
/// another version.
pub(crate) fn read_saved(record: &[u8]) -> Option<(TenantId, DeletionVersion, Vec<FoundExemplar>)> {
    let (&VERSION, frame) = record.split_first()? else {
        return None;
    };
    let (length, frame) = frame.split_first_chunk()?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > CONTENT_BYTES_MAX {
        return None;
    }
    let content = zstd::bulk::decompress(frame, length).ok()?;
    let mut at = 0;
    let tenant = u32::try_from(read_varint(&content, &mut at)?).ok()?;
    let version = read_varint(&content, &mut at)?;
    let found = read_exemplars(content.get(at..)?, &ShardSet::all(u16::MAX))?;
    Some((TenantId(tenant), DeletionVersion(version), found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_model::{Labels, ShardId};

    fn found(shard: u16, time: i64) -> FoundExemplar {
        let series = Labels::from_pairs([("__name__", "m"), ("i", "1")]);
        FoundExemplar {
            shard: ShardId(shard),
            series: series.canonical().to_vec(),
            labels: Labels::from_pairs([("trace_id", "ab")])
                .canonical()
                .to_vec(),
            time,
            value: 0.5,
        }
    }

    fn all(exemplars: &Exemplars) -> String {
        let of_all = exemplars.of_all.lock();
        let texts = of_all.tenants.iter().map(|(tenant, own)| {
            let versions = own.arrived.iter().map(|entry| own.sorted[entry]);
            format!(
                "{tenant:?} {:?} {:?};",
                own.arrived,
                versions.collect::<Vec<_>>()
            )
        });
        texts.collect()
    }

    #[test]
    fn what_was_saved_is_read_in_its_order() {
        let exemplars = Exemplars::new(5_000);
        let long = "x".repeat(1000);
        for time in 0..6_000 {
            let labels = Labels::from_pairs([("trace_id", long.as_str())]);
            let one = FoundExemplar {
                labels: labels.canonical().to_vec(),
                ..found(time as u16 % 7, 9_000 - time)
            };
            let (tenant, version) = (
                TenantId(1 + (time % 2) as u32),
                DeletionVersion(time as u64 / 2_500),
            );
            exemplars.add(tenant, version, vec![one]);
        }
        let (changes, records) = exemplars.save().expect("memory");
        assert_eq!(changes, exemplars.changes());
        assert!(records.len() > 5, "{}", records.len());
        let other = Exemplars::new(5_000);
        for record in &records {
            let (tenant, version, found) = read_saved(record).expect("a record");
            other.add(tenant, version, found);
        }
        assert!(all(&exemplars) == all(&other));

        let mut of_other_version = records[0].clone();
        of_other_version[0] = 2;
        assert_eq!(read_saved(&of_other_version), None);
        for length in 0..records[0].len() {
            assert_eq!(read_saved(&records[0][..length]), None);
        }
    }

    /// The example of docs/formats/exemplars.md. The frame may change with the version of zstd, the content may not.
    #[test]
    fn golden_record() {
        let exemplars = Exemplars::new(9);
        exemplars.add(TenantId(3), DeletionVersion(1), vec![found(2, 1000)]);
        let (_, records) = exemplars.save().expect("memory");
        let [record] = &records[..] else {
            panic!("{records:?}");
        };
        assert_eq!(record[0], 1);
        let content = zstd::bulk::decompress(&record[5..], 1024).expect("a frame");
        assert_eq!(record[1..5], (content.len() as u32).to_le_bytes());
        let hex: String = content.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "03010102000f085f5f6e616d655f5f016d016901310c0874726163655f6964026162d00f000000000000e03f"
        );
    }
}
