//! Datagrams through the relay: one in, none, one or two out, now or later.

use super::Fabric;
use crate::net::{Link, wire::Fate};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::net::UdpSocket;

/// No datagram is larger.
const DATAGRAM_BYTES_MAX: usize = 65_536;

/// Relays what is sent to a host, until the task is ended. Datagrams of unknown senders are lost without
/// being counted: they belong to no link.
pub(super) async fn relay(fabric: Arc<Fabric>, to: usize, socket: Arc<UdpSocket>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // An error belongs to an earlier datagram that nobody took; the socket goes on.
        if let Ok((bytes, sender)) = socket.recv_from(&mut buffer).await {
            take(&fabric, to, sender, &buffer[..bytes]);
        }
    }
}

fn take(fabric: &Arc<Fabric>, to: usize, sender: SocketAddr, bytes: &[u8]) {
    let now = fabric.now();
    let mut state = fabric.state.lock();
    let Some(from) = state.host_at(sender.ip()) else {
        return;
    };
    let link = Link { from, to };
    let (wire, random) = state.wire_and_random(link);
    match wire.take(now, bytes.len(), random) {
        Fate::Lost => {}
        Fate::Now { copies } => send(&state, link, bytes, copies),
        Fate::Later { due, copies } => {
            let cuts = wire.cuts();
            let waiting = Waiting {
                due,
                cuts,
                copies,
                bytes: bytes.into(),
            };
            tokio::spawn(deliver_later(fabric.clone(), link, waiting));
        }
    }
}

/// A datagram that waits for its time. The wire bounds how much of them there is.
struct Waiting {
    due: Duration,
    cuts: u64,
    copies: usize,
    bytes: Box<[u8]>,
}

async fn deliver_later(fabric: Arc<Fabric>, link: Link, waiting: Waiting) {
    fabric.sleep_until(waiting.due).await;
    let mut state = fabric.state.lock();
    let wire = state.wire(link);
    if wire.deliver(waiting.cuts, waiting.bytes.len(), waiting.copies) {
        send(&state, link, &waiting.bytes, waiting.copies);
    }
}

/// Sends while the lock is held, so that nothing passes after a cut. A full buffer loses it, as a host would.
fn send(state: &super::State, link: Link, bytes: &[u8], copies: usize) {
    for _ in 0..copies {
        let target = state.hosts[link.to].node;
        state.datagrams[link.from].try_send_to(bytes, target).ok();
    }
}
