//! Requests of senders of pairs that do not count, held back until they are not needed or their sender counts.
//!
//! ```text
//!                    the sender counts now         nothing that is on its way      all nodes that hold
//!                                                  can still be stored             something have compared
//!   waiting ------------------------------> settling ---------------> comparing ---------------> storing -> gone
//!      |                                       ^                          | what is older than what the
//!      v  the other one was heard long enough  |                          v other sender has in its series goes
//!    gone after them                           |
//!                                              |  another one was elected, the store cannot be asked, or it was asked too late
//!   late: its sender counted when it came -----+-------------------------------------------------> owed: storing -> gone
//! ```
//! What the other sender has stored is a question to the store, series by series, and must be asked before any node stores
//! what it holds: nothing in the store says whose a sample is. So a node waits between the two. What a sender that counts sends
//! from before its election, at times at which others were accepted, goes the same way, some seconds of it at once. When another
//! sender is elected meanwhile, what is on its way goes. Why this is so, and the time line of a fail-over:
//! `docs/decisions/held-requests-of-pairs.md`.
//!
//! *Late* is what a sender that counts sends from before its election. Without holding it would be stored as it comes, so it never
//! goes but for what the other sender has: when it cannot be compared it is owed, and stored whoever counts.
//!
//! All work is bounded: how much is done at once, for one tenant, too, and how often something is tried. What is lost is counted
//! with its reason, and so is what is stored without being compared.
//!
//! Pure: time and what is known of elections come in as values, and what should be done goes out as a job. A job that failed
//! comes again. Nothing is on disk: a node that dies loses what it held.

pub(crate) mod compare;
#[cfg(test)]
mod tests;
mod work;

use crate::cluster::replicas::Elected;
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};
use trefoil_model::{Millis, TenantId};
use work::change;

/// Memory of a request beside its content, bytes, about: its place in queues that may be half empty, and what shares the content.
const REQUEST_BYTES: usize = 320;
/// Memory of a sender beside its names and requests, bytes, about.
const SENDER_BYTES: usize = 512;
/// Senders of a pair of which something is held; a request may come from as many. What others send that do not count is dropped.
const REPLICAS_MAX: usize = 64;
/// The part of all memory that late requests may take where they are held, one in so many: the rest is there for the others.
pub(crate) const LATE_SHARE: usize = 2;
/// What a sender that counts sends late is compared so long after its arrival, all that came by then at once.
const COLLECT: Duration = Duration::from_secs(10);
/// Between the comparison of a node and its storing, beside twice the time that it took, so that other nodes can compare
/// meanwhile what came before. They learn of the change within moments, and try again each second what failed. So long a node may be
/// paused, or busy with the comparisons of other pairs; one that is later leaves out what it cannot tell from what others have stored.
pub(crate) const GRACE: Duration = Duration::from_secs(30);
/// Longest of what is added to [`GRACE`] for a comparison that took long.
const GRACE_ADDED_MAX: Duration = Duration::from_secs(60);
/// So long what is compared waits while the comparisons of other pairs are due: at other nodes they are in work, too.
const LINE_MAX: Duration = Duration::from_secs(120);
/// Requests of a sender behind one that comes again, at most: it comes within seconds. Held twice it is stored twice, which is
/// harmless.
const AGAIN_WITHIN: usize = 1000;
/// How far the cluster's clocks at two nodes may be apart.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(1);

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
    /// Of one whose sender counted when it came: until when others were accepted, as its election was known then. It is owed to its
    /// sender.
    pub(crate) late: Option<Millis>,
    /// Size of the content.
    pub(crate) bytes: usize,
    pub(crate) samples: u64,
    /// The same content has the same one.
    pub(crate) digest: u64,
    pub(crate) content: T,
}

/// Why samples that were held, or should have been, are not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Loss {
    /// There was no room.
    Memory,
    /// They are larger than what can be held, or could not be read back.
    Unreadable,
    /// The store could not be asked about them.
    NotCompared,
    /// They were compared late, and left out; the other sender may have had none of them.
    ComparedLate,
    /// Another sender was elected before they were stored, or what its sender sends is not compared any more.
    Superseded,
    /// A deletion between that is forgotten may have erased them.
    Deletion,
    /// They break a limit, or have become too old.
    Refused,
    /// No majority took them.
    NotStored,
}

impl Loss {
    /// All of them.
    pub(crate) const ALL: [Self; 8] = [
        Self::Memory,
        Self::Unreadable,
        Self::NotCompared,
        Self::ComparedLate,
        Self::Superseded,
        Self::Deletion,
        Self::Refused,
        Self::NotStored,
    ];

