//! Real namespaces, real sockets, real packets. Needs root; see `Hosts::start`.

use super::*;
use crate::{
    net::namespace::{inside, namespaces_missing},
    wait_until,
};
use anyhow::ensure;
use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    panic::AssertUnwindSafe,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

/// How long anything here may take.
const DEADLINE: Duration = Duration::from_secs(20);
const PORT: u16 = 7000;

/// Namespaces joined by a switch. Removed when dropped, the switch first.
struct Hosts {
    switch: Option<Switch>,
    ports: Vec<SwitchPort>,
}

impl Hosts {
    /// `None` where namespaces cannot be made and nobody demanded them.
    fn start(count: u8) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if let Some(why) = namespaces_missing() {
            let demanded = std::env::var_os("TREFOIL_REQUIRE_NAMESPACES").is_some();
            assert!(!demanded, "network namespaces are missing: {why}");
            eprintln!("not run: needs root and network namespaces ({why})");
            return None;
        }
        let run = format!(
            "tsw-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let mut hosts = Self {
            switch: None,
            ports: Vec::new(),
        };
        for host in 0..count {
            let name = format!("{run}-{host}");
            ip(&["netns", "add", &name]);
            hosts.ports.push(SwitchPort {
                name: "wire".to_owned(),
                namespace: Path::new("/run/netns").join(&name),
                address: Ipv4Addr::new(10, 177, 0, host + 1),
                prefix: 24,
            });
        }
        hosts.switch = Some(Switch::start(hosts.ports.clone(), 1).unwrap());
        Some(hosts)
    }

    fn switch(&self) -> &Switch {
        self.switch.as_ref().unwrap()
    }

    fn address(&self, host: usize) -> SocketAddr {
        (self.ports[host].address, PORT).into()
    }

    /// Makes a socket, or runs anything else, inside a host.
    fn inside<T: Send>(&self, host: usize, work: impl FnOnce() -> std::io::Result<T> + Send) -> T {
        inside(&self.ports[host].namespace, || Ok(work()?)).unwrap()
    }

    fn udp(&self, host: usize) -> UdpSocket {
        let address = self.address(host);
        let socket = self.inside(host, || UdpSocket::bind(address));
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket
    }

    /// A connection from one host to another: the end that called, the end that answered.
    fn tcp(&self, from: usize, to: usize) -> (TcpStream, TcpStream) {
        let address = self.address(to);
        let listener = self.inside(to, || TcpListener::bind(address));
        let calling = self.inside(from, || TcpStream::connect_timeout(&address, DEADLINE));
        let (answering, _) = listener.accept().unwrap();
        for end in [&calling, &answering] {
            end.set_read_timeout(Some(DEADLINE)).unwrap();
            end.set_nodelay(true).unwrap();
        }
        (calling, answering)
    }

    /// Sends numbered datagrams in lots that fit a receiver's buffer; the numbers that arrived.
    async fn send_numbered(&self, count: u32) -> Vec<u32> {
        const LOT: u32 = 100;
        let (sender, receiver) = (self.udp(0), self.udp(1));
        let before = self.counts();
        let (mut arrived, mut sent) = (Vec::new(), 0);
        while sent < count {
            for number in sent..sent + LOT {
                sender
                    .send_to(&number.to_le_bytes(), self.address(1))
                    .unwrap();
            }
            sent += LOT;
            let settled = async || {
                let now = self.counts();
                let done = now.forwarded + now.dropped - before.forwarded - before.dropped;
                ensure!(done == u64::from(sent), "{now:?}");
                Ok(now.forwarded + now.duplicated - before.forwarded - before.duplicated)
            };
            let settled = wait_until("a lot has gone its way", DEADLINE, settled);
            let (handed_over, _) = settled.await.unwrap();
            while (arrived.len() as u64) < handed_over {
                let mut bytes = [0; 4];
                receive(&receiver, &mut bytes);
                arrived.push(u32::from_le_bytes(bytes));
            }
        }
        arrived
    }

    fn counts(&self) -> LinkCounts {
        self.switch().counts(link(0, 1))
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        self.switch = None;
        for port in &self.ports {
            let name = port.namespace.file_name().unwrap_or_default();
            let mut delete = Command::new("ip");
            delete.args(["netns", "delete"]).arg(name).output().ok();
        }
    }
}

fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn link(from: usize, to: usize) -> Link {
    Link { from, to }
}

/// Receives one datagram. A wait with a deadline may be interrupted by a signal; then it begins anew.
fn receive(socket: &UdpSocket, bytes: &mut [u8]) {
    loop {
        match socket.recv(bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            received => {
                received.unwrap();
                return;
            }
        }
    }
}

