//! Aggregates of a node's blocks, lost and made anew.

use super::*;
use trefoil_model::Millis;
use trefoil_store_metrics::AggregateOutcome;

/// The path of the aggregates of the only block.
fn file(machine: &Machine, run: &Run) -> std::path::PathBuf {
    let pin = run.plane.manifest.pin();
    let mut blocks = pin.all_blocks();
    let name = match (blocks.next(), blocks.next()) {
        (Some(block), None) => format!("{}-aggregates", block.meta.id),
        other => panic!("there is not one block: {other:?}"),
    };
    let files = machine.disk.files().into_iter().map(|(path, _)| path);
    let mut named = files.filter(|path| path.to_string_lossy().ends_with(&name));
    named.next().expect("its aggregates")
}

fn is_whole(run: &Run) {
    assert_eq!(run.plane.status().serving, everything());
    assert_eq!(run.plane.manifest.pin().damaged().count(), 0);
    assert_eq!(run.plane.blocks_damaged(), 0);
}

/// Neither the scrub nor a start takes a block for lost because its aggregates are.
#[tokio::test(flavor = "multi_thread")]
async fn lost_aggregates_take_no_block_along() {
    let mut machine = Machine::new();
    let mut run = machine.start();
    for shard in 0..SHARDS {
        assert_eq!(run.write(shard, 1_000, 1.0).await, WriteOutcome::Held);
    }
    run.plane.flush().expect("a flush");
    let merge = |run: &Run| {
        let go_on = &mut |_| ControlFlow::Continue(());
        let made = run.plane.engine.aggregate_once(Millis::MAX, go_on);
        assert_eq!(made.expect("sound samples"), AggregateOutcome::Made);
    };
    merge(&run);
    assert!(machine.disk.flip_bit(&file(&machine, &run), 20, 1));
    verifier::Verifier::default().run(&run.plane);
    let lost = run.plane.engine.lost_aggregates();
    assert!(
        matches!(&lost[..], [(_, why)] if why.contains("checksum")),
        "{lost:?}"
    );
    is_whole(&run);
    assert_eq!(run.read(DEADLINE).await, (everything(), 4));
    merge(&run);
    verifier::Verifier::default().run(&run.plane);
    assert_eq!(run.plane.engine.statistics().aggregates_repaired, 1);
    assert!(run.plane.engine.lost_aggregates().is_empty());

    let gone = file(&machine, &run);
    run.kill(&machine);
    trefoil_store_pages::Disk::remove(&machine.disk, &gone).expect("it is there");
    run = machine.start();
    let lost = run.plane.engine.lost_aggregates();
    assert!(
        matches!(&lost[..], [(_, why)] if why.contains("missing")),
        "{lost:?}"
    );
    assert_eq!(run.read(DEADLINE).await, (everything(), 4));
    is_whole(&run);
    merge(&run);
    assert!(machine.disk.flip_bit(&file(&machine, &run), 20, 1));
    run.kill(&machine);
}
