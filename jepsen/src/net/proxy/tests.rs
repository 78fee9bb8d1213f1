//! The relay between plain sockets that stand where nodes would.

use super::*;
use crate::wait_until;
use anyhow::ensure;
use std::panic::AssertUnwindSafe;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
};

const DEADLINE: Duration = Duration::from_secs(20);

/// Hosts without anything that runs in them, and the relay between them.
struct Hosts {
    places: Vec<ProxyHost>,
    proxy: Proxy,
}

impl Hosts {
    fn start(count: usize) -> Self {
        let places: Vec<ProxyHost> = (0..count).map(|_| ProxyHost::find().unwrap()).collect();
        let proxy = Proxy::start(places.clone(), 1).unwrap();
        Self { places, proxy }
    }

    async fn udp(&self, host: usize) -> UdpSocket {
        UdpSocket::bind(self.places[host].node).await.unwrap()
    }

    async fn call(&self, from: usize, to: usize) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket
            .bind((self.places[from].node.ip(), 0).into())
            .unwrap();
        let stream = socket.connect(self.places[to].advertised).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// A connection through the relay: the end that called, the end that answered.
    async fn tcp(&self, from: usize, to: usize) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(self.places[to].node).await.unwrap();
        let calling = self.call(from, to).await;
        let (answering, address) = within(listener.accept()).await.unwrap();
        assert_eq!(address.ip(), self.places[from].advertised.ip());
        (calling, answering)
    }

    fn cut(&self, from: usize, to: usize) {
        self.proxy.set(link(from, to), LinkQuality::cut());
    }

    fn counts(&self) -> LinkCounts {
        self.proxy.counts(link(0, 1))
    }

    /// Waits until so many have been forwarded or dropped from host 0 to host 1.
    async fn wait_settled(&self, count: u64) -> LinkCounts {
        let settled = async || {
            let counts = self.counts();
            ensure!(counts.forwarded + counts.dropped == count, "{counts:?}");
            Ok(counts)
        };
        wait_until("all have gone their way", DEADLINE, settled)
            .await
            .unwrap()
            .0
    }
}

fn link(from: usize, to: usize) -> Link {
    Link { from, to }
}

async fn within<T>(awaited: impl Future<Output = T>) -> T {
    let answer = tokio::time::timeout(DEADLINE, awaited).await;
    answer.expect("nothing came within the deadline")
}

async fn receive(stream: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut buffer = vec![0; bytes];
    within(stream.read_exact(&mut buffer)).await.unwrap();
    buffer
}

#[tokio::test]
async fn a_blocked_link_passes_no_datagram_one_way_and_all_the_other() {
    let hosts = Hosts::start(2);
    let (zero, one) = (hosts.udp(0).await, hosts.udp(1).await);
    hosts.cut(0, 1);
    let mut buffer = [0; 16];
    for number in 0..50_u8 {
        zero.send_to(&[number], hosts.places[1].advertised)
            .await
            .unwrap();
        one.send_to(&[number], hosts.places[0].advertised)
            .await
            .unwrap();
        let (bytes, from) = within(zero.recv_from(&mut buffer)).await.unwrap();
        assert_eq!(
            (&buffer[..bytes], from),
            (&[number][..], hosts.places[1].advertised)
        );
    }
    assert_eq!(hosts.wait_settled(50).await.dropped, 50);
    assert!(one.try_recv(&mut buffer).is_err());
    hosts.proxy.heal();
    zero.send_to(b"healed", hosts.places[1].advertised)
        .await
        .unwrap();
    let (bytes, _) = within(one.recv_from(&mut buffer)).await.unwrap();
    assert_eq!(&buffer[..bytes], b"healed");
}

