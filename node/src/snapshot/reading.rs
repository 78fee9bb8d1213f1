//! Reads the parts of a snapshot, of one node or of several, as one.
//!
//! Blocks are read by the store's own engine, under the deletions and cut-offs that stand in each part: what was hidden
//! stays hidden. Nothing is changed in the folders. A part that was proved to be complete has all that is needed of its shards,
//! so each shard is read from one of them; where the head was skipped, from all of them.

use super::about::{About, Tenant};
use crate::{
    cluster::known_deletions::compile,
    query::{
        source::listed,
        storage::{engine_matchers, raw_series},
    },
};
use anyhow::{Context, bail, ensure};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};
use trefoil_model::{DeletionVersion, Labels, ShardId, ShardSet, TenantId, TimeRange};
use trefoil_query_promql::{Matcher, RawSeries};
use trefoil_store_blocks::Manifest;
use trefoil_store_metrics::{
    Deletion, Matcher as EngineMatcher, MetricsEngine, MetricsOptions, SelectedCutOff, View,
};
use trefoil_store_pages::{Disk, ReadOnlyDisk};

/// Series whose labels are in memory at once, about: shards are read in groups that have no more.
const SERIES_AT_ONCE: usize = 1 << 20;
/// Samples that are decoded at once: 16 MiB.
const SAMPLES_AT_ONCE: u64 = 1 << 20;
/// Everything.
const ALL_TIME: TimeRange = TimeRange {
    start: i64::MIN,
    end: i64::MAX,
};

/// One node's part.
pub(crate) struct Part {
    pub(crate) path: PathBuf,
    pub(crate) about: About,
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
    view: View,
    /// The shards that are read from it.
    assigned: ShardSet,
}

/// Parts of one snapshot.
pub(crate) struct Parts {
    parts: Vec<Part>,
}

impl Parts {
    /// Opens the folders of one snapshot.
    ///
    /// # Errors
    /// When one is not whole, or they are of several snapshots.
    pub(crate) fn open(paths: &[PathBuf]) -> anyhow::Result<Self> {
        let mut parts: Vec<Part> = Vec::with_capacity(paths.len());
        for path in paths {
            let part = open(path).with_context(|| format!("open {}", path.display()))?;
            if let Some(first) = parts.first() {
                check_alike(first, &part)?;
            }
            if let Some(same) = parts.iter().find(|p| p.about.node == part.about.node) {
                bail!(
                    "{} and {} are parts of the same node",
                    same.path.display(),
                    part.path.display()
                );
            }
            parts.push(part);
        }
        ensure!(!parts.is_empty(), "no folder of a snapshot was named");
        assign(&mut parts);
        Ok(Self { parts })
    }

    /// The parts, in the order in which they were named.
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// What all parts say alike.
    pub(crate) fn about(&self) -> &About {
        &self.parts[0].about
    }

    /// The shards that no part has.
    pub(crate) fn missing(&self) -> ShardSet {
        let all = ShardSet::all(self.about().shards_all);
        let parts = self.parts.iter();
        parts.fold(all, |left, part| left.difference(&part.assigned))
    }

    /// The shards of which data was lost for good before the snapshot.
    pub(crate) fn lost(&self) -> ShardSet {
        let parts = self.parts.iter();
        let lost = parts.map(|part| part.assigned.intersection(&part.about.lost()));
        lost.fold(ShardSet::new(), |all, lost| all.union(&lost))
    }

    /// The tenants, by name.
    pub(crate) fn tenants(&self) -> BTreeMap<&str, TenantId> {
        let parts = self.parts.iter();
        let all = parts.flat_map(|part| &part.about.tenants);
        all.map(|tenant| (tenant.name.as_str(), TenantId(tenant.id)))
            .collect()
    }

    /// Whether some block has anything of a tenant.
    pub(crate) fn has(&self, tenant: TenantId) -> bool {
        let mut parts = self.parts.iter();
        parts.any(|part| part.view.tenants().contains(&tenant))
    }

