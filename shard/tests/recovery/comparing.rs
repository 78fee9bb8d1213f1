//! What a node says of its comparisons with other owners since its start.

use super::*;
use trefoil_shard::{BarrierAnswer, Envelope, Message};

const PARTNER: NodeId = NodeId(2);
const THEIR_RUN: Incarnation = Incarnation(99);

/// A node that shares its shard with two others, one of which runs.
fn with_a_partner() -> Node {
    let mut node = Node::fresh();
    node.feed(Event::PeerUp {
        node: PARTNER,
        incarnation: THEIR_RUN,
    });
    node.learn_owners(&[NODE, PARTNER, NodeId(3)], 1, LINEAGE, 0);
    node.sync();
    node
}

impl Node {
    /// The barriers that the partner was asked for since the last time.
    fn asked_barriers(&mut self) -> Vec<u64> {
        let asked = |action: Action| match action {
            Action::Send(envelope, Message::BarrierAsk(ask)) if envelope.to == PARTNER => {
                Some(ask.id)
            }
            _ => None,
        };
        self.actions.drain(..).filter_map(asked).collect()
    }

    /// One barrier with the partner, whose journal is empty and whose replica serves or not.
    fn barrier(&mut self, serving: bool) {
        self.now += Settings::default().barrier_interval;
        self.feed(Event::Tick);
        let asked = self.asked_barriers();
        let [id] = asked[..] else {
            panic!("one barrier is asked for, not {asked:?}");
        };
        let envelope = Envelope {
            cluster: ClusterId(1),
            from: PARTNER,
            from_incarnation: THEIR_RUN,
            to: NODE,
            to_incarnation: Incarnation(1),
        };
        let answer = BarrierAnswer {
            id,
            agreed: shard(),
            unlearnt: ShardSet::new(),
            serving: if serving { shard() } else { ShardSet::new() },
            joining: ShardSet::new(),
            damaged: Vec::new(),
            copy: ShardSet::new(),
            end: Offset(0),
            listed_to: Offset(0),
            listed: Vec::new(),
            seen: None,
        };
        self.feed(Event::Message(envelope, Message::BarrierAnswer(answer)));
        self.sync();
    }

    fn compared(&self) -> Option<ShardSet> {
        self.core.status().compared.get(&PARTNER).cloned()
    }
}

#[test]
fn a_barrier_with_a_replica_that_is_being_filled_compares_nothing() {
    let mut node = with_a_partner();
    node.barrier(false);
    assert_eq!(node.compared(), Some(ShardSet::new()));
    node.barrier(true);
    assert_eq!(node.compared(), Some(shard()));
    // What was compared stays so: the partner's later trouble takes nothing from this node.
    node.barrier(false);
    assert_eq!(node.compared(), Some(shard()));
}
