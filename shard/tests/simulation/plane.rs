//! The metadata plane in the small: one linearizable state, with the transitions that the real one has,
//! and a leader that lets [`trefoil_shard::movement`] decide when changes end.

use std::{collections::BTreeMap, sync::Arc, time::Duration};
use trefoil_model::{
    Configuration, ConfigurationNumber, DeletionVersion, LineageId, NodeId, OwnerRecord, OwnerSet,
    PlacementTable, ShardEntry, ShardId, ShardSet, TenantId,
};
use trefoil_shard::{
    ReplicaReport,
    movement::{MemberView, MovementSettings, MovementView, StepKind, decide},
    placement::PlacementNode,
};

/// What nodes learn.
#[derive(Clone, Debug)]
pub(crate) struct Metadata {
    pub(crate) table: Arc<PlacementTable>,
    pub(crate) deletions: Arc<BTreeMap<TenantId, DeletionVersion>>,
    /// The class that each deletion deletes, the first at index 0.
    pub(crate) classes: Arc<Vec<u8>>,
    /// Up to which deletion each node has confirmed.
    pub(crate) confirmed: Arc<BTreeMap<NodeId, DeletionVersion>>,
    /// Deletions up to this one were confirmed by everybody and are forgotten.
    pub(crate) forgotten: DeletionVersion,
}

/// The plane.
#[derive(Debug)]
pub(crate) struct Plane {
    pub(crate) now: Metadata,
    pub(crate) lineages: BTreeMap<NodeId, LineageId>,
    pub(crate) reports: BTreeMap<NodeId, ReplicaReport>,
    pub(crate) settings: MovementSettings,
}

impl Plane {
    pub(crate) fn new(
        shards: u16,
        owners: &OwnerSet,
        lineages: BTreeMap<NodeId, LineageId>,
        settings: MovementSettings,
    ) -> Self {
        let records = owners.iter().map(|node| {
            let record = OwnerRecord {
                lineage: lineages[&node],
                counts_from: ConfigurationNumber(1),
                born_serving: true,
            };
            (node, record)
        });
        let entry = ShardEntry {
            configuration: Configuration {
                number: ConfigurationNumber(1),
                old: owners.clone(),
                new: owners.clone(),
            },
            owners: records.collect(),
        };
        let table = PlacementTable {
            shards: vec![entry; usize::from(shards)],
        };
        Self {
            now: Metadata {
                table: Arc::new(table),
                deletions: Arc::default(),
                classes: Arc::default(),
                confirmed: Arc::default(),
                forgotten: DeletionVersion(0),
            },
            lineages,
            reports: BTreeMap::new(),
            settings,
        }
    }

    /// Gives a shard its next configuration. The caller has checked that the step is one.
    pub(crate) fn set(&mut self, shard: ShardId, old: OwnerSet, new: OwnerSet) {
        let table = Arc::make_mut(&mut self.now.table);
        let entry = &mut table.shards[usize::from(shard.0)];
        let number = entry.configuration.number.next();
        let configuration = Configuration { number, old, new };
        let mut owners = BTreeMap::new();
        for node in configuration.all_owners().iter() {
            let record = entry.owners.get(&node).copied().unwrap_or(OwnerRecord {
                lineage: self.lineages[&node],
                counts_from: number,
                born_serving: false,
            });
            owners.insert(node, record);
        }
        *entry = ShardEntry {
            configuration,
            owners,
        };
    }

    /// Begins a change, if none is under way.
    pub(crate) fn begin_change(&mut self, shard: ShardId, new: OwnerSet) -> bool {
        let Some(entry) = self.now.table.get(shard) else {
            return false;
        };
        let old = entry.configuration.new.clone();
        if entry.configuration.is_joint() || old == new || new.is_empty() {
            return false;
        }
        self.set(shard, old, new);
        true
    }

    /// Gives up a change, if one is under way.
    pub(crate) fn abandon_change(&mut self, shard: ShardId) -> bool {
        let configuration = self
            .now
            .table
            .get(shard)
            .map(|entry| entry.configuration.clone());
        let Some(joint) = configuration.filter(Configuration::is_joint) else {
            return false;
        };
        self.set(shard, joint.old.clone(), joint.old);
        true
    }

    /// Says whether that was news.
    pub(crate) fn record_amnesia(
        &mut self,
        node: NodeId,
        shards: Option<&ShardSet>,
        lineage: LineageId,
    ) -> bool {
        let mut recorded = false;
        if shards.is_none() {
            self.lineages.insert(node, lineage);
        }
        let table = Arc::make_mut(&mut self.now.table);
        for (index, entry) in table.shards.iter_mut().enumerate() {
            let meant = shards.is_none_or(|set| set.contains(ShardId(index as u16)));
            let Some(record) = entry.owners.get_mut(&node).filter(|_| meant) else {
                continue;
            };
            if record.lineage != lineage {
                entry.configuration.number = entry.configuration.number.next();
                *record = OwnerRecord {
                    lineage,
                    counts_from: entry.configuration.number,
                    born_serving: false,
                };
                recorded = true;
            }
        }
        recorded
    }

    pub(crate) fn delete(&mut self, tenant: TenantId, class: u8) {
        let classes = Arc::make_mut(&mut self.now.classes);
        classes.push(class);
        let version = DeletionVersion(classes.len() as u64);
        Arc::make_mut(&mut self.now.deletions).insert(tenant, version);
    }

    /// Notes what a node has confirmed. Says whether something is forgotten by it.
    pub(crate) fn confirm(&mut self, node: NodeId, version: DeletionVersion) -> bool {
        let confirmed = Arc::make_mut(&mut self.now.confirmed);
        let known = confirmed.entry(node).or_default();
        *known = version.max(*known);
        let storing = self.now.table.shards.iter();
        let storing = storing.flat_map(|entry| entry.owners.keys());
        let of_all = storing.map(|node| confirmed.get(node).copied().unwrap_or_default());
        let forgotten = of_all.min().unwrap_or_default();
        let risen = forgotten > self.now.forgotten;
        self.now.forgotten = forgotten.max(self.now.forgotten);
        risen
    }

    /// Ends the changes that can end. Says how many were finished and how many abandoned.
    pub(crate) fn lead(&mut self, now: Duration) -> (u64, u64) {
        let members: Vec<MemberView> = self.lineages.keys().map(|id| member(*id)).collect();
        let view = MovementView {
            now,
            table: &self.now.table,
            members: &members,
            reports: &self.reports,
        };
        let plan = decide(&view, &self.settings);
        let (mut finished, mut abandoned) = (0, 0);
        for step in plan.steps {
            let count = match step.kind {
                StepKind::Begin(_) => continue,
                StepKind::Finish => &mut finished,
                StepKind::Abandon => &mut abandoned,
            };
            for change in step.changes {
                let present = self.now.table.get(change.shard);
                if present.is_some_and(|entry| entry.configuration.number == change.expected) {
                    self.set(change.shard, change.old, change.new);
                    *count += 1;
                }
            }
        }
        (finished, abandoned)
    }
}

fn member(id: NodeId) -> MemberView {
    MemberView {
        node: PlacementNode {
            id,
            zone: String::new(),
            weight: 1,
            active: true,
        },
        dead_since: None,
        has_space: Some(true),
    }
}
