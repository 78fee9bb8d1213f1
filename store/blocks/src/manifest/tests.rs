//! Commits, views, tombstones, damage, full disks, and crash loops under seeds.

use super::*;
use crate::TenantSummary;
use std::collections::BTreeMap;
use trefoil_model::{DeletionVersion, ShardId, Signal, TenantId, TimeRange, WINDOW_MILLIS};
use trefoil_store_pages::{CrashLoss, RealDisk, SimulatedDisk};

const LINEAGE: LineageId = LineageId(7);
const EVER: TimeRange = TimeRange {
    start: i64::MIN,
    end: i64::MAX,
};

fn options() -> ManifestOptions {
    ManifestOptions {
        lineage_if_new: LINEAGE,
        rewrite_above_bytes: 64 << 10,
        ..ManifestOptions::default()
    }
}

fn dir() -> &'static Path {
    Path::new("node/blocks")
}

fn open(disk: &SimulatedDisk) -> (Manifest, ManifestRecovery) {
    Manifest::open(Arc::new(disk.clone()), dir(), options()).unwrap()
}

fn shards(list: &[u16]) -> ShardSet {
    list.iter().copied().map(ShardId).collect()
}

/// Writes the files of a new block whose content follows from its id.
fn try_block(manifest: &Manifest, in_shards: &[u16]) -> Result<BlockMeta, BlocksError> {
    let id = manifest.reserve_block();
    let content = content(id);
    let files = [("index", &content[..10]), ("samples", &content[..])];
    let files = files.map(|(name, bytes)| manifest.write_file(id, name, bytes));
    Ok(BlockMeta {
        id,
        signal: Signal::Metrics,
        window: TimeRange {
            start: 0,
            end: WINDOW_MILLIS,
        },
        level: 0,
        tenants: vec![TenantSummary {
            tenant: TenantId(0),
            deletion_version: DeletionVersion(0),
            items: 1,
        }],
        shards: shards(in_shards),
        time_min: 5,
        time_max: 6,
        items: 1,
        files: files.into_iter().collect::<Result<_, _>>()?,
        note: vec![],
    })
}

fn block(manifest: &Manifest, in_shards: &[u16]) -> BlockMeta {
    try_block(manifest, in_shards).unwrap()
}

fn content(block: BlockId) -> Vec<u8> {
    (0..3000 + block.0 * 7)
        .map(|i| (i * block.0) as u8)
        .collect()
}

fn add(blocks: Vec<BlockMeta>) -> ManifestEdit {
    ManifestEdit {
        add: blocks,
        ..ManifestEdit::default()
    }
}

fn block_files(disk: &SimulatedDisk) -> usize {
    let files = disk.files().into_iter();
    files
        .filter(|(path, _)| block_of(path.file_name().unwrap().to_str().unwrap()).is_some())
        .count()
}

#[test]
fn commits_survive_restart_with_everything_in_them() {
    let disk = SimulatedDisk::new(1);
    let (manifest, recovery) = open(&disk);
    assert!(recovery.fresh);
    let (first, second) = (block(&manifest, &[1, 2]), block(&manifest, &[2, 3]));
    let edit = ManifestEdit {
        flushed_to: Some(100),
        checkpoint: Some(b"positions".to_vec()),
        ..add(vec![first.clone(), second.clone()])
    };
    manifest.commit(edit).unwrap();
    let tombstones = vec![(first.id, shards(&[2])), (BlockId(99), shards(&[1]))];
    let edit = ManifestEdit {
        tombstones,
        ..ManifestEdit::default()
    };
    manifest.commit(edit).unwrap();
    disk.crash(CrashLoss::Everything);

    let (manifest, recovery) = open(&disk);
    assert_eq!(recovery, ManifestRecovery::default());
    let view = manifest.pin();
    assert_eq!((view.lineage(), view.flushed_to()), (LINEAGE, 100));
    assert_eq!(view.checkpoint(), b"positions");
    let blocks: Vec<_> = view.blocks(Signal::Metrics, EVER).collect();
    assert_eq!(*blocks[0].meta, first);
    assert_eq!(blocks[0].shards, shards(&[1]), "the tombstone holds");
    assert_eq!(blocks[1].shards, shards(&[2, 3]));
    assert_eq!(view.blocks(Signal::Logs, EVER).count(), 0);
    let file = manifest.open_file(&second, "samples").unwrap();
    assert_eq!(file.read_verified().unwrap(), content(second.id));
    file.verify().unwrap();
    assert!(manifest.reserve_block() > second.id);
}

