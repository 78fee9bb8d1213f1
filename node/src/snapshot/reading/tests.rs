//! Parts that are made of real engines, read as one; and damaged ones.

use super::*;
use crate::snapshot::{
    about::{CutOff, Deletion as AboutDeletion, tests::about},
    folder,
};
use trefoil_model::{Millis, NodeId, key_hash, shard_of};
use trefoil_store_blocks::ManifestOptions;
use trefoil_store_metrics::BodyWriter;
use trefoil_store_pages::RealDisk;

const TENANT: TenantId = TenantId(1);
const SHARDS: u16 = 4;

/// Makes the part of a node that has these samples, by the value of a label `a`, written before the second deletion.
fn make(
    directory: &Path,
    node: u64,
    samples: &[(&str, Millis)],
    change: impl FnOnce(&mut About),
) -> PathBuf {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let directory = directory.join(format!("n{node}"));
    let blocks = directory.join("blocks");
    let (manifest, _) = Manifest::open(disk, &blocks, ManifestOptions::default()).unwrap();
    let manifest = Arc::new(manifest);
    let engine = MetricsEngine::open(manifest.clone(), MetricsOptions::default()).unwrap();
    engine.set_deletions(TENANT, DeletionVersion(1), Vec::new());
    let mut writer = BodyWriter::new().unwrap();
    for (value, time) in samples {
        let labels = Labels::from_pairs([("__name__", "m"), ("a", *value)]);
        let shard = shard_of(key_hash(TENANT, labels.canonical()), SHARDS);
        writer
            .add_series(shard, labels.canonical(), [(*time, *time as f64)])
            .unwrap();
    }
    let (body, all) = (writer.finish().unwrap(), ShardSet::all(SHARDS));
    engine
        .apply(1, TENANT, DeletionVersion(1), &body, &all)
        .unwrap();
    engine.flush(1, None).unwrap();
    let mut about = About {
        node: format!("{node:016x}"),
        shards: vec![(0, SHARDS - 1)],
        lost: Vec::new(),
        ..about()
    };
    about.tenants[0].deletions.clear();
    about.tenants[0].cut_offs.clear();
    change(&mut about);
    let name = about.name.clone();
    folder::prepare(&directory, &manifest, &manifest.pin(), about, NodeId(node)).unwrap();
    folder::keep(&directory, &name).unwrap();
    directory.join("snapshots").join(name)
}

/// The samples of a tenant, by the value of the label.
fn read(parts: &Parts, selectors: &[&str]) -> anyhow::Result<Vec<(String, Vec<Millis>)>> {
    let selectors = selectors.iter();
    let selectors = selectors.map(|text| trefoil_query_promql::parse_selector(text).unwrap());
    let selectors: Vec<_> = selectors.collect();
    let mut found = Vec::new();
    parts.walk(TENANT, &selectors, &mut |series| {
        let value = series.labels.get("a").unwrap_or_default().to_owned();
        found.push((value, series.timestamps));
        Ok(())
    })?;
    found.sort();
    Ok(found)
}

fn expected(series: &[(&str, &[Millis])]) -> Vec<(String, Vec<Millis>)> {
    let series = series.iter();
    series
        .map(|(value, times)| ((*value).to_owned(), times.to_vec()))
        .collect()
}

#[test]
fn what_was_hidden_stays_hidden() {
    let directory = tempfile::tempdir().unwrap();
    let samples = [
        ("gone", 5),
        ("gone", 50),
        ("old", 5),
        ("old", 50),
        ("kept", 5),
    ];
    let part = make(directory.path(), 1, &samples, |about| {
        about.tenants[0].deletions = vec![AboutDeletion {
            version: 2,
            selector: "{a=\"gone\"}".to_owned(),
            start: Millis::MIN,
            end: 10,
        }];
        about.tenants[0].cut_offs = vec![
            CutOff {
                selector: String::new(),
                before: 3,
            },
            CutOff {
                selector: "{a=\"old\"}".to_owned(),
                before: 20,
            },
        ];
    });
    let parts = Parts::open(&[part]).unwrap();
    assert!(parts.missing().is_empty() && parts.has(TENANT));
    let found = read(&parts, &[]).unwrap();
    assert_eq!(
        found,
        expected(&[("gone", &[50]), ("kept", &[5]), ("old", &[50])])
    );
    // What several selectors fit comes once.
    let found = read(
        &parts,
        &["m{a=~\"g.*|k.*\"}", "{a=\"kept\"}", "{a=\"gone\"}"],
    )
    .unwrap();
    assert_eq!(found, expected(&[("gone", &[50]), ("kept", &[5])]));
}