    /// Gives the series of a tenant that fit one of the selectors, all without any, each once with its samples in order.
    ///
    /// # Errors
    /// Those of `each`; when a block is damaged, or a selector is too expensive.
    pub(crate) fn walk(
        &self,
        tenant: TenantId,
        selectors: &[Vec<Matcher>],
        each: &mut dyn FnMut(RawSeries) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let everything = [Vec::new()];
        let selectors = if selectors.is_empty() {
            &everything[..]
        } else {
            selectors
        };
        for (at, selector) in selectors.iter().enumerate() {
            let matchers = engine_matchers(selector)?;
            let is_new = |labels: &Labels| !selectors[..at].iter().any(|one| fits(one, labels));
            let mut each_new = |series: RawSeries| match is_new(&series.labels) {
                true => each(series),
                false => Ok(()),
            };
            self.walk_groups(tenant, &matchers, &mut each_new)?;
        }
        Ok(())
    }

    /// One group of shards after the other, so that the labels of not too many series are in memory.
    fn walk_groups(
        &self,
        tenant: TenantId,
        matchers: &[EngineMatcher],
        each: &mut dyn FnMut(RawSeries) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        // Shards that are nowhere would say that there is little to read.
        let parts = self.parts.iter();
        let here = parts.fold(ShardSet::new(), |all, part| all.union(&part.assigned));
        let here: Vec<ShardId> = here.iter().collect();
        let (mut left, mut at_once) = (&here[..], 1);
        while !left.is_empty() {
            let (group, behind) = left.split_at(at_once.min(left.len()));
            let shards = group.iter().copied().collect();
            let series = self.walk_shards(tenant, matchers, &shards, each)?;
            at_once = next_group(group.len(), series);
            left = behind;
        }
        Ok(())
    }

    /// Walks over some shards. Says how many series they have.
    fn walk_shards(
        &self,
        tenant: TenantId,
        matchers: &[EngineMatcher],
        shards: &ShardSet,
        each: &mut dyn FnMut(RawSeries) -> anyhow::Result<()>,
    ) -> anyhow::Result<usize> {
        let views: Vec<(&View, ShardSet)> = (self.parts.iter())
            .map(|part| (&part.view, part.assigned.intersection(shards)))
            .filter(|(_, shards)| !shards.is_empty())
            .collect();
        let reading = || {
            let of_group = |part: &&Part| !part.assigned.intersection(shards).is_empty();
            let parts = self.parts.iter().filter(of_group);
            let paths: Vec<String> = parts.map(|p| p.path.display().to_string()).collect();
            format!("read {}", paths.join(" or "))
        };
        let cursor = View::cursor_over(&views, tenant, matchers, ALL_TIME);
        let mut cursor = cursor.with_context(reading)?;
        cursor.read_in_batches_of(SAMPLES_AT_ONCE);
        let all = cursor.series();
        while let Some(series) = cursor.next_series().with_context(reading)? {
            each(raw_series(series, 0)?)?;
        }
        Ok(all)
    }
}

/// How many shards to read at once after so many that had so many series: at most twice as many, for the next ones may have more.
fn next_group(shards: usize, series: usize) -> usize {
    let each = series.div_ceil(shards.max(1)).max(1);
    (SERIES_AT_ONCE / each).clamp(1, 2 * shards.max(1))
}

fn fits(selector: &[Matcher], labels: &Labels) -> bool {
    selector
        .iter()
        .all(|matcher| matcher.matches_labels(labels))
}

fn open(path: &Path) -> anyhow::Result<Part> {
    let disk: Arc<dyn Disk> = Arc::new(ReadOnlyDisk);
    let about = About::read(&*disk, path)?;
    let manifest = Manifest::open_read_only(disk, path)?;
    let numbers = manifest.statistics();
    ensure!(
        numbers.blocks == about.blocks,
        "its manifest has {} blocks, not {}: it is damaged",
        numbers.blocks,
        about.blocks
    );
    let engine = MetricsEngine::open(Arc::new(manifest), MetricsOptions::default())?;
    for tenant in &about.tenants {
        hide(&engine, tenant)
            .with_context(|| format!("what was deleted of tenant {}", tenant.name))?;
    }
    Ok(Part {
        path: path.to_owned(),
        about,
        blocks: numbers.blocks,
        bytes: numbers.block_bytes,
        view: engine.view(),
        assigned: ShardSet::new(),
    })
}

