//! The identity file: who this node is. Made once per data directory, before anything else in it.

use crate::{MetadataError, codec, files};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use trefoil_model::{ClusterId, Incarnation, LineageId, NodeId};
use trefoil_store_pages::Disk;

const NAME: &str = "identity";

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    node: NodeId,
    lineage: LineageId,
    cluster: Option<ClusterId>,
}

/// Who this node is. Changes are durable before they are visible.
pub struct Identity {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    record: Record,
    incarnation: Incarnation,
    fresh: bool,
}

impl Identity {
    /// Reads the identity in the directory `meta/`, or draws one. Draws the incarnation. Blocks.
    ///
    /// # Errors
    /// [`MetadataError::Damaged`] when the file is there and unreadable: a new identity beside old
    /// data would be worse than none.
    pub fn open(disk: Arc<dyn Disk>, directory: &Path) -> Result<Self, MetadataError> {
        disk.create_dir_all(directory)
            .map_err(|source| MetadataError::disk("create metadata directory", source))?;
        let found = files::read(&*disk, &directory.join(NAME))?;
        let fresh = found.is_none();
        let record = match found {
            Some(bytes) => {
                codec::decode::<Record>(codec::Kind::Identity, &bytes).map_err(|error| {
                    MetadataError::Damaged {
                        reason: format!("identity: {error}"),
                    }
                })?
            }
            None => Record {
                node: NodeId(rand::random_range(1..=u64::MAX)),
                lineage: LineageId(rand::random()),
                cluster: None,
            },
        };
        let identity = Self {
            disk,
            directory: directory.to_owned(),
            record,
            incarnation: Incarnation(rand::random()),
            fresh,
        };
        if fresh {
            identity.write(record)?;
        }
        Ok(identity)
    }

    /// The node's id.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.record.node
    }

    /// The lineage of the data directory.
    #[must_use]
    pub fn lineage(&self) -> LineageId {
        self.record.lineage
    }

    /// The cluster to which the node belongs; none before it founded or joined one.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        self.record.cluster
    }

    /// This run of the node.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Whether the identity was drawn now, because the directory was empty.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Begins a new lineage, durably. Until the metadata plane has recorded it, the replica is
    /// amnesiac: the member's lineage in the state differs from this one.
    ///
    /// # Errors
    /// [`MetadataError::Disk`].
    pub fn begin_lineage(&mut self) -> Result<LineageId, MetadataError> {
        let lineage = LineageId(rand::random());
        self.change(Record {
            lineage,
            ..self.record
        })?;
        Ok(lineage)
    }

    /// Says to which cluster the node belongs, once and durably.
    ///
    /// # Errors
    /// [`MetadataError::OtherCluster`] when it belongs to another one.
    pub fn join_cluster(&mut self, cluster: ClusterId) -> Result<(), MetadataError> {
        match self.record.cluster {
            Some(present) if present == cluster => Ok(()),
            Some(present) => Err(MetadataError::OtherCluster {
                reason: format!("this node belongs to cluster {present}, not {cluster}"),
            }),
            None => self.change(Record {
                cluster: Some(cluster),
                ..self.record
            }),
        }
    }

    fn change(&mut self, record: Record) -> Result<(), MetadataError> {
        self.write(record)?;
        self.record = record;
        Ok(())
    }

    fn write(&self, record: Record) -> Result<(), MetadataError> {
        let bytes = codec::encode(codec::Kind::Identity, &record)?;
        files::replace(&*self.disk, &self.directory, NAME, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_store_pages::SimulatedDisk;

    /// Node 0x0102030405060708 of lineage 5, before and after it joined cluster 0x0102.
    const ALONE: &str = "5466526d010007000b00000098adcc51fd08070605040302010500";
    const JOINED: &str = "5466526d010007000e000000bbc1775cfd08070605040302010501fb0201";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn file(disk: &SimulatedDisk) -> Vec<u8> {
        files::read(disk, Path::new("/meta/identity"))
            .unwrap()
            .unwrap()
    }

    #[test]
    fn golden_bytes() {
        let disk = SimulatedDisk::new(1);
        let directory = Path::new("/meta");
        disk.create_dir_all(directory).unwrap();
        let record = Record {
            node: NodeId(0x0102_0304_0506_0708),
            lineage: LineageId(5),
            cluster: None,
        };
        let bytes = codec::encode(codec::Kind::Identity, &record).unwrap();
        assert_eq!(hex(&bytes), ALONE);
        files::replace(&disk, directory, NAME, &bytes).unwrap();
        let mut identity = Identity::open(Arc::new(disk.clone()), directory).unwrap();
        assert_eq!(identity.record, record);
        assert!(!identity.is_fresh());
        identity.join_cluster(ClusterId(0x0102)).unwrap();
        assert_eq!(hex(&file(&disk)), JOINED);
        let again = Identity::open(Arc::new(disk), directory).unwrap();
        assert_eq!(again.cluster(), Some(ClusterId(0x0102)));
        assert_ne!(again.incarnation(), identity.incarnation());
    }

    #[test]
    fn a_damaged_identity_is_not_replaced() {
        let disk = SimulatedDisk::new(1);
        let directory = Path::new("/meta");
        let identity = Identity::open(Arc::new(disk.clone()), directory).unwrap();
        assert!(identity.is_fresh());
        let length = file(&disk).len() as u64;
        assert!(disk.flip_bit(&directory.join(NAME), length - 1, 0));
        let damaged = Identity::open(Arc::new(disk), directory);
        assert!(matches!(damaged, Err(MetadataError::Damaged { .. })));
    }
}