#[tokio::test]
async fn a_blocked_link_holds_bytes_one_way_and_passes_them_the_other() {
    let hosts = Hosts::start(2);
    let (mut calling, mut answering) = hosts.tcp(0, 1).await;
    calling.write_all(b"before").await.unwrap();
    assert_eq!(receive(&mut answering, 6).await, b"before");
    hosts.cut(0, 1);
    calling.write_all(b"during").await.unwrap();
    for number in 0..50_u8 {
        answering.write_all(&[number]).await.unwrap();
        assert_eq!(receive(&mut calling, 1).await, [number]);
    }
    assert!(answering.try_read(&mut [0]).is_err(), "nothing passes");
    // Not even that the caller is gone.
    drop(calling);
    hosts.proxy.heal();
    assert_eq!(receive(&mut answering, 6).await, b"during");
    assert_eq!(within(answering.read(&mut [0])).await.unwrap(), 0);
}

#[tokio::test]
async fn a_new_connection_hangs_until_both_directions_are_open() {
    let hosts = Hosts::start(2);
    let listener = TcpListener::bind(hosts.places[1].node).await.unwrap();
    hosts.cut(0, 1);
    hosts.cut(1, 0);
    let given_up = hosts.call(0, 1).await;
    let mut patient = hosts.call(0, 1).await;
    patient.write_all(b"hello").await.unwrap();
    drop(given_up);
    hosts.proxy.set(link(0, 1), LinkQuality::default());
    let early = tokio::time::timeout(Duration::from_millis(600), listener.accept()).await;
    assert!(early.is_err(), "one direction is not enough");
    hosts.proxy.heal();
    let (mut answering, _) = within(listener.accept()).await.unwrap();
    assert_eq!(receive(&mut answering, 5).await, b"hello");
    let second = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
    assert!(second.is_err(), "who has given up does not come");
}

#[tokio::test]
async fn a_dead_host_resets_and_strangers_are_turned_away() {
    let hosts = Hosts::start(2);
    let mut to_nobody = hosts.call(0, 1).await;
    assert!(within(to_nobody.read(&mut [0])).await.is_err());
    // The reset may come before the connection is there.
    if let Ok(mut stranger) = TcpStream::connect(hosts.places[1].advertised).await {
        assert!(within(stranger.read(&mut [0])).await.is_err());
    }
}

#[tokio::test]
async fn a_reset_passes_through() {
    let hosts = Hosts::start(2);
    let (calling, mut answering) = hosts.tcp(0, 1).await;
    calling.set_zero_linger().unwrap();
    drop(calling);
    assert!(within(answering.read(&mut [0])).await.is_err());
}

#[tokio::test]
async fn delay_is_measured_on_connections_and_datagrams() {
    let hosts = Hosts::start(2);
    let (mut calling, mut answering) = hosts.tcp(0, 1).await;
    let delay = Duration::from_millis(50);
    let slow = LinkQuality {
        delay,
        ..LinkQuality::default()
    };
    hosts.proxy.set(link(0, 1), slow);
    let (zero, one) = (hosts.udp(0).await, hosts.udp(1).await);
    let mut trips = Vec::new();
    for _ in 0..10 {
        let begun = Instant::now();
        calling.write_all(b"x").await.unwrap();
        receive(&mut answering, 1).await;
        trips.push(begun.elapsed());
        let begun = Instant::now();
        zero.send_to(b"x", hosts.places[1].advertised)
            .await
            .unwrap();
        within(one.recv(&mut [0])).await.unwrap();
        trips.push(begun.elapsed());
    }
    trips.sort();
    assert!(trips[0] >= delay, "{trips:?}");
    // The machine may be busy; half of the trips are not.
    assert!(trips[10] < delay + Duration::from_millis(20), "{trips:?}");
    assert_eq!(hosts.counts().delayed, 20);
}