/// Has the engine hide what was hidden of a tenant.
fn hide(engine: &MetricsEngine, tenant: &Tenant) -> anyhow::Result<()> {
    let id = TenantId(tenant.id);
    let mut deletions = Vec::with_capacity(tenant.deletions.len());
    for deletion in &tenant.deletions {
        deletions.push(Deletion {
            version: DeletionVersion(deletion.version),
            matchers: compile(&deletion.selector)?,
            range: TimeRange {
                start: deletion.start,
                end: deletion.end,
            },
        });
    }
    engine.set_deletions(id, DeletionVersion(tenant.deletions_newest), deletions);
    let mut selected = Vec::new();
    for cut_off in &tenant.cut_offs {
        if cut_off.selector.is_empty() {
            engine.set_cut_off(id, cut_off.before);
            continue;
        }
        selected.push(SelectedCutOff {
            selector: cut_off.selector.as_str().into(),
            matchers: compile(&cut_off.selector)?,
            before: cut_off.before,
        });
    }
    engine.set_selected_cut_offs(id, selected);
    Ok(())
}

fn check_alike(first: &Part, other: &Part) -> anyhow::Result<()> {
    let facts = |about: &About| {
        let About {
            name,
            cluster,
            shards_all,
            skips_head,
            ..
        } = about;
        (name.clone(), cluster.clone(), *shards_all, *skips_head)
    };
    ensure!(
        facts(&first.about) == facts(&other.about),
        "{} is a part of snapshot {}, and {} of {}",
        first.path.display(),
        first.about.name,
        other.path.display(),
        other.about.name
    );
    Ok(())
}

/// Says from which parts each shard is read.
fn assign(parts: &mut [Part]) {
    let has: Vec<(ShardSet, ShardSet)> = parts
        .iter()
        .map(|part| (part.about.shards(), part.about.lost()))
        .collect();
    let about = &parts[0].about;
    let (all, skips_head) = (about.shards_all, about.skips_head);
    for shard in (0..all).map(ShardId) {
        for at in sources(&has, shard, skips_head) {
            parts[at].assigned.insert(shard);
        }
    }
}

/// The parts that a shard is read from, by what they have and what they lost of it.
fn sources(has: &[(ShardSet, ShardSet)], shard: ShardId, skips_head: bool) -> Vec<usize> {
    let with = |of: &dyn Fn(&(ShardSet, ShardSet)) -> bool| -> Vec<usize> {
        let parts = has.iter().enumerate().filter(|(_, part)| of(part));
        parts.map(|(at, _)| at).collect()
    };
    let all = with(&|(shards, _)| shards.contains(shard));
    let whole = with(&|(shards, lost)| shards.contains(shard) && !lost.contains(shard));
    let whole = if whole.is_empty() { &all } else { &whole };
    match skips_head {
        true => all,
        // Each has everything; they take turns.
        false => (whole.get(usize::from(shard.0) % whole.len().max(1)))
            .copied()
            .into_iter()
            .collect(),
    }
}

/// Why parts are not enough for an answer that is whole.
///
/// # Errors
/// When shards are missing.
pub(crate) fn check_whole(parts: &Parts) -> anyhow::Result<()> {
    let missing = parts.missing();
    ensure!(
        missing.is_empty(),
        "{} of {} shards are in none of these folders (shards {}): name the folders of other nodes, too, or write what there \
         is with --partial",
        missing.len(),
        parts.about().shards_all,
        listed(&missing)
    );
    Ok(())
}

#[cfg(test)]
mod tests;
