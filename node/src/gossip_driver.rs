//! Runs the membership protocol: socket, clock, seeds. What it learns goes to the [`Directory`] and to
//! whoever watches the view.

use crate::transport::directory::{Directory, Whereabouts};
use anyhow::Context;
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
    ClusterKey, Counters, Member, Membership, NodeInfo, Notification, seeds::Seed,
};

/// How often the seeds are asked while no member is known.
const SEED_INTERVAL_ALONE: Duration = Duration::from_millis(250);
/// How often the seeds are asked once members are known: heals a cluster whose halves forgot each other.
const SEED_INTERVAL: Duration = Duration::from_secs(10);
/// Datagrams are smaller than this; larger ones are cut and refused by their checksum.
const DATAGRAM_BYTES_MAX: usize = 2048;

/// What this node knows of the others at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// The other nodes in order of their ids.
    pub(crate) members: Vec<Member>,
    /// What the protocol refused or lost.
    pub(crate) counters: Counters,
}

/// A handle to the running protocol.
#[derive(Clone)]
pub(crate) struct Gossip {
    updates: mpsc::Sender<Command>,
    view: watch::Receiver<Arc<View>>,
}

enum Command {
    Update(Box<NodeInfo>),
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
        let driver = Driver {
            socket,
            membership,
            epoch,
            directory,
            view: sender,
        };
        tokio::spawn(driver.run(commands, seeds));
        Ok(Self { updates, view })
    }

    /// Spreads a new description of this node.
    pub(crate) async fn update(&self, info: NodeInfo) {
        // The driver only ends with the process, where nobody needs the update any more.
        self.updates
            .send(Command::Update(Box::new(info)))
            .await
            .ok();
    }

    /// Says goodbye, so that the others need not suspect this node.
    pub(crate) async fn leave(&self) {
        self.updates.send(Command::Leave).await.ok();
    }

    /// The others, as this node sees them now.
    pub(crate) fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
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
}

impl Driver {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>, seeds: Vec<Seed>) {
        let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
        let (found, mut addresses) = mpsc::channel(64);
        if !seeds.is_empty() {
            tokio::spawn(look_for_seeds(seeds, found, self.view.subscribe()));
        }
        loop {
            let timeout = self.membership.next_timeout();
            tokio::select! {
                received = self.socket.recv_from(&mut datagram) => {
                    if let Ok((length, _)) = received {
                        // Refusals are counted by the protocol itself.
                        let now = self.epoch.elapsed();
                        self.membership.handle_datagram(&datagram[..length], now).ok();
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
                    Some(Command::Leave) => self.membership.leave(self.epoch.elapsed()),
                    None => return,
                },
            }
            self.drain().await;
        }
    }

    async fn drain(&mut self) {
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
                counters: self.membership.counters(),
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

/// Resolves the seeds again and again and reports every address found.
async fn look_for_seeds(
    seeds: Vec<Seed>,
    found: mpsc::Sender<SocketAddr>,
    view: watch::Receiver<Arc<View>>,
) {
    loop {
        for seed in &seeds {
            for address in resolve(seed).await {
                if found.send(address).await.is_err() {
                    return;
                }
            }
        }
        let alone = view
            .borrow()
            .members
            .iter()
            .all(|member| !member.state.is_active());
        let pause = if alone {
            SEED_INTERVAL_ALONE
        } else {
            SEED_INTERVAL
        };
        tokio::time::sleep(pause).await;
    }
}

/// All addresses of a seed; none when the name does not resolve now.
pub(crate) async fn resolve(seed: &Seed) -> Vec<SocketAddr> {
    if let Some(address) = seed.address() {
        return vec![address];
    }
    match tokio::net::lookup_host((seed.host.as_str(), seed.port)).await {
        Ok(addresses) => addresses.collect(),
        Err(error) => {
            tracing::debug!(%seed, %error, "seed does not resolve");
            Vec::new()
        }
    }
}

/// The address that others reach this node at: the advertised host, the bound address, or the one
/// that the route to a seed leaves from.
///
/// # Errors
/// When the advertised host does not resolve, or no route leads to any seed.
pub(crate) async fn reachable_address(
    bound: SocketAddr,
    advertise: Option<&str>,
    seeds: &[Seed],
) -> anyhow::Result<SocketAddr> {
    if let Some(host) = advertise {
        let mut addresses = tokio::net::lookup_host((host, bound.port()))
            .await
            .with_context(|| format!("resolve the advertised host {host}"))?;
        return addresses
            .next()
            .with_context(|| format!("the advertised host {host} has no address"));
    }
    if !bound.ip().is_unspecified() {
        return Ok(bound);
    }
    for seed in seeds {
        for address in resolve(seed).await {
            let probe = std::net::UdpSocket::bind(if address.is_ipv4() {
                "0.0.0.0:0"
            } else {
                "[::]:0"
            })?;
            if probe.connect(address).is_ok()
                && let Ok(local) = probe.local_addr()
            {
                return Ok(SocketAddr::new(local.ip(), bound.port()));
            }
        }
    }
    if seeds.is_empty() {
        return Ok(SocketAddr::from(([127, 0, 0, 1], bound.port())));
    }
    anyhow::bail!("no route leads to any seed; give --advertise HOST")
}
