//! How a node asks for what it lost: not faster than the source answers, nor than its own disk takes it.

use super::*;
use bytes::Bytes;
use trefoil_model::Signal;
use trefoil_shard::{CopyAnswerStep, CopyAskStep, Envelope, ExportedItems, Message, Position};

const SOURCE: NodeId = NodeId(2);
const THEIR_RUN: Incarnation = Incarnation(99);

/// A node that has lost a range of time of which another owner has all.
fn with_a_lost_range() -> Node {
    let owners = [NODE, SOURCE];
    let mut node = Node::fresh();
    node.feed(Event::PeerUp {
        node: SOURCE,
        incarnation: THEIR_RUN,
    });
    node.learn_owners(&owners, 1, LINEAGE, 0);
    node.sync();
    node.feed(Event::Damaged {
        shards: shard(),
        range: WINDOW,
    });
    let lineage = node.proposed_lineage().expect("a loss is recorded");
    node.learn_owners(&owners, 2, lineage, 0);
    node.sync();
    node
}

impl Node {
    /// What the source was asked since the last time.
    fn asked(&mut self) -> Vec<(u64, CopyAskStep)> {
        let asked = |action: Action| match action {
            Action::Send(envelope, Message::CopyAsk { session, step }) => {
                assert_eq!(envelope.to, SOURCE);
                Some((session, step))
            }
            _ => None,
        };
        self.actions.drain(..).filter_map(asked).collect()
    }

    /// The sessions that were opened, while time passes in ticks.
    fn opened_within(&mut self, time: Duration) -> Vec<u64> {
        let until = self.now + time;
        let mut opened = Vec::new();
        while self.now < until {
            self.feed(Event::Tick);
            let asked = self.asked().into_iter();
            let new = asked.filter(|(_, step)| matches!(step, CopyAskStep::Open { .. }));
            opened.extend(new.map(|(session, _)| session));
            self.now += Settings::default().tick;
        }
        opened
    }

    fn answered(&mut self, session: u64, step: CopyAnswerStep) {
        let envelope = Envelope {
            cluster: ClusterId(1),
            from: SOURCE,
            from_incarnation: THEIR_RUN,
            to: NODE,
            to_incarnation: Incarnation(1),
        };
        self.feed(Event::Message(
            envelope,
            Message::CopyAnswer { session, step },
        ));
    }
}

#[test]
fn a_source_that_refuses_is_left_alone_for_a_while() {
    let mut node = with_a_lost_range();
    let retry = Settings::default().fetch_retry;
    let opened = node.opened_within(Settings::default().tick);
    assert_eq!(opened.len(), 1);
    node.answered(opened[0], CopyAnswerStep::Refused);
    assert_eq!(node.opened_within(retry - Settings::default().tick), []);
    assert_eq!(node.opened_within(retry / 2).len(), 1);
}

#[test]
fn the_next_chunk_is_asked_for_when_the_last_is_durable() {
    let mut node = with_a_lost_range();
    let session = node.opened_within(Settings::default().tick)[0];
    let covered = Position {
        incarnation: THEIR_RUN,
        offset: Offset(50),
    };
    let inherited = Vec::new();
    node.answered(session, CopyAnswerStep::Opened { covered, inherited });
    let next = |cursor| vec![(session, CopyAskStep::Next { cursor })];
    assert_eq!(node.asked(), next(0));
    let items = ExportedItems {
        tenant: TENANT,
        signal: Signal::Metrics,
        deletion: DeletionVersion(0),
        shards: shard(),
        body: Bytes::from_static(b"items"),
    };
    let chunk = CopyAnswerStep::Chunk {
        cursor: 0,
        items: vec![items],
        next: Some(1),
    };
    node.answered(session, chunk);
    node.now += Settings::default().fetch_retry * 2;
    node.feed(Event::Tick);
    assert_eq!(node.asked(), [], "the chunk waits for the disk");
    node.sync();
    assert_eq!(node.asked(), next(1));
}
