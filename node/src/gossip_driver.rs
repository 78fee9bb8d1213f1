//! Runs the membership protocol: socket, clock, seeds. What it learns goes to the [`Directory`] and to
//! whoever watches the view.

use crate::{
    seeds,
    transport::directory::{Directory, Whereabouts},
};
use anyhow::Context;
use parking_lot::Mutex;
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    net::UdpSocket,
    sync::{mpsc, watch},
};
use trefoil_gossip::{
    ClusterKey, Counters, GossipError, Member, Membership, NodeInfo, Notification, seeds::Seed,
};

/// A sender of datagrams that are refused is told no more often than this.
const REFUSAL_TOLD_EVERY: Duration = Duration::from_secs(60);
/// Datagrams are smaller than this; larger ones are cut and refused by their checksum.
const DATAGRAM_BYTES_MAX: usize = 2048;

/// What this node knows of the others at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// The other nodes in order of their ids.
    pub(crate) members: Vec<Member>,
}

/// A handle to the running protocol.
#[derive(Clone)]
pub(crate) struct Gossip {
    updates: mpsc::Sender<Command>,
    view: watch::Receiver<Arc<View>>,
    counters: Arc<Mutex<Counters>>,
}

enum Command {
    Update(Box<NodeInfo>),
    Announce(SocketAddr),
    Leave,
}

impl Gossip {
    /// Starts the protocol on a bound socket.
    ///
    /// # Errors
    /// When the node's own description is refused.
    pub(crate) fn start(
        socket: UdpSocket,
        info: NodeInfo,
        seeds: Vec<Seed>,
        key: Option<[u8; 32]>,
        directory: Arc<Directory>,
    ) -> anyhow::Result<Self> {
        let epoch = Instant::now();
        // A restart must be later than the run before it; the wall clock is good enough, because the
        // others tell a node whose clock went back.
        let generation = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
        let key = key.map(ClusterKey::new);
        let membership = Membership::new(
            info,
            generation,
            key.as_ref(),
            rand::random(),
            epoch.elapsed(),
        )
        .context("start gossip")?;
        let (updates, commands) = mpsc::channel(64);
        let (sender, view) = watch::channel(Arc::new(View::default()));
        let counters = Arc::new(Mutex::default());
        let driver = Driver {
            socket,
            membership,
            epoch,
            directory,
            view: sender,
            counters: Arc::clone(&counters),
            refusal_told: None,
        };
        tokio::spawn(driver.run(commands, seeds));
        Ok(Self {
            updates,
            view,
            counters,
        })
    }

    /// Spreads a new description of this node.
    pub(crate) async fn update(&self, info: NodeInfo) {
        // The driver only ends with the process, where nobody needs the update any more.
        self.updates
            .send(Command::Update(Box::new(info)))
            .await
            .ok();
    }

    /// Makes this node known at an address where a member may be.
    pub(crate) async fn announce(&self, address: SocketAddr) {
        self.updates.send(Command::Announce(address)).await.ok();
    }

    /// Says goodbye, so that the others need not suspect this node.
    pub(crate) async fn leave(&self) {
        self.updates.send(Command::Leave).await.ok();
    }

    /// The others, as this node sees them now.
    pub(crate) fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// What the protocol refused or lost so far.
    pub(crate) fn counters(&self) -> Counters {
        *self.counters.lock()
    }

    /// Follows the view.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }
}

struct Driver {
    socket: UdpSocket,
    membership: Membership,
    epoch: Instant,
    directory: Arc<Directory>,
    view: watch::Sender<Arc<View>>,
    counters: Arc<Mutex<Counters>>,
    /// When a refusal because of the key was last told.
    refusal_told: Option<Instant>,
}