    /// The reason in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Unreadable => "unreadable",
            Self::NotCompared => "not_compared",
            Self::ComparedLate => "compared_late",
            Self::Superseded => "superseded",
            Self::Deletion => "deletion",
            Self::Refused => "refused",
            Self::NotStored => "not_stored",
        }
    }
}

/// Why late samples are stored without being compared, as if nothing were held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Uncompared {
    /// There was no room, or they are larger than what can be held.
    Memory,
    /// The store could not be asked about them.
    NotCompared,
    /// It was asked too late to tell whose a sample is.
    ComparedLate,
    /// Another sender was elected before, or what their sender sends is not compared any more.
    Superseded,
    /// The node stops.
    Stopping,
}

impl Uncompared {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [
        Self::Memory,
        Self::NotCompared,
        Self::ComparedLate,
        Self::Superseded,
        Self::Stopping,
    ];

    /// The reason in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::NotCompared => "not_compared",
            Self::ComparedLate => "compared_late",
            Self::Superseded => "superseded",
            Self::Stopping => "stopping",
        }
    }
}

/// Samples of which something is to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) lost: BTreeMap<Loss, u64>,
    pub(crate) uncompared: BTreeMap<Uncompared, u64>,
}

impl Tally {
    fn lose(&mut self, loss: Loss, samples: u64) {
        if samples > 0 {
            *self.lost.entry(loss).or_default() += samples;
        }
    }

    fn leave_uncompared(&mut self, reason: Uncompared, samples: u64) {
        if samples > 0 {
            *self.uncompared.entry(reason).or_default() += samples;
        }
    }
}

/// What is held for how long, and how much.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Where it is not recorded until when others were accepted: it is so long before the election.
    pub(crate) apart: Duration,
    /// How long something may wait while no sender counts.
    pub(crate) kept: Duration,
    /// How long the sender that counts may be silent.
    pub(crate) failover_timeout: Duration,
    /// How long a request of the sender that counted may be on its way when another one was elected.
    pub(crate) settle: Duration,
    /// Bytes of all requests.
    pub(crate) bytes_max: usize,
    /// Bytes of late ones among them; 0: those are stored as they come.
    pub(crate) late_bytes_max: usize,
}

/// Something to be done. It is in work until its outcome is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Job<T> {
    /// Take away from these what is older than what another sender has stored.
    Compare(Vec<Request<T>>, Others),
    /// Store this.
    Store(Request<T>),
}

/// What of the store may be another sender's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Others {
    /// All up to this time.
    pub(crate) until: Millis,
    /// What is older than a sample that arrived before this time and is not held: nothing that the sender sent behind it was
    /// stored directly before.
    pub(crate) elected: Millis,
}

/// Which job it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct JobKey {
    pub(crate) sender: Sender,
    /// When its sender was elected; nothing when that was not recorded.
    at: Option<Millis>,
    change: u64,
    step: Step,
    is_owed: bool,
}

/// Everything that a node holds.
pub(crate) struct Held<T> {
    rules: Rules,
    senders: BTreeMap<Sender, OfSender<T>>,
    /// Bytes of what may go for want of room, by tenant; none of a tenant of which nothing may.
    of_tenants: BTreeMap<TenantId, usize>,
    /// Of everything, with what a sender takes itself.
    bytes: usize,
    late_bytes: usize,
    /// Bytes of what is about to be held.
    reserved: usize,
    changes: u64,
    /// What was not told yet.
    tally: Tally,
    /// Jobs in work by tenant and step, those of changes that are gone, too; none of what has none.
    in_work: BTreeMap<(Step, TenantId), usize>,
}

struct OfSender<T> {
    /// Another sender counts. The first to arrive is in front.
    waiting: VecDeque<Request<T>>,
    /// This sender counted when they came.
    late: VecDeque<Request<T>>,
    /// On their way into the store, since this sender counts, or owed.
    changes: VecDeque<Change<T>>,
    /// Bytes of what may go for want of room.
    bytes: usize,
    /// The election of this sender that was seen last, and when that was: behind its commit.
    seen: Option<(Option<Millis>, Millis)>,
}

