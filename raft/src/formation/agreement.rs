//! How nodes without a cluster agree to found one: a pure decision.
//!
//! ```text
//!   Blank --(smallest id; all candidates name the same candidates)--> proposes = promises first --.
//!     |                                                                                           v
//!     |--(asked, or hears of a founding that names it)------------------------------------> Promised(F)
//!     |                                                                                           |
//!     '--(hears a member of Y)--> Member(Y)              all founders of F have promised F ---> Member(F)
//! ```
//! A promise is durable before anybody hears of it, and a node makes *one*, ever. A founding begins
//! only when all its founders have promised it, so two foundings that share a node cannot both
//! begin; and because each names more than half of the seed addresses, any two of them share a
//! node. That all candidates must name the same candidates before anybody proposes is not needed
//! for this; it makes it unlikely that overlapping foundings block each other.
//!
//! A node whose founding can never begin, because one of its founders promised another or joined a
//! cluster instead, may join a cluster. It never founds again.

use crate::MetadataError;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use trefoil_model::{ClusterId, NodeId};

/// Questions in a row that a peer may leave unanswered and still be a candidate. All candidates must
/// see one another at the same time before anybody proposes; if one lost message made a peer
/// disappear, a network that loses one in five might never get there. A peer that is gone stops
/// being one after as many rounds of questions.
const MISSES_MAX: u32 = 3;

/// What an operator said about the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootstrapSettings {
    /// How many nodes found the cluster together (`bootstrap_expect`).
    pub expect: usize,
    /// To how many addresses the seed list resolves.
    pub seed_addresses: usize,
}

impl BootstrapSettings {
    /// Refuses settings under which two clusters could begin from the same seed list.
    ///
    /// # Errors
    /// [`MetadataError::Settings`] with what would be right.
    pub fn check(&self) -> Result<(), MetadataError> {
        let refuse = |reason: String| Err(MetadataError::Settings { reason });
        if self.expect == 0 {
            return refuse("bootstrap_expect must be at least 1".to_owned());
        }
        if self.expect == 1 && self.seed_addresses > 0 {
            return refuse(
                "bootstrap_expect 1 founds a cluster alone and needs an empty seed list".to_owned(),
            );
        }
        if self.expect * 2 <= self.seed_addresses {
            return refuse(format!(
                "bootstrap_expect {} must exceed half of the {} seed addresses",
                self.expect, self.seed_addresses
            ));
        }
        Ok(())
    }
}

/// A cluster that may begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founding {
    /// Its id, drawn by the proposer.
    pub cluster: ClusterId,
    /// Its first voters, ascending.
    pub founders: Vec<NodeId>,
}

/// What a node is committed to.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Standing {
    /// To nothing.
    #[default]
    Blank,
    /// It has made its promise, durably.
    Promised(Founding),
    /// It founded this cluster or joined it.
    Member(ClusterId),
}

/// What a node says when it is asked.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Report {
    /// What it is committed to.
    pub standing: Standing,
    /// Whom it would found a cluster with, ascending; empty when it sees too few.
    pub candidates: Vec<NodeId>,
}

/// What a node should do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, for this reason.
    Wait(String),
    /// Draw a cluster id and promise it with these founders.
    Propose(Vec<NodeId>),
    /// Promise this founding, of which it heard.
    Promise(Founding),
    /// Ask these founders for their promise.
    Ask(Founding, Vec<NodeId>),
    /// All have promised: begin.
    Begin(Founding),
    /// Ask one of these to be made a member.
    Join(ClusterId, Vec<NodeId>),
    /// Nothing will happen by itself.
    Stuck(String),
}

/// What a peer said last.
#[derive(Clone, Debug)]
struct Heard {
    report: Report,
    /// Questions since then that it did not answer.
    misses: u32,
}

/// The agreement as one node sees it.
#[derive(Clone, Debug)]
pub struct Agreement {
    node: NodeId,
    expect: usize,
    promise: Option<Founding>,
    cluster: Option<ClusterId>,
    heard: BTreeMap<NodeId, Heard>,
    /// Founders that are known to have promised the same; promises are for ever.
    confirmed: BTreeSet<NodeId>,
}

impl Agreement {
    /// Goes on from what is durable.
    #[must_use]
    pub fn new(
        node: NodeId,
        expect: usize,
        promise: Option<Founding>,
        cluster: Option<ClusterId>,
    ) -> Self {
        Self {
            node,
            expect,
            promise,
            cluster,
            heard: BTreeMap::new(),
            confirmed: BTreeSet::new(),
        }
    }

    /// Says how many founders are expected; before, nothing is promised.
    pub fn expect_founders(&mut self, expect: usize) {
        self.expect = expect;
    }

