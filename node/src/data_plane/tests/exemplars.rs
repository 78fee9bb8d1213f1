//! Exemplars over a start.

use super::*;
use trefoil_model::Millis;
use trefoil_store_metrics::{Deletion, Exemplar, Matcher};
use trefoil_store_pages::Disk;

impl Run {
    async fn write_exemplar(&self, time: Millis) {
        let labels = Labels::from_pairs([("__name__", "m")]);
        let mut body = BodyWriter::new().expect("a writer");
        let exemplar = Exemplar {
            labels: Labels::from_pairs([("trace_id", "ab")]),
            value: 0.5,
            time,
        };
        body.add_exemplar(ShardId(0), labels.canonical(), &exemplar)
            .expect("one fits");
        let write = NewWrite {
            tenant: TENANT,
            signal: Signal::Metrics,
            deletion: DeletionVersion(0),
            parcels: vec![(
                ShardSet::from_iter([ShardId(0)]),
                body.finish().expect("a body").into(),
            )],
            timeout: DEADLINE,
        };
        let written = self.ticking(self.plane.write(write)).await;
        assert_eq!(written, WriteOutcome::Held);
    }

    fn exemplar_times(&self) -> Vec<Millis> {
        let view = self.plane.engine.view();
        let any = [vec![Matcher::equal("__name__", "m")]];
        let go_on = || Ok::<(), ()>(());
        let found = view.exemplars(TENANT, &any, ALL_TIME, &everything(), go_on);
        let found = found.expect("it goes on").into_values().flatten();
        found.map(|one| one.time).collect()
    }
}

/// Some are in the journal only, others in the file only.
#[tokio::test(flavor = "multi_thread")]
async fn exemplars_are_there_after_a_start() {
    let mut machine = Machine::new();
    let run = machine.start();
    run.write_exemplar(1).await;
    run.plane.flush().expect("a flush");
    run.write_exemplar(2).await;
    run.kill(&machine);
    let run = machine.start();
    assert_eq!(run.exemplar_times(), [1, 2]);
    run.plane.flush().expect("a flush");
    run.kill(&machine);
    let run = machine.start();
    assert_eq!(run.exemplar_times(), [1, 2]);
    run.write_exemplar(3).await;
    // Nothing is taken out of the journal that could not be saved.
    let used: u64 = machine.disk.files().iter().map(|(_, bytes)| bytes).sum();
    machine.disk.set_capacity(used);
    run.plane.flush().expect_err("the disk is full");
    machine.disk.set_capacity(u64::MAX);
    run.kill(&machine);
    let run = machine.start();
    assert_eq!(run.exemplar_times(), [1, 2, 3]);
    run.kill(&machine);
}

/// A start may not know the deletion any more.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_erased_stays_so_once_it_is_saved() {
    let mut machine = Machine::new();
    let mut run = machine.start();
    for time in [1, 2] {
        run.write_exemplar(time).await;
    }
    run.plane.flush().expect("a flush");
    let deletion = Deletion {
        version: DeletionVersion(1),
        matchers: vec![Matcher::equal("__name__", "m")],
        range: TimeRange { start: 0, end: 2 },
    };
    machine.deletions.insert(TENANT, DeletionVersion(1));
    run.learn(&mut machine);
    run.plane.set_policy(StorePolicy {
        deletions: vec![(TENANT, DeletionVersion(1), vec![deletion])],
        ..StorePolicy::default()
    });
    assert_eq!(run.exemplar_times(), [2]);
    // One that was on its way is kept, hidden, and saved.
    run.write_exemplar(0).await;
    assert_eq!(run.exemplar_times(), [2]);
    run.plane.flush().expect("a flush");
    // As in front of each confirmation.
    run.plane.engine.save_exemplars().expect("saved");
    run.kill(&machine);
    let run = machine.start();
    assert_eq!(run.exemplar_times(), [2]);
    run.kill(&machine);
}

/// They are no reason not to start.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_of_exemplars_is_left_out() {
    let mut machine = Machine::new();
    let run = machine.start();
    run.write_exemplar(1).await;
    run.plane.flush().expect("a flush");
    run.kill(&machine);
    let path = Path::new("/data/exemplars");
    for byte in (0..20_000).step_by(64) {
        machine.disk.flip_bit(path, byte, 3);
    }
    let run = machine.start();
    assert_eq!(run.exemplar_times(), [] as [Millis; 0]);
    run.write_exemplar(2).await;
    run.plane.flush().expect("a flush");
    run.kill(&machine);
    let run = machine.start();
    assert_eq!(run.exemplar_times(), [2]);
    run.kill(&machine);
}

/// A program that does not know the file has flushed since: what was deleted meanwhile may be in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_before_the_last_flush_is_left_out() {
    let mut machine = Machine::new();
    let run = machine.start();
    run.write_exemplar(1).await;
    run.plane.flush().expect("a flush");
    run.kill(&machine);
    let disk: Arc<dyn Disk> = Arc::new(machine.disk.clone());
    let (path, aside) = (Path::new("/data/exemplars"), Path::new("/data/aside"));
    disk.rename(path, aside).expect("renamed");
    disk.sync_dir(Path::new("/data")).expect("synced");
    let run = machine.start();
    assert_eq!(run.write(0, 5, 1.0).await, WriteOutcome::Held);
    run.plane.flush().expect("a flush");
    run.kill(&machine);
    disk.rename(aside, path).expect("renamed");
    disk.sync_dir(Path::new("/data")).expect("synced");
    let run = machine.start();
    assert_eq!(run.exemplar_times(), [] as [Millis; 0]);
    run.plane.flush().expect("a flush");
    run.kill(&machine);
    let run = machine.start();
    assert_eq!(run.exemplar_times(), [] as [Millis; 0]);
    run.kill(&machine);
}
