//! Members: who belongs to the cluster.
//!
//! ```text
//! (unknown) --AddMember--> Active <--SetDraining--> Draining
//!                             \                      /
//!                              `---RemoveMember-----'--> Removed (for good; owns nothing)
//! ```

use super::limits::{MEMBERS_MAX, NAME_BYTES_MAX};
use super::refusal::check_text;
use super::{MemberDescription, Refusal, Reply, State};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use trefoil_model::{LineageId, NodeId};

/// Where a member listens, as `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Addresses {
    /// gRPC between nodes, and gossip at the same number.
    pub peer: String,
    /// HTTP.
    pub http: String,
}

/// What a member is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MemberState {
    /// Owns shards and gets new ones.
    Active,
    /// Its shards are moved away; it gets no new ones.
    Draining,
    /// Gone for good; its id never comes back.
    Removed,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub node: NodeId,
    /// What it is for.
    pub state: MemberState,
    /// What it said of itself when it last started. `lineage` in it is what it started with.
    pub description: MemberDescription,
    /// The lineage on record: under it its acknowledgements count. It differs from the
    /// description's when the node has to record its amnesia first.
    pub lineage: LineageId,
    /// The weight that an operator set, which wins over the description's.
    pub weight_set: Option<u32>,
    /// A newer member has the same name: this one's data directory was lost, or two nodes were
    /// given one name. If it is dead too, it can be replaced at once.
    pub superseded_by: Option<NodeId>,
}

impl Member {
    /// Its share of the data relative to the others.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.weight_set.unwrap_or(self.description.weight)
    }
}

impl State {
    /// All members that ever were, removed ones too, ascending by id.
    pub fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members.values()
    }

    /// The member with this id, removed ones too.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Arc<Member>> {
        self.members.get(&node)
    }

    /// The member that has the name and is neither removed nor superseded.
    #[must_use]
    pub fn member_by_name(&self, name: &str) -> Option<&Arc<Member>> {
        self.members().find(|member| {
            member.description.name == name
                && member.state != MemberState::Removed
                && member.superseded_by.is_none()
        })
    }

    pub(super) fn add_member(
        &mut self,
        node: NodeId,
        description: &MemberDescription,
    ) -> Result<Reply, Refusal> {
        check_description(node, description)?;
        if description.format_level_max < self.cluster.format_level {
            return Err(Refusal::FormatLevel {
                node,
                level_max: description.format_level_max,
            });
        }
        let member = match self.members.get(&node) {
            Some(member) if member.state == MemberState::Removed => {
                return Err(Refusal::MemberRemoved { node });
            }
            Some(member) => Member {
                description: description.clone(),
                ..(**member).clone()
            },
            None => {
                if self.members.len() >= MEMBERS_MAX {
                    return Err(Refusal::limit("number of members", MEMBERS_MAX));
                }
                self.supersede_namesakes(node, &description.name);
                Member {
                    node,
                    state: MemberState::Active,
                    description: description.clone(),
                    lineage: description.lineage,
                    weight_set: None,
                    superseded_by: None,
                }
            }
        };
        self.members.insert(node, Arc::new(member));
        Ok(Reply::Done)
    }

    fn supersede_namesakes(&mut self, by: NodeId, name: &str) {
        let namesakes: Vec<NodeId> = self
            .members()
            .filter(|member| member.description.name == name && member.superseded_by.is_none())
            .filter(|member| member.state != MemberState::Removed)
            .map(|member| member.node)
            .collect();
        for node in namesakes {
            if let Some(member) = self.members.get_mut(&node) {
                Arc::make_mut(member).superseded_by = Some(by);
            }
        }
    }

    /// The member, if it is one and was not removed.
    pub(super) fn present_member(&mut self, node: NodeId) -> Result<&mut Member, Refusal> {
        let member = self
            .members
            .get_mut(&node)
            .ok_or(Refusal::NotMember { node })?;
        if member.state == MemberState::Removed {
            return Err(Refusal::MemberRemoved { node });
        }
        Ok(Arc::make_mut(member))
    }

    pub(super) fn set_draining(&mut self, node: NodeId, draining: bool) -> Result<Reply, Refusal> {
        let member = self.present_member(node)?;
        member.state = match draining {
            true => MemberState::Draining,
            false => MemberState::Active,
        };
        Ok(Reply::Done)
    }

    pub(super) fn set_weight(&mut self, node: NodeId, weight: u32) -> Result<Reply, Refusal> {
        if weight == 0 {
            return Err(Refusal::invalid(
                "weight",
                "it is 0; drain the node instead",
            ));
        }
        self.present_member(node)?.weight_set = Some(weight);
        Ok(Reply::Done)
    }

    pub(super) fn remove_member(&mut self, node: NodeId) -> Result<Reply, Refusal> {
        match self.members.get(&node) {
            None => return Err(Refusal::NotMember { node }),
            Some(member) if member.state == MemberState::Removed => return Ok(Reply::Done),
            Some(_) => {}
        }
        let shards = self
            .placement
            .iter()
            .filter(|(_, entry)| entry.configuration.has_owner(node))
            .count();
        if shards > 0 {
            return Err(Refusal::StillOwner { node, shards });
        }
        self.present_member(node)?.state = MemberState::Removed;
        self.forget_confirmed_deletions();
        Ok(Reply::Done)
    }
}

fn check_description(node: NodeId, description: &MemberDescription) -> Result<(), Refusal> {
    if node == NodeId(0) {
        return Err(Refusal::invalid("node id", "it is 0"));
    }
    if description.weight == 0 {
        return Err(Refusal::invalid("weight", "it is 0"));
    }
    check_text("node name", &description.name, NAME_BYTES_MAX)?;
    let texts = [
        ("zone", &description.zone),
        ("version", &description.version),
        ("peer address", &description.addresses.peer),
        ("HTTP address", &description.addresses.http),
    ];
    for (field, text) in texts {
        if text.len() > NAME_BYTES_MAX {
            return Err(Refusal::limit(
                &format!("length of {field}"),
                NAME_BYTES_MAX,
            ));
        }
    }
    Ok(())
}
