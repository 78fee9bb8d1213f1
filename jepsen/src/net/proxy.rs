//! A relay between processes on loopback, where there are no namespaces and no root.
//!
//! Every host listens on a loopback address of its own and tells the others another one, on which the
//! relay listens in its place:
//!
//! ```text
//! host 0  127.77.5.1:P  --->  127.78.5.2:P relay  --->  127.77.5.2:P  host 1
//!         --peer              --advertise               --peer
//! ```
//!
//! Who calls is known by the source address, because a node's connections and datagrams leave from its
//! own `--peer` address. The relay in turn calls from the address that the caller has told.
//!
//! Datagrams suffer all that a link does. Connections are streams that lose nothing, so that they suffer
//! as TCP would show it: see [`stream`]. Requests of clients do not come through here.
//!
//! One thread with its own runtime; all ends when the value is dropped. Bounds: connections at once, and
//! per connection and direction a few MB under way.

mod datagram;
mod stream;

use super::{
    Link, LinkCounts, LinkQuality, Network,
    wire::{Piece, Wire},
};
use anyhow::{Context, bail};
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
};

/// How often a free port is looked for before giving up.
const PORT_TRIES: usize = 100;
/// Commands that wait for the relay's thread; each comes from a caller who waits for it.
const COMMANDS_WAITING_MAX: usize = 16;

/// Where one host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHost {
    /// Where it listens (`--peer`); its connections leave from this address too. No two hosts share it.
    pub node: SocketAddr,
    /// Where the others look for it, and the relay listens: the address is for `--advertise`, the port is
    /// that of `node`.
    pub advertised: SocketAddr,
}

impl ProxyHost {
    /// Two loopback addresses with a port that is free on both, for TCP and UDP. Another program could
    /// take it before it is used.
    ///
    /// # Errors
    /// When none is found in a hundred tries, or this system has only one loopback address.
    pub fn find() -> anyhow::Result<Self> {
        let mut random = rand::rng();
        let mut last = None;
        for _ in 0..PORT_TRIES {
            let (third, fourth) = (random.random_range(1..255), random.random_range(1..255));
            let node = Ipv4Addr::new(127, 77, third, fourth);
            let advertised = Ipv4Addr::new(127, 78, third, fourth);
            let port = random.random_range(20_000..30_000);
            let host = Self {
                node: (node, port).into(),
                advertised: (advertised, port).into(),
            };
            match Sockets::bind(host.node).and(Sockets::bind(host.advertised)) {
                Ok(_) => return Ok(host),
                Err(error) => last = Some(error),
            }
        }
        let why = last.map_or(String::new(), |error| format!("{error:#}"));
        bail!("no loopback address has a port that is free for TCP and UDP: {why}")
    }
}

/// A running relay.
pub struct Proxy {
    fabric: Arc<Fabric>,
    commands: mpsc::Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

/// A host's new place, its bound sockets, and who waits for the change.
struct Command {
    host: usize,
    place: ProxyHost,
    sockets: Sockets,
    done: oneshot::Sender<anyhow::Result<()>>,
}

impl Proxy {
    /// Listens for all hosts; they need not run yet. Hosts are numbered in the order given.
    ///
    /// # Errors
    /// When an address is taken or two hosts share one.
    pub fn start(hosts: Vec<ProxyHost>, seed: u64) -> anyhow::Result<Self> {
        for (number, host) in hosts.iter().enumerate() {
            if hosts[..number]
                .iter()
                .any(|h| h.node.ip() == host.node.ip())
            {
                bail!("two hosts have the address {}", host.node.ip());
            }
        }
        let sockets: anyhow::Result<Vec<Sockets>> =
            hosts.iter().map(|h| Sockets::bind(h.advertised)).collect();
        let sockets = sockets?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("make a runtime for the relay")?;
        let mut doors = Vec::new();
        {
            let _inside = runtime.enter();
            for sockets in sockets {
                doors.push(Door::new(sockets)?);
            }
        }
        let datagrams = doors.iter().map(|door| door.datagrams.clone()).collect();
        let fabric = Arc::new(Fabric::new(hosts, datagrams, seed));
        let (commands, waiting) = mpsc::channel(COMMANDS_WAITING_MAX);
        let serving = serve(fabric.clone(), doors, waiting);
        let thread = std::thread::Builder::new()
            .name("proxy".to_owned())
            .spawn(move || runtime.block_on(serving))
            .context("start the relay")?;
        Ok(Self {
            fabric,
            commands,
            thread: Some(thread),
        })
    }

    /// Listens for a stopped host at another place, as for a restarted pod. The old place is free when
    /// this returns; the new one must not share the old one's advertised address.
    ///
    /// # Errors
    /// When the place is taken; nothing has changed then.
    ///
    /// # Panics
    /// When there is no such host. Not to be called inside an asynchronous task.
    pub fn readdress(&self, host: usize, place: ProxyHost) -> anyhow::Result<()> {
        {
            let state = self.fabric.state.lock();
            assert!(host < state.hosts.len(), "the relay has no host {host}");
            if state.hosts.iter().any(|h| h.node.ip() == place.node.ip()) {
                bail!("a host has the address {}", place.node.ip());
            }
        }
        let sockets = Sockets::bind(place.advertised)?;
        let (done, answer) = oneshot::channel();
        let command = Command {
            host,
            place,
            sockets,
            done,
        };
        let gone = "the relay has ended";
        self.commands.blocking_send(command).ok().context(gone)?;
        answer.blocking_recv().context(gone)?
    }
}

impl Network for Proxy {
    fn set(&self, link: Link, quality: LinkQuality) {
        self.fabric.state.lock().wire(link).set(quality);
        self.fabric.changes.send_modify(|change| *change += 1);
    }

