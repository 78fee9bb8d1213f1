//! A switch for IPv4 packets between network namespaces, in one thread of this process.
//!
//! Each port is a TUN device in a namespace. A packet is read from its sender's device and written to the
//! device that has its destination address, at once or when its [`Wire`] says. Packets for nobody, IPv6
//! and broadcasts are lost without being counted: they belong to no link.
//!
//! All state is behind one lock that the thread holds while it moves packets, so that after
//! [`Network::set`] has returned no packet passes by the old rules. A device whose namespace was removed
//! is left alone; the others go on.

use super::{
    Link, LinkCounts, LinkQuality, Network,
    tun::{MTU_BYTES, open_tun, remove_device, replace_address},
    wire::{Fate, Wire},
};
use anyhow::{Context, bail};
use parking_lot::Mutex;
use rand::{SeedableRng, rngs::StdRng};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    net::Ipv4Addr,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Packets that are read from one port before the others get their turn.
const TURN_PACKETS: usize = 64;
/// How many ports a switch has at most: the links are their square, each with its queue.
const PORTS_MAX: usize = 64;

/// One host at the switch.
#[derive(Clone, Debug)]
pub struct SwitchPort {
    /// The name of the device inside the namespace, at most 15 bytes.
    pub name: String,
    /// The namespace's file below `/run/netns`.
    pub namespace: PathBuf,
    /// The host's address.
    pub address: Ipv4Addr,
    /// How many leading bits of the address all ports share.
    pub prefix: u8,
}

/// A running switch. Dropping it ends its thread and removes its devices.
///
/// Ports are numbered in the order in which they were given; the hosts under test come first, so that
/// their numbers are those of their links. The harness' clients are a port like the others, after the
/// last host: no link of theirs is disturbed unless somebody names it.
pub struct Switch {
    fabric: Arc<Mutex<Fabric>>,
    ports: Mutex<Vec<SwitchPort>>,
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Switch {
    /// Makes the devices, gives them their addresses, brings them up and starts to forward.
    ///
    /// # Errors
    /// When a device cannot be made (root only) or two ports have the same address. Nothing is left then.
    pub fn start(ports: Vec<SwitchPort>, seed: u64) -> anyhow::Result<Self> {
        if ports.len() > PORTS_MAX {
            bail!("{} ports are more than {PORTS_MAX}", ports.len());
        }
        let mut routes = HashMap::new();
        for (number, port) in ports.iter().enumerate() {
            if routes.insert(port.address, number).is_some() {
                bail!("two ports have the address {}", port.address);
            }
        }
        let devices: anyhow::Result<Vec<OwnedFd>> = ports
            .iter()
            .map(|port| open_tun(&port.namespace, &port.name, port.address, port.prefix))
            .collect();
        let devices = devices?;
        let fabric = Arc::new(Mutex::new(Fabric::new(devices.len(), routes, seed)));
        let stop = eventfd(0, EventfdFlags::CLOEXEC).context("make an event")?;
        let forwarder = Forwarder {
            devices,
            fabric: fabric.clone(),
            stop: stop.try_clone().context("share an event")?,
        };
        let thread = std::thread::Builder::new()
            .name("switch".to_owned())
            .spawn(move || forwarder.run())
            .context("start the switch")?;
        Ok(Self {
            fabric,
            ports: Mutex::new(ports),
            stop,
            thread: Some(thread),
        })
    }

    /// Gives a host another address in place of the present one, as a restarted pod gets it. Connections
    /// to the old address end in nothing.
    ///
    /// # Errors
    /// When the address is taken by another port, or `ip` refuses.
    ///
    /// # Panics
    /// When there is no such host.
    pub fn readdress(&self, host: usize, address: Ipv4Addr) -> anyhow::Result<()> {
        let mut ports = self.ports.lock();
        if let Some(taken) = ports.iter().find(|port| port.address == address) {
            bail!("{} has the address {address}", taken.name);
        }
        let port = &mut ports[host];
        replace_address(
            &port.namespace,
            &port.name,
            port.address,
            address,
            port.prefix,
        )?;
        let mut fabric = self.fabric.lock();
        fabric.routes.remove(&port.address);
        fabric.routes.insert(address, host);
        port.address = address;
        Ok(())
    }
}

impl Network for Switch {
    fn set(&self, link: Link, quality: LinkQuality) {
        self.fabric.lock().wire(link).set(quality);
    }

    fn heal(&self) {
        for wire in &mut self.fabric.lock().wires {
            wire.set(LinkQuality::default());
        }
    }

    fn counts(&self, link: Link) -> LinkCounts {
        self.fabric.lock().wire(link).counts()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        // An event takes its first write always.
        let _written = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the switch had panicked");
        }
        for port in self.ports.get_mut() {
            // Most are gone already, with their files or with their namespaces.
            remove_device(&port.namespace, &port.name).ok();
        }
    }
}

/// A packet that waits for its time. Ordered by that, then by arrival.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    due: Duration,
    number: u64,
    from: usize,
    to: usize,
    cuts: u64,
    copies: usize,
    packet: Box<[u8]>,
}

