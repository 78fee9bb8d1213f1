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
//! what it holds: nothing in the store says whose a sample is. So a node waits between the two. What a sender that counts sends
//! from before its election, at times at which others were accepted, goes the same way, some seconds of it at once. When another
//! sender is elected meanwhile, what is on its way goes. Why this is so, and the time line of a fail-over:
//! `docs/decisions/held-requests-of-pairs.md`.
//!
//! All work is bounded: how much is done at once, for one tenant, too, and how often something is tried. What is lost is counted
//! with its reason.
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
/// What a sender that counts sends late is compared so long after its arrival, all that came by then at once.
const COLLECT: Duration = Duration::from_secs(10);
/// Between the comparison of a node and its storing, beside twice the time that it took, so that other nodes can compare
/// meanwhile what came before. They learn of the change within moments, and try again each second what failed; a node that is
/// paused for longer than the rest leaves out what it cannot tell from what others have stored.
pub(crate) const GRACE: Duration = Duration::from_secs(20);
/// Until a job that failed is tried again, the first times.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Until it is tried again later: who is later than [`GRACE`] may be too late already.
const AGAIN_AFTER_LATER: Duration = Duration::from_secs(10);
/// Failures after which a job comes again after seconds.
const TRIES_SOON: u32 = 10;
/// Failures after which a job is given up, some 5 min beside the time that it takes. Beyond the store would be asked without an end.
const TRIES_MAX: u32 = 40;
/// Jobs of a kind that are in work at once; others wait. Each storing has a body in memory, each comparison its part of
/// `COMPARED_SAMPLES_MAX`.
const IN_WORK_MAX: usize = 4;
/// Those of one tenant among them, so that a slow one does not hold the others up.
const IN_WORK_OF_TENANT_MAX: usize = 2;
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
    /// Their times are far from when they came.
    OutOfWindow,
    /// They are larger than what can be held, or could not be read back.
    Unreadable,
    /// The store could not be asked about them.
    NotCompared,
    /// They were compared late, and left out; the other sender may have had none of them.
    ComparedLate,
    /// Another sender was elected before they were stored.
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
    pub(crate) const ALL: [Self; 9] = [
        Self::Memory,
        Self::OutOfWindow,
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
            Self::OutOfWindow => "out_of_window",
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
}

/// Everything that a node holds.
pub(crate) struct Held<T> {
    rules: Rules,
    senders: BTreeMap<Sender, OfSender<T>>,
    /// Bytes by tenant; none of a tenant of which nothing is held.
    of_tenants: BTreeMap<TenantId, usize>,
    bytes: usize,
    /// Bytes of what is about to be held.
    reserved: usize,
    changes: u64,
    /// Samples that were lost, and were not told yet.
    lost: BTreeMap<Loss, u64>,
    /// Jobs in work by tenant and step, those of changes that are gone, too; none of what has none.
    in_work: BTreeMap<(Step, TenantId), usize>,
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
    /// When nothing of another sender was on its way any more.
    settled: Millis,
    /// When its sender was elected; nothing when that was not recorded.
    at: Option<Millis>,
    /// Failures of the job that is next.
    tries: u32,
    others: Others,
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
}

impl<T> Request<T> {
    fn held_bytes(&self) -> usize {
        self.bytes + REQUEST_BYTES
    }
}