#[test]
fn files_of_removed_blocks_live_as_long_as_a_view() {
    let disk = SimulatedDisk::new(1);
    let (manifest, _) = open(&disk);
    let first = block(&manifest, &[1]);
    let before = manifest.commit(add(vec![first.clone()])).unwrap();
    let merged = block(&manifest, &[1]);
    let edit = ManifestEdit {
        remove: vec![first.id],
        basis: Some(before.version()),
        ..add(vec![merged.clone()])
    };
    manifest.commit(edit).unwrap();
    assert_eq!(manifest.statistics().blocks_retired, 1);
    manifest
        .open_file(&first, "index")
        .unwrap()
        .verify()
        .unwrap();
    drop(before);
    assert_eq!(manifest.collect_garbage(), 1);
    assert!(matches!(
        manifest.open_file(&first, "index"),
        Err(BlocksError::DamagedFile { .. })
    ));
    assert_eq!(block_files(&disk), 2);
}

#[test]
fn a_replacement_of_changed_blocks_is_stale() {
    let disk = SimulatedDisk::new(1);
    let (manifest, _) = open(&disk);
    let first = block(&manifest, &[1, 2]);
    let basis = manifest.commit(add(vec![first.clone()])).unwrap().version();
    let merged = block(&manifest, &[1, 2]);
    let replace = |basis| ManifestEdit {
        remove: vec![first.id],
        basis: Some(basis),
        ..add(vec![merged.clone()])
    };
    let tombstone = ManifestEdit {
        tombstones: vec![(first.id, shards(&[2]))],
        ..ManifestEdit::default()
    };
    let later = manifest.commit(tombstone.clone()).unwrap().version();
    let stale = manifest.commit(replace(basis));
    assert!(matches!(stale, Err(BlocksError::StaleEdit { .. })));
    assert!(manifest.pin().block(merged.id).is_none());
    // The same tombstone again changes nothing, so a merge from `later` still fits.
    manifest.commit(tombstone).unwrap();
    manifest.commit(replace(later)).unwrap();
    let gone = manifest.commit(ManifestEdit {
        add: vec![block(&manifest, &[1])],
        ..replace(later)
    });
    assert!(matches!(gone, Err(BlocksError::StaleEdit { .. })));
}

#[test]
fn damage_is_recorded_until_it_is_resolved() {
    let disk = SimulatedDisk::new(1);
    let (manifest, _) = open(&disk);
    let (first, second) = (block(&manifest, &[1, 2]), block(&manifest, &[3]));
    manifest
        .commit(add(vec![first.clone(), second.clone()]))
        .unwrap();
    let path = dir().join(file_name(first.id, "samples"));
    assert!(disk.flip_bit(&path, 17, 1));
    let error = manifest.open_file(&first, "samples").unwrap().verify();
    assert!(matches!(error, Err(BlocksError::DamagedFile { .. })));
    let lost = manifest
        .mark_damaged(first.id, "checksum")
        .unwrap()
        .unwrap();
    assert_eq!((&*lost.meta, &lost.shards), (&first, &shards(&[1, 2])));
    assert_eq!(manifest.mark_damaged(first.id, "again").unwrap(), None);
    // A file that vanished is found at the next start.
    disk.remove(&dir().join(file_name(second.id, "index")))
        .unwrap();
    drop(manifest);

    let (manifest, recovery) = open(&disk);
    assert_eq!(*recovery.damaged[0].meta, second);
    let damaged: Vec<_> = manifest.pin().damaged().map(|d| d.meta.id).collect();
    assert_eq!(damaged, [first.id, second.id]);
    assert_eq!(manifest.pin().all_blocks().count(), 0);
    let edit = ManifestEdit {
        resolve_damaged: vec![first.id],
        ..add(vec![block(&manifest, &[1, 2])])
    };
    manifest.commit(edit).unwrap();
    drop(manifest);
    assert_eq!(open(&disk).0.pin().damaged().count(), 1);
}