    /// What this node is committed to.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match (self.cluster, &self.promise) {
            (Some(cluster), _) => Standing::Member(cluster),
            (None, Some(founding)) => Standing::Promised(founding.clone()),
            (None, None) => Standing::Blank,
        }
    }

    /// What this node answers when it is asked.
    #[must_use]
    pub fn report(&self) -> Report {
        Report {
            standing: self.standing(),
            candidates: self.candidates(),
        }
    }

    /// A peer has answered.
    pub fn hear(&mut self, peer: NodeId, report: Report) {
        let same = match (&self.promise, &report.standing) {
            (Some(mine), Standing::Promised(theirs)) => mine == theirs,
            (Some(mine), Standing::Member(cluster)) => mine.cluster == *cluster,
            _ => false,
        };
        if same {
            self.confirmed.insert(peer);
        }
        self.heard.insert(peer, Heard { report, misses: 0 });
    }

    /// A peer did not answer. When that goes on it is no candidate any more.
    pub fn miss(&mut self, peer: NodeId) {
        let Some(heard) = self.heard.get_mut(&peer) else {
            return;
        };
        heard.misses += 1;
        if heard.misses > MISSES_MAX {
            self.heard.remove(&peer);
        }
    }

    /// Whether this node may promise a founding that names it. If so, the promise must be durable
    /// before [`Agreement::promised`] is called or anybody is told.
    ///
    /// # Errors
    /// The reason why it must not.
    pub fn may_promise(&self, founding: &Founding) -> Result<(), String> {
        match self.standing() {
            Standing::Promised(promised) if promised == *founding => return Ok(()),
            Standing::Promised(promised) => {
                return Err(format!(
                    "it has promised itself to cluster {}",
                    promised.cluster
                ));
            }
            // It promised, and the cluster has begun since.
            Standing::Member(_) if self.promise.as_ref() == Some(founding) => return Ok(()),
            Standing::Member(cluster) => return Err(format!("it belongs to cluster {cluster}")),
            Standing::Blank => {}
        }
        if !founding.founders.contains(&self.node) {
            return Err("it is not among the founders".to_owned());
        }
        if founding.founders.len() != self.expect {
            return Err(format!(
                "its bootstrap_expect is {}, but there are {} founders",
                self.expect,
                founding.founders.len()
            ));
        }
        Ok(())
    }

    /// The promise is durable.
    pub fn promised(&mut self, founding: Founding) {
        self.promise = Some(founding);
    }

    /// The node is a member, durably.
    pub fn joined(&mut self, cluster: ClusterId) {
        self.cluster = Some(cluster);
    }

    /// What to do next.
    #[must_use]
    pub fn step(&self) -> Step {
        match &self.promise {
            Some(founding)
                if self
                    .cluster
                    .is_none_or(|cluster| cluster == founding.cluster) =>
            {
                self.step_promised(founding)
            }
            _ => self.step_without_promise(),
        }
    }

    fn step_without_promise(&self) -> Step {
        if let Some(step) = self.step_join() {
            return step;
        }
        for heard in self.heard.values() {
            let Standing::Promised(founding) = &heard.report.standing else {
                continue;
            };
            return match self.may_promise(founding) {
                Ok(()) => Step::Promise(founding.clone()),
                Err(reason) => Step::Wait(format!(
                    "cluster {} is about to begin; this node joins it later ({reason})",
                    founding.cluster
                )),
            };
        }
        let candidates = self.candidates();
        if candidates.is_empty() {
            let seen = self.heard.len() + 1;
            return Step::Wait(format!("{seen} of {} nodes are there", self.expect));
        }
        if candidates[0] != self.node {
            return Step::Wait(format!("node {} proposes", candidates[0]));
        }
        let agree = |node: &NodeId| {
            *node == self.node
                || self
                    .heard
                    .get(node)
                    .is_some_and(|heard| heard.report.candidates == candidates)
        };
        match candidates.iter().all(agree) {
            true => Step::Propose(candidates),
            false => Step::Wait("the candidates do not see one another yet".to_owned()),
        }
    }

    fn step_promised(&self, founding: &Founding) -> Step {
        let missing: Vec<NodeId> = founding
            .founders
            .iter()
            .filter(|node| **node != self.node && !self.confirmed.contains(node))
            .copied()
            .collect();
        if missing.is_empty() {
            return Step::Begin(founding.clone());
        }
        let elsewhere = missing.iter().find(|node| match self.heard.get(node) {
            Some(heard) => match &heard.report.standing {
                Standing::Blank => false,
                Standing::Promised(theirs) => theirs != founding,
                Standing::Member(cluster) => *cluster != founding.cluster,
            },
            None => false,
        });
        let Some(node) = elsewhere else {
            return Step::Ask(founding.clone(), missing);
        };
        self.step_join().unwrap_or_else(|| {
            Step::Stuck(format!(
                "this node promised to found cluster {} with node {node}, which is committed to another; \
                 empty the data directories of nodes that hold no data to begin anew",
                founding.cluster
            ))
        })
    }

    /// Joins the one cluster of which members were heard.
    fn step_join(&self) -> Option<Step> {
        let mut clusters: BTreeMap<ClusterId, Vec<NodeId>> = BTreeMap::new();
        for (node, heard) in &self.heard {
            if let Standing::Member(cluster) = heard.report.standing {
                clusters.entry(cluster).or_default().push(*node);
            }
        }
        if let Some(cluster) = self.cluster {
            let via = clusters.remove(&cluster);
            let nobody = || Step::Wait(format!("no member of cluster {cluster} answers"));
            return Some(via.map_or_else(nobody, |via| Step::Join(cluster, via)));
        }
        match clusters.len() {
            0 => None,
            1 => clusters
                .pop_first()
                .map(|(cluster, via)| Step::Join(cluster, via)),
            _ => Some(Step::Stuck(format!(
                "the seed list leads to {} clusters: {:?}",
                clusters.len(),
                clusters.keys().collect::<Vec<_>>()
            ))),
        }
    }

    /// The nodes with the smallest ids that are committed to nothing, as many as are expected; or
    /// nobody.
    fn candidates(&self) -> Vec<NodeId> {
        if self.standing() != Standing::Blank {
            return Vec::new();
        }
        let blank = |(node, heard): (&NodeId, &Heard)| {
            (heard.report.standing == Standing::Blank).then_some(*node)
        };
        let mut candidates: BTreeSet<NodeId> = self.heard.iter().filter_map(blank).collect();
        candidates.insert(self.node);
        match candidates.len() >= self.expect {
            true => candidates.into_iter().take(self.expect).collect(),
            false => Vec::new(),
        }
    }
}
