//! What is done with what is held of a sender that counts: one comparison at a time, some of what it stores at once.
//!
//! A change is compared piece by piece, in the order of arrival, so that a comparison takes little memory beside what is held. It is
//! stored when all of it is compared.

use super::{
    CLOCKS_APART_MAX, COLLECT, Change, GRACE, GRACE_ADDED_MAX, Held, Job, JobKey, LINE_MAX, Loss,
    Others, Request, Rules, Sender, Step, Uncompared, millis,
};
use crate::cluster::replicas::Elected;
use std::{collections::VecDeque, time::Duration};
use trefoil_model::Millis;

/// Samples of a comparison, but for what its last request has more: 32 bytes each, up to 24 for its series, and what is read of the
/// store, so some 32 MiB in all.
pub(super) const COMPARED_SAMPLES_MAX: u64 = 400_000;
/// As many samples a request counts at least, for what it takes itself.
const REQUEST_SAMPLES: u64 = 20;
/// Until a job that failed is tried again, the first times.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Until it is tried again later: who is later than [`GRACE`] may be too late already.
const AGAIN_AFTER_LATER: Duration = Duration::from_secs(10);
/// Failures after which a job comes again after seconds.
pub(super) const TRIES_SOON: u32 = 10;
/// Failures after which a job is given up, some 5 min beside the time that it takes. Beyond the store would be asked without an end.
/// What is owed is tried on: it takes memory, and no more.
pub(super) const TRIES_MAX: u32 = 40;
/// Comparisons that are in work at once, for their memory.
const COMPARED_AT_ONCE_MAX: usize = 1;
/// Requests that are stored at once, a body in memory for each; others wait.
const STORED_AT_ONCE_MAX: usize = 4;
/// Those of one tenant among them, so that a slow one does not hold the others up.
const STORED_AT_ONCE_OF_TENANT_MAX: usize = 2;

impl<T: Clone> Held<T> {
    /// The next comparison that is due, if there is one.
    pub(crate) fn next_comparison(&mut self, now: Millis) -> Option<(JobKey, Job<T>)> {
        self.next(now, Step::Compare)
    }

    /// The next request to store, if one is due. Nothing is stored but what is owed while comparisons are due: when many pairs change at
    /// once, other nodes may have as many of them to do.
    pub(crate) fn next_to_store(&mut self, now: Millis) -> Option<(JobKey, Job<T>)> {
        self.next(now, Step::Store)
    }

    fn next(&mut self, now: Millis, step: Step) -> Option<(JobKey, Job<T>)> {
        let (max, of_tenant_max) = match step {
            Step::Compare => (COMPARED_AT_ONCE_MAX, COMPARED_AT_ONCE_MAX),
            Step::Store => (STORED_AT_ONCE_MAX, STORED_AT_ONCE_OF_TENANT_MAX),
        };
        let all = self.in_work.iter().filter(|((of, _), _)| *of == step);
        if all.map(|(_, count)| count).sum::<usize>() >= max {
            return None;
        }
        let has_line = step == Step::Store && self.has_line(now);
        let in_work = &self.in_work;
        let is_full = |tenant| {
            let count = in_work.get(&(step, tenant));
            count.is_some_and(|count| *count >= of_tenant_max)
        };
        let changes = self.senders.iter_mut().flat_map(|(sender, own)| {
            let changes = own.changes.iter_mut();
            changes.map(move |change| (sender, change))
        });
        let is_due = |(sender, change): &(&Sender, &mut Change<T>)| {
            let is_next = change.step == step && !change.is_busy && change.not_before <= now;
            let waits = has_line && !change.is_owed && now < change.not_before + millis(LINE_MAX);
            is_next && !waits && !is_full(sender.tenant)
        };
        // The one that waits for the longest time, so that none waits for all requests of another.
        let due = changes.filter(is_due);
        let (sender, change) = due.min_by_key(|(_, change)| change.not_before)?;
        let job = match step {
            Step::Compare => {
                change.begin_comparing();
                Job::Compare(change.comparing.clone(), change.others)
            }
            Step::Store => Job::Store(change.requests.front()?.clone()),
        };
        change.is_busy = true;
        change.has_begun = true;
        let key = JobKey {
            sender: sender.clone(),
            at: change.at,
            change: change.number,
            step,
            is_owed: change.is_owed,
        };
        let comparing = change.comparing.iter().map(Request::bytes_to_go).sum();
        self.count_to_go(&key.sender, comparing, false);
        *self.in_work.entry((step, key.sender.tenant)).or_default() += 1;
        Some((key, job))
    }

    /// Whether a comparison is in work, or is due and did not fail.
    fn has_line(&self, now: Millis) -> bool {
        let mut changes = self.senders.values().flat_map(|own| &own.changes);
        let is_in_line = |change: &Change<T>| {
            let is_due = change.is_busy || change.not_before <= now;
            change.step == Step::Compare && change.tries == 0 && is_due
        };
        changes.any(is_in_line)
    }

