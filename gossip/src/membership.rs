//! The membership state machine: datagrams and time in; datagrams, a timeout and notifications out.
//!
//! Three kinds of content travel in an envelope: SWIM messages; *hello*, with which a node makes
//! itself known to an address whose node it does not know yet; and *superseded*, which tells a node
//! that the others know a later generation of it than it claims (its clock was set back), so that
//! it moves above that.
//!
//! ```text
//!            hello                announce                feed
//! newcomer --------> any member ----------> newcomer ----------> member
//! ```
//! After every input the caller drains [`Membership::poll_send`] and
//! [`Membership::poll_notification`] and waits for [`Membership::next_timeout`].

use crate::{
    ClusterKey, GossipError, Identity, Member, NodeInfo, NodePhase, Notification,
    content::Content,
    envelope::{ENVELOPE_BYTES_MAX, Envelope},
    info::InfoVersion,
    info_table::InfoTable,
    swim,
    timers::{Event, Timers},
    view::View,
    wire::WireCodec,
};
use bytes::Buf;
use foca::{AccumulatingRuntime, Codec, Foca, OwnedNotification, State};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use std::{collections::VecDeque, net::SocketAddr, time::Duration};
use trefoil_model::NodeId;

/// A moment: how long after some fixed moment of the caller's choice. Never goes back.
pub type Now = Duration;

/// Datagrams stay below the smallest path MTU that matters (1500 less headers and tunnels).
const DATAGRAM_BYTES_MAX: usize = 1400;
/// Nodes known at once, dead ones included. A datagram that names another one is refused.
pub(crate) const MEMBERS_MAX: usize = 1024;
/// Datagrams and notifications that wait to be drained; beyond it the oldest are dropped and counted.
const UNDRAINED_MAX: usize = 4096;
/// How often a node repeats its description, so that whoever missed it learns it, and tries the
/// addresses of dead members again, which is how partitions heal.
const REFRESH_INTERVAL: Duration = Duration::from_secs(2);
/// How many addresses of dead members are tried each time.
const RETRIED_DOWN_MAX: usize = 2;

/// What was refused or lost since the start, for `/metrics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams that were believed.
    pub accepted: u64,
    /// Datagrams that came open although this node has a key, or sealed although it has none.
    pub refused_protection: u64,
    /// Datagrams sealed with another key, or altered.
    pub refused_key: u64,
    /// Datagrams that could not be read or that the protocol refused.
    pub refused_malformed: u64,
    /// Datagrams and notifications that were dropped because nobody drained them.
    pub dropped: u64,
    /// Nodes of other clusters that were met.
    pub foreign: u64,
    /// How often this node came back from a false death or a generation that was too low.
    pub renewed: u64,
}

/// One node's part in the membership protocol.
pub struct Membership {
    swim: Foca<Identity, WireCodec, StdRng, InfoTable>,
    runtime: AccumulatingRuntime<Identity>,
    infos: InfoTable,
    info: NodeInfo,
    /// The generation under which `info` was published last.
    published: u64,
    revision: u32,
    envelope: Envelope,
    nonces: StdRng,
    timers: Timers,
    view: View,
    datagrams: VecDeque<(SocketAddr, Vec<u8>)>,
    notifications: VecDeque<Notification>,
    counters: Counters,
    has_left: bool,
}

impl Membership {
    /// A node that knows nobody yet. `info.peer` is where it receives gossip; `generation` is higher
    /// than at its last start (the milliseconds of its clock); `seed` is random, or fixed in
    /// simulations.
    ///
    /// # Errors
    /// When a text of `info` is too long, or the generation is above 2^63.
    pub fn new(
        info: NodeInfo,
        generation: u64,
        key: Option<&ClusterKey>,
        seed: u64,
        now: Now,
    ) -> Result<Self, GossipError> {
        info.check()?;
        if generation > crate::identity::GENERATION_MAX || info.node.0 == 0 {
            return Err(GossipError::malformed("own identity"));
        }
        let identity = Identity {
            node: info.node,
            generation,
            address: info.peer,
        };
        let infos = InfoTable::default();
        let random = StdRng::seed_from_u64(seed);
        let mut membership = Self {
            swim: Foca::with_custom_broadcast(
                identity,
                swim::config(DATAGRAM_BYTES_MAX - ENVELOPE_BYTES_MAX - 1),
                random,
                WireCodec,
                infos.clone(),
            ),
            runtime: AccumulatingRuntime::new(),
            infos,
            info,
            published: generation,
            revision: 0,
            envelope: Envelope::new(key),
            nonces: StdRng::seed_from_u64(!seed),
            timers: Timers::default(),
            view: View::default(),
            datagrams: VecDeque::new(),
            notifications: VecDeque::new(),
            counters: Counters::default(),
            has_left: false,
        };
        membership.publish();
        membership
            .timers
            .schedule(now + REFRESH_INTERVAL, Event::Refresh);
        Ok(membership)
    }