fn is_empty(socket: &UdpSocket) -> bool {
    socket.set_nonblocking(true).unwrap();
    let empty =
        matches!(socket.recv(&mut [0; 64]), Err(error) if error.kind() == ErrorKind::WouldBlock);
    socket.set_nonblocking(false).unwrap();
    empty
}

#[tokio::test]
async fn a_blocked_link_passes_nothing_one_way_and_everything_the_other() {
    let Some(hosts) = Hosts::start(3) else { return };
    hosts.switch().set(link(0, 1), LinkQuality::cut());
    let sockets = [hosts.udp(0), hosts.udp(1), hosts.udp(2)];
    for number in 0..100_u8 {
        for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 1)] {
            sockets[from].send_to(&[number], hosts.address(to)).unwrap();
        }
        for socket in &sockets {
            let mut byte = [0];
            receive(socket, &mut byte);
            assert_eq!(byte, [number]);
        }
    }
    let dropped = async || {
        ensure!(hosts.counts().dropped == 100, "{:?}", hosts.counts());
        Ok(())
    };
    wait_until("all are lost", DEADLINE, dropped).await.unwrap();
    assert_eq!(hosts.counts().forwarded, 0);
    assert!(sockets.iter().all(is_empty));
    hosts.switch().heal();
    sockets[0].send_to(b"healed", hosts.address(1)).unwrap();
    let mut bytes = [0; 6];
    receive(&sockets[1], &mut bytes);
    assert_eq!(&bytes, b"healed");
}

#[tokio::test]
async fn delay_is_measured_at_both_ends() {
    let Some(hosts) = Hosts::start(2) else { return };
    let delay = Duration::from_millis(25);
    let slow = LinkQuality {
        delay,
        ..LinkQuality::default()
    };
    hosts.switch().set(link(0, 1), slow);
    hosts.switch().set(link(1, 0), slow);
    let (near, far) = (hosts.udp(0), hosts.udp(1));
    let mut trips = Vec::new();
    for _ in 0..20 {
        let begun = Instant::now();
        let mut byte = [0];
        near.send_to(&[1], hosts.address(1)).unwrap();
        receive(&far, &mut byte);
        far.send_to(&[2], hosts.address(0)).unwrap();
        receive(&near, &mut byte);
        trips.push(begun.elapsed());
    }
    trips.sort();
    assert!(trips[0] >= 2 * delay, "{trips:?}");
    // The machine may be busy; half of the trips are not.
    assert!(
        trips[10] < 2 * delay + Duration::from_millis(20),
        "{trips:?}"
    );
    assert_eq!(hosts.counts().delayed, 20);
}

#[tokio::test]
async fn losses_and_copies_are_as_wanted_and_as_counted() {
    let Some(hosts) = Hosts::start(2) else { return };
    let quality = LinkQuality {
        loss: 0.3,
        duplicate: 0.2,
        ..LinkQuality::default()
    };
    hosts.switch().set(link(0, 1), quality);
    let arrived = hosts.send_numbered(5000).await;
    let counts = hosts.counts();
    assert!(counts.dropped.abs_diff(1500) < 150, "{counts:?}");
    assert!(counts.duplicated.abs_diff(700) < 100, "{counts:?}");
    let mut distinct = arrived.clone();
    distinct.dedup();
    assert_eq!(distinct.len() as u64, counts.forwarded);
    assert_eq!(arrived.len() - distinct.len(), counts.duplicated as usize);
    assert!(distinct.is_sorted(), "nothing was to be reordered");
}

#[tokio::test]
async fn packets_that_are_held_back_are_overtaken() {
    let Some(hosts) = Hosts::start(2) else { return };
    let quality = LinkQuality {
        reorder: 0.1,
        ..LinkQuality::default()
    };
    hosts.switch().set(link(0, 1), quality);
    let arrived = hosts.send_numbered(1000).await;
    let mut sorted = arrived.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..1000).collect::<Vec<u32>>());
    let late = arrived.windows(2).filter(|pair| pair[0] > pair[1]).count();
    assert!(late > 5, "{late} packets came after a later one");
    assert!(hosts.counts().reordered.abs_diff(100) < 50);
}

