//! What a newer program sends is not acknowledged before it can be read.

use super::*;
use trefoil_model::RequestSequence;
use trefoil_shard::{Envelope, Parcel, ParcelHeader, Push, RequestNumber};
use trefoil_store_pages::Disk;

/// Who pushes.
const PEER: NodeId = NodeId(2);

/// A push of one parcel whose body begins with this byte.
fn push(run: &Run, sequence: u64, version: u8) -> Bytes {
    let mut body = BodyWriter::new().expect("a writer");
    let labels = Labels::from_pairs([("__name__", "m")]);
    body.add_series(ShardId(0), labels.canonical(), [(1, 1.0)])
        .expect("one sample fits");
    let mut body = body.finish().expect("a body");
    body[0] = version;
    let shards: ShardSet = [ShardId(0)].into_iter().collect();
    let header = ParcelHeader {
        tenant: TENANT,
        signal: Signal::Metrics,
        number: RequestNumber {
            incarnation: Incarnation(99),
            sequence: RequestSequence(sequence),
        },
        deletion: DeletionVersion(0),
        shards: shards.clone(),
        import: None,
    };
    let envelope = Envelope {
        cluster: ClusterId(1),
        from: PEER,
        from_incarnation: Incarnation(99),
        to: NODE,
        to_incarnation: run.local.incarnation,
    };
    let message = Message::Push(Push {
        id: sequence,
        numbers: vec![(shards.clone(), ConfigurationNumber(1))],
        parcels: vec![(shards, Parcel::new(header, body.into()))],
    });
    let mut bytes = Vec::new();
    encode_message(&envelope, &message, &mut bytes);
    bytes.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_an_unknown_version_is_not_journalled() {
    let mut machine = Machine::new();
    let run = machine.start();
    let appended = || run.plane.applier.appended();
    let before = appended();
    run.plane.receive(&push(&run, 1, 9));
    assert_eq!(appended(), before, "nobody here could apply it");
    run.plane.receive(&push(&run, 2, 1));
    assert!(appended() > before, "a version that this program reads");
    run.kill(&machine);
}

/// Until the cluster's level says so, blocks are such as older programs open.
#[tokio::test(flavor = "multi_thread")]
async fn blocks_have_packed_values_once_the_metadata_plane_says_so() {
    let mut machine = Machine::new();
    let run = machine.start();
    for (at, version) in [(1, 1), (2, 3)] {
        run.plane.set_policy(StorePolicy {
            packs_blocks: version == 3,
            ..StorePolicy::default()
        });
        assert_eq!(run.write(0, at, 1.0).await, WriteOutcome::Held);
        run.plane.flush().expect("a flush");
        let files = machine.disk.files().into_iter();
        let blocks = files.filter(|(path, _)| path.to_string_lossy().ends_with("-data"));
        let (newest, _) = blocks.max().expect("a block");
        let file = machine.disk.open(&newest).expect("it is there");
        let mut header = [0; 9];
        file.read_at(&mut header, 0).expect("a sound disk");
        assert_eq!(header[8], version);
    }
    run.kill(&machine);
}
