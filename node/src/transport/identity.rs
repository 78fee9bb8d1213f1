//! Who this node is, and the check that a request is meant for it.

use super::proto;
use bytes::Bytes;
use parking_lot::RwLock;
use tonic::Status;
use trefoil_model::{ClusterId, Incarnation, NodeId};

/// This node's identity: fixed for the process, except for the cluster, which bootstrap or joining sets.
#[derive(Debug)]
pub(crate) struct LocalIdentity {
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    cluster: RwLock<Option<ClusterId>>,
}

impl LocalIdentity {
    pub(crate) fn new(node: NodeId, incarnation: Incarnation, cluster: Option<ClusterId>) -> Self {
        Self {
            node,
            incarnation,
            cluster: RwLock::new(cluster),
        }
    }

    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        *self.cluster.read()
    }

    /// Names the cluster that this node belongs to. A node never changes its cluster.
    pub(crate) fn set_cluster(&self, cluster: ClusterId) {
        let mut slot = self.cluster.write();
        assert!(
            slot.is_none_or(|known| known == cluster),
            "a node never changes its cluster"
        );
        *slot = Some(cluster);
    }

    /// The identity to put into a request to `target`, whose incarnation may not be known yet.
    pub(crate) fn request_to(
        &self,
        target: NodeId,
        target_incarnation: Option<Incarnation>,
    ) -> proto::Identity {
        let bytes_of = |id: u128| Bytes::copy_from_slice(&id.to_le_bytes());
        proto::Identity {
            cluster_id: self.cluster().map(|c| bytes_of(c.0)).unwrap_or_default(),
            source: self.node.0,
            source_incarnation: bytes_of(self.incarnation.0),
            target: target.0,
            target_incarnation: target_incarnation
                .map(|i| bytes_of(i.0))
                .unwrap_or_default(),
        }
    }

    /// Checks that a request is meant for this node in this cluster; returns who sent it.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` naming the mismatch. Nothing has changed then.
    pub(crate) fn check(&self, request: Option<&proto::Identity>) -> Result<NodeId, Status> {
        let refuse = |what: &str| Err(Status::failed_precondition(what.to_owned()));
        let Some(request) = request else {
            return refuse("the request carries no identity");
        };
        if request.target != self.node.0 {
            return refuse("this address belongs to another node now");
        }
        let incarnation = read_id(&request.target_incarnation)?;
        if incarnation.is_some_and(|i| i != self.incarnation.0) {
            return refuse("the node at this address was restarted");
        }
        if let (Some(theirs), Some(ours)) = (read_id(&request.cluster_id)?, self.cluster())
            && theirs != ours.0
        {
            return refuse("the request comes from another cluster");
        }
        Ok(NodeId(request.source))
    }
}

fn read_id(bytes: &Bytes) -> Result<Option<u128>, Status> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let array: [u8; 16] = bytes[..]
        .try_into()
        .map_err(|_| Status::invalid_argument("an id in the request has not 16 bytes"))?;
    Ok(Some(u128::from_le_bytes(array)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_for_others_are_refused() {
        let local = LocalIdentity::new(NodeId(7), Incarnation(1), Some(ClusterId(5)));
        let sender = LocalIdentity::new(NodeId(8), Incarnation(2), Some(ClusterId(5)));
        let stranger = LocalIdentity::new(NodeId(9), Incarnation(3), Some(ClusterId(6)));
        let check = |request: proto::Identity| local.check(Some(&request)).map_err(|s| s.code());
        assert_eq!(check(sender.request_to(NodeId(7), None)), Ok(NodeId(8)));
        assert_eq!(
            check(sender.request_to(NodeId(7), Some(Incarnation(1)))),
            Ok(NodeId(8))
        );
        let refused = Err(tonic::Code::FailedPrecondition);
        assert_eq!(check(sender.request_to(NodeId(6), None)), refused);
        assert_eq!(
            check(sender.request_to(NodeId(7), Some(Incarnation(9)))),
            refused
        );
        assert_eq!(check(stranger.request_to(NodeId(7), None)), refused);
    }

    /// The bytes are drawn in docs/formats/peer.md.
    #[test]
    fn golden_request_bytes() {
        let sender = LocalIdentity::new(NodeId(8), Incarnation(2), Some(ClusterId(5)));
        let request = proto::MetadataRequest {
            identity: Some(sender.request_to(NodeId(7), Some(Incarnation(1)))),
            kind: 3,
            body: Bytes::from_static(b"x"),
        };
        let id = |low: u8| format!("{low:02x}{}", "00".repeat(15));
        let node = |low: u8| format!("{low:02x}{}", "00".repeat(7));
        let identity = format!(
            "0a10{}11{}1a10{}21{}2a10{}",
            id(5),
            node(8),
            id(2),
            node(7),
            id(1)
        );
        let bytes = prost::Message::encode_to_vec(&request);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, format!("0a48{identity}10031a0178"));
    }
}
