//! When a core wants to be woken.

use super::*;
use trefoil_shard::{QueryId, QueryRequest};

/// Ticks in so much time, when every one comes as late as the core allows.
fn ticks_within(node: &mut Node, time: Duration) -> usize {
    let until = node.now + time;
    let mut ticks = 0;
    while node.core.next_tick() < until {
        node.now = node.core.next_tick();
        node.feed(Event::Tick);
        node.sync();
        ticks += 1;
    }
    ticks
}

fn with_two_others() -> Node {
    let mut node = Node::fresh();
    node.feed(Event::PeerUp {
        node: NodeId(2),
        incarnation: Incarnation(99),
    });
    node.learn_owners(&[NODE, NodeId(2), NodeId(3)], 1, LINEAGE, 0);
    node.sync();
    node
}

#[test]
fn an_idle_core_is_woken_some_times_a_second() {
    let mut node = with_two_others();
    ticks_within(&mut node, Duration::from_secs(5));
    let ticks = ticks_within(&mut node, Duration::from_secs(10));
    assert!((20..=100).contains(&ticks), "{ticks} ticks in 10 s");
}

#[test]
fn a_query_brings_the_next_tick_near() {
    let mut node = with_two_others();
    ticks_within(&mut node, Duration::from_secs(5));
    node.feed(Event::Query(QueryRequest {
        query: QueryId(1),
        shards: shard(),
        range: WINDOW,
        deadline: node.now + Duration::from_secs(1),
    }));
    let hedge_after = Settings::default().hedge_after;
    assert!(node.core.next_tick() <= node.now + hedge_after);
    node.actions.clear();
    ticks_within(&mut node, Duration::from_millis(1100));
    let ready = |action: &Action| matches!(action, Action::QueryReady(_));
    assert!(node.actions.iter().any(ready), "it is given up in time");
}