#[tokio::test]
async fn a_rate_is_kept() {
    let Some(hosts) = Hosts::start(2) else { return };
    let quality = LinkQuality {
        bytes_per_second: Some(1_000_000),
        ..LinkQuality::default()
    };
    let (mut calling, mut answering) = hosts.tcp(0, 1);
    hosts.switch().set(link(0, 1), quality);
    let begun = Instant::now();
    let sender = thread::spawn(move || calling.write_all(&vec![7; 600_000]));
    answering.read_exact(&mut vec![0; 600_000]).unwrap();
    let took = begun.elapsed();
    sender.join().unwrap().unwrap();
    assert!(took > Duration::from_millis(500), "{took:?}");
    // TCP gives way to the losses of the full queue.
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn a_cut_stalls_an_open_connection_and_loses_what_is_under_way() {
    let Some(hosts) = Hosts::start(2) else { return };
    let (mut calling, mut answering) = hosts.tcp(0, 1);
    let slow = LinkQuality {
        delay: Duration::from_secs(10),
        ..LinkQuality::default()
    };
    hosts.switch().set(link(0, 1), slow);
    let before = hosts.counts();
    calling.write_all(b"first").unwrap();
    let under_way = async || {
        ensure!(hosts.counts().delayed > before.delayed);
        Ok(())
    };
    let under_way = wait_until("a packet is under way", DEADLINE, under_way);
    under_way.await.unwrap();
    hosts.switch().set(link(0, 1), LinkQuality::cut());
    let lost = async || {
        // The packet under way, and at least one repetition.
        ensure!(hosts.counts().dropped >= before.dropped + 2);
        Ok(())
    };
    wait_until("it is lost", DEADLINE, lost).await.unwrap();
    assert_eq!(hosts.counts().forwarded, before.forwarded);
    answering.write_all(b"other way").unwrap();
    let mut other = [0; 9];
    calling.read_exact(&mut other).unwrap();
    hosts.switch().heal();
    let mut first = [0; 5];
    answering.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"first");
}

#[tokio::test]
async fn a_new_address_is_reached_and_the_old_one_is_not() {
    let Some(mut hosts) = Hosts::start(3) else {
        return;
    };
    let (old, new) = (hosts.address(1), Ipv4Addr::new(10, 177, 0, 99));
    let taken = hosts.switch().readdress(1, hosts.ports[2].address);
    assert!(taken.is_err());
    hosts.switch().readdress(1, new).unwrap();
    hosts.ports[1].address = new;
    let (sender, receiver) = (hosts.udp(0), hosts.udp(1));
    sender.send_to(b"old", old).unwrap();
    sender.send_to(b"new", hosts.address(1)).unwrap();
    let mut bytes = [0; 3];
    receive(&receiver, &mut bytes);
    assert_eq!(&bytes, b"new");
    assert_eq!(hosts.counts().forwarded, 1);
}

#[tokio::test]
async fn a_host_that_is_gone_does_not_stop_the_others() {
    let Some(hosts) = Hosts::start(3) else { return };
    let name = hosts.ports[1].namespace.file_name().unwrap();
    ip(&["netns", "delete", name.to_str().unwrap()]);
    let (sender, receiver) = (hosts.udp(0), hosts.udp(2));
    for number in 0..100 {
        sender.send_to(&[number], hosts.address(1)).unwrap();
        sender.send_to(&[number], hosts.address(2)).unwrap();
        receive(&receiver, &mut [0]);
    }
}

#[tokio::test]
async fn nothing_is_left_after_the_end_and_after_a_panic() {
    let Some(mut hosts) = Hosts::start(2) else {
        return;
    };
    let ports = hosts.ports.clone();
    let has_device = |port: &SwitchPort| {
        let namespace = port.namespace.file_name().unwrap().to_str().unwrap();
        ip(&["-n", namespace, "-brief", "link"]).contains("wire")
    };
    assert!(ports.iter().all(has_device));
    hosts.switch = None;
    assert!(!ports.iter().any(has_device));

    hosts.switch = Some(Switch::start(ports.clone(), 1).unwrap());
    let names: Vec<PathBuf> = ports.iter().map(|port| port.namespace.clone()).collect();
    let panicking = std::panic::catch_unwind(AssertUnwindSafe(move || {
        let _owned = hosts;
        panic!("on purpose");
    }));
    assert!(panicking.is_err());
    assert!(!names.iter().any(|name| name.exists()));
}

#[test]
fn ports_are_refused_before_anything_is_made() {
    let port = SwitchPort {
        name: "wire".to_owned(),
        namespace: PathBuf::from("/nowhere"),
        address: Ipv4Addr::LOCALHOST,
        prefix: 8,
    };
    let start = |ports| Switch::start(ports, 1).err().unwrap().to_string();
    assert!(start(vec![port.clone(), port.clone()]).contains("two ports"));
    assert!(start(vec![port.clone(); 65]).contains("more than 64"));
    assert!(start(vec![port]).contains("/nowhere"));
}
