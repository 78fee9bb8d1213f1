//! Requests of senders of pairs that do not count, held back until they are not needed or their sender counts.
//!
//! ```text
//!                    the sender counts now         nothing that is on its way      all nodes that hold
//!                                                  can still be stored             something have compared
//!   waiting ------------------------------> settling ---------------> comparing ---------------> storing -> gone
//!      |                                                                  what is older than what the
//!      v  the other one was heard long enough after them                  other sender has in its series goes
//!    gone
//! ```
//! What the other sender has stored is a question to the store, series by series, and must be asked before any node stores
//! what it holds: nothing in the store says whose a sample is. So a node waits between the two. Why this is so, and the
//! time line of a fail-over: `docs/decisions/held-requests-of-pairs.md`.
//!
//! Pure: time and what is known of elections come in as values, and what should be done goes out as a job. A job that failed
//! comes again. Nothing is on disk: a node that dies loses what it held.

pub(crate) mod compare;
#[cfg(test)]
mod tests;

use crate::cluster::replicas::Elected;
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};
use trefoil_model::{Millis, TenantId};

/// Memory of a request beside its content, bytes, about.
const REQUEST_BYTES: usize = 160;
/// Between the comparison of a node and its storing, so that other nodes can compare meanwhile. They learn of the change
/// within moments, and try again each second what failed; a node that is paused for longer leaves out what it cannot tell from
/// what others have stored.
pub(crate) const GRACE: Duration = Duration::from_secs(10);
/// Until a job that failed is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// A request is kept for so many times the time-out at most: one until another sender counts, one of what came before the last
/// sign of the one that counted, one of distance between requests.
const TIMEOUTS_KEPT_MAX: u32 = 3;

/// A sender of a pair.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Sender {
    pub(crate) tenant: TenantId,
    pub(crate) pair: String,
    pub(crate) replica: String,
}

/// What is held of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request<T> {
    /// When it came, by the cluster's clock.
    pub(crate) arrived: Millis,
    /// Size of the content.
    pub(crate) bytes: usize,
    pub(crate) samples: u64,
    /// The same content has the same one.
    pub(crate) digest: u64,
    pub(crate) content: T,
}

/// What is held for how long, and how much.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// What the sender that counted has sent is older than this before the election of another one; what the other one has sent
    /// directly since is younger.
    pub(crate) apart: Duration,
    /// How long the sender that counts may be silent.
    pub(crate) failover_timeout: Duration,
    /// How long a request of the sender that counted may be on its way when another one was elected.
    pub(crate) settle: Duration,
    /// Bytes of all requests.
    pub(crate) bytes_max: usize,
}

/// Something to be done. It is in work until its outcome is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Job<T> {
    /// Take away from these what is older than what another sender has stored; what is stored up to this time, and not
    /// held, is another's.
    Compare(Vec<Request<T>>, Millis),
    /// Store this.
    Store(Request<T>),
}

/// Which job it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct JobKey {
    pub(crate) sender: Sender,
    change: u64,
}

/// Everything that a node holds.
pub(crate) struct Held<T> {
    rules: Rules,
    senders: BTreeMap<Sender, OfSender<T>>,
    /// Bytes by tenant; none of a tenant of which nothing is held.
    of_tenants: BTreeMap<TenantId, usize>,
    bytes: usize,
    changes: u64,
    /// Samples that went because there was no room, and were not told yet.
    dropped: u64,
}

struct OfSender<T> {
    /// Another sender counts. The first to arrive is in front.
    waiting: VecDeque<Request<T>>,
    /// On their way into the store, since this sender counts.
    changes: VecDeque<Change<T>>,
    bytes: usize,
}

struct Change<T> {
    number: u64,
    step: Step,
    /// Whether a job of it is in work.
    is_busy: bool,
    not_before: Millis,
    others_until: Millis,
    requests: VecDeque<Request<T>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Compare,
    Store,
}

impl<T> Request<T> {
    fn held_bytes(&self) -> usize {
        self.bytes + REQUEST_BYTES
    }
}