    /// Makes this node known to whatever node listens at `address`. Nothing is resent: announce to
    /// all addresses of the seeds every second while no member is active, and every ten seconds
    /// afterwards (two groups that never met find each other only through the seeds).
    pub fn announce(&mut self, address: SocketAddr) {
        let own = *self.swim.identity();
        self.send(address, &Content::Hello(own));
    }

    /// Takes a datagram that arrived.
    ///
    /// # Errors
    /// When it is refused; also counted. Nothing has to be done about it.
    pub fn handle_datagram(&mut self, datagram: &[u8], now: Now) -> Result<(), GossipError> {
        let outcome = self.read_datagram(datagram);
        self.settle(now);
        match &outcome {
            Ok(()) => self.counters.accepted += 1,
            Err(GossipError::NotSealed | GossipError::Sealed) => {
                self.counters.refused_protection += 1;
            }
            Err(GossipError::WrongKey) => self.counters.refused_key += 1,
            Err(_) => self.counters.refused_malformed += 1,
        }
        outcome
    }

    /// Does what is due at `now`.
    pub fn handle_timeouts(&mut self, now: Now) {
        while let Some(event) = self.timers.pop_due(now) {
            match event {
                Event::Swim(timer) => {
                    if let Err(error) = self.swim.handle_timer(timer, &mut self.runtime) {
                        tracing::debug!(%error, "gossip timer");
                    }
                }
                Event::Refresh if self.has_left => {}
                Event::Refresh => {
                    self.publish();
                    self.tell_suspects();
                    self.retry_down();
                    self.timers.schedule(now + REFRESH_INTERVAL, Event::Refresh);
                }
            }
            self.settle(now);
        }
    }

