//! Answers requests of the other planes.

use super::wire::{Header, JoinAnswer, JoinRequest, ProposeRequest, ReadAnswer, SnapshotChunk};
use super::{MetadataPlane, stopped};
use crate::engine::Types;
use crate::formation::Founding;
use crate::state::{Command, Refusal};
use crate::transport::RpcKind;
use crate::{MetadataError, codec};
use bytes::Bytes;
use openraft::error::{Fatal, RaftError};
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use serde::{Serialize, de::DeserializeOwned};

impl MetadataPlane {
    /// Answers a request that [`crate::Transport::call`] of a peer has sent.
    ///
    /// # Errors
    /// [`MetadataError::OtherCluster`] when the request is not for this node or its cluster;
    /// [`MetadataError::Encoding`] when it is malformed; [`MetadataError::Stopped`]. The transport
    /// reports any of them to the caller as [`crate::TransportError::Refused`].
    pub async fn handle(&self, kind: RpcKind, bytes: Bytes) -> Result<Bytes, MetadataError> {
        match kind {
            RpcKind::AppendEntries => {
                let request: AppendEntriesRequest<Types> = self.open(&bytes)?;
                let answer = self.inner.raft.append_entries(request).await;
                reply(&answer.map_err(fatal)?)
            }
            RpcKind::Vote => {
                let request: VoteRequest<u64> = self.open(&bytes)?;
                reply(&self.inner.raft.vote(request).await.map_err(fatal)?)
            }
            RpcKind::SnapshotChunk => {
                let chunk: SnapshotChunk = self.open(&bytes)?;
                let snapshots = self.inner.stores.machine.snapshots();
                let taken = self.inner.receiver.take(&self.inner.raft, snapshots, chunk);
                reply(&taken.await?)
            }
            RpcKind::Propose => {
                let request: ProposeRequest = self.open(&bytes)?;
                reply(&self.inner.leader_queue.propose(request.proposal).await)
            }
            RpcKind::ReadIndex => {
                let () = self.open(&bytes)?;
                let answer: ReadAnswer = self.inner.read_queue.index(true).await;
                reply(&answer)
            }
            RpcKind::Join => {
                let request: JoinRequest = self.open_outside(&bytes)?;
                reply(&self.admit(request).await)
            }
            RpcKind::Hello => {
                let () = self.open_outside(&bytes)?;
                reply(&self.report().await)
            }
            RpcKind::Promise => {
                let founding: Founding = self.open_outside(&bytes)?;
                reply(&self.promise(founding).await?)
            }
        }
    }

    /// The body of a request to this node, from a node that need not belong to a cluster.
    fn open_outside<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, MetadataError> {
        Ok(self.open_addressed(bytes)?.1)
    }

    fn open_addressed<T: DeserializeOwned>(
        &self,
        bytes: &[u8],
    ) -> Result<(Header, T), MetadataError> {
        let (header, body): (Header, T) = codec::decode(codec::Kind::Request, bytes)?;
        if header.to != self.inner.node {
            return Err(MetadataError::OtherCluster {
                reason: format!("this is node {}, not {}", self.inner.node, header.to),
            });
        }
        Ok((header, body))
    }

    /// The body of a request to this node, in this node's cluster.
    fn open<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, MetadataError> {
        let (header, body): (Header, T) = self.open_addressed(bytes)?;
        let here = self.cluster();
        if here.is_none() || header.cluster != here {
            return Err(MetadataError::OtherCluster {
                reason: format!(
                    "this node's cluster is {here:?}, the sender's {:?}",
                    header.cluster
                ),
            });
        }
        Ok(body)
    }

    /// Makes a node a member. The leader's automation then makes it a learner.
    async fn admit(&self, request: JoinRequest) -> JoinAnswer {
        let Some(cluster) = self.state().cluster() else {
            return JoinAnswer::Refused {
                reason: "this node's cluster has not begun".to_owned(),
            };
        };
        if let Some(name) = self.name_in_use(&request) {
            return JoinAnswer::Refused {
                reason: format!(
                    "a member named {name:?} is alive; give every node a --node-name of its own"
                ),
            };
        }
        let command = Command::AddMember {
            node: request.node,
            description: request.description,
        };
        match self.propose(command).await {
            Ok(_) => JoinAnswer::Joined { cluster },
            Err(error) => JoinAnswer::Refused {
                reason: match &error {
                    MetadataError::Refused(Refusal::FormatLevel { .. }) => {
                        format!(
                            "{error} (the cluster uses level {})",
                            self.state().format_level()
                        )
                    }
                    _ => error.to_string(),
                },
            },
        }
    }

    /// The name that the node asks for, when another member has it that seems alive. A namesake takes
    /// over from a member, so only one that is gone may get one.
    fn name_in_use(&self, request: &JoinRequest) -> Option<String> {
        let name = &request.description.name;
        let holder = self.state().member_by_name(name)?.node;
        let alive = holder == self.node() || self.inner.peer_view.borrow().alive.contains(&holder);
        (holder != request.node && alive).then(|| name.clone())
    }
}

fn reply<T: Serialize>(answer: &T) -> Result<Bytes, MetadataError> {
    Ok(codec::encode(codec::Kind::Answer, answer)?.into())
}

fn fatal(error: RaftError<u64>) -> MetadataError {
    match error {
        RaftError::Fatal(Fatal::Stopped) => MetadataError::Stopped {
            reason: "the node is shutting down".to_owned(),
        },
        error => stopped(&error),
    }
}