impl Driver {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>, seeds: Vec<Seed>) {
        let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
        let (found, mut addresses) = mpsc::channel(64);
        if !seeds.is_empty() {
            let view = self.view.subscribe();
            tokio::spawn(seeds::look_for(seeds, seeds::resolve, found, view));
        }
        loop {
            let timeout = self.membership.next_timeout();
            tokio::select! {
                received = self.socket.recv_from(&mut datagram) => {
                    if let Ok((length, from)) = received {
                        self.take(&datagram[..length], from);
                    }
                }
                () = sleep_until(self.epoch, timeout) => {
                    self.membership.handle_timeouts(self.epoch.elapsed());
                }
                Some(address) = addresses.recv() => self.membership.announce(address),
                command = commands.recv() => match command {
                    Some(Command::Update(info)) => {
                        let now = self.epoch.elapsed();
                        if let Err(error) = self.membership.update_self(*info, now) {
                            tracing::warn!(%error, "own description was refused");
                        }
                    }
                    Some(Command::Announce(address)) => self.membership.announce(address),
                    Some(Command::Leave) => self.membership.leave(self.epoch.elapsed()),
                    None => return,
                },
            }
            self.drain().await;
        }
    }

    /// Refusals are counted by the protocol itself.
    fn take(&mut self, datagram: &[u8], from: SocketAddr) {
        let now = self.epoch.elapsed();
        let refused = self.membership.handle_datagram(datagram, now).err();
        let Some(error @ (GossipError::WrongKey | GossipError::NotSealed | GossipError::Sealed)) =
            refused
        else {
            return;
        };
        let told = self.refusal_told;
        if told.is_none_or(|at| at.elapsed() >= REFUSAL_TOLD_EVERY) {
            self.refusal_told = Some(Instant::now());
            tracing::warn!(
                %from, %error,
                "gossip is refused; do all nodes have the same cluster_key_file?"
            );
        }
    }

    async fn drain(&mut self) {
        *self.counters.lock() = self.membership.counters();
        while let Some((address, datagram)) = self.membership.poll_send() {
            // A datagram that cannot be sent is a lost one, which the protocol expects.
            self.socket.send_to(&datagram, address).await.ok();
        }
        let mut changed = false;
        while let Some(notification) = self.membership.poll_notification() {
            changed = true;
            self.note(&notification);
        }
        if changed {
            let view = View {
                members: self.membership.members().cloned().collect(),
            };
            self.view.send_replace(Arc::new(view));
        }
    }

    fn note(&self, notification: &Notification) {
        match notification {
            Notification::Joined(info) | Notification::Updated(info) => {
                if matches!(notification, Notification::Joined(_)) {
                    tracing::info!(node = %info.name, peer = %info.peer, "node is here");
                }
                let incarnation = Some(info.incarnation);
                let whereabouts = Whereabouts {
                    peer: info.peer,
                    incarnation,
                    alive: true,
                };
                self.directory.set(info.node, whereabouts);
            }
            Notification::Recovered(node) => self.directory.set_alive(*node, true),
            Notification::Suspect(_) => {}
            Notification::Down(node) => {
                tracing::warn!(%node, "node does not answer");
                self.directory.set_alive(*node, false);
            }
            Notification::Left(node) => {
                tracing::info!(%node, "node has left");
                self.directory.set_alive(*node, false);
            }
            Notification::Foreign(info) => {
                tracing::warn!(
                    node = %info.name, peer = %info.peer, cluster = ?info.cluster,
                    "a node of another cluster is left alone; do the clusters share seeds?"
                );
                self.directory.set_alive(info.node, false);
            }
            Notification::SelfRenewed { generation } => {
                tracing::info!(generation, "took a new generation in gossip");
            }
            Notification::SelfDefunct => {
                tracing::error!("the others hold this node for dead; restart it");
            }
        }
    }
}

async fn sleep_until(epoch: Instant, timeout: Option<Duration>) {
    match timeout {
        Some(at) => tokio::time::sleep_until((epoch + at).into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_gossip::{Load, NodePhase};
    use trefoil_model::{ClusterId, Incarnation, NodeId};

    /// A node on loopback with this key, that looks for the others at these addresses.
    async fn node(id: u64, key: Option<[u8; 32]>, seeds: &[SocketAddr]) -> (Gossip, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let info = NodeInfo {
            node: NodeId(id),
            name: format!("n{id}"),
            zone: String::new(),
            http: address,
            peer: address,
            incarnation: Incarnation(1),
            cluster: Some(ClusterId(1)),
            version: String::new(),
            load: Load::default(),
            phase: NodePhase::Ready,
        };
        let seeds = seeds.iter().map(|seed| seed.to_string().parse().unwrap());
        let seeds: Vec<Seed> = seeds.collect();
        let gossip = Gossip::start(socket, info, seeds, key, Arc::default()).unwrap();
        (gossip, address)
    }

    async fn meets(gossip: &Gossip, id: u64) {
        let mut view = gossip.watch();
        let met = view.wait_for(|view| view.members.iter().any(|m| m.identity.node.0 == id));
        let met = tokio::time::timeout(Duration::from_secs(20), met).await;
        assert!(met.is_ok(), "node {id} was not met");
    }

    #[tokio::test]
    async fn a_node_with_another_key_or_none_is_refused_and_counted() {
        let (first, seed) = node(1, Some([1; 32]), &[]).await;
        let (wrong, _) = node(2, Some([2; 32]), &[seed]).await;
        let (open, _) = node(3, None, &[seed]).await;
        let (right, _) = node(4, Some([1; 32]), &[seed]).await;
        meets(&first, 4).await;
        meets(&right, 1).await;
        let mut pulse = tokio::time::interval(Duration::from_millis(10));
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let counters = first.counters();
            if counters.refused_key > 0 && counters.refused_protection > 0 {
                break;
            }
            assert!(Instant::now() < deadline, "{counters:?}");
            pulse.tick().await;
        }
        let seen: Vec<u64> = first
            .view()
            .members
            .iter()
            .map(|m| m.identity.node.0)
            .collect();
        assert_eq!(seen, [4]);
        assert!(wrong.view().members.is_empty() && open.view().members.is_empty());
    }
}
