//! Connections through the relay, and what a bad link does to them.
//!
//! A stream loses nothing and keeps its order, as TCP does; what happens to packets shows as time:
//!
//! - *Blocked.* Bytes are held and pass after healing, like what TCP sends again; the end of a stream and
//!   a reset are held too, so that a killed host is not noticed across a cut. A new connection hangs
//!   until both directions are open. One difference to a dead host: the system accepts it for the relay
//!   at once, so that the caller sees silence instead of an unanswered `connect`.
//! - *Loss.* A lost piece costs 200 ms, the least that Linux waits before it sends again, then twice that
//!   for each further loss. Nothing overtakes it on its connection; other connections go on.
//! - *Delay, jitter, rate.* As for packets, per piece of at most 8 KiB; opening costs one round trip.
//!   Over the rate the sender is held up instead of being cut short.
//! - *Copies and reordering.* TCP hides them; nothing happens.
//!
//! ```text
//! caller --reader--> queue of pieces with their times --writer--> host      and the same backwards
//! ```

use super::Fabric;
use crate::net::Link;
use std::{future::Future, io, sync::Arc, time::Duration};
use tokio::{
    io::Interest,
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};

/// Connections to one host at once; more are reset.
const CONNECTIONS_MAX: usize = 512;
/// What is read at once, and treated like a packet.
const PIECE_BYTES_MAX: usize = 8192;
/// Pieces under way per direction of a connection, at most 4 MiB; then the sender is held up.
const PIECES_MAX: usize = 512;
/// How long the host itself may take to accept.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);
/// How often a caller that hangs is looked at: it may have given up.
const ABANDONED_INTERVAL: Duration = Duration::from_millis(250);

/// Accepts connections to a host until the task is ended; connections that are open stay.
pub(super) async fn accept(fabric: Arc<Fabric>, to: usize, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok((caller, address)) = listener.accept().await else {
            // Out of files: the callers wait in the system's queue.
            tokio::time::sleep(ABANDONED_INTERVAL).await;
            continue;
        };
        let from = fabric.state.lock().host_at(address.ip());
        match (from, places.clone().try_acquire_owned()) {
            (Some(from), Ok(place)) => {
                let link = Link { from, to };
                tokio::spawn(relay(fabric.clone(), link, caller, place));
            }
            _ => reset(&caller),
        }
    }
}

/// The connection will be reset instead of ended when it is dropped.
fn reset(stream: &TcpStream) {
    // Otherwise it ends in the usual way, which the other side understands as well.
    stream.set_zero_linger().ok();
}

async fn relay(fabric: Arc<Fabric>, link: Link, caller: TcpStream, _place: OwnedSemaphorePermit) {
    let back = Link {
        from: link.to,
        to: link.from,
    };
    let opened = tokio::select! {
        opened = open(&fabric, link, back) => opened,
        () = until_abandoned(&caller) => return,
    };
    let Ok(host) = opened else {
        return reset(&caller);
    };
    // Without it small pieces would wait for acknowledgements.
    if caller.set_nodelay(true).is_err() || host.set_nodelay(true).is_err() {
        return reset(&caller);
    }
    let (from_caller, to_caller) = caller.into_split();
    let (from_host, to_host) = host.into_split();
    // A reset of one side ends both directions at once, since what is dropped here is closed.
    let both = async {
        tokio::try_join!(
            carry(&fabric, link, from_caller, to_host),
            carry(&fabric, back, from_host, to_caller),
        )
    };
    both.await.ok();
}

/// A side was reset, and the other side will be when its halves are dropped.
struct WasReset;

/// Connects to the host in the name of the caller, when both directions are open and one round trip has
/// passed.
async fn open(fabric: &Fabric, link: Link, back: Link) -> io::Result<TcpStream> {
    while fabric.wait_open(link).await || fabric.wait_open(back).await {}
    for way in [link, back] {
        let delay = fabric.state.lock().wire(way).delay();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }
    let (source, target) = {
        let state = fabric.state.lock();
        let source = state.hosts[link.from].advertised.ip();
        (source, state.hosts[link.to].node)
    };
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    let connecting = socket.connect(target);
    tokio::time::timeout(CONNECT_WAIT_MAX, connecting).await?
}

