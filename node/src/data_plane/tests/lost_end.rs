//! A journal that ends before what the blocks cover: the node goes on behind that, as an amnesiac.

use super::*;
use trefoil_store_pages::Disk;

/// Three samples in a block, and a journal without the last of them. Gives the offset that the manifest knows.
async fn with_lost_end(machine: &mut Machine) -> u64 {
    let run = machine.start();
    let mut pages = Vec::new();
    for at in 0..3 {
        assert_eq!(run.write(0, at, 1.0).await, WriteOutcome::Held);
        pages.push(run.plane.journal.statistics().groups);
    }
    run.plane.flush().expect("a flush");
    let known = run.plane.manifest.pin().flushed_to();
    assert_eq!(known, run.plane.journal.durable_end());
    run.kill(machine);
    for byte in 0..64 {
        let at = pages[2] * PAGE_BYTES as u64 + 100 + byte;
        assert!(machine.disk.flip_bit(&segment(machine), at, 0));
    }
    known
}

fn segment(machine: &Machine) -> PathBuf {
    let files = machine.disk.files().into_iter();
    let mut segments = files.filter(|(path, _)| path.extension().is_some_and(|e| e == "segment"));
    segments.next().expect("the segment").0
}

fn number(machine: &Machine) -> u64 {
    machine.table.shards[0].configuration.number.0
}

/// Recorded as a loss, then the node serves again and says that there is a gap; what it takes from now on is
/// replayed by the next start.
async fn check_goes_on(machine: &mut Machine, known: u64) {
    let mut run = machine.start();
    let serves = |plane: &DataPlane| plane.status().serving == everything();
    run.until(machine, "the loss is recorded", serves).await;
    assert_eq!(number(machine), 2);
    assert_eq!(run.read(DEADLINE).await, (everything(), 3));
    let asked = run.plane.query(everything(), ALL_TIME, DEADLINE);
    let ready = run.ticking(asked).await.expect("an answer");
    assert_eq!(ready.gaps, everything(), "an answer says what is missing");
    for at in 3..6 {
        assert_eq!(run.write(0, at, 1.0).await, WriteOutcome::Held);
    }
    assert!(run.plane.journal.durable_end() > known);
    run.kill(machine);

    // Not flushed: all of it comes from the journal, at offsets that the manifest does not know.
    let mut run = machine.start();
    run.until(machine, "it serves", serves).await;
    assert_eq!(run.read(DEADLINE).await, (everything(), 6));
    run.plane.flush().expect("a flush");
    let recorded = number(machine);
    run.kill(machine);

    // What is in blocks and in the checkpoint is not lost once more.
    let mut run = machine.start();
    run.until(machine, "it serves", serves).await;
    assert_eq!(number(machine), recorded);
    assert_eq!(run.read(DEADLINE).await, (everything(), 6));
    run.kill(machine);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_without_its_end_goes_on_behind_the_blocks() {
    let mut machine = Machine::new();
    let known = with_lost_end(&mut machine).await;
    check_goes_on(&mut machine, known).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_is_gone_begins_behind_the_blocks() {
    let mut machine = Machine::new();
    let known = with_lost_end(&mut machine).await;
    for (path, _) in machine.disk.files() {
        if path.starts_with("/data/journal") {
            machine.disk.remove(&path).expect("the file goes");
        }
    }
    check_goes_on(&mut machine, known).await;
}

/// Prepared and then gone is lost, however often a process ends before its first record is durable.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_is_gone_before_its_first_record_stays_lost() {
    let mut machine = Machine::new();
    let disk: Arc<dyn Disk> = Arc::new(machine.disk.clone());
    DataPlane::prepare(&disk, "/data".as_ref(), LINEAGE).expect("it is prepared");
    for (path, _) in machine.disk.files() {
        if path.starts_with("/data/journal") {
            machine.disk.remove(&path).expect("the file goes");
        }
    }
    // Not the first run of this identity.
    machine.runs = 1;
    machine.commit = CommitMode::Manual;
    for _ in 0..2 {
        let run = machine.start();
        assert_eq!(run.plane.status().serving, ShardSet::new());
        run.kill(&machine);
    }
    assert_eq!(number(&machine), 1, "nobody was told of it");
    machine.commit = CommitMode::Thread;
    let mut run = machine.start();
    let serves = |plane: &DataPlane| plane.status().serving == everything();
    run.until(&mut machine, "the loss is recorded", serves)
        .await;
    assert_eq!(number(&machine), 2);
    run.kill(&machine);
}

/// A node whose loss was repaired is as good as any: were it amnesiac again after every restart, the loss of
/// another node would meet it so.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_lost_once_is_not_lost_again() {
    let mut machine = Machine::new();
    with_lost_end(&mut machine).await;
    let mut run = machine.start();
    let serves = |plane: &DataPlane| plane.status().serving == everything();
    run.until(&mut machine, "the loss is recorded", serves)
        .await;
    assert!(run.plane.would_lose_again(), "so it flushes soon");
    run.plane
        .flush()
        .expect("a flush, though the head is empty");
    assert!(!run.plane.would_lose_again());
    run.kill(&machine);

    let mut run = machine.start();
    run.learn(&mut machine);
    assert_eq!(number(&machine), 2);
    assert_eq!(run.read(DEADLINE).await, (everything(), 3));
    run.kill(&machine);
}