#[test]
fn a_block_outlives_its_derived_files() {
    let disk = SimulatedDisk::new(1);
    let (manifest, _) = open(&disk);
    let (first, second) = (block(&manifest, &[1]), block(&manifest, &[2]));
    let both = vec![first.clone(), second.clone()];
    manifest.commit(add(both)).unwrap();
    drop(manifest);
    let open = || {
        let options = ManifestOptions {
            derived_files: &["index"],
            ..options()
        };
        Manifest::open(Arc::new(disk.clone()), dir(), options).unwrap()
    };
    let remove = |meta: &BlockMeta, name| {
        disk.remove(&dir().join(file_name(meta.id, name))).unwrap();
    };
    remove(&first, "index");
    for _ in 0..2 {
        let (manifest, recovery) = open();
        assert_eq!(recovery.damaged, Vec::new());
        let [(lost, why)] = &recovery.derived_lost[..] else {
            panic!("{recovery:?}");
        };
        assert!(*lost == first.id && why.contains("missing"), "{why}");
        assert_eq!(manifest.pin().all_blocks().count(), 2);
    }
    // Without its own file it is lost whatever else it has.
    remove(&first, "samples");
    let (manifest, recovery) = open();
    assert_eq!(*recovery.damaged[0].meta, first);
    assert_eq!(recovery.derived_lost, Vec::new());
    let left: Vec<BlockId> = manifest.pin().all_blocks().map(|b| b.meta.id).collect();
    assert_eq!(left, [second.id]);
}

#[test]
fn a_lost_or_damaged_manifest_is_refused() {
    let disk = SimulatedDisk::new(1);
    let (manifest, _) = open(&disk);
    manifest.commit(add(vec![block(&manifest, &[1])])).unwrap();
    manifest.commit(ManifestEdit::default()).unwrap();
    let path = dir().join(MANIFEST_NAME);
    // Page 1 is the snapshot, 2 its mark, 3 and 4 the commits.
    disk.flip_bit(&path, 3 * PAGE_BYTES as u64 + 50, 0);
    let reopen = || Manifest::open(Arc::new(disk.clone()), dir(), options()).err();
    assert!(matches!(
        reopen(),
        Some(BlocksError::ManifestDamaged { .. })
    ));
    disk.remove(&path).unwrap();
    assert!(matches!(
        reopen(),
        Some(BlocksError::ManifestLost { files: 2, .. })
    ));
}

#[test]
fn the_log_stays_bounded() {
    let disk = SimulatedDisk::new(1);
    let (manifest, _) = open(&disk);
    for round in 0..200u64 {
        let edit = ManifestEdit {
            flushed_to: Some(round),
            ..ManifestEdit::default()
        };
        manifest.commit(edit).unwrap();
        assert!(manifest.statistics().log_bytes <= 68 << 10);
    }
    assert!(manifest.statistics().rewrites > 5);
    disk.crash(CrashLoss::Everything);
    assert_eq!(open(&disk).0.pin().flushed_to(), 199);
}

#[test]
fn a_full_disk_refuses_commits_and_ends_nothing() {
    let disk = SimulatedDisk::new(1);
    let (manifest, _) = open(&disk);
    let used: u64 = disk.files().iter().map(|(_, bytes)| bytes).sum();
    disk.set_capacity(used);
    let commit = |flushed_to| {
        manifest.commit(ManifestEdit {
            flushed_to: Some(flushed_to),
            ..ManifestEdit::default()
        })
    };
    let refuses = |n: &u64| match commit(*n) {
        Ok(_) => false,
        Err(error) => {
            assert!(matches!(error, BlocksError::NoSpace(_)));
            assert!(error.is_before_the_record());
            true
        }
    };
    let refused = (1..10).find(refuses).unwrap();
    assert_eq!(manifest.pin().flushed_to(), refused - 1);
    assert!(try_block(&manifest, &[1]).is_err());
    disk.set_capacity(u64::MAX);
    commit(50).unwrap();
    assert_eq!(manifest.pin().flushed_to(), 50);
}

