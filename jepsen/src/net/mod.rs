//! Networks that the harness controls, link by link and direction by direction.
//!
//! Two backends behave alike, as far as each can: [`Switch`] carries the packets of network namespaces
//! (root), [`Proxy`] carries the connections and datagrams of processes on loopback (everywhere). What a
//! link does to what it carries is decided in one place, [`wire`], from the time, the size and a seed.
//!
//! Nothing outlives its owner: devices, sockets and threads end when the value is dropped, at a panic,
//! and when the process is killed. Every queue is bounded; what does not fit is lost and counted, as in
//! a router.

mod namespace;
mod proxy;
#[cfg(test)]
mod scripts;
pub mod shapes;
mod switch;
mod tun;
mod wire;

pub(crate) use namespace::inside;
pub use namespace::{enter_namespace, namespaces_missing};
pub use proxy::{Proxy, ProxyHost};
pub use switch::{Switch, SwitchPort};

use std::time::Duration;

/// One direction between two hosts: what `from` sends to `to`. Hosts are numbered from 0 in the order
/// in which the network got them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    /// Who sends.
    pub from: usize,
    /// Who should receive.
    pub to: usize,
}

/// How a link behaves. The default is a wire that does nothing to what it carries.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LinkQuality {
    /// Nothing passes, and what is under way is lost.
    pub blocked: bool,
    /// Added to every packet.
    pub delay: Duration,
    /// Up to this is added on top, evenly distributed. It never changes the order; `reorder` does.
    pub jitter: Duration,
    /// The part of the packets that is lost, 0 to 1.
    pub loss: f64,
    /// The part of the packets that arrives twice, 0 to 1.
    pub duplicate: f64,
    /// The part of the packets that is held back for 10 ms while later ones pass, 0 to 1.
    pub reorder: f64,
    /// How much passes; what would wait for longer than 200 ms is lost. `None`: no limit.
    pub bytes_per_second: Option<u64>,
}

impl LinkQuality {
    /// A link through which nothing passes.
    #[must_use]
    pub fn cut() -> Self {
        Self {
            blocked: true,
            ..Self::default()
        }
    }
}

/// What a link has done since the network's start. Every packet that it took is forwarded, dropped or
/// still under way; the other numbers say what happened to some of them on top. For the relay, a piece of
/// a stream counts as a packet, and one that was lost counts when it is lost and when it arrives after all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounts {
    /// Packets that were handed to the receiver, copies not counted.
    pub forwarded: u64,
    /// Packets that were lost: blocked, by chance, over the rate, or because a queue was full.
    pub dropped: u64,
    /// Packets that had to wait.
    pub delayed: u64,
    /// Copies that were made.
    pub duplicated: u64,
    /// Packets that were held back.
    pub reordered: u64,
}

/// A network whose links can be disturbed while it works.
pub trait Network: Send + Sync {
    /// Sets how a link behaves. When this returns it holds for open connections and for packets under
    /// way too: a link that is blocked hands over nothing more.
    ///
    /// # Panics
    /// When the network has no such link, or a part is not between 0 and 1.
    fn set(&self, link: Link, quality: LinkQuality);

    /// Makes all links as they were at the start. Packets under way still take their time.
    fn heal(&self);

    /// What a link has done since the start.
    ///
    /// # Panics
    /// When the network has no such link.
    fn counts(&self, link: Link) -> LinkCounts;
}