struct Change<T> {
    number: u64,
    step: Step,
    /// Whether it is late requests that are stored whoever counts. Else it is of an election.
    is_owed: bool,
    /// Whether a job of it is in work.
    is_busy: bool,
    /// Whether one was in work.
    has_begun: bool,
    not_before: Millis,
    /// When its first job was due.
    due: Millis,
    /// When the first of its requests arrived.
    first: Millis,
    /// Nothing of another sender was settled before.
    settled: Millis,
    /// When its sender was elected; nothing when that was not recorded.
    at: Option<Millis>,
    /// Failures of the job that is next.
    tries: u32,
    others: Others,
    /// Compared; the rest of the change is not yet.
    compared: VecDeque<Request<T>>,
    /// In work; they do not go for want of room.
    comparing: Vec<Request<T>>,
    /// To be compared, or when all are, to be stored.
    requests: VecDeque<Request<T>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Step {
    Compare,
    Store,
}

impl JobKey {
    /// Whether its sender counts by the same election still: when others have counted between, they may have been compared with what
    /// was stored before.
    pub(crate) fn is_of(&self, elected: Option<&Elected>) -> bool {
        let is_same = |now: &Elected| (&now.replica, now.at()) == (&self.sender.replica, self.at);
        elected.is_some_and(is_same)
    }

    /// Whether it is stored whoever counts.
    pub(crate) fn is_owed(&self) -> bool {
        self.is_owed
    }
}

impl Sender {
    /// Memory of a sender of which something is held.
    fn held_bytes(&self) -> usize {
        SENDER_BYTES + self.pair.len() + self.replica.len()
    }
}

impl<T> Request<T> {
    fn held_bytes(&self) -> usize {
        self.bytes + REQUEST_BYTES
    }

    /// Bytes that may go for want of room.
    fn bytes_to_go(&self) -> usize {
        match self.late {
            Some(_) => 0,
            None => self.held_bytes(),
        }
    }
}

impl<T> OfSender<T> {
    fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.waiting.is_empty() && self.late.is_empty()
    }

    /// Takes the oldest request out that may go.
    fn pop_oldest(&mut self) -> Option<Request<T>> {
        let of_changes = self.changes.iter_mut();
        let of_changes = of_changes.flat_map(|one| [&mut one.compared, &mut one.requests]);
        let mut queues = of_changes.chain([&mut self.waiting]);
        queues.find_map(|requests| {
            let oldest = requests.iter().position(|one| one.late.is_none())?;
            requests.remove(oldest)
        })
    }
}

