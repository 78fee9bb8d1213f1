//! The network: every way from one machine to another may be cut, in one direction or both, and loses, repeats, delays
//! and reorders what goes over it.

use crate::{coverage::Seen, process::Process, world::World};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::Duration,
};
use trefoil_model::NodeId;

/// What a machine does for another one.
pub(crate) type Served<A> = Pin<Box<dyn Future<Output = A> + Send>>;

/// How likely what happens to a message, per thousand.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    /// Late by up to a second instead of a few milliseconds, so that others overtake it.
    pub(crate) late: u64,
}

/// What a message is about. The product has connections of their own for the first two, so either may fail alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Raft, and what it serves.
    Metadata,
    /// Pushes, barriers, fetches and copies.
    Replication,
    /// Gossip, reports, clocks, parts of queries.
    Other,
}

/// The state of all ways.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// Ways that carry nothing.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    /// Ways that carry nothing of a class.
    pub(crate) muted: BTreeSet<(Class, usize, usize)>,
    pub(crate) weather: Weather,
    /// Ways that are slow, with how much later everything comes.
    pub(crate) slow: BTreeMap<(usize, usize), Duration>,
}

/// Why a question got no answer.
pub(crate) enum NoAnswer {
    /// Nobody listens there.
    NobodyThere,
    /// The process ended while it worked on it.
    Ended,
}

impl World {
    /// After which times a message arrives: never, once, or more often.
    fn ways(&self, from: usize, to: usize, class: Class, may_repeat: bool) -> Vec<Duration> {
        let links = self.links.lock();
        let muted = links.muted.contains(&(class, from, to));
        if from != to && (muted || links.cut.contains(&(from, to))) {
            drop(links);
            self.saw(Seen::MessageCutOff);
            return Vec::new();
        }
        let weather = links.weather;
        let slow = links.slow.get(&(from, to)).copied().unwrap_or_default();
        drop(links);
        if from == to {
            return vec![Duration::ZERO];
        }
        let lost = self.roll(|dice| dice.chance(weather.lost));
        let repeated = may_repeat && self.roll(|dice| dice.chance(weather.repeated));
        if lost {
            self.saw(Seen::MessageLost);
            return Vec::new();
        }
        if repeated {
            self.saw(Seen::MessageRepeated);
        }
        let copies = 1 + usize::from(repeated);
        let times = (0..copies).map(|_| slow + self.delay(weather));
        times.collect()
    }

    fn delay(&self, weather: Weather) -> Duration {
        let (delay, late) = self.roll(|dice| match dice.chance(weather.late) {
            true => (dice.millis(20, 1000), true),
            false => (dice.millis(1, 4), false),
        });
        if late {
            self.saw(Seen::MessageLate);
        }
        delay
    }

    /// Sends a message that nobody answers.
    pub(crate) fn send(
        self: &Arc<Self>,
        (from, to, class): (usize, usize, Class),
        deliver: impl Fn(&Arc<Process>) + Send + Sync + 'static,
    ) {
        let deliver = Arc::new(deliver);
        for delay in self.ways(from, to, class, true) {
            let (world, deliver) = (self.clone(), deliver.clone());
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                if let Some(process) = world.process(to) {
                    deliver(&process);
                }
            });
        }
    }

    /// Sends a datagram of the membership protocol.
    pub(crate) fn send_datagram(self: &Arc<Self>, from: usize, to: SocketAddr, bytes: Vec<u8>) {
        let Some(to) = self.at_address(to) else {
            return;
        };
        self.send((from, to, Class::Other), move |process| {
            process.take_datagram(&bytes);
        });
    }

    /// Asks the process on a machine; it must be this node. Never ends when the question or the answer is lost: the
    /// caller has a deadline.
    pub(crate) async fn ask<A: Send + 'static>(
        self: &Arc<Self>,
        from: &Process,
        to: (usize, NodeId, Class),
        serve: impl FnOnce(Arc<Process>) -> Served<A> + Send,
    ) -> Result<A, NoAnswer> {
        let (machine, node, class) = to;
        self.go((from.machine, machine, class)).await;
        let process = self
            .process(machine)
            .filter(|process| process.node() == Some(node));
        let (Some(process), true) = (process, from.is_alive()) else {
            self.go((machine, from.machine, class)).await;
            return Err(NoAnswer::NobodyThere);
        };
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let work = serve(process.clone());
        process.spawn(async move {
            // The asker may have given up.
            drop(sender.send(work.await));
        });
        let answer = receiver.await.map_err(|_| NoAnswer::Ended);
        self.go((machine, from.machine, class)).await;
        answer
    }

    /// One way; for ever when the message is lost.
    async fn go(&self, (from, to, class): (usize, usize, Class)) {
        match self.ways(from, to, class, false).first() {
            Some(delay) => tokio::time::sleep(*delay).await,
            None => std::future::pending().await,
        }
    }
}