#[test]
fn parts_without_the_head_are_put_together() {
    let directory = tempfile::tempdir().unwrap();
    let skips = |about: &mut About| about.skips_head = true;
    let one = make(directory.path(), 1, &[("x", 1), ("x", 2), ("y", 1)], skips);
    let other = make(directory.path(), 2, &[("x", 2), ("x", 3)], skips);
    let parts = Parts::open(&[one, other]).unwrap();
    let found = read(&parts, &[]).unwrap();
    assert_eq!(found, expected(&[("x", &[1, 2, 3]), ("y", &[1])]));
}

#[test]
fn what_is_not_whole_or_not_alike_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let one = make(directory.path(), 1, &[("x", 1)], |_| ());
    let half = make(directory.path(), 2, &[("x", 1)], |about| {
        about.shards = vec![(0, 1)]
    });
    let foreign = make(directory.path(), 3, &[("x", 1)], |about| {
        about.cluster = "8".to_owned();
    });
    let why = |paths: &[&PathBuf]| {
        let paths: Vec<PathBuf> = paths.iter().map(|path| (*path).clone()).collect();
        let outcome = Parts::open(&paths).and_then(|parts| {
            check_whole(&parts)?;
            read(&parts, &[])
        });
        outcome.map_err(|error| format!("{error:#}"))
    };
    assert!(why(&[&one, &half]).is_ok());
    let refused = |paths: &[&PathBuf], reason: &str| {
        let text = why(paths).expect_err(reason);
        assert!(text.contains(reason), "{text}");
    };
    refused(&[&half], "(shards 2-3)");
    refused(&[&one, &foreign], "is a part of");
    refused(&[&one, &one], "the same node");
    refused(&[&directory.path().join("n1")], "about");
    // A manifest that was cut short must not look like one without blocks.
    let manifest = half.join("manifest");
    let bytes = std::fs::read(&manifest).unwrap();
    std::fs::write(&manifest, &bytes[..4096]).unwrap();
    refused(&[&half], "damaged");
    let mut files = std::fs::read_dir(&one)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let block = files.find(|path| {
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with("0000")
    });
    std::fs::remove_file(block.expect("a file of a block")).unwrap();
    refused(&[&one], "missing");
}

/// With `--partial`.
#[test]
fn what_there_is_of_a_snapshot_without_its_first_shard_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let values: Vec<String> = (0..40).map(|at| format!("v{at}")).collect();
    let samples: Vec<(&str, Millis)> = values.iter().map(|value| (value.as_str(), 1)).collect();
    let part = make(directory.path(), 1, &samples, |about| {
        about.shards = vec![(1, 1), (3, 3)];
    });
    let parts = Parts::open(&[part]).unwrap();
    assert_eq!(parts.missing(), set(&[0, 2]));
    let is_here = |value: &&str| {
        let labels = Labels::from_pairs([("__name__", "m"), ("a", *value)]);
        let shard = shard_of(key_hash(TENANT, labels.canonical()), SHARDS);
        set(&[1, 3]).contains(shard)
    };
    let mut here: Vec<&str> = values.iter().map(String::as_str).filter(is_here).collect();
    here.sort_unstable();
    assert!(!here.is_empty() && here.len() < values.len());
    let found = read(&parts, &[]).unwrap();
    assert!(found.iter().map(|(value, _)| value).eq(here));
}

fn set(shards: &[u16]) -> ShardSet {
    shards.iter().copied().map(ShardId).collect()
}

#[test]
fn a_shard_is_read_once_where_that_is_enough() {
    let has = [
        (set(&[0, 1, 2]), set(&[2])),
        (set(&[0, 1, 2]), set(&[])),
        (set(&[1, 3]), set(&[3])),
    ];
    let of = |shard, skips_head| sources(&has, ShardId(shard), skips_head);
    assert_eq!(of(0, false), [0]);
    assert_eq!(of(1, false), [1]);
    assert_eq!(of(2, false), [1], "the other one lost something");
    assert_eq!(of(3, false), [2], "there is no better one");
    assert_eq!(of(4, false), [0; 0]);
    assert_eq!(of(1, true), [0, 1, 2]);
}

#[test]
fn groups_of_shards_follow_what_they_hold() {
    assert_eq!(next_group(1, 0), 2);
    assert_eq!(next_group(8, 0), 16);
    assert_eq!(next_group(8, SERIES_AT_ONCE / 10 * 8), 10);
    assert_eq!(next_group(4, SERIES_AT_ONCE * 2), 2);
    assert_eq!(next_group(1, SERIES_AT_ONCE * 3), 1);
}
