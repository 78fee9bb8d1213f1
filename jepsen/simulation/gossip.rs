//! Runs the membership protocol of one process on the simulated network and clock, as `node/src/gossip_driver.rs` does
//! on real ones.

use crate::{
    process::{PeerViews, Process, Whereabouts},
    world::World,
};
use parking_lot::Mutex;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::sync::{Notify, watch};
use trefoil_gossip::{Member, Membership, NodeInfo, Notification};
use trefoil_raft::PeerView;

/// How often the seeds are asked while no member is known, and afterwards.
const INTERVAL_ALONE: Duration = Duration::from_millis(250);
const INTERVAL: Duration = Duration::from_secs(10);

/// The protocol of one process.
pub(crate) struct Gossip {
    membership: Mutex<Membership>,
    changed: Notify,
    view: watch::Sender<Arc<Vec<Member>>>,
}

impl Gossip {
    /// Starts the protocol. Its tasks end with the process.
    pub(crate) fn start(process: &Arc<Process>, info: NodeInfo) -> Self {
        let world = &process.world;
        // A restart is later than the run before it, by the wall clock.
        let generation = world.wall(process.machine).unsigned_abs();
        let seed = world.roll(crate::dice::Dice::next);
        let now = world.boot(process.machine);
        let membership = Membership::new(info, generation, None, seed, now)
            .expect("the description of a simulated node is short");
        let running = process.clone();
        process.spawn(async move { run(&running).await });
        let seeking = process.clone();
        process.spawn(async move { seek(&seeking).await });
        Self {
            membership: Mutex::new(membership),
            changed: Notify::new(),
            view: watch::Sender::default(),
        }
    }

    /// The others, as they are seen now.
    pub(crate) fn view(&self) -> Arc<Vec<Member>> {
        self.view.borrow().clone()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Vec<Member>>> {
        self.view.subscribe()
    }

    /// The view as the metadata plane wants it.
    pub(crate) fn peer_view(&self) -> PeerViews {
        let (sender, receiver) = watch::channel(PeerView::default());
        let mut views = self.view.subscribe();
        tokio::spawn(async move {
            loop {
                let view = views.borrow_and_update().clone();
                sender.send_replace(PeerView {
                    seen: view.iter().map(|member| member.identity.node).collect(),
                    alive: view
                        .iter()
                        .filter(|member| member.state.is_active())
                        .map(|member| member.identity.node)
                        .collect(),
                });
                if sender.is_closed() || views.changed().await.is_err() {
                    return;
                }
            }
        });
        receiver
    }

    /// Takes a datagram. Refusals are counted by the protocol itself.
    pub(crate) fn take(&self, process: &Process, datagram: &[u8]) {
        let now = process.world.boot(process.machine);
        let mut membership = self.membership.lock();
        membership.handle_datagram(datagram, now).ok();
        self.drain(process, &mut membership);
    }

    /// Spreads a new description of this node.
    pub(crate) fn update(&self, process: &Process, info: NodeInfo) {
        let now = process.world.boot(process.machine);
        let mut membership = self.membership.lock();
        membership
            .update_self(info, now)
            .expect("the description of a simulated node is short");
        self.drain(process, &mut membership);
    }

    fn announce(&self, process: &Process, address: SocketAddr) {
        let mut membership = self.membership.lock();
        membership.announce(address);
        self.drain(process, &mut membership);
    }

    fn drain(&self, process: &Process, membership: &mut Membership) {
        while let Some((address, datagram)) = membership.poll_send() {
            process
                .world
                .send_datagram(process.machine, address, datagram);
        }
        let mut changed = false;
        while let Some(notification) = membership.poll_notification() {
            changed = true;
            note(process, &notification);
        }
        if changed {
            self.view
                .send_replace(Arc::new(membership.members().cloned().collect()));
        }
        // The next time-out may be nearer now.
        self.changed.notify_one();
    }
}

fn note(process: &Process, notification: &Notification) {
    let mut directory = process.directory.lock();
    let mut set_alive = |node, alive| {
        if let Some(whereabouts) = directory.get_mut(&node) {
            whereabouts.alive = alive;
        }
    };
    match notification {
        Notification::Joined(info) | Notification::Updated(info) => {
            let whereabouts = Whereabouts {
                peer: info.peer,
                alive: true,
            };
            directory.insert(info.node, whereabouts);
        }
        Notification::Recovered(node) => set_alive(*node, true),
        Notification::Down(node) | Notification::Left(node) => set_alive(*node, false),
        Notification::Foreign(info) => set_alive(info.node, false),
        _ => {}
    }
    drop(directory);
    process
        .world
        .trace(format_args!("{} hears {notification:?}", process.name()));
}

/// The clock of the protocol.
async fn run(process: &Arc<Process>) {
    let world: &Arc<World> = &process.world;
    loop {
        let gossip = process.gossip();
        let next = gossip.membership.lock().next_timeout();
        let next = next.map_or(Duration::MAX, |at| at);
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(world.at_boot(process.machine, next)) => {
                let mut membership = gossip.membership.lock();
                membership.handle_timeouts(world.boot(process.machine));
                gossip.drain(process, &mut membership);
            }
            () = gossip.changed.notified() => {}
        }
    }
}

/// Looks for the others at all founders' addresses.
async fn seek(process: &Arc<Process>) {
    let world = &process.world;
    let addresses: Vec<SocketAddr> = (0..world.setup.founders)
        .filter(|index| *index != process.machine)
        .map(|index| world.machine(index).address)
        .collect();
    loop {
        let gossip = process.gossip();
        for address in &addresses {
            gossip.announce(process, *address);
        }
        let known = gossip.view().iter().any(|member| member.state.is_active());
        let pause = if known { INTERVAL } else { INTERVAL_ALONE };
        tokio::time::sleep(pause).await;
    }
}
