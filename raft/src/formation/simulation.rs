//! Foundings under a seed: messages are lost, delayed, repeated and reordered, nodes crash before
//! and after their promise is durable. Never do two clusters begin from the same nodes, and a quiet
//! network always gets its cluster.

use super::{Agreement, Founding, Report, Step};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use trefoil_model::{ClusterId, NodeId};

/// What a node's disk holds.
#[derive(Clone, Default)]
struct Durable {
    promise: Option<Founding>,
    cluster: Option<ClusterId>,
}

enum Message {
    Hello {
        from: NodeId,
        to: NodeId,
    },
    Report {
        from: NodeId,
        to: NodeId,
        report: Report,
    },
    Ask {
        from: NodeId,
        to: NodeId,
        founding: Founding,
    },
}

struct World {
    dice: StdRng,
    expect: usize,
    disks: BTreeMap<NodeId, Durable>,
    running: BTreeMap<NodeId, Agreement>,
    messages: Vec<Message>,
    begun: BTreeMap<ClusterId, Founding>,
    faults: bool,
    /// A planted bug: promises are not durable.
    forgetful: bool,
}

impl World {
    fn new(seed: u64, nodes: u64, expect: usize) -> Self {
        let ids = (1..=nodes).map(NodeId);
        let mut world = Self {
            dice: StdRng::seed_from_u64(seed),
            expect,
            disks: ids.clone().map(|node| (node, Durable::default())).collect(),
            running: BTreeMap::new(),
            messages: Vec::new(),
            begun: BTreeMap::new(),
            faults: true,
            forgetful: false,
        };
        ids.for_each(|node| world.start(node));
        world
    }

    fn start(&mut self, node: NodeId) {
        let disk = self.disks[&node].clone();
        let agreement = Agreement::new(node, self.expect, disk.promise, disk.cluster);
        self.running.insert(node, agreement);
    }

    fn any_node(&mut self) -> NodeId {
        let at = self.dice.random_range(0..self.disks.len());
        *self.disks.keys().nth(at).unwrap()
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.faults && self.dice.random_bool(probability)
    }

    fn round(&mut self) {
        let node = self.any_node();
        match self.dice.random_range(0..10) {
            0..3 => {
                let peers: Vec<NodeId> = self.disks.keys().copied().collect();
                for to in peers.into_iter().filter(|to| *to != node) {
                    self.messages.push(Message::Hello { from: node, to });
                }
            }
            // More than is sent on average, so that the network does not fill up.
            3..8 => (0..8).for_each(|_| self.deliver()),
            8 => self.step(node),
            _ if self.chance(0.2) => self.start(node),
            _ => {
                let at = self.dice.random_range(0..self.disks.len());
                let peer = *self.disks.keys().nth(at).unwrap();
                if self.chance(0.3)
                    && let Some(agreement) = self.running.get_mut(&node)
                {
                    agreement.miss(peer);
                }
            }
        }
    }

    fn deliver(&mut self) {
        if self.messages.is_empty() {
            return;
        }
        let at = match self.faults {
            true => self.dice.random_range(0..self.messages.len()),
            false => 0,
        };
        let message = self.messages.remove(at);
        if self.chance(0.3) {
            return;
        }
        match message {
            Message::Hello { from, to } => {
                let report = self.running[&to].report();
                let answer = Message::Report {
                    from: to,
                    to: from,
                    report,
                };
                self.messages.push(answer);
            }
            Message::Report { from, to, report } => {
                if self.chance(0.2) {
                    let report = report.clone();
                    self.messages.push(Message::Report { from, to, report });
                }
                if let Some(agreement) = self.running.get_mut(&to) {
                    agreement.hear(from, report);
                }
            }
            Message::Ask { from, to, founding } => {
                if self.running[&to].may_promise(&founding).is_ok() && !self.promise(to, founding) {
                    return;
                }
                let report = self.running[&to].report();
                self.messages.push(Message::Report {
                    from: to,
                    to: from,
                    report,
                });
            }
        }
    }

    /// Makes a promise durable; a crash may come before or after. Says whether the node still runs.
    fn promise(&mut self, node: NodeId, founding: Founding) -> bool {
        if self.chance(0.1) {
            self.start(node);
            return false;
        }
        let disk = self.disks.get_mut(&node).unwrap();
        if !self.forgetful {
            assert!(disk.promise.is_none() || disk.promise.as_ref() == Some(&founding));
            disk.promise = Some(founding.clone());
        }
        if self.chance(0.1) {
            self.start(node);
            return false;
        }
        self.running.get_mut(&node).unwrap().promised(founding);
        true
    }