impl<T: Clone> Held<T> {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            senders: BTreeMap::new(),
            of_tenants: BTreeMap::new(),
            bytes: 0,
            late_bytes: 0,
            reserved: 0,
            changes: 0,
            tally: Tally::default(),
            in_work: BTreeMap::new(),
        }
    }

    /// Bytes of everything that is held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What has become of samples since this was asked last.
    pub(crate) fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Keeps room for late requests whose contents have these sizes; others go for them. `None` when late ones have their part of the
    /// memory already. Otherwise the bytes that are to be given back by [`Held::free`].
    pub(crate) fn reserve(&mut self, contents: impl Iterator<Item = usize>) -> Option<usize> {
        let wanted: usize = contents.map(|bytes| bytes + REQUEST_BYTES).sum();
        let has_room = self.late_bytes + self.reserved + wanted <= self.rules.late_bytes_max;
        has_room.then(|| {
            self.reserved += wanted;
            self.make_room();
            wanted
        })
    }

    /// Gives room back, for what is held then, or is not.
    pub(crate) fn free(&mut self, reserved: usize) {
        self.reserved = self.reserved.saturating_sub(reserved);
    }

    /// Holds a request of a sender that does not count, or that is late. One that is held already, because its sender did not hear
    /// the answer, is held once. When there is no room, the oldest of the largest sender of the largest tenant goes that is not late.
    pub(crate) fn hold(&mut self, sender: &Sender, request: Request<T>) {
        let is_late = request.late.is_some();
        let own = self.senders.get(sender);
        let is_same =
            |held: &Request<T>| (held.digest, held.late) == (request.digest, request.late);
        let queues = own.map(|own| if is_late { &own.late } else { &own.waiting });
        let mut last = queues.into_iter().flat_map(|queue| queue.iter().rev());
        if last.by_ref().take(AGAIN_WITHIN).any(is_same) {
            return;
        }
        if own.is_none() && !is_late && self.replicas(sender) >= REPLICAS_MAX {
            self.tally.lose(Loss::Memory, request.samples);
            return;
        }
        self.count(sender, &request, true);
        let own = self.senders.entry(sender.clone()).or_default();
        match is_late {
            true => own.late.push_back(request),
            false => own.waiting.push_back(request),
        }
        self.make_room();
    }

    /// How many senders of a sender's pair there are.
    fn replicas(&self, sender: &Sender) -> usize {
        let first = Sender {
            replica: String::new(),
            ..sender.clone()
        };
        let from = self.senders.range(first..);
        let of_pair =
            from.take_while(|(one, _)| (one.tenant, &one.pair) == (sender.tenant, &sender.pair));
        of_pair.count()
    }

    /// Adapts to who counts by what this node knows. Of an election that is new, `heard` is its time.
    pub(crate) fn follow(
        &mut self,
        now: Millis,
        elected: impl Fn(TenantId, &str) -> Option<Elected>,
    ) {
        let timeout = millis(self.rules.failover_timeout);
        let oldest = now - millis(self.rules.kept);
        let (mut gone, mut superseded) = (Vec::new(), Vec::new());
        for (sender, own) in &mut self.senders {
            let elected = elected(sender.tenant, &sender.pair);
            let own_election = elected
                .as_ref()
                .filter(|elected| elected.replica == sender.replica);
            // Another sender may have counted between, when this node did not hear of it.
            let taken = own.take_superseded(own_election);
            superseded.extend(taken.into_iter().map(|taken| (sender.clone(), taken)));
            if let Some(elected) = own_election {
                let seen = own.see(elected.at(), now);
                self.changes += 1;
                let number = self.changes;
                own.begin_change(|first| change(number, &self.rules, elected, (seen, first)));
                continue;
            }
            own.seen = None;
            // The sender that counts has sent everything that is older, but for what was just about to come. And it may
            // have been compared already with what is stored, so nothing may be added.
            let needed = elected.map_or(Millis::MIN, |elected| elected.heard - timeout);
            let forgotten = own.forget_before(oldest.max(needed));
            gone.extend(forgotten.into_iter().map(|one| (sender.clone(), one)));
        }
        for (sender, request) in gone {
            self.count(&sender, &request, false);
        }
        let reasons = (Loss::Superseded, Uncompared::Superseded);
        for (sender, change) in superseded {
            self.end_change(&sender, change, reasons, now);
        }
        self.tidy();
    }

    /// Nothing more is done of a change that was taken out: what is late is stored whoever counts, and the rest is lost.
    fn end_change(
        &mut self,
        sender: &Sender,
        mut change: Change<T>,
        (loss, uncompared): (Loss, Uncompared),
        now: Millis,
    ) {
        let comparing = change.stop_comparing();
        self.count_to_go(sender, comparing, true);
        for request in change.compared.into_iter().chain(change.requests) {
            if request.late.is_some() {
                self.tally.leave_uncompared(uncompared, request.samples);
                self.changes += 1;
                let number = self.changes;
                let own = self.senders.entry(sender.clone()).or_default();
                own.owe(request, || Change::owed(number, now));
                continue;
            }
            self.tally.lose(loss, request.samples);
            self.count(sender, &request, false);
        }
    }

    /// Takes out all that is late, with the samples counted as stored because the node stops.
    pub(crate) fn take_late(&mut self) -> Vec<(Sender, Request<T>)> {
        let mut all = Vec::new();
        for (sender, own) in &mut self.senders {
            let of_changes = own.changes.iter_mut().flat_map(Change::take_late);
            let late = of_changes.chain(std::mem::take(&mut own.late));
            all.extend(late.map(|request| (sender.clone(), request)));
        }
        for (sender, request) in &all {
            self.count(sender, request, false);
            let samples = request.samples;
            self.tally.leave_uncompared(Uncompared::Stopping, samples);
        }
        self.tidy();
        all
    }

    /// Drops the oldest of the largest until all have room.
    fn make_room(&mut self) {
        while self.bytes + self.reserved > self.rules.bytes_max {
            let largest = self.of_tenants.iter().max_by_key(|(_, bytes)| **bytes);
            let Some(tenant) = largest.map(|(tenant, _)| *tenant) else {
                break;
            };
            let first = Sender {
                tenant,
                pair: String::new(),
                replica: String::new(),
            };
            let from = self.senders.range_mut(first..);
            let of_tenant = from.take_while(|(sender, _)| sender.tenant == tenant);
            let Some((sender, own)) = of_tenant.max_by_key(|(_, own)| own.bytes) else {
                break;
            };
            let Some(oldest) = own.pop_oldest() else {
                break;
            };
            own.changes.retain(|change| !change.is_empty());
            let (sender, is_empty) = (sender.clone(), own.is_empty());
            self.tally.lose(Loss::Memory, oldest.samples);
            self.count(&sender, &oldest, false);
            if is_empty {
                self.senders.remove(&sender);
                self.bytes = self.bytes.saturating_sub(sender.held_bytes());
            }
        }
    }

    /// Counts a request that a sender has more, or less.
    fn count(&mut self, sender: &Sender, request: &Request<T>, more: bool) {
        if !self.senders.contains_key(sender) {
            self.senders.insert(sender.clone(), OfSender::default());
            self.bytes += sender.held_bytes();
        }
        let add = |bytes: &mut usize, more_bytes: usize| {
            *bytes = match more {
                true => *bytes + more_bytes,
                false => bytes.saturating_sub(more_bytes),
            };
        };
        add(&mut self.bytes, request.held_bytes());
        if request.late.is_some() {
            add(&mut self.late_bytes, request.held_bytes());
        }
        self.count_to_go(sender, request.bytes_to_go(), more);
    }

    /// Counts bytes that may go for want of room, or may not any more.
    fn count_to_go(&mut self, sender: &Sender, bytes: usize, more: bool) {
        let of_tenant = self.of_tenants.entry(sender.tenant).or_default();
        let own = self.senders.get_mut(sender).map(|own| &mut own.bytes);
        for sum in [Some(of_tenant), own].into_iter().flatten() {
            *sum = match more {
                true => *sum + bytes,
                false => sum.saturating_sub(bytes),
            };
        }
        self.of_tenants.retain(|_, bytes| *bytes > 0);
    }

    /// Forgets changes and senders of which nothing is held.
    fn tidy(&mut self) {
        let bytes = &mut self.bytes;
        self.senders.retain(|sender, own| {
            own.changes.retain(|change| !change.is_empty());
            let is_empty = own.is_empty();
            if is_empty {
                *bytes = bytes.saturating_sub(sender.held_bytes());
            }
            !is_empty
        });
    }
}

