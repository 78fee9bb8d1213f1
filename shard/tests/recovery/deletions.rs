//! What a node does about deletions that it has confirmed, and about those that others know sooner.

use super::*;
use bytes::Bytes;
use trefoil_model::Signal;
use trefoil_shard::{Envelope, Message, PushAck, PushOutcome, RequestId, WriteRequest};

const OWNER: NodeId = NodeId(2);

impl Node {
    /// A client writes something that is older than all deletions.
    fn write(&mut self) {
        self.feed(Event::Write(WriteRequest {
            request: RequestId(1),
            tenant: TENANT,
            signal: Signal::Metrics,
            deletion: DeletionVersion(0),
            parcels: vec![(shard(), Bytes::from_static(b"items"))],
            deadline: self.now + Duration::from_secs(1),
        }));
    }

    fn confirmed(&mut self, version: u64) {
        self.feed(Event::Confirmed {
            deletions: BTreeMap::from([(TENANT, DeletionVersion(version))]),
            pending: true,
        });
    }
}

#[test]
fn a_coordinator_asks_what_it_has_not_heard() {
    let mut node = Node::fresh();
    node.learn_owners(&[NODE, OWNER], 1, LINEAGE, 0);
    node.sync();
    node.actions.clear();
    let envelope = Envelope {
        cluster: ClusterId(1),
        from: OWNER,
        from_incarnation: Incarnation(99),
        to: NODE,
        to_incarnation: Incarnation(1),
    };
    let outcome = PushOutcome::Outdated;
    let refused = Message::PushAck(PushAck { id: 7, outcome });
    node.feed(Event::Message(envelope, refused));
    assert!(node.actions.contains(&Action::RefreshMetadata));

    node.actions.clear();
    node.confirmed(1);
    node.write();
    assert!(node.actions.contains(&Action::RefreshMetadata));
}

#[test]
fn what_is_confirmed_is_trimmed_again_after_a_restart() {
    // The other owner has not said what it has, so nothing is trimmed for other reasons.
    let owners = [NODE, OWNER];
    let mut node = Node::fresh();
    node.learn_owners(&owners, 1, LINEAGE, 0);
    node.sync();
    node.write();
    node.sync();
    let parcel_end = node.journal.end();
    // The journal's files begin before what was trimmed.
    for (flushed, trimmed) in [(parcel_end, true), (Offset(0), false)] {
        let records = node.journal.records.clone();
        let found = found(0, parcel_end.0, flushed.0);
        let mut restarted = Node::start(Journal { records }, found, Loss::None);
        restarted.learn_owners(&owners, 1, LINEAGE, 1);
        restarted.feed(Event::Flushed { through: flushed });
        restarted.actions.clear();
        restarted.confirmed(1);
        let below = restarted.core.status().journal_floor;
        assert_eq!(below >= parcel_end, trimmed, "flushed to {flushed:?}");
        assert_eq!(restarted.actions.contains(&Action::Trim { below }), trimmed);
    }
}
