//! What a part of a snapshot says of itself: whatever its blocks mean only inside the cluster.
//!
//! Drawn in docs/formats/snapshot.md. Written once, as the last file of a part.

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use std::{io::ErrorKind, path::Path};
use trefoil_model::{Millis, NodeId, ShardId, ShardSet, Signal};
use trefoil_raft::State;
use trefoil_store_pages::{
    Disk, FileHeader, PAGE_BYTES, PageReader, PageWriter, PagesError, RECORD_BYTES_MAX, RecordGroup,
};

/// The file's name.
pub(crate) const FILE: &str = "about";
const PURPOSE: [u8; 4] = *b"snap";
/// Byte 0 of the record; another one is refused.
const VERSION: u8 = 1;

/// What a node's part of a snapshot is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    /// The snapshot's name, the same in the parts of all nodes.
    pub(crate) name: String,
    /// When it was asked for, milliseconds of UTC.
    pub(crate) taken_at: Millis,
    /// The cluster's id.
    pub(crate) cluster: String,
    /// The node's id.
    pub(crate) node: String,
    /// The node's name.
    pub(crate) node_name: String,
    /// The version of the program.
    pub(crate) program: String,
    /// How many shards the cluster has.
    pub(crate) shards_all: u16,
    /// Whether only what was in blocks already is in it.
    pub(crate) skips_head: bool,
    /// The shards that may be read here, as ranges with both ends. Unless the head was skipped, all that was acknowledged of
    /// them before is here.
    pub(crate) shards: Vec<(u16, u16)>,
    /// Those of them of which data was lost for good before.
    pub(crate) lost: Vec<(u16, u16)>,
    /// How many blocks are in the folder's manifest.
    pub(crate) blocks: u64,
    /// All tenants of the cluster, ascending by id.
    pub(crate) tenants: Vec<Tenant>,
}

/// A tenant, and what of it must not be shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tenant {
    /// Its number in the blocks.
    pub(crate) id: u32,
    /// Its name.
    pub(crate) name: String,
    /// The version of its newest deletion, 0: none.
    pub(crate) deletions_newest: u64,
    /// Deletions that some block may still have to apply, ascending.
    pub(crate) deletions: Vec<Deletion>,
    /// What retention hides.
    pub(crate) cut_offs: Vec<CutOff>,
}

/// A deletion that takes items of lower versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Deletion {
    pub(crate) version: u64,
    pub(crate) selector: String,
    /// First millisecond.
    pub(crate) start: Millis,
    /// Behind the last one.
    pub(crate) end: Millis,
}

/// What is older is hidden.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CutOff {
    /// Empty: everything of the tenant.
    pub(crate) selector: String,
    pub(crate) before: Millis,
}

impl About {
    /// What the metadata plane says of tenants.
    pub(crate) fn tenants_of(state: &State) -> Vec<Tenant> {
        let tenants = state.tenants().map(|tenant| Tenant {
            id: tenant.id.0,
            name: tenant.name.clone(),
            deletions_newest: tenant.deletions_newest.0,
            deletions: state
                .deletions(tenant.id)
                .filter(|deletion| deletion.signal == Signal::Metrics)
                .map(|deletion| Deletion {
                    version: deletion.version.0,
                    selector: deletion.selector.clone(),
                    start: deletion.range.start,
                    end: deletion.range.end,
                })
                .collect(),
            cut_offs: (tenant.cut_offs.iter())
                .filter(|cut_off| cut_off.signal == Signal::Metrics)
                .map(|cut_off| CutOff {
                    selector: cut_off.selector.clone(),
                    before: cut_off.before,
                })
                .collect(),
        });
        tenants.collect()
    }

    /// The shards that may be read.
    pub(crate) fn shards(&self) -> ShardSet {
        of_ranges(&self.shards)
    }

    /// The shards of which data was lost for good.
    pub(crate) fn lost(&self) -> ShardSet {
        of_ranges(&self.lost)
    }

    /// The node's name for people.
    pub(crate) fn node_text(&self) -> &str {
        match self.node_name.is_empty() {
            true => &self.node,
            false => &self.node_name,
        }
    }

    /// Puts it into a folder, durably but for the file's name.
    ///
    /// # Errors
    /// When the disk refuses, or all that is to be said is more than one record can hold.
    pub(crate) fn write(&self, disk: &dyn Disk, folder: &Path, node: NodeId) -> anyhow::Result<()> {
        let record = self.record(RECORD_BYTES_MAX)?;
        let header = FileHeader {
            purpose: PURPOSE,
            lineage: 0,
            number: node.0,
            base: 0,
            note: Vec::new(),
        };
        let mut group = RecordGroup::new(0);
        group.push(&[&record]);
        let bytes = (group.disk_bytes() + 3 * PAGE_BYTES) as u64;
        let mut writer = PageWriter::create(disk, &folder.join(FILE), header, bytes)?;
        writer.append(&mut group)?;
        // The mark makes damage of the record provable.
        writer.append(&mut RecordGroup::new(group.end()))?;
        Ok(())
    }