impl<T> OfSender<T> {
    /// This sender counts by an election; when that was seen.
    fn see(&mut self, at: Option<Millis>, now: Millis) -> Millis {
        let seen = self.seen.filter(|(election, _)| *election == at);
        let (_, since) = *self.seen.insert(seen.unwrap_or((at, now)));
        since
    }

    /// Sends what waits on its way into the store. What comes late joins what was not compared yet.
    fn begin_change(&mut self, new: impl FnOnce(Millis) -> Change<T>) {
        let all = self.waiting.iter().chain(&self.late);
        let Some(first) = all.map(|request| request.arrived).min() else {
            return;
        };
        let waiting = std::mem::take(&mut self.waiting);
        let all = waiting.into_iter().chain(std::mem::take(&mut self.late));
        let mut open = self.changes.iter_mut().rev();
        let open = open.find(|open| !open.is_owed && !open.has_begun);
        match open {
            Some(open) => {
                open.requests.extend(all);
                open.first = open.first.min(first);
            }
            None => {
                let mut new = new(first);
                new.requests.extend(all);
                self.changes.push_back(new);
            }
        }
    }

    /// Stores a late request whoever counts.
    fn owe(&mut self, request: Request<T>, new: impl FnOnce() -> Change<T>) {
        match self.changes.iter_mut().find(|change| change.is_owed) {
            Some(owed) => owed.requests.push_back(request),
            None => {
                let mut new = new();
                new.requests.push_back(request);
                self.changes.push_back(new);
            }
        }
    }

    /// Takes out what is of other elections than this one of this sender.
    fn take_superseded(&mut self, elected: Option<&Elected>) -> VecDeque<Change<T>> {
        let is_own = |at| elected.is_some_and(|elected| elected.at() == at);
        let stays = |change: &Change<T>| change.is_owed || is_own(change.at);
        let changes = std::mem::take(&mut self.changes).into_iter();
        let (own, mut taken): (VecDeque<_>, VecDeque<_>) = changes.partition(stays);
        self.changes = own;
        if self.late.is_empty() {
            return taken;
        }
        let until = elected.map(Elected::others_until);
        let late = std::mem::take(&mut self.late).into_iter();
        let (own, others) = late.partition(|request| request.late == until);
        self.late = own;
        let mut change = Change::owed(0, 0);
        change.requests = others;
        taken.push_back(change);
        taken
    }

    /// Takes out what waits and arrived before this time.
    fn forget_before(&mut self, time: Millis) -> Vec<Request<T>> {
        let mut forgotten = Vec::new();
        // They come nearly in order: a younger one in front keeps older ones for moments.
        while let Some(old) = self.waiting.pop_front_if(|request| request.arrived < time) {
            forgotten.push(old);
        }
        forgotten
    }
}

impl<T> Default for OfSender<T> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            late: VecDeque::new(),
            changes: VecDeque::new(),
            bytes: 0,
            seen: None,
        }
    }
}

fn millis(duration: Duration) -> Millis {
    // As good as for ever, and sums with it do not overflow.
    const LONGEST: u128 = 1 << 60;
    duration.as_millis().min(LONGEST) as Millis
}
