//! Scrubbing: compare the digests of a window with another owner, and copy what differs.
//!
//! It finds what no rule of the protocol explains: bits that changed unnoticed, and our own mistakes. One window and
//! one peer at a time, only where nothing lags. Both sides compare by themselves and copy what the other has, so a
//! difference is closed both ways; items are a set, so nothing can go wrong by copying too much.

use crate::{
    Action, DigestId, Envelope, Message, Replication, ShardDigest, WINDOWS_MAX, replication::Step,
};
use std::{collections::BTreeMap, time::Duration};
use trefoil_model::{NodeId, ShardSet, Window};

/// What is being scrubbed.
#[derive(Debug, Default)]
pub(crate) struct Scrub {
    windows: Vec<Window>,
    /// Counts the (window, peer) pairs that were visited.
    turn: usize,
    last: Option<Duration>,
    visit: Option<Visit>,
    /// Digests that peers asked for.
    answers: BTreeMap<DigestId, (Envelope, Window)>,
}

#[derive(Debug)]
struct Visit {
    id: DigestId,
    peer: NodeId,
    window: Window,
    own: Option<Vec<ShardDigest>>,
    theirs: Option<Vec<ShardDigest>>,
}

/// How many windows count as the newest: a day and a half.
const NEWEST: usize = 18;
/// Most digests that are computed for peers at one time. More are not answered.
const ANSWERS_MAX: usize = 4;

impl Scrub {
    pub(crate) fn offer(&mut self, mut windows: Vec<Window>) {
        windows.truncate(WINDOWS_MAX);
        self.windows = windows;
    }

    /// Whose turn it is: every second time one of the newest, in between all in their order, so that none waits
    /// longer than the others and fresh ones do not wait for all.
    fn window(&self, round: usize) -> Window {
        let among = match round.is_multiple_of(2) {
            true => self.windows.len().min(NEWEST),
            false => self.windows.len(),
        };
        self.windows[(round / 2) % among]
    }
}

impl Replication {
    /// When a tick has something to do for scrubbing.
    pub(crate) fn scrub_due(&self) -> Option<Duration> {
        let interval = self.settings.scrub_interval;
        let last = self.scrub.last.map_or(Duration::ZERO, |at| at + interval);
        (!self.scrub.windows.is_empty()).then_some(last)
    }

    pub(crate) fn tick_scrub(&mut self, step: &mut Step<'_>) {
        let interval = self.settings.scrub_interval;
        let due = self.scrub.last.is_none_or(|at| step.now >= at + interval);
        if !due || self.scrub.windows.is_empty() {
            return;
        }
        self.scrub.last = Some(step.now);
        let peers = self.rows.peers_of(self.me.node);
        let turn = self.scrub.turn;
        self.scrub.turn = turn.wrapping_add(1);
        let Some(peer) = peers.get(turn % peers.len().max(1)).copied() else {
            return;
        };
        let window = self.scrub.window(turn / peers.len());
        let lags = self
            .peers
            .get(&peer)
            .is_none_or(|p| p.pair.lag_bytes > 0 || !p.up);
        let shards = self
            .rows
            .shared_by(self.me.node, peer)
            .intersection(&self.serving())
            .difference(&self.replicas.damaged(Some(window.range())));
        if lags || shards.is_empty() {
            return;
        }
        let id = DigestId(self.fresh_id());
        self.scrub.visit = Some(Visit {
            id,
            peer,
            window,
            own: None,
            theirs: None,
        });
        step.out.push(Action::Digest {
            id,
            shards: shards.clone(),
            window,
        });
        self.send(step, peer, Message::DigestAsk { shards, window });
    }

    pub(crate) fn on_digest_ask(
        &mut self,
        step: &mut Step<'_>,
        envelope: Envelope,
        shards: &ShardSet,
        window: Window,
    ) {
        let damaged = self.replicas.damaged(Some(window.range()));
        let shards = shards.intersection(&self.serving()).difference(&damaged);
        if shards.is_empty() || self.scrub.answers.len() >= ANSWERS_MAX {
            return;
        }
        let id = DigestId(self.fresh_id());
        self.scrub.answers.insert(id, (envelope, window));
        step.out.push(Action::Digest { id, shards, window });
    }

    pub(crate) fn on_digests(
        &mut self,
        step: &mut Step<'_>,
        id: DigestId,
        digests: Vec<ShardDigest>,
    ) {
        if let Some((envelope, window)) = self.scrub.answers.remove(&id) {
            self.reply(step, &envelope, Message::DigestAnswer { window, digests });
        } else if let Some(visit) = self.scrub.visit.as_mut().filter(|visit| visit.id == id) {
            visit.own = Some(digests);
            self.compare_digests(step);
        }
    }

    pub(crate) fn on_digest_answer(
        &mut self,
        step: &mut Step<'_>,
        from: NodeId,
        window: Window,
        digests: &[ShardDigest],
    ) {
        let visit = self.scrub.visit.as_mut();
        if let Some(visit) = visit.filter(|visit| visit.peer == from && visit.window == window) {
            visit.theirs = Some(digests.to_vec());
            self.compare_digests(step);
        }
    }

    fn compare_digests(&mut self, step: &mut Step<'_>) {
        let Some(visit) = &self.scrub.visit else {
            return;
        };
        let (Some(own), Some(theirs)) = (&visit.own, &visit.theirs) else {
            return;
        };
        let differs = |own: &&ShardDigest| {
            let same = theirs
                .iter()
                .find(|t| t.shard == own.shard && t.epoch == own.epoch);
            same.is_some_and(|theirs| theirs.digest != own.digest)
        };
        let differing: ShardSet = own.iter().filter(differs).map(|own| own.shard).collect();
        let (peer, range) = (visit.peer, visit.window.range());
        self.scrub.visit = None;
        self.want_range(peer, differing, range);
        self.tick_copies(step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use trefoil_model::Millis;

    #[test]
    fn every_window_has_its_turn_and_the_newest_more_often() {
        let mut scrub = Scrub::default();
        let window = |day: Millis| Window::containing(day * 24 * 3_600_000);
        scrub.offer((0..200).rev().map(window).collect());
        let visited: Vec<Window> = (0..400).map(|round| scrub.window(round)).collect();
        let all: BTreeSet<Window> = visited.iter().copied().collect();
        assert_eq!(all.len(), 200);
        let newest = visited.iter().filter(|visited| **visited == window(199));
        assert!(newest.count() > 10);
    }
}