#[test]
fn asking_for_sizes_never_waits_for_the_disk() {
    let disk = SimulatedDisk::new(1);
    let (manifest, _) = open(&disk);
    manifest.commit(ManifestEdit::default()).unwrap();
    let (told, answered) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        // As a commit does while its fsync takes long.
        let _log = manifest.log.lock();
        scope.spawn(|| told.send(manifest.statistics()).unwrap());
        let statistics = answered.recv_timeout(std::time::Duration::from_secs(10));
        let statistics = statistics.unwrap();
        assert_eq!(statistics.commits, 1);
        assert!(statistics.log_bytes > 0);
    });
}

#[test]
fn a_failed_sync_ends_the_manifest() {
    let disk = SimulatedDisk::new(1);
    let (manifest, _) = open(&disk);
    disk.fail_sync(1);
    let failed = manifest.commit(ManifestEdit::default());
    assert!(matches!(failed, Err(BlocksError::Pages(_))));
    assert!(!failed.unwrap_err().is_before_the_record());
    let ended = manifest.commit(ManifestEdit::default());
    assert!(matches!(ended, Err(BlocksError::Ended)));
    assert_eq!(manifest.pin().version(), 0, "reading goes on");
}

#[test]
fn works_on_a_real_disk() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("blocks");
    let reopen = || Manifest::open(Arc::new(RealDisk), &path, options()).unwrap();
    let (manifest, _) = reopen();
    let added = block(&manifest, &[1]);
    manifest.commit(add(vec![added.clone()])).unwrap();
    drop(manifest);
    let (manifest, recovery) = reopen();
    assert_eq!(recovery, ManifestRecovery::default());
    let file = manifest.open_file(&added, "samples").unwrap();
    assert_eq!(file.read_verified().unwrap(), content(added.id));
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// The durable facts of a view, without its version.
type Facts = (u64, Vec<u8>, BTreeMap<BlockId, ShardSet>);

fn facts(view: &PinnedVersion) -> Facts {
    let blocks = view.all_blocks().map(|b| (b.meta.id, b.shards));
    (
        view.flushed_to(),
        view.checkpoint().to_vec(),
        blocks.collect(),
    )
}

/// A random edit, with what the facts will be if it takes place.
fn random_edit(
    random: &mut Random,
    manifest: &Manifest,
    now: &Facts,
) -> Option<(ManifestEdit, Facts)> {
    let view = manifest.pin();
    let mut facts = now.clone();
    let mut edit = ManifestEdit {
        basis: Some(view.version()),
        ..ManifestEdit::default()
    };
    for _ in 0..random.below(3) {
        let meta = try_block(manifest, &[random.below(4) as u16, 9]).ok()?;
        facts.2.insert(meta.id, meta.shards.clone());
        edit.add.push(meta);
    }
    for present in view.all_blocks() {
        match random.below(8) {
            0 => {
                edit.remove.push(present.meta.id);
                facts.2.remove(&present.meta.id);
            }
            1 => {
                let gone = shards(&[random.below(4) as u16]);
                let left = present.shards.difference(&gone);
                facts.2.insert(present.meta.id, left);
                edit.tombstones.push((present.meta.id, gone));
            }
            _ => {}
        }
    }
    facts.0 += random.below(100);
    edit.flushed_to = Some(facts.0);
    facts.1 = facts.0.to_le_bytes().repeat(random.below(900) as usize);
    edit.checkpoint = Some(facts.1.clone());
    Some((edit, facts))
}