/// What the switch knows: who is where, and how each link behaves. Bounded by the wires, which say how
/// much may wait on each.
struct Fabric {
    ports: usize,
    routes: HashMap<Ipv4Addr, usize>,
    /// One per ordered pair of ports, by sender, then receiver.
    wires: Vec<Wire>,
    waiting: BinaryHeap<Reverse<Waiting>>,
    taken: u64,
    random: StdRng,
}

impl Fabric {
    fn new(ports: usize, routes: HashMap<Ipv4Addr, usize>, seed: u64) -> Self {
        Self {
            ports,
            routes,
            wires: vec![Wire::default(); ports * ports],
            waiting: BinaryHeap::new(),
            taken: 0,
            random: StdRng::seed_from_u64(seed),
        }
    }

    fn wire(&mut self, link: Link) -> &mut Wire {
        let (from, to) = (link.from, link.to);
        assert!(
            from < self.ports && to < self.ports,
            "the switch has no link {from} -> {to}"
        );
        &mut self.wires[from * self.ports + to]
    }

    /// Takes a packet from a port; how many copies go to which port at once.
    fn take(&mut self, from: usize, packet: &[u8], now: Duration) -> Option<(usize, usize)> {
        let to = *self.routes.get(&destination(packet)?)?;
        let wire = &mut self.wires[from * self.ports + to];
        match wire.take(now, packet.len(), &mut self.random) {
            Fate::Lost => None,
            Fate::Now { copies } => Some((to, copies)),
            Fate::Later { due, copies } => {
                self.taken += 1;
                let cuts = wire.cuts();
                self.waiting.push(Reverse(Waiting {
                    due,
                    number: self.taken,
                    from,
                    to,
                    cuts,
                    copies,
                    packet: packet.into(),
                }));
                None
            }
        }
    }

    /// The next packet whose time has come and that still may pass.
    fn next_due(&mut self, now: Duration) -> Option<Waiting> {
        while self.waiting.peek().is_some_and(|next| next.0.due <= now) {
            let Reverse(next) = self.waiting.pop()?;
            let link = Link {
                from: next.from,
                to: next.to,
            };
            let wire = self.wire(link);
            if wire.deliver(next.cuts, next.packet.len(), next.copies) {
                return Some(next);
            }
        }
        None
    }
}

/// The destination of an IPv4 packet; other packets have none here.
fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let header = packet.first_chunk::<20>()?;
    let is_version_4 = header[0] >> 4 == 4;
    is_version_4.then(|| Ipv4Addr::new(header[16], header[17], header[18], header[19]))
}

/// The thread of a switch.
struct Forwarder {
    devices: Vec<OwnedFd>,
    fabric: Arc<Mutex<Fabric>>,
    stop: OwnedFd,
}

impl Forwarder {
    fn run(self) {
        let start = Instant::now();
        let mut buffer = vec![0; MTU_BYTES];
        let mut is_gone = vec![false; self.devices.len()];
        loop {
            let (is_busy, next_due) = self.turn(start, &mut buffer);
            let timeout = match (is_busy, next_due) {
                (true, _) => Some(Duration::ZERO),
                (false, Some(due)) => Some(due.saturating_sub(start.elapsed())),
                (false, None) => None,
            };
            if self.wait(timeout, &mut is_gone) {
                return;
            }
        }
    }

    /// Moves what is there; whether there may be more, and when the next waiting packet is due.
    fn turn(&self, start: Instant, buffer: &mut [u8]) -> (bool, Option<Duration>) {
        let mut fabric = self.fabric.lock();
        while let Some(due) = fabric.next_due(start.elapsed()) {
            self.hand_over(due.to, &due.packet, due.copies);
        }
        let mut is_busy = false;
        for (from, device) in self.devices.iter().enumerate() {
            let mut moved = 0;
            while moved < TURN_PACKETS
                && let Ok(bytes) = rustix::io::read(device, &mut *buffer)
            {
                let packet = &buffer[..bytes];
                if let Some((to, copies)) = fabric.take(from, packet, start.elapsed()) {
                    self.hand_over(to, packet, copies);
                }
                moved += 1;
            }
            is_busy |= moved == TURN_PACKETS;
        }
        let next_due = fabric.waiting.peek().map(|next| next.0.due);
        (is_busy, next_due)
    }

    /// A device that is down or gone takes nothing, like an unplugged host.
    fn hand_over(&self, to: usize, packet: &[u8], copies: usize) {
        for _ in 0..copies {
            let _taken = rustix::io::write(&self.devices[to], packet);
        }
    }

    /// Waits for a packet, the time or the end; whether it is the end.
    fn wait(&self, timeout: Option<Duration>, is_gone: &mut [bool]) -> bool {
        // Waits longer than a day are cut short by the next turn anyway.
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs().min(86_400) as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let live: Vec<usize> = (0..is_gone.len()).filter(|port| !is_gone[*port]).collect();
        let mut events = vec![PollFd::new(&self.stop, PollFlags::IN)];
        events.extend(
            live.iter()
                .map(|port| PollFd::new(&self.devices[*port], PollFlags::IN)),
        );
        match poll(&mut events, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => panic!("the switch cannot wait for packets: {error}"),
        }
        let broken = PollFlags::ERR | PollFlags::NVAL;
        for (event, port) in events[1..].iter().zip(live) {
            is_gone[port] = event.revents().intersects(broken);
        }
        !events[0].revents().is_empty()
    }
}

#[cfg(test)]
mod tests;
