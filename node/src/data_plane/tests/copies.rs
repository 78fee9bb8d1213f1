//! Two data planes that speak to each other: one fills its replicas from the other's, in many small chunks.

use super::*;
use crate::transport::{
    directory::Whereabouts,
    server::{self, PeerHandler},
};
use async_trait::async_trait;
use history::{Step, content, history};
use tonic::Status;

const RECEIVER: NodeId = NodeId(2);
/// Bytes of a chunk: 64 samples.
const CHUNK_BYTES: usize = 256;
/// Bytes of journal that the source keeps: far less than the history takes.
const KEPT_BYTES: u64 = 2048;

/// Takes what the other one says about shards.
struct Peer(Arc<DataPlane>);

#[async_trait]
impl PeerHandler for Peer {
    async fn metadata(&self, _: NodeId, _: u32, _: Bytes) -> Result<Bytes, Status> {
        Err(Status::unavailable("there is no metadata plane"))
    }

    fn replication(&self, body: Bytes) {
        self.0.receive(&body);
    }

    async fn evaluate(&self, _: u32, _: Bytes) -> Result<Bytes, Status> {
        Err(Status::unavailable("nobody asks"))
    }
}

/// Lets two nodes reach each other until the test ends.
async fn connect(runs: [&Run; 2]) {
    for (run, other) in [(runs[0], runs[1]), (runs[1], runs[0])] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port");
        let peer = listener.local_addr().expect("an address");
        let key = PeerKey::new(None, run.local.clone());
        let handler = Arc::new(Peer(run.plane.clone()));
        let serving = server::serve(
            listener,
            run.local.clone(),
            key,
            handler,
            std::future::pending(),
        );
        tokio::spawn(serving);
        let whereabouts = Whereabouts {
            peer,
            incarnation: Some(run.local.incarnation),
            alive: true,
        };
        other.directory.set(run.local.node, whereabouts);
        other.plane.feed(Event::PeerUp {
            node: run.local.node,
            incarnation: run.local.incarnation,
        });
    }
}

fn records_of_copies(run: &Run) -> usize {
    let journal = &run.plane.journal;
    let records = journal.read(0, 64 << 20).expect("the journal is whole");
    let is_import = |bytes: Vec<u8>| {
        let record = Record::decode(&Bytes::from(bytes)).expect("a record");
        matches!(record, Record::Parcel { parcel, .. } if parcel.header().import.is_some())
    };
    let records = records.into_iter();
    records
        .filter(|record| is_import(record.bytes.clone()))
        .count()
}

/// A journal that begins too late for a peer without a position, and a replica that needs hundreds of chunks.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_filled_in_many_chunks() {
    let owners = [NODE, RECEIVER];
    let mut machine = Machine::with_owners(&owners);
    machine.journal_bytes_max = KEPT_BYTES;
    machine.replication.chunk_bytes_max = CHUNK_BYTES;
    let source = machine.start();
    for step in history() {
        match step {
            Step::Write(tenant, body) => {
                let write = NewWrite {
                    tenant,
                    signal: Signal::Metrics,
                    deletion: DeletionVersion(0),
                    parcels: vec![(everything(), body.into())],
                    timeout: Duration::from_millis(5),
                };
                // Stored here; there is no majority.
                let outcome = source.ticking(source.plane.write(write)).await;
                assert_eq!(outcome, WriteOutcome::Unavailable);
            }
            Step::Flush => source.plane.flush().expect("a flush"),
        }
    }
    let end = source.plane.journal.durable_end();
    let applied = source.plane.applier.wait_until_applied(end, || false);
    assert!(applied);
    let expected = content(&source.plane.engine, &everything());
    assert!(!expected.0.is_empty() && expected.1.len() == 4);

    let mut other = Machine::with_owners(&owners);
    other.node = RECEIVER;
    let receiver = other.start();
    connect([&source, &receiver]).await;
    let begun = Instant::now();
    while content(&receiver.plane.engine, &everything()) != expected {
        assert!(begun.elapsed() < DEADLINE, "the replica has everything");
        source.ticking(std::future::ready(())).await;
        receiver.ticking(tokio::task::yield_now()).await;
    }
    let chunks = records_of_copies(&receiver);
    assert!(chunks > 100, "{chunks} chunks");
    source.kill(&machine);
    receiver.kill(&other);
}
