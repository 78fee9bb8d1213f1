//! A start that has not heard again what was deleted before the stop.

use super::*;
use crate::serve::awaits_deletion;

impl Run {
    /// A client's item of the first shard, which presupposes a deletion.
    async fn write_after(&self, deletion: DeletionVersion) -> WriteOutcome {
        let labels = Labels::from_pairs([("__name__", "m")]);
        let mut body = BodyWriter::new().expect("a writer");
        body.add_series(ShardId(0), labels.canonical(), [(0, 1.0)])
            .expect("one sample fits");
        let write = NewWrite {
            tenant: TENANT,
            signal: Signal::Metrics,
            deletion,
            parcels: vec![(
                ShardSet::from_iter([ShardId(0)]),
                body.finish().expect("a body").into(),
            )],
            timeout: DEADLINE,
        };
        self.ticking(self.plane.write(write)).await
    }
}

/// A drop makes blocks of the head, which cannot claim a deletion that is not known.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_waits_for_the_deletions_that_its_head_presupposes() {
    let mut machine = Machine::new();
    machine.deletions.insert(TENANT, DeletionVersion(1));
    let mut run = machine.start();
    let written = run.write_after(DeletionVersion(1)).await;
    assert_eq!(written, WriteOutcome::Held);
    run.plane.applier.stop();
    let applier = run.applier.take().expect("it runs");
    applier.join().expect("the applier ends");

    // It becomes an owner for the second time, which ends what it has; nobody applies that any more.
    let owners: OwnerSet = [NODE, NodeId(2)].into_iter().collect();
    for entry in &mut machine.table.shards {
        entry.configuration = Configuration {
            number: ConfigurationNumber(5),
            old: owners.clone(),
            new: owners.clone(),
        };
        let record = OwnerRecord {
            lineage: LINEAGE,
            counts_from: ConfigurationNumber(5),
            born_serving: false,
        };
        entry.owners = owners.iter().map(|node| (node, record)).collect();
    }
    run.learn(&mut machine);
    run.until(&mut machine, "the end is durable", |plane| {
        plane.journal.durable_end() >= plane.applier.appended()
    })
    .await;
    run.kill(&machine);

    let error = machine.try_start().err().expect("the deletion is unknown");
    assert!(awaits_deletion(&error), "{error:#}");
    machine.policy_at_start.deletions = vec![(TENANT, DeletionVersion(1), Vec::new())];
    let run = machine.start();
    assert!(run.plane.status().serving.is_empty());
    run.kill(&machine);
}