/// Resolves when the caller has closed its side.
async fn until_abandoned(caller: &TcpStream) {
    let mut interval = tokio::time::interval(ABANDONED_INTERVAL);
    loop {
        interval.tick().await;
        let looked = tokio::time::timeout(Duration::ZERO, caller.ready(Interest::READABLE));
        if let Ok(Ok(ready)) = looked.await
            && ready.is_read_closed()
        {
            return;
        }
    }
}

/// What travels in one direction.
enum Event {
    Bytes(Vec<u8>),
    /// The sender has ended its side.
    End,
    /// The sender has reset the connection, or is gone.
    Reset,
}

fn carry(
    fabric: &Arc<Fabric>,
    link: Link,
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
) -> impl Future<Output = Result<(), WasReset>> {
    let (queue, queued) = mpsc::channel(PIECES_MAX);
    let (reading, writing) = (
        read(fabric.clone(), link, from, queue),
        write(fabric.clone(), link, queued, to),
    );
    async move { tokio::join!(reading, writing).1 }
}

/// Reads as long as the link is open and the rate allows; each piece gets its time.
async fn read(
    fabric: Arc<Fabric>,
    link: Link,
    from: OwnedReadHalf,
    queue: mpsc::Sender<(Duration, Event)>,
) {
    let mut stream_due = Duration::ZERO;
    let mut buffer = vec![0; PIECE_BYTES_MAX];
    loop {
        if from.readable().await.is_err() {
            return;
        }
        // What comes during a cut stays with the system, whose buffers then hold the sender up.
        fabric.wait_open(link).await;
        let event = match from.try_read(&mut buffer) {
            Ok(0) => Event::End,
            Ok(bytes) => Event::Bytes(buffer[..bytes].to_vec()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => Event::Reset,
        };
        let bytes = match &event {
            Event::Bytes(bytes) => bytes.len(),
            Event::End | Event::Reset => 0,
        };
        let piece = fabric.take_piece(link, bytes, stream_due);
        stream_due = piece.due;
        let is_last = !matches!(event, Event::Bytes(_));
        if queue.send((piece.due, event)).await.is_err() || is_last {
            return;
        }
        fabric.sleep_until(piece.next).await;
    }
}

/// Hands pieces over at their times. A receiver that is gone takes no more, and the rest is discarded, so
/// that the sender learns of it only by what the other direction brings.
async fn write(
    fabric: Arc<Fabric>,
    link: Link,
    mut queued: mpsc::Receiver<(Duration, Event)>,
    to: OwnedWriteHalf,
) -> Result<(), WasReset> {
    let mut is_gone = false;
    while let Some((due, event)) = queued.recv().await {
        fabric.sleep_until(due).await;
        fabric.wait_open(link).await;
        match event {
            Event::Bytes(bytes) if !is_gone => {
                is_gone = hand_over(&fabric, link, &bytes, &to).await.is_err();
            }
            Event::Bytes(_) => {}
            // Dropping the half ends this side.
            Event::End => return Ok(()),
            Event::Reset => {
                reset(to.as_ref());
                to.forget();
                return Err(WasReset);
            }
        }
    }
    Ok(())
}

/// Writes while the lock is held, so that nothing passes after a cut.
async fn hand_over(
    fabric: &Fabric,
    link: Link,
    mut bytes: &[u8],
    to: &OwnedWriteHalf,
) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        fabric.wait_open(link).await;
        let mut state = fabric.state.lock();
        let wire = state.wire(link);
        if wire.is_blocked() {
            continue;
        }
        match to.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        if bytes.is_empty() {
            wire.count_piece();
        }
    }
    Ok(())
}