#[tokio::test]
async fn lost_and_doubled_datagrams_are_as_wanted_and_as_counted() {
    let hosts = Hosts::start(2);
    let quality = LinkQuality {
        loss: 0.3,
        duplicate: 0.2,
        reorder: 0.1,
        ..LinkQuality::default()
    };
    hosts.proxy.set(link(0, 1), quality);
    let (zero, one) = (hosts.udp(0).await, hosts.udp(1).await);
    let mut arrived = Vec::new();
    for number in 0..2000_u32 {
        let bytes = number.to_le_bytes();
        zero.send_to(&bytes, hosts.places[1].advertised)
            .await
            .unwrap();
        if number % 50 == 49 {
            let counts = hosts.wait_settled(u64::from(number) + 1).await;
            while (arrived.len() as u64) < counts.forwarded + counts.duplicated {
                let mut bytes = [0; 4];
                within(one.recv(&mut bytes)).await.unwrap();
                arrived.push(u32::from_le_bytes(bytes));
            }
        }
    }
    let counts = hosts.counts();
    assert!(counts.dropped.abs_diff(600) < 100, "{counts:?}");
    assert!(counts.duplicated.abs_diff(280) < 80, "{counts:?}");
    assert!(!arrived.is_sorted(), "some were overtaken");
    arrived.sort_unstable();
    let all = arrived.len();
    arrived.dedup();
    assert_eq!((all - arrived.len()) as u64, counts.duplicated);
}

#[tokio::test]
async fn loss_stalls_a_stream_and_loses_nothing_of_it() {
    let hosts = Hosts::start(2);
    let (mut calling, mut answering) = hosts.tcp(0, 1).await;
    let quality = LinkQuality {
        loss: 0.2,
        ..LinkQuality::default()
    };
    hosts.proxy.set(link(0, 1), quality);
    let sent: Vec<u8> = (0..100_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    let begun = Instant::now();
    let copy = sent.clone();
    let sending = tokio::spawn(async move {
        calling.write_all(&copy).await.unwrap();
        calling
    });
    assert_eq!(receive(&mut answering, sent.len()).await, sent);
    let counts = hosts.counts();
    assert!(counts.dropped > 0, "{counts:?}");
    assert!(begun.elapsed() >= Duration::from_millis(200));
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn a_rate_holds_a_stream_up() {
    let hosts = Hosts::start(2);
    let (mut calling, mut answering) = hosts.tcp(0, 1).await;
    let quality = LinkQuality {
        bytes_per_second: Some(1_000_000),
        ..LinkQuality::default()
    };
    hosts.proxy.set(link(0, 1), quality);
    let begun = Instant::now();
    let sending = tokio::spawn(async move {
        calling.write_all(&vec![7; 600_000]).await.unwrap();
        calling
    });
    receive(&mut answering, 600_000).await;
    let took = begun.elapsed();
    assert!(
        took > Duration::from_millis(590) && took < Duration::from_secs(2),
        "{took:?}"
    );
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn a_host_moves() {
    let mut hosts = Hosts::start(2);
    let (zero, old) = (hosts.udp(0).await, hosts.places[1]);
    let new = ProxyHost::find().unwrap();
    let moved = std::thread::scope(|scope| {
        let moving = scope.spawn(|| hosts.proxy.readdress(1, new));
        moving.join().unwrap()
    });
    moved.unwrap();
    hosts.places[1] = new;
    let one = hosts.udp(1).await;
    zero.send_to(b"new", new.advertised).await.unwrap();
    within(one.recv(&mut [0; 3])).await.unwrap();
    let (mut calling, mut answering) = hosts.tcp(1, 0).await;
    calling.write_all(b"x").await.unwrap();
    receive(&mut answering, 1).await;
    let freed = async || Sockets::bind(old.advertised).map(drop);
    wait_until("the old place is free", DEADLINE, freed)
        .await
        .unwrap();
}

#[tokio::test]
async fn nothing_is_left_after_the_end_and_after_a_panic() {
    let hosts = Hosts::start(2);
    let places = hosts.places.clone();
    let _open = hosts.tcp(0, 1).await;
    assert!(Sockets::bind(places[0].advertised).is_err());
    let panicking = std::panic::catch_unwind(AssertUnwindSafe(move || {
        let _owned = hosts;
        panic!("on purpose");
    }));
    assert!(panicking.is_err());
    for place in &places {
        Sockets::bind(place.advertised).unwrap();
    }
}

#[test]
fn hosts_with_one_address_are_refused() {
    let place = ProxyHost::find().unwrap();
    let refused = Proxy::start(vec![place, place], 1).err().unwrap();
    assert!(refused.to_string().contains("two hosts"));
}