impl<T> OfSender<T> {
    fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.waiting.is_empty()
    }

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
            reserved: 0,
            changes: 0,
            lost: BTreeMap::new(),
            in_work: BTreeMap::new(),
        }
    }

    /// Bytes of everything that is held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Samples that were lost since this was asked last, and why.
    pub(crate) fn take_lost(&mut self) -> BTreeMap<Loss, u64> {
        std::mem::take(&mut self.lost)
    }

    /// Keeps room for requests whose contents have these sizes. `None` when there is none: nothing goes for them. Otherwise the
    /// bytes that are to be given back by [`Held::free`].
    pub(crate) fn reserve(&mut self, contents: impl Iterator<Item = usize>) -> Option<usize> {
        let wanted: usize = contents.map(|bytes| bytes + REQUEST_BYTES).sum();
        let has_room = self.bytes + self.reserved + wanted <= self.rules.bytes_max;
        has_room.then(|| {
            self.reserved += wanted;
            wanted
        })
    }

    /// Gives room back, for what is held then, or is not.
    pub(crate) fn free(&mut self, reserved: usize) {
        self.reserved = self.reserved.saturating_sub(reserved);
    }

    /// Holds a request of a sender that does not count, or that is from before it did. One that is held already, because its
    /// sender did not hear the answer, is held once. When there is no room, the oldest of the largest sender of the largest tenant goes.
    pub(crate) fn hold(&mut self, sender: &Sender, request: Request<T>) {
        let own = self.senders.get(sender);
        let is_same = |held: &Request<T>| held.digest == request.digest;
        let mut last = own.into_iter().flat_map(|own| own.waiting.iter().rev());
        if last.by_ref().take(AGAIN_WITHIN).any(is_same) {
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
        let oldest = now - millis(self.rules.kept);
        let mut freed = Vec::new();
        for (sender, own) in &mut self.senders {
            let elected = elected(sender.tenant, &sender.pair);
            let (oldest, superseded) = match elected {
                Some(elected) if elected.replica == sender.replica => {
                    // Another sender may have counted between, when this node did not hear of it.
                    let superseded = own.take_changes_but_of(elected.at());
                    self.changes += 1;
                    own.begin_change(|first| change(self.changes, &self.rules, &elected, first));
                    (Millis::MIN, superseded)
                }
                // The sender that counts has sent everything that is older, but for what was just about to come. And it may
                // have been compared already with what is stored, so nothing may be added.
                Some(elected) => {
                    let oldest = oldest.max(elected.heard - timeout);
                    (oldest, std::mem::take(&mut own.changes))
                }
                None => (oldest, VecDeque::new()),
            };
            let superseded = superseded.into_iter().flat_map(|change| change.requests);
            let mut bytes = own.forget_before(oldest);
            for request in superseded {
                bytes += request.held_bytes();
                lose(&mut self.lost, Loss::Superseded, request.samples);
            }
            freed.push((sender.clone(), bytes));
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
        self.end_work(key);
        let Some(change) = self.change(key) else {
            return;
        };
        let bytes = |requests: &VecDeque<Request<T>>| -> usize {
            requests.iter().map(Request::held_bytes).sum()
        };
        let samples = |requests: &VecDeque<Request<T>>| -> u64 {
            requests.iter().map(|request| request.samples).sum()
        };
        let before = (bytes(&change.requests), samples(&change.requests));
        // Others may store what came to them behind the first of these from then on.
        let first = change.requests.iter().map(|request| request.arrived).min();
        let first = first.unwrap_or(now).max(change.settled);
        let late = first + millis(GRACE) - millis(CLOCKS_APART_MAX);
        change.requests = left.into();
        change.step = Step::Store;
        change.is_busy = false;
        change.tries = 0;
        // It was in work since then; at other nodes it takes about as long.
        let took = (now - change.not_before).max(0);
        change.not_before = now + millis(GRACE) + 2 * took;
        let after = (bytes(&change.requests), samples(&change.requests));
        if now > late {
            let left_out = before.1.saturating_sub(after.1);
            lose(&mut self.lost, Loss::ComparedLate, left_out);
        }
        self.count(&key.sender, after.0 as isize - before.0 as isize);
        self.tidy();
        self.make_room();
    }

    /// A request is stored, or nothing of it may be.
    pub(crate) fn stored(&mut self, key: &JobKey, digest: u64) {
        self.end_work(key);
        let Some(change) = self.change(key) else {
            return;
        };
        change.is_busy = false;
        change.tries = 0;
        // If it is not in front any more it went for want of room.
        let stored = change
            .requests
            .pop_front_if(|request| request.digest == digest);
        if let Some(stored) = stored {
            self.count(&key.sender, -(stored.held_bytes() as isize));
        }
        self.tidy();
    }

    /// A job could not be done now. It comes again, but for one that failed too often.
    pub(crate) fn failed(&mut self, key: &JobKey, now: Millis) {
        self.end_work(key);
        let Some(change) = self.change(key) else {
            return;
        };
        change.is_busy = false;
        change.tries += 1;
        let again = match change.tries {
            ..TRIES_SOON => AGAIN_AFTER,
            _ => AGAIN_AFTER_LATER,
        };
        change.not_before = now + millis(again);
        if change.tries >= TRIES_MAX {
            let loss = match change.step {
                Step::Compare => Loss::NotCompared,
                Step::Store => Loss::NotStored,
            };
            self.drop_change(key, loss);
        }
    }

    /// Nothing of a change can be done, because of this.
    pub(crate) fn give_up(&mut self, key: &JobKey, loss: Loss) {
        self.end_work(key);
        self.drop_change(key, loss);
    }

    fn drop_change(&mut self, key: &JobKey, loss: Loss) {
        let Some(change) = self.change(key) else {
            return;
        };
        let requests = std::mem::take(&mut change.requests);
        let samples = requests.iter().map(|request| request.samples).sum();
        let bytes: usize = requests.iter().map(Request::held_bytes).sum();
        lose(&mut self.lost, loss, samples);
        self.count(&key.sender, -(bytes as isize));
        self.tidy();
    }

    /// Whether there is something left to do of a job's change.
    pub(crate) fn is_under_way(&self, key: &JobKey) -> bool {
        let own = self.senders.get(&key.sender);
        own.is_some_and(|own| own.changes.iter().any(|one| one.number == key.change))
    }

    fn next(&mut self, now: Millis, step: Step) -> Option<(JobKey, Job<T>)> {
        let changes = self.senders.iter_mut().flat_map(|(sender, own)| {
            let changes = own.changes.iter_mut();
            changes.map(move |change| (sender, change))
        });
        let all = self.in_work.iter().filter(|((of, _), _)| *of == step);
        if all.map(|(_, count)| count).sum::<usize>() >= IN_WORK_MAX {
            return None;
        }
        let in_work = &self.in_work;
        let is_full = |tenant| {
            let count = in_work.get(&(step, tenant));
            count.is_some_and(|count| *count >= IN_WORK_OF_TENANT_MAX)
        };
        let is_due = |(sender, change): &(&Sender, &mut Change<T>)| {
            let is_next = change.step == step && !change.is_busy && change.not_before <= now;
            is_next && !is_full(sender.tenant)
        };
        // The one that waits for the longest time, so that none waits for all requests of another.
        let due = changes.filter(is_due);
        let (sender, change) = due.min_by_key(|(_, change)| change.not_before)?;
        let job = match step {
            Step::Compare => {
                let requests = change.requests.iter().cloned().collect();
                Job::Compare(requests, change.others)
            }
            Step::Store => Job::Store(change.requests.front()?.clone()),
        };
        change.is_busy = true;
        change.not_before = change.not_before.max(now);
        let key = JobKey {
            sender: sender.clone(),
            at: change.at,
            change: change.number,
            step,
        };
        *self.in_work.entry((step, sender.tenant)).or_default() += 1;
        Some((key, job))
    }

    /// A job has ended, whatever became of its change.
    fn end_work(&mut self, key: &JobKey) {
        let of = (key.step, key.sender.tenant);
        if let Some(count) = self.in_work.get_mut(&of) {
            *count = count.saturating_sub(1);
        }
        self.in_work.retain(|_, count| *count > 0);
    }

    fn change(&mut self, key: &JobKey) -> Option<&mut Change<T>> {
        let own = self.senders.get_mut(&key.sender)?;
        let mut changes = own.changes.iter_mut();
        changes.find(|change| change.number == key.change)
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
            own.changes.retain(|change| !change.requests.is_empty());
            let (sender, is_empty) = (sender.clone(), own.is_empty());
            lose(&mut self.lost, Loss::Memory, oldest.samples);
            self.count(&sender, -(oldest.held_bytes() as isize));
            if is_empty {
                self.senders.remove(&sender);
            }
        }
        self.of_tenants.retain(|_, bytes| *bytes > 0);
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
            !own.is_empty()
        });
        self.of_tenants.retain(|_, bytes| *bytes > 0);
    }
}