    /// When [`Membership::handle_timeouts`] has something to do next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Now> {
        self.timers.next()
    }

    /// Replaces this node's description and spreads it. Another `peer` address is a new identity, as
    /// after a restart.
    ///
    /// # Errors
    /// When a text is too long or the node id is another one; nothing changes then.
    pub fn update_self(&mut self, info: NodeInfo, now: Now) -> Result<(), GossipError> {
        info.check()?;
        if info.node != self.info.node {
            return Err(GossipError::malformed("a node cannot change its id"));
        }
        if info == self.info {
            return Ok(());
        }
        let is_member_now = self.info.cluster != info.cluster;
        self.info = info;
        if is_member_now {
            self.update_view();
        }
        let identity = *self.swim.identity();
        if identity.address == self.info.peer {
            self.publish();
        } else {
            self.become_later_than(identity.generation);
        }
        self.gossip();
        self.settle(now);
        Ok(())
    }

    /// Says goodbye to a few members, who tell the others. Drain the datagrams once more and stop.
    pub fn leave(&mut self, now: Now) {
        self.info.phase = NodePhase::Left;
        self.publish();
        // Twice, for the case that a datagram is lost.
        self.gossip();
        self.has_left = true;
        if let Err(error) = self.swim.leave_cluster(&mut self.runtime) {
            tracing::debug!(%error, "gossip goodbye");
        }
        self.settle(now);
    }

    /// The next datagram to send, if there is one.
    pub fn poll_send(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.datagrams.pop_front()
    }

    /// The next change of the view, if there is one.
    pub fn poll_notification(&mut self) -> Option<Notification> {
        self.notifications.pop_front()
    }

    /// The other nodes, in order of their ids; dead ones for a day.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.view.members()
    }

    /// One of the other nodes.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.view.get(node)
    }

    /// This node's description as it is published.
    #[must_use]
    pub fn own_info(&self) -> &NodeInfo {
        &self.info
    }

    /// This node's present identity.
    #[must_use]
    pub fn own_identity(&self) -> Identity {
        *self.swim.identity()
    }

    /// What was refused or lost so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn read_datagram(&mut self, datagram: &[u8]) -> Result<(), GossipError> {
        if datagram.len() > DATAGRAM_BYTES_MAX {
            return Err(GossipError::malformed("datagram is too long"));
        }
        let content = self.envelope.unwrap(datagram)?;
        match Content::decode(&content)? {
            Content::Swim(message) => self.read_swim(message),
            Content::Hello(identity) => self.read_hello(identity),
            Content::Superseded(later) => {
                let own = *self.swim.identity();
                if later.node == own.node && later.is_later_than(&own) && !self.has_left {
                    self.become_later_than(later.generation);
                    self.gossip();
                }
                Ok(())
            }
        }
    }

    fn read_hello(&mut self, identity: Identity) -> Result<(), GossipError> {
        if identity.node == self.info.node || self.has_left || self.refuse_earlier(identity) {
            return Ok(());
        }
        self.swim
            .announce(identity, &mut self.runtime)
            .map_err(protocol_error)
    }

    fn read_swim(&mut self, content: &[u8]) -> Result<(), GossipError> {
        let header = WireCodec.decode_header(content)?;
        // Own messages come back when an address of an earlier run of this node is tried again.
        if header.src.node == self.info.node || self.refuse_earlier(header.src) {
            return Ok(());
        }
        if self.swim.iter_membership_state().len() >= MEMBERS_MAX {
            self.refuse_strangers(content)?;
        }
        self.swim
            .handle_data(content, &mut self.runtime)
            .map_err(protocol_error)
    }

    /// Whether a later run of the node is known than the one that claims to speak; tells it so.
    fn refuse_earlier(&mut self, claimed: Identity) -> bool {
        let is_later =
            |known: &Identity| known.node == claimed.node && known.is_later_than(&claimed);
        let known = self.swim.iter_membership_state().map(|m| *m.id());
        let later: Option<Identity> = known.filter(is_later).last();
        let Some(later) = later else {
            return false;
        };
        self.send(claimed.address, &Content::Superseded(later));
        true
    }

    /// Fails if the message names a node that is not known yet.
    fn refuse_strangers(&self, mut content: &[u8]) -> Result<(), GossipError> {
        let is_known = |node| {
            let mut known = self.swim.iter_membership_state();
            known.any(|member| member.id().node == node)
        };
        let refused = Err(GossipError::TooManyMembers {
            members_max: MEMBERS_MAX,
        });
        let header = WireCodec.decode_header(&mut content)?;
        if !is_known(header.src.node) {
            return refused;
        }
        if header.message == foca::Message::Broadcast {
            return Ok(());
        }
        for _ in 0..content.try_get_u16().unwrap_or(0) {
            if !is_known(WireCodec.decode_member(&mut content)?.id().node) {
                return refused;
            }
        }
        Ok(())
    }

    /// Takes a generation above `generation` (the published description follows in `settle`).
    fn become_later_than(&mut self, generation: u64) {
        let identity = Identity {
            node: self.info.node,
            generation: generation.saturating_add(1),
            address: self.info.peer,
        };
        if let Err(error) = self.swim.change_identity(identity, &mut self.runtime) {
            tracing::warn!(%error, "change the own gossip identity");
        }
    }

    /// After a change of identity foca probes nobody until it hears from somebody. If all members died
    /// meanwhile it would take them for alive for ever; an empty update makes it look again.
    fn resume_probing(&mut self) {
        let nothing = std::iter::empty();
        if let Err(error) = self.swim.apply_many(nothing, true, &mut self.runtime) {
            tracing::debug!(%error, "gossip after a change of identity");
        }
    }

    fn gossip(&mut self) {
        if let Err(error) = self.swim.gossip(&mut self.runtime) {
            tracing::debug!(%error, "gossip");
        }
    }

    /// Tells suspects that they are suspected, so that they can defend themselves. SWIM told them
    /// once; if that was lost and this node changed its identity meanwhile (which cancels the
    /// deadline of the suspicion), they would stay suspects for ever.
    fn tell_suspects(&mut self) {
        let members = self.swim.iter_membership_state();
        let suspects: Vec<foca::Member<Identity>> = members
            .filter(|member| member.state() == State::Suspect)
            .cloned()
            .collect();
        for suspect in suspects {
            if let Ok(message) = swim::suspicion_notice(self.swim.identity(), &suspect) {
                self.send(suspect.id().address, &Content::Swim(&message));
            }
        }
    }

    /// Says hello at the addresses of some dead members: not to the node that was there, which may
    /// have moved, but to whichever is there now.
    fn retry_down(&mut self) {
        let own = self.info.node;
        let members = self.swim.iter_membership_state();
        let down = members.filter(|m| m.state() == State::Down && m.id().node != own);
        let addresses: Vec<SocketAddr> = down.map(|member| member.id().address).collect();
        let chosen = addresses.sample(&mut self.nonces, RETRIED_DOWN_MAX);
        let chosen: Vec<SocketAddr> = chosen.copied().collect();
        for address in chosen {
            self.announce(address);
        }
    }

    /// Queues this node's description, as news.
    fn publish(&mut self) {
        self.published = self.swim.identity().generation;
        self.revision = self.revision.wrapping_add(1);
        let version = InfoVersion {
            generation: self.published,
            revision: self.revision,
        };
        if let Err(error) = self.swim.add_broadcast(&self.info.encode(version)) {
            tracing::warn!(%error, "publish the own description");
        }
    }

    /// Moves what the protocol produced to where the caller drains it, and updates the view.
    fn settle(&mut self, now: Now) {
        let has_newcomer = self.drain_runtime(now);
        let generation = self.swim.identity().generation;
        if generation != self.published {
            self.counters.renewed += 1;
            self.notify(Notification::SelfRenewed { generation });
            self.resume_probing();
            self.publish();
            self.gossip();
        } else if has_newcomer && !self.has_left {
            self.publish();
            self.gossip();
        }
        let changed_members = self.drain_runtime(now);
        let changed_infos = self.infos.take_changed();
        let is_stale = self.view.is_stale(self.swim.iter_membership_state());
        if has_newcomer || changed_members || changed_infos || is_stale {
            self.update_view();
        }
    }

    /// Says whether a member came up.
    fn drain_runtime(&mut self, now: Now) -> bool {
        while let Some((to, message)) = self.runtime.to_send() {
            self.send(to.address, &Content::Swim(&message));
        }
        while let Some((after, timer)) = self.runtime.to_schedule() {
            self.timers.schedule(now + after, Event::Swim(timer));
        }
        let mut has_newcomer = false;
        while let Some(notification) = self.runtime.to_notify() {
            match notification {
                OwnedNotification::MemberUp(_) | OwnedNotification::Rename(..) => {
                    has_newcomer = true;
                }
                OwnedNotification::Defunct if !self.has_left => {
                    self.notify(Notification::SelfDefunct);
                }
                _ => {}
            }
        }
        has_newcomer
    }

    fn update_view(&mut self) {
        let members = self.swim.iter_membership_state();
        let known: Vec<foca::Member<Identity>> = members.cloned().collect();
        let own = self.info.node;
        let is_known = |node| known.iter().any(|member| member.id().node == node);
        if self.view.forget_unless(is_known) {
            self.infos.retain(|node| node == own || is_known(node));
        }
        for member in known.iter().filter(|member| member.id().node != own) {
            let Some((info, version)) = self.infos.get(member.id().node) else {
                continue;
            };
            let change = match self.is_foreign(&info) {
                true => self.view.hide(info),
                false => self.view.update(member, info, version),
            };
            if let Some(notification) = change {
                let is_foreign = matches!(notification, Notification::Foreign(_));
                self.counters.foreign += u64::from(is_foreign);
                self.notify(notification);
            }
        }
    }

    /// Whether a node belongs to another cluster than this one. Who belongs to none may join.
    fn is_foreign(&self, info: &NodeInfo) -> bool {
        let both = self.info.cluster.zip(info.cluster);
        both.is_some_and(|(ours, theirs)| ours != theirs)
    }

    fn send(&mut self, to: SocketAddr, content: &Content<'_>) {
        let mut nonce = [0; 24];
        self.nonces.fill_bytes(&mut nonce);
        if self.datagrams.len() >= UNDRAINED_MAX {
            self.datagrams.pop_front();
            self.counters.dropped += 1;
        }
        let datagram = self.envelope.wrap(nonce, &content.encode());
        self.datagrams.push_back((to, datagram));
    }

    fn notify(&mut self, notification: Notification) {
        if self.notifications.len() >= UNDRAINED_MAX {
            self.notifications.pop_front();
            self.counters.dropped += 1;
        }
        self.notifications.push_back(notification);
    }
}

fn protocol_error(error: foca::Error) -> GossipError {
    GossipError::Protocol {
        reason: error.to_string(),
    }
}