    /// A comparison is done: this is left of the requests, in their order, and is stored when the rest of the change is compared and
    /// other nodes have had time for that. One that came too late may have taken what other nodes have stored for another sender's:
    /// what is late is stored as it came then.
    pub(crate) fn compared(&mut self, key: &JobKey, left: Vec<Request<T>>, now: Millis) {
        self.end_work(key);
        let Some(change) = self.change(key) else {
            return;
        };
        let before = std::mem::take(&mut change.comparing);
        // Others may store what came to them behind the first of these from then on.
        let too_late = change.first.max(change.settled) + millis(GRACE) - millis(CLOCKS_APART_MAX);
        let is_too_late = now > too_late;
        let mut kept = left;
        let (mut left_out, mut uncompared) = (0, 0);
        if is_too_late {
            let lost = |late| samples_of(&before, late).saturating_sub(samples_of(&kept, late));
            (left_out, uncompared) = (lost(false), lost(true));
            kept.retain(|request| request.late.is_none());
            kept.extend(before.iter().filter(|one| one.late.is_some()).cloned());
        }
        change.compared.extend(kept.iter().cloned());
        change.is_busy = false;
        change.tries = 0;
        if change.requests.is_empty() {
            change.begin_storing(now);
        }
        self.tally.lose(Loss::ComparedLate, left_out);
        self.tally
            .leave_uncompared(Uncompared::ComparedLate, uncompared);
        // None of these could go for want of room meanwhile.
        let pinned = before.iter().map(Request::bytes_to_go).sum();
        self.count_to_go(&key.sender, pinned, true);
        before
            .iter()
            .for_each(|one| self.count(&key.sender, one, false));
        kept.iter()
            .for_each(|one| self.count(&key.sender, one, true));
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
            self.count(&key.sender, &stored, false);
        }
        self.tidy();
    }

    /// A job could not be done now. It comes again, but for one that failed too often.
    pub(crate) fn failed(&mut self, key: &JobKey, now: Millis) {
        self.end_work(key);
        let Some(change) = self.change(key) else {
            return;
        };
        let comparing = change.stop_comparing();
        change.is_busy = false;
        change.tries = change.tries.saturating_add(1);
        let again = match change.tries {
            ..TRIES_SOON => AGAIN_AFTER,
            _ => AGAIN_AFTER_LATER,
        };
        change.not_before = now + millis(again);
        let gives_up = change.tries >= TRIES_MAX && !change.is_owed;
        let loss = match change.step {
            Step::Compare => Loss::NotCompared,
            Step::Store => Loss::NotStored,
        };
        self.count_to_go(&key.sender, comparing, true);
        if gives_up {
            self.drop_change(key, loss, now);
        }
    }

    /// Nothing of a change can be done, because of this. What is late of it is tried by itself.
    pub(crate) fn give_up(&mut self, key: &JobKey, loss: Loss, now: Millis) {
        self.end_work(key);
        self.drop_change(key, loss, now);
    }

    fn drop_change(&mut self, key: &JobKey, loss: Loss, now: Millis) {
        let Some(own) = self.senders.get_mut(&key.sender) else {
            return;
        };
        let is_it = |change: &Change<T>| change.number == key.change;
        let place = own.changes.iter().position(is_it);
        if let Some(change) = place.and_then(|place| own.changes.remove(place)) {
            let reasons = (loss, Uncompared::NotCompared);
            self.end_change(&key.sender, change, reasons, now);
        }
        self.tidy();
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
}

fn samples_of<T>(requests: &[Request<T>], is_late: bool) -> u64 {
    let of_kind = requests.iter().filter(|one| one.late.is_some() == is_late);
    of_kind.map(|request| request.samples).sum()
}

impl<T> Change<T> {
    /// Late requests that are stored whoever counts.
    pub(super) fn owed(number: u64, now: Millis) -> Self {
        Self {
            number,
            step: Step::Store,
            is_owed: true,
            is_busy: false,
            has_begun: false,
            not_before: now,
            due: now,
            first: now,
            settled: now,
            at: None,
            tries: 0,
            others: Others {
                until: Millis::MIN,
                elected: Millis::MIN,
            },
            compared: VecDeque::new(),
            comparing: Vec::new(),
            requests: VecDeque::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.compared.is_empty() && self.comparing.is_empty()
    }

    /// Takes what is late out, but for nothing.
    pub(super) fn take_late(&mut self) -> Vec<Request<T>> {
        let is_late = |request: &Request<T>| request.late.is_some();
        let mut late = Vec::new();
        for queue in [&mut self.compared, &mut self.requests] {
            let all = std::mem::take(queue).into_iter();
            let (own, rest): (VecDeque<_>, _) = all.partition(is_late);
            *queue = rest;
            late.extend(own);
        }
        late.extend(self.comparing.extract_if(.., |one| is_late(one)));
        late
    }

    /// Takes the next requests into work.
    fn begin_comparing(&mut self) {
        let mut samples = 0;
        while samples < COMPARED_SAMPLES_MAX {
            let Some(next) = self.requests.pop_front() else {
                break;
            };
            samples += next.samples.max(REQUEST_SAMPLES);
            self.comparing.push(next);
        }
    }

    /// Puts back what was in work. Bytes of it that may go for want of room.
    pub(super) fn stop_comparing(&mut self) -> usize {
        let bytes = self.comparing.iter().map(Request::bytes_to_go).sum();
        for request in self.comparing.drain(..).rev() {
            self.requests.push_front(request);
        }
        bytes
    }

    /// All of it is compared.
    fn begin_storing(&mut self, now: Millis) {
        self.requests = std::mem::take(&mut self.compared);
        self.step = Step::Store;
        // It was due since then; at other nodes it takes about as long.
        let took = (now - self.due).max(0);
        let added = (2 * took).min(millis(GRACE_ADDED_MAX));
        self.not_before = now + millis(GRACE) + added;
    }
}

/// The change of a sender that counts by an election that was seen then, for requests of which the first one arrived then.
pub(super) fn change<T>(
    number: u64,
    rules: &Rules,
    elected: &Elected,
    (seen, first): (Millis, Millis),
) -> Change<T> {
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
    let settle = millis(rules.settle);
    // An election is recorded with the time at which it was proposed; until it is decided the one before counts. It is when it is seen.
    let due = (seen.max(at) + settle).max(first + millis(COLLECT));
    Change {
        step: Step::Compare,
        is_owed: false,
        not_before: due,
        due,
        first,
        settled: at + settle,
        at: elected.at(),
        others,
        ..Change::owed(number, seen)
    }
}