    fn step(&mut self, node: NodeId) {
        match self.running[&node].step() {
            Step::Wait(_) | Step::Stuck(_) => {}
            Step::Propose(founders) => {
                let cluster = ClusterId(self.dice.random());
                self.promise(node, Founding { cluster, founders });
            }
            Step::Promise(founding) => {
                self.promise(node, founding);
            }
            Step::Ask(founding, missing) => {
                for to in missing {
                    let founding = founding.clone();
                    self.messages.push(Message::Ask {
                        from: node,
                        to,
                        founding,
                    });
                }
            }
            Step::Begin(founding) => {
                for founder in founding.founders.iter().filter(|_| !self.forgetful) {
                    assert_eq!(self.disks[founder].promise.as_ref(), Some(&founding));
                }
                self.belong(node, founding.cluster);
                self.begun.insert(founding.cluster, founding);
            }
            Step::Join(cluster, via) => {
                assert!(
                    via.iter()
                        .all(|member| self.disks[member].cluster == Some(cluster))
                );
                self.belong(node, cluster);
            }
        }
    }

    fn belong(&mut self, node: NodeId, cluster: ClusterId) {
        let disk = self.disks.get_mut(&node).unwrap();
        if self.forgetful && disk.cluster.is_some() {
            return;
        }
        assert!(
            disk.cluster.is_none_or(|present| present == cluster),
            "two clusters"
        );
        disk.cluster = Some(cluster);
        self.running.get_mut(&node).unwrap().joined(cluster);
    }

    fn everybody_belongs(&self) -> bool {
        self.disks.values().all(|disk| disk.cluster.is_some())
    }

    fn dead_end(&self) -> bool {
        let stuck = |agreement: &Agreement| matches!(agreement.step(), Step::Stuck(_));
        self.begun.is_empty() && self.running.values().any(stuck)
    }
}

#[test]
fn never_two_clusters_from_the_same_nodes() {
    let (mut began, mut dead_ends) = (0, 0);
    for seed in 0..2000 {
        let (nodes, expect) = [(3, 3), (3, 2), (5, 3), (5, 4), (1, 1), (4, 3)][seed as usize % 6];
        let mut world = World::new(seed, nodes, expect);
        for _ in 0..400 {
            world.round();
        }
        world.faults = false;
        for _ in 0..4000 {
            world.round();
            if world.everybody_belongs() {
                break;
            }
        }
        assert!(world.begun.len() <= 1, "seed {seed}: {:?}", world.begun);
        match world.everybody_belongs() {
            true => began += 1,
            false => {
                assert!(
                    world.dead_end(),
                    "seed {seed}: neither a cluster nor a reason"
                );
                dead_ends += 1;
            }
        }
    }
    assert!(
        dead_ends * 20 < began,
        "{dead_ends} dead ends, {began} clusters"
    );
}

#[test]
fn without_faults_there_is_always_a_cluster() {
    for seed in 0..300 {
        let nodes = 1 + seed % 5;
        let mut world = World::new(seed, nodes, nodes as usize);
        world.faults = false;
        for _ in 0..4000 {
            world.round();
            if world.everybody_belongs() {
                break;
            }
        }
        assert!(world.everybody_belongs(), "seed {seed}");
        assert_eq!(world.begun.len(), 1, "seed {seed}");
    }
}

#[test]
fn lost_questions_do_not_keep_candidates_apart() {
    let ids = [1, 2, 3].map(NodeId);
    let mut nodes = ids.map(|node| Agreement::new(node, 3, None, None));
    let mut proposed = false;
    for round in 0..12 {
        // Every question is lost two times of three, and in no round all are answered.
        for (asker, peer) in (0..3).flat_map(|asker| (0..3).map(move |peer| (asker, peer))) {
            if asker == peer {
                continue;
            }
            let report = nodes[peer].report();
            match (round + asker * 2 + peer) % 3 {
                0 => nodes[asker].hear(ids[peer], report),
                _ => nodes[asker].miss(ids[peer]),
            }
        }
        proposed = proposed || matches!(nodes[0].step(), Step::Propose(_));
    }
    assert!(proposed);
    for _ in 0..4 {
        nodes[0].miss(ids[1]);
    }
    assert!(
        matches!(nodes[0].step(), Step::Wait(_)),
        "a peer that is gone is no candidate"
    );
}

#[test]
fn settings_that_allow_two_clusters_are_refused() {
    let check = |expect, seed_addresses| {
        super::BootstrapSettings {
            expect,
            seed_addresses,
        }
        .check()
        .is_ok()
    };
    assert!(check(3, 3) && check(2, 3) && check(3, 5) && check(1, 0) && check(3, 0));
    assert!(!check(0, 0) && !check(1, 1) && !check(2, 4) && !check(3, 6) && !check(3, 9));
}

#[test]
fn promises_that_are_not_durable_are_caught() {
    let two_clusters = |seed: &u64| {
        let mut world = World::new(*seed, 5, 3);
        world.forgetful = true;
        for _ in 0..2000 {
            world.round();
        }
        world.begun.len() > 1
    };
    assert!((0..2000).any(|seed| two_clusters(&seed)));
}