    fn record(&self, bytes_max: usize) -> anyhow::Result<Vec<u8>> {
        let mut record = vec![VERSION];
        serde_json::to_writer(&mut record, self)?;
        ensure!(
            record.len() <= bytes_max,
            "what is known of the tenants takes {} bytes, and a snapshot has room for {bytes_max}",
            record.len()
        );
        Ok(record)
    }

    /// Reads it from a folder.
    ///
    /// # Errors
    /// When it is not there, damaged, or of another version.
    pub(crate) fn read(disk: &dyn Disk, folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(FILE);
        let reader = match PageReader::open(disk, &path, PURPOSE) {
            Err(PagesError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => bail!(
                "{} is no folder of a snapshot: it has no file {FILE:?}",
                folder.display()
            ),
            opened => opened?,
        };
        let mut record = None;
        let summary = reader.scan(&mut |_, bytes| {
            record.get_or_insert_with(|| bytes.to_vec());
        })?;
        let Some(record) = record.filter(|_| summary.damage.is_empty()) else {
            bail!("{} is damaged", path.display());
        };
        match record.split_first() {
            Some((&VERSION, content)) => {
                serde_json::from_slice(content).with_context(|| format!("read {}", path.display()))
            }
            version => bail!(
                "{} has version {}, this program reads {VERSION}",
                path.display(),
                version.map_or(0, |(version, _)| *version)
            ),
        }
    }
}

fn of_ranges(ranges: &[(u16, u16)]) -> ShardSet {
    let shards = ranges.iter().flat_map(|(first, last)| *first..=*last);
    shards.map(ShardId).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use trefoil_store_pages::SimulatedDisk;

    #[test]
    fn a_folder_that_is_no_snapshot_is_called_that() {
        let disk = SimulatedDisk::new(1);
        let error = About::read(&disk, Path::new("/etc")).unwrap_err();
        assert!(
            error.to_string().contains("no folder of a snapshot"),
            "{error:#}"
        );
    }

    pub(crate) fn about() -> About {
        About {
            name: "20261122T051500Z-0123456789abcdef".to_owned(),
            taken_at: 1_795_324_500_000,
            cluster: format!("{:032x}", 7),
            node: format!("{:016x}", 9),
            node_name: "n1".to_owned(),
            program: "1".to_owned(),
            shards_all: 4,
            skips_head: false,
            shards: vec![(0, 1), (3, 3)],
            lost: vec![(3, 3)],
            blocks: 0,
            tenants: vec![Tenant {
                id: 1,
                name: "a".to_owned(),
                deletions_newest: 2,
                deletions: vec![Deletion {
                    version: 2,
                    selector: "{a=\"b\"}".to_owned(),
                    start: Millis::MIN,
                    end: 10,
                }],
                cut_offs: vec![CutOff {
                    selector: String::new(),
                    before: -5,
                }],
            }],
        }
    }

    #[test]
    fn golden_bytes() {
        let disk = SimulatedDisk::new(1);
        let folder = Path::new("s");
        disk.create_dir_all(folder).expect("a folder");
        let about = about();
        about.write(&disk, folder, NodeId(9)).expect("space");
        let reader = PageReader::open(&disk, &folder.join(FILE), PURPOSE).expect("a page file");
        let mut records = Vec::new();
        let summary = reader.scan(&mut |_, bytes| records.push(bytes.to_vec()));
        assert!(summary.expect("readable").damage.is_empty());
        let expected = concat!(
            "\u{1}{\"name\":\"20261122T051500Z-0123456789abcdef\",\"taken_at\":1795324500000,",
            "\"cluster\":\"00000000000000000000000000000007\",\"node\":\"0000000000000009\",",
            "\"node_name\":\"n1\",\"program\":\"1\",\"shards_all\":4,\"skips_head\":false,",
            "\"shards\":[[0,1],[3,3]],\"lost\":[[3,3]],\"blocks\":0,\"tenants\":[{\"id\":1,\"name\":\"a\",",
            "\"deletions_newest\":2,\"deletions\":[{\"version\":2,\"selector\":\"{a=\\\"b\\\"}\",",
            "\"start\":-9223372036854775808,\"end\":10}],\"cut_offs\":[{\"selector\":\"\",\"before\":-5}]}]}"
        );
        assert_eq!(records, [expected.as_bytes()]);
        assert!(about.record(expected.len()).is_ok());
        let refused = about.record(expected.len() - 1).expect_err("a byte more");
        assert!(refused.to_string().contains("room for"), "{refused}");
        assert_eq!(About::read(&disk, folder).expect("whole"), about);
        assert_eq!(
            crate::cluster::admin::shard_ranges(&about.shards()),
            about.shards
        );
        for byte in [4096 + 40, 4096 + 300] {
            assert!(disk.flip_bit(&folder.join(FILE), byte, 3));
            assert!(About::read(&disk, folder).is_err(), "byte {byte}");
            disk.flip_bit(&folder.join(FILE), byte, 3);
        }
    }
}