#[test]
fn crashes_leave_the_state_before_or_after_a_commit() {
    for seed in 0..200 {
        let mut random = Random(seed);
        let disk = SimulatedDisk::new(seed);
        disk.create_dir_all(dir()).unwrap();
        let mut sure: Facts = Facts::default();
        for _crash in 0..5 {
            // The crash comes in the middle of some write or sync, also while opening.
            match random.below(4) {
                0 => disk.fail_sync(1 + random.below(40)),
                1 => disk.fail_sync_dir(1 + random.below(6)),
                2 => disk.fail_write(1 + random.below(40)),
                _ => {}
            }
            let mut in_doubt = None;
            if let Ok((manifest, _)) = Manifest::open(Arc::new(disk.clone()), dir(), options()) {
                assert_eq!(facts(&manifest.pin()), sure, "seed {seed}");
                for _ in 0..random.below(12) {
                    let Some((edit, after)) = random_edit(&mut random, &manifest, &sure) else {
                        break;
                    };
                    if manifest.commit(edit).is_err() {
                        in_doubt = Some(after);
                        break;
                    }
                    sure = after;
                }
            }
            // A killed process leaves unsynced work to the page cache; the next crash may take it.
            let losses = [CrashLoss::Nothing, CrashLoss::Dice, CrashLoss::Dice];
            disk.crash(losses[random.below(3) as usize]);
            disk.stop_failing();
            let (manifest, recovery) = open(&disk);
            let found = facts(&manifest.pin());
            assert!(
                found == sure || Some(&found) == in_doubt.as_ref(),
                "seed {seed}: {found:?}"
            );
            assert_eq!(recovery.damaged, [], "seed {seed}");
            for present in manifest.pin().all_blocks() {
                let file = manifest.open_file(&present.meta, "samples").unwrap();
                assert_eq!(file.read_verified().unwrap(), content(present.meta.id));
            }
            assert_eq!(
                block_files(&disk),
                2 * found.2.len(),
                "seed {seed}: no orphans"
            );
            sure = found;
        }
    }
}

#[test]
fn a_view_is_put_into_another_directory_as_it_is() {
    for refuses_links in [false, true] {
        let disk = SimulatedDisk::new(3);
        let (manifest, _) = open(&disk);
        let (first, second) = (block(&manifest, &[1, 2]), block(&manifest, &[3]));
        manifest
            .commit(ManifestEdit {
                flushed_to: Some(9),
                checkpoint: Some(b"positions".to_vec()),
                ..add(vec![first.clone(), second.clone()])
            })
            .unwrap();
        let tombstones = vec![(first.id, shards(&[2])), (second.id, shards(&[3]))];
        let edit = ManifestEdit {
            tombstones,
            ..ManifestEdit::default()
        };
        let view = manifest.commit(edit).unwrap();
        let copy = Path::new("node/copy");
        disk.create_dir_all(copy).unwrap();
        if refuses_links {
            disk.refuse_links();
        }
        let linked = manifest.link_into(&view, copy).unwrap();
        let expected = LinkedBlocks {
            blocks: 1,
            bytes: first.bytes(),
            files_copied: if refuses_links { 2 } else { 0 },
        };
        assert_eq!(linked, expected);
        // The node goes on without the block, and the power goes.
        let edit = ManifestEdit {
            remove: vec![first.id],
            ..ManifestEdit::default()
        };
        manifest.commit(edit).unwrap();
        drop(view);
        manifest.collect_garbage();
        disk.crash(CrashLoss::Everything);

        let read: Arc<dyn Disk> = Arc::new(disk.clone());
        let copied = Manifest::open_read_only(read, copy).unwrap();
        let view = copied.pin();
        let blocks: Vec<_> = view.all_blocks().collect();
        assert_eq!(blocks.len(), 1);
        assert_eq!(
            (&*blocks[0].meta, &blocks[0].shards),
            (&first, &shards(&[1]))
        );
        assert_eq!((view.checkpoint(), view.flushed_to()), (&[][..], 0));
        let file = copied.open_file(&first, "samples").unwrap();
        assert_eq!(file.read_verified().unwrap(), content(first.id));
        let changed = copied.commit(ManifestEdit::default());
        assert!(matches!(changed, Err(BlocksError::Ended)));
        let marked = copied.mark_damaged(first.id, "no");
        assert!(matches!(marked, Err(BlocksError::Ended)));
    }
}

#[test]
fn a_full_disk_leaves_no_manifest_in_the_other_directory() {
    let disk = SimulatedDisk::new(4);
    let (manifest, _) = open(&disk);
    let first = block(&manifest, &[1]);
    let view = manifest.commit(add(vec![first])).unwrap();
    let copy = Path::new("node/copy");
    disk.create_dir_all(copy).unwrap();
    disk.refuse_links();
    let used: u64 = disk.files().iter().map(|(_, length)| *length).sum();
    disk.set_capacity(used + 100);
    let full = manifest.link_into(&view, copy).unwrap_err();
    assert!(full.to_string().contains("copy block file"), "{full}");
    let read: Arc<dyn Disk> = Arc::new(disk.clone());
    assert!(Manifest::open_read_only(read, copy).is_err());
}
