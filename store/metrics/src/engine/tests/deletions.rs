//! What a block, a merge or an export may say of deletions that the store does not know, or that are forgotten.

use super::*;
use crate::ExportedBody;

const TENANT: TenantId = TenantId(0);

fn apply(engine: &MetricsEngine, position: u64, number: u32, version: u64) {
    let body = body_at(number, Some(START), &[]);
    let shards = ShardSet::all(SHARDS);
    engine
        .apply(position, TENANT, DeletionVersion(version), &body, &shards)
        .unwrap();
}

fn know(engine: &MetricsEngine, newest: u64, pending: Vec<Deletion>) {
    engine.set_deletions(TENANT, DeletionVersion(newest), pending);
}

/// Deletes the series of a number in [`body_at`].
fn deletion(version: u64, number: u32) -> Deletion {
    Deletion {
        version: DeletionVersion(version),
        matchers: vec![Matcher::equal("__name__", &format!("m{}", number % 5))],
        range: all(),
    }
}

fn is_unknown<T>(outcome: Result<T, MetricsError>) -> bool {
    matches!(outcome, Err(MetricsError::UnknownDeletion { .. }))
}

fn next_body(engine: &MetricsEngine) -> Result<Option<ExportedBody>, MetricsError> {
    let view = Arc::new(engine.view());
    view.export(&ShardSet::all(SHARDS), all(), 100, None)?
        .next_body()
}

#[test]
fn nothing_is_claimed_that_is_not_known() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let engine = open(&disk);
    know(&engine, 2, Vec::new());
    apply(&engine, 1, 0, 2);
    engine.flush(1, None).unwrap();
    apply(&engine, 2, 1, 1);
    engine.flush(2, None).unwrap();

    // A restart, with a state of the metadata plane that is older than the blocks.
    drop(engine);
    let engine = open(&disk);
    know(&engine, 1, Vec::new());
    assert!(is_unknown(engine.merge_once(Millis::MAX)));
    assert!(is_unknown(next_body(&engine)));
    apply(&engine, 3, 2, 2);
    assert!(is_unknown(engine.flush(3, None)));

    know(&engine, 2, vec![deletion(2, 1)]);
    engine.flush(3, None).unwrap();
    while engine.merge_once(Millis::MAX).unwrap().is_some() {}
    let block = engine.blocks().pop().unwrap();
    let summary = block.meta.tenant(TENANT).unwrap();
    assert_eq!(summary.deletion_version, DeletionVersion(2));
    assert_eq!(
        block.meta.items, 3,
        "both deletions were applied when the blocks were written"
    );
}

/// Otherwise a receiver that still holds the deletion would erase what was written after it.
#[test]
fn an_export_names_a_deletion_that_is_forgotten() {
    let engine = open(&Arc::new(SimulatedDisk::new(1)));
    know(&engine, 4, vec![deletion(4, 0)]);
    apply(&engine, 1, 0, 4);
    engine.flush(1, None).unwrap();
    know(&engine, 4, Vec::new());
    let body = next_body(&engine).unwrap().unwrap();
    assert_eq!(body.deletion_version, DeletionVersion(4));

    let receiver = open(&Arc::new(SimulatedDisk::new(2)));
    know(&receiver, 4, vec![deletion(4, 0)]);
    let shards = ShardSet::all(SHARDS);
    receiver
        .apply(1, TENANT, body.deletion_version, &body.body, &shards)
        .unwrap();
    let found = next_body(&receiver).unwrap().map(|body| body.samples);
    assert_eq!(found, Some(1));
}
