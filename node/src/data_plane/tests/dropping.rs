//! Replicas that have left, on a disk that is full.

use super::*;
use trefoil_shard::Span;

/// What a drop could not do is done as soon as the disk lets it, before anything that comes behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_drop_is_tried_until_it_succeeds() {
    let mut machine = Machine::new();
    let run = machine.start();
    assert_eq!(run.write(0, 1_000, 1.0).await, WriteOutcome::Held);
    run.plane.flush().expect("a flush");
    // The drop takes the head into blocks, which needs space.
    assert_eq!(run.write(1, 1_000, 1.0).await, WriteOutcome::Held);
    assert_eq!(run.read(DEADLINE).await, (everything(), 2));
    let full = machine.disk.files().iter().map(|(_, bytes)| bytes).sum();
    machine.disk.set_capacity(full);
    let start = run.plane.journal.durable_end();
    let span = Span {
        start: Offset(start),
        end: Offset(start + 1),
    };
    let shards: ShardSet = [ShardId(0)].into_iter().collect();
    run.plane.applier.push(span, Record::Drop { shards });
    run.plane.applier.wake(span.end.0);
    let begun = Instant::now();
    let applied = |patience: Duration| {
        let impatient = || begun.elapsed() >= patience;
        run.plane.applier.wait_until_applied(span.end.0, impatient)
    };
    assert!(!applied(Duration::from_millis(200)), "the disk is full");

    machine.disk.set_capacity(u64::MAX);
    assert!(applied(DEADLINE), "it was tried again");
    assert_eq!(run.read(DEADLINE).await.1, 1);
    run.kill(&machine);
}