    fn heal(&self) {
        for wire in &mut self.fabric.state.lock().wires {
            wire.set(LinkQuality::default());
        }
        self.fabric.changes.send_modify(|change| *change += 1);
    }

    fn counts(&self, link: Link) -> LinkCounts {
        self.fabric.state.lock().wire(link).counts()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Without a sender the thread ends, and with its runtime all sockets.
        let (none, _) = mpsc::channel(1);
        self.commands = none;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the relay had panicked");
        }
    }
}

/// What all tasks of a relay share.
struct Fabric {
    start: Instant,
    state: Mutex<State>,
    /// Counts the changes of links; who waits for one to open looks again at each.
    changes: watch::Sender<u64>,
}

struct State {
    hosts: Vec<ProxyHost>,
    /// One per host: where its datagrams arrive, and from where those that it has sent go on.
    datagrams: Vec<Arc<tokio::net::UdpSocket>>,
    /// One per ordered pair of hosts, by sender, then receiver.
    wires: Vec<Wire>,
    random: StdRng,
}

impl State {
    fn wire(&mut self, link: Link) -> &mut Wire {
        let (from, to) = (link.from, link.to);
        let hosts = self.hosts.len();
        assert!(
            from < hosts && to < hosts,
            "the relay has no link {from} -> {to}"
        );
        &mut self.wires[from * hosts + to]
    }

    /// The wire and the random source, for taking what comes.
    fn wire_and_random(&mut self, link: Link) -> (&mut Wire, &mut StdRng) {
        let at = link.from * self.hosts.len() + link.to;
        (&mut self.wires[at], &mut self.random)
    }

    fn host_at(&self, address: IpAddr) -> Option<usize> {
        self.hosts.iter().position(|host| host.node.ip() == address)
    }
}

impl Fabric {
    fn new(hosts: Vec<ProxyHost>, datagrams: Vec<Arc<tokio::net::UdpSocket>>, seed: u64) -> Self {
        Self {
            start: Instant::now(),
            state: Mutex::new(State {
                wires: vec![Wire::default(); hosts.len() * hosts.len()],
                hosts,
                datagrams,
                random: StdRng::seed_from_u64(seed),
            }),
            changes: watch::Sender::new(0),
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    async fn sleep_until(&self, due: Duration) {
        tokio::time::sleep_until((self.start + due).into()).await;
    }

    fn is_blocked(&self, link: Link) -> bool {
        self.state.lock().wire(link).is_blocked()
    }

    /// Waits until a link passes something; whether that took any time.
    async fn wait_open(&self, link: Link) -> bool {
        let mut changes = self.changes.subscribe();
        let mut waited = false;
        while self.is_blocked(link) {
            waited = true;
            // The sender lives as long as the fabric, so that this ends only with a change.
            changes.changed().await.ok();
        }
        waited
    }

    fn take_piece(&self, link: Link, bytes: usize, stream_due: Duration) -> Piece {
        let now = self.now();
        let mut state = self.state.lock();
        let (wire, random) = state.wire_and_random(link);
        wire.take_piece(now, bytes, stream_due, random)
    }
}

/// The sockets of one advertised address, before they belong to a runtime.
struct Sockets {
    listener: TcpListener,
    datagrams: UdpSocket,
}

impl Sockets {
    fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let taken = || format!("listen at {address}");
        let listener = TcpListener::bind(address).with_context(taken)?;
        let datagrams = UdpSocket::bind(address).with_context(taken)?;
        listener.set_nonblocking(true)?;
        datagrams.set_nonblocking(true)?;
        Ok(Self {
            listener,
            datagrams,
        })
    }
}

/// Where the others reach a host.
struct Door {
    listener: tokio::net::TcpListener,
    datagrams: Arc<tokio::net::UdpSocket>,
}

impl Door {
    /// Inside a runtime.
    fn new(sockets: Sockets) -> anyhow::Result<Self> {
        Ok(Self {
            listener: tokio::net::TcpListener::from_std(sockets.listener)?,
            datagrams: Arc::new(tokio::net::UdpSocket::from_std(sockets.datagrams)?),
        })
    }
}

async fn serve(fabric: Arc<Fabric>, doors: Vec<Door>, mut commands: mpsc::Receiver<Command>) {
    let open = |host: usize, door: Door| -> [AbortHandle; 2] {
        let connections = stream::accept(fabric.clone(), host, door.listener);
        let datagrams = datagram::relay(fabric.clone(), host, door.datagrams);
        [
            tokio::spawn(connections).abort_handle(),
            tokio::spawn(datagrams).abort_handle(),
        ]
    };
    let mut open_doors: Vec<[AbortHandle; 2]> = doors
        .into_iter()
        .enumerate()
        .map(|(host, door)| open(host, door))
        .collect();
    while let Some(command) = commands.recv().await {
        let host = command.host;
        let changed = Door::new(command.sockets).map(|door| {
            let mut state = fabric.state.lock();
            state.hosts[host] = command.place;
            state.datagrams[host] = door.datagrams.clone();
            drop(state);
            for task in std::mem::replace(&mut open_doors[host], open(host, door)) {
                task.abort();
            }
        });
        // Ended tasks give their sockets back at the next turn of the runtime.
        tokio::task::yield_now().await;
        command.done.send(changed).ok();
    }
}

#[cfg(test)]
mod tests;