impl<T> OfSender<T> {
    /// Sends what waits on its way into the store. What comes late joins what was not compared yet.
    fn begin_change(&mut self, new: impl FnOnce(Millis) -> Change<T>) {
        let Some(first) = self.waiting.iter().map(|request| request.arrived).min() else {
            return;
        };
        let waiting = std::mem::take(&mut self.waiting);
        let open = self.changes.back_mut();
        match open.filter(|open| open.step == Step::Compare && !open.is_busy) {
            Some(open) => open.requests.extend(waiting),
            None => {
                let mut new = new(first);
                new.requests = waiting;
                self.changes.push_back(new);
            }
        }
    }

    /// Takes the changes of other elections out.
    fn take_changes_but_of(&mut self, at: Option<Millis>) -> VecDeque<Change<T>> {
        let (own, others) = std::mem::take(&mut self.changes)
            .into_iter()
            .partition(|change| change.at == at);
        self.changes = own;
        others
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

/// The change of a sender that counts, for requests of which the first one arrived then.
fn change<T>(number: u64, rules: &Rules, elected: &Elected, first: Millis) -> Change<T> {
    let (at, others) = match elected.succession {
        Some(succession) => {
            let others = Others {
                until: succession.others_until,
                // What came within moments of the election may have come behind what was stored directly.
                elected: succession.at - millis(CLOCKS_APART_MAX),
            };
            (succession.at, others)
        }
        // Of an election that is new, this is its time; of another one what is stored may be taken for another sender's.
        None => {
            let at = elected.heard;
            let others = Others {
                until: at - millis(rules.apart),
                elected: Millis::MAX,
            };
            (at, others)
        }
    };
    let settled = at + millis(rules.settle);
    Change {
        number,
        step: Step::Compare,
        is_busy: false,
        not_before: settled.max(first + millis(COLLECT)),
        settled,
        at: elected.at(),
        tries: 0,
        others,
        requests: VecDeque::new(),
    }
}

fn lose(lost: &mut BTreeMap<Loss, u64>, loss: Loss, samples: u64) {
    if samples > 0 {
        *lost.entry(loss).or_default() += samples;
    }
}

fn millis(duration: Duration) -> Millis {
    // As good as for ever, and sums with it do not overflow.
    const LONGEST: u128 = 1 << 60;
    duration.as_millis().min(LONGEST) as Millis
}
