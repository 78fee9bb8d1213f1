//! The other nodes as this one sees them: what SWIM knows of their lives, put together with what they
//! tell about themselves.
//!
//! ```text
//!            answers          no answer          no defence
//! (unknown) ---------> Alive -----------> Suspect ----------> Down, or Left after a goodbye
//!                        ^  <-- defends ---+                    |
//!                        +------- a later generation -----------+
//! ```
//! A node is shown only when both are known, so that a notification always carries addresses, and
//! only when it does not belong to another cluster than this node's: clusters without a key may share
//! seeds, or reuse each other's addresses. SWIM knows such a node all the same, as it must to tell
//! it from a newcomer of this cluster.

use crate::{Identity, NodeInfo, NodePhase, info::InfoVersion};
use foca::State;
use std::collections::{BTreeMap, BTreeSet};
use trefoil_model::NodeId;

/// How a member looks from here. Advice, never a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberState {
    /// It answers.
    Alive,
    /// It did not answer lately; it may still defend itself.
    Suspect,
    /// It did not defend itself.
    Down,
    /// It said goodbye before it went.
    Left,
}

impl MemberState {
    /// Whether it is worth asking the member for something.
    #[must_use]
    pub fn is_active(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }
}

/// Another node, as it is known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its newest run and where that receives gossip.
    pub identity: Identity,
    /// How it looks from here.
    pub state: MemberState,
    /// What it told about itself last.
    pub info: NodeInfo,
}

/// A change of the view. The full view is [`Membership::members`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notification {
    /// A member appeared, or came back from `Down` or `Left`.
    Joined(NodeInfo),
    /// An active member's description changed.
    Updated(NodeInfo),
    /// A member did not answer lately.
    Suspect(NodeId),
    /// A suspect answered.
    Recovered(NodeId),
    /// A member did not defend itself.
    Down(NodeId),
    /// A member said goodbye.
    Left(NodeId),
    /// A node of another cluster was met: the two share seeds. It is not shown as a member, and nothing
    /// is asked of it. Told once per node.
    Foreign(NodeInfo),
    /// The others held this node for dead or knew a later generation, or its address changed: it has
    /// this generation from now on.
    SelfRenewed {
        /// The generation it has now.
        generation: u64,
    },
    /// The others hold this node for dead and it could not come back. Restart the process.
    SelfDefunct,
}

/// All shown nodes, dead ones included, without this one.
#[derive(Default)]
pub(crate) struct View {
    members: BTreeMap<NodeId, Member>,
    /// Nodes of other clusters, which are not shown. No node is in both.
    foreign: BTreeSet<NodeId>,
}

impl View {
    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    pub(crate) fn get(&self, node: NodeId) -> Option<&Member> {
        self.members.get(&node)
    }

    /// Whether the view differs from what SWIM knows of the nodes that it shows.
    pub(crate) fn is_stale<'a>(
        &self,
        mut known: impl Iterator<Item = &'a foca::Member<Identity>>,
    ) -> bool {
        known.any(|known| {
            self.members.get(&known.id().node).is_some_and(|shown| {
                let is_suspect = shown.state == MemberState::Suspect;
                shown.identity != *known.id()
                    || shown.state.is_active() != (known.state() != State::Down)
                    || is_suspect != (known.state() == State::Suspect)
            })
        })
    }

    /// Drops the nodes that SWIM has forgotten; says whether there were any.
    pub(crate) fn forget_unless(&mut self, is_known: impl Fn(NodeId) -> bool) -> bool {
        let before = self.members.len();
        self.members.retain(|node, _| is_known(*node));
        self.foreign.retain(|node| is_known(*node));
        self.members.len() < before
    }

    /// Hides a node of another cluster; says so the first time.
    pub(crate) fn hide(&mut self, info: NodeInfo) -> Option<Notification> {
        self.members.remove(&info.node);
        let is_new = self.foreign.insert(info.node);
        is_new.then_some(Notification::Foreign(info))
    }

    /// Takes over what is known of a node; says what changed, if that is worth telling.
    pub(crate) fn update(
        &mut self,
        known: &foca::Member<Identity>,
        info: NodeInfo,
        version: InfoVersion,
    ) -> Option<Notification> {
        let identity = *known.id();
        let state = match known.state() {
            State::Alive => MemberState::Alive,
            State::Suspect => MemberState::Suspect,
            State::Down if info.phase == NodePhase::Left => MemberState::Left,
            State::Down => MemberState::Down,
        };
        let shown = self.members.get(&identity.node);
        let before = shown.map(|shown| shown.state);
        let was_active = before.is_some_and(MemberState::is_active);
        if state.is_active() && !was_active && version.generation < identity.generation {
            // What it said in an earlier run would mislead: wait for the new description.
            return None;
        }
        let has_new_info = shown.is_some_and(|shown| shown.info != info);
        let change = match (before, state) {
            (_, now) if now.is_active() && !was_active => Some(Notification::Joined(info.clone())),
            (Some(before), now) if before == now => {
                let is_worth_telling = now.is_active() && has_new_info;
                is_worth_telling.then(|| Notification::Updated(info.clone()))
            }
            (None, _) => None,
            (Some(_), MemberState::Alive) => Some(Notification::Recovered(identity.node)),
            (Some(_), MemberState::Suspect) => Some(Notification::Suspect(identity.node)),
            (Some(_), MemberState::Down) => Some(Notification::Down(identity.node)),
            (Some(_), MemberState::Left) => Some(Notification::Left(identity.node)),
        };
        let member = Member {
            identity,
            state,
            info,
        };
        self.foreign.remove(&identity.node);
        self.members.insert(identity.node, member);
        change
    }
}
