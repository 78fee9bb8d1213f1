//! Remembers each proposer's newest reply, so that a repeated proposal has one effect.

use super::limits::CLIENTS_MAX;
use super::{Proposal, Refusal, Reply, State};
use serde::{Deserialize, Serialize};

/// The newest proposal of one proposer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClientRecord {
    serial: u64,
    reply: Reply,
    /// The state's sequence when it was applied; the smallest one is forgotten first.
    sequence: u64,
}

impl State {
    /// The reply to a proposal that was applied before; none when it is new.
    pub(super) fn known_reply(&self, proposal: &Proposal) -> Option<Reply> {
        let record = self.clients.get(&proposal.client)?;
        if proposal.serial > record.serial {
            return None;
        }
        if proposal.serial == record.serial {
            return Some(record.reply.clone());
        }
        Some(Reply::Refused(Refusal::StaleSerial {
            serial: proposal.serial,
            newest: record.serial,
        }))
    }

    pub(super) fn remember_reply(&mut self, proposal: &Proposal, reply: &Reply) {
        if self.clients.len() >= CLIENTS_MAX && !self.clients.contains_key(&proposal.client) {
            let silent = self
                .clients
                .iter()
                .min_by_key(|(_, record)| record.sequence)
                .map(|(client, _)| *client);
            if let Some(client) = silent {
                self.clients.remove(&client);
            }
        }
        let record = ClientRecord {
            serial: proposal.serial,
            reply: reply.clone(),
            sequence: self.cluster.sequence,
        };
        self.clients.insert(proposal.client, record);
    }
}