impl<T> OfSender<T> {
    /// Takes the oldest request out.
    fn pop_oldest(&mut self) -> Option<Request<T>> {
        let of_changes = self.changes.iter_mut();
        let mut queues = of_changes.map(|change| &mut change.requests);
        let first = queues.find(|requests| !requests.is_empty());
        first.unwrap_or(&mut self.waiting).pop_front()
    }
}

impl<T: Clone> Held<T> {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            senders: BTreeMap::new(),
            of_tenants: BTreeMap::new(),
            bytes: 0,
            changes: 0,
            dropped: 0,
        }
    }

    /// Bytes of everything that is held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Samples that went because there was no room, since this was asked last.
    pub(crate) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Holds a request of a sender that does not count. One that is held already, because its sender did not hear the
    /// answer, is held once. When there is no room, the oldest of the largest sender of the largest tenant goes.
    pub(crate) fn hold(&mut self, sender: &Sender, request: Request<T>) {
        let own = self.senders.get(sender);
        let is_same = |held: &Request<T>| held.digest == request.digest;
        if own.is_some_and(|own| own.waiting.iter().any(is_same)) {
            return;
        }
        self.count(sender, request.held_bytes() as isize);
        let own = self.senders.entry(sender.clone()).or_default();
        own.waiting.push_back(request);
        self.make_room();
    }

    /// Adapts to who counts by what this node knows. Of an election that is new, `heard` is its time.
    pub(crate) fn follow(
        &mut self,
        now: Millis,
        elected: impl Fn(TenantId, &str) -> Option<Elected>,
    ) {
        let timeout = millis(self.rules.failover_timeout);
        let oldest = now - timeout * Millis::from(TIMEOUTS_KEPT_MAX);
        let mut freed = Vec::new();
        for (sender, own) in &mut self.senders {
            let elected = elected(sender.tenant, &sender.pair);
            let oldest = match elected {
                Some(elected) if elected.replica == sender.replica => {
                    self.changes += 1;
                    let since = elected.heard.min(now);
                    own.begin_change(Change {
                        number: self.changes,
                        step: Step::Compare,
                        is_busy: false,
                        not_before: since + millis(self.rules.settle),
                        others_until: since - millis(self.rules.apart),
                        requests: VecDeque::new(),
                    });
                    continue;
                }
                // The sender that counts has sent everything that is older, but for what was just about to come.
                Some(elected) => oldest.max(elected.heard - timeout),
                None => oldest,
            };
            freed.push((sender.clone(), own.forget_before(oldest)));
        }
        for (sender, bytes) in freed {
            self.count(&sender, -(bytes as isize));
        }
        self.tidy();
    }

    /// The next comparison that is due, if there is one.
    pub(crate) fn next_comparison(&mut self, now: Millis) -> Option<(JobKey, Job<T>)> {
        self.next(now, Step::Compare)
    }

    /// The next request to store, if one is due.
    pub(crate) fn next_to_store(&mut self, now: Millis) -> Option<(JobKey, Job<T>)> {
        self.next(now, Step::Store)
    }

    /// A comparison is done: this is left of the requests, and is stored when other nodes have had time to compare.
    pub(crate) fn compared(&mut self, key: &JobKey, left: Vec<Request<T>>, now: Millis) {
        let Some(change) = self.change(key) else {
            return;
        };
        let bytes = |requests: &VecDeque<Request<T>>| -> usize {
            requests.iter().map(Request::held_bytes).sum()
        };
        let before = bytes(&change.requests);
        change.requests = left.into();
        change.step = Step::Store;
        change.is_busy = false;
        change.not_before = now + millis(GRACE);
        let after = bytes(&change.requests);
        self.count(&key.sender, after as isize - before as isize);
        self.tidy();
        self.make_room();
    }

    /// A request is stored, or nothing of it may be.
    pub(crate) fn stored(&mut self, key: &JobKey, digest: u64) {
        let Some(change) = self.change(key) else {
            return;
        };
        change.is_busy = false;
        // If it is not in front any more it went for want of room.
        let stored = change
            .requests
            .pop_front_if(|request| request.digest == digest);
        if let Some(stored) = stored {
            self.count(&key.sender, -(stored.held_bytes() as isize));
        }
        self.tidy();
    }

    /// A job could not be done now.
    pub(crate) fn failed(&mut self, key: &JobKey, now: Millis) {
        if let Some(change) = self.change(key) {
            change.is_busy = false;
            change.not_before = now + millis(AGAIN_AFTER);
        }
    }

    fn next(&mut self, now: Millis, step: Step) -> Option<(JobKey, Job<T>)> {
        let changes = self.senders.iter_mut().flat_map(|(sender, own)| {
            let changes = own.changes.iter_mut();
            changes.map(move |change| (sender, change))
        });
        let is_due =
            |change: &Change<T>| change.step == step && !change.is_busy && change.not_before <= now;
        // The one that waits for the longest time, so that none waits for all requests of another.
        let due = changes.filter(|(_, change)| is_due(change));
        let (sender, change) = due.min_by_key(|(_, change)| change.not_before)?;
        let job = match step {
            Step::Compare => {
                let requests = change.requests.iter().cloned().collect();
                Job::Compare(requests, change.others_until)
            }
            Step::Store => Job::Store(change.requests.front()?.clone()),
        };
        change.is_busy = true;
        change.not_before = change.not_before.max(now);
        let key = JobKey {
            sender: sender.clone(),
            change: change.number,
        };
        Some((key, job))
    }

    fn change(&mut self, key: &JobKey) -> Option<&mut Change<T>> {
        let own = self.senders.get_mut(&key.sender)?;
        let mut changes = own.changes.iter_mut();
        changes.find(|change| change.number == key.change)
    }

    /// Drops the oldest of the largest until all have room.
    fn make_room(&mut self) {
        while self.bytes > self.rules.bytes_max {
            let largest = self.of_tenants.iter().max_by_key(|(_, bytes)| **bytes);
            let Some(tenant) = largest.map(|(tenant, _)| *tenant) else {
                break;
            };
            let of_tenant = self.senders.iter_mut().filter(|(s, _)| s.tenant == tenant);
            let Some((sender, own)) = of_tenant.max_by_key(|(_, own)| own.bytes) else {
                break;
            };
            let Some(oldest) = own.pop_oldest() else {
                break;
            };
            let sender = sender.clone();
            self.dropped += oldest.samples;
            self.count(&sender, -(oldest.held_bytes() as isize));
            self.tidy();
        }
    }

    /// Counts bytes that a sender's requests have more, or less.
    fn count(&mut self, sender: &Sender, more: isize) {
        let add = |bytes: &mut usize| *bytes = bytes.saturating_add_signed(more);
        add(&mut self.bytes);
        add(self.of_tenants.entry(sender.tenant).or_default());
        add(&mut self.senders.entry(sender.clone()).or_default().bytes);
    }

    /// Forgets changes, senders and tenants of which nothing is held.
    fn tidy(&mut self) {
        self.senders.retain(|_, own| {
            own.changes.retain(|change| !change.requests.is_empty());
            !own.changes.is_empty() || !own.waiting.is_empty()
        });
        self.of_tenants.retain(|_, bytes| *bytes > 0);
    }
}

impl<T> OfSender<T> {
    /// Sends what waits on its way into the store. What comes late joins what was not compared yet.
    fn begin_change(&mut self, mut new: Change<T>) {
        if self.waiting.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut self.waiting);
        let open = self.changes.back_mut();
        match open.filter(|open| open.step == Step::Compare && !open.is_busy) {
            Some(open) => open.requests.extend(waiting),
            None => {
                new.requests = waiting;
                self.changes.push_back(new);
            }
        }
    }

    /// Forgets what waits and arrived before this time. The bytes that this frees.
    fn forget_before(&mut self, time: Millis) -> usize {
        let mut freed = 0;
        // They come nearly in order: a younger one in front keeps older ones for moments.
        while let Some(old) = self.waiting.pop_front_if(|request| request.arrived < time) {
            freed += old.held_bytes();
        }
        freed
    }
}

impl<T> Default for OfSender<T> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            changes: VecDeque::new(),
            bytes: 0,
        }
    }
}

fn millis(duration: Duration) -> Millis {
    duration.as_millis() as Millis
}
