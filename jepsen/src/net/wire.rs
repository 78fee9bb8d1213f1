//! What one direction of a link does to each packet: pure, from the time, the size and a random source.
//!
//! A wire never holds packets. It says when one is due, and counts what is under way; who holds them
//! asks again at delivery, because the link may have been cut meanwhile. Times are durations since the
//! network's start.
//!
//! Order: packets leave in the order in which they came, whatever the jitter, unless they were chosen for
//! reordering. A change of quality starts anew: packets under way keep their times, later ones may pass
//! them.

use super::{LinkCounts, LinkQuality};
use rand::{RngExt, rngs::StdRng};
use std::time::Duration;

/// What a rate limit lets wait, as time on the wire; more is lost. A home router's buffer, roughly.
const RATE_QUEUE_MAX: Duration = Duration::from_millis(200);
/// For how long a packet that is chosen for reordering is held back.
pub(crate) const REORDER_HOLD: Duration = Duration::from_millis(10);
/// Bytes that may be under way on one direction of a link; more is lost. Two full TCP windows at Linux'
/// defaults of 6 MB would not fit, which is what a long fat link does as well.
pub(crate) const UNDER_WAY_BYTES_MAX: usize = 8 << 20;
/// What a queued packet costs besides its own bytes, so that tiny packets are bounded too.
const PACKET_OVERHEAD_BYTES: usize = 128;
/// What the first loss of a piece of a stream costs: the least time after which Linux sends again.
const RETRANSMISSION: Duration = Duration::from_millis(200);
/// Losses in a row that a piece of a stream suffers at most; they cost 51 s together.
const RETRANSMISSIONS_MAX: u32 = 8;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is lost.
    Lost,
    /// It is handed over now, so many times.
    Now { copies: usize },
    /// It is handed over later, so many times, if [`Wire::deliver`] agrees then.
    Later { due: Duration, copies: usize },
}

/// When a piece of a stream arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// When it is handed over.
    pub(crate) due: Duration,
    /// When the wire takes the next one: later than now when a rate is exhausted.
    pub(crate) next: Duration,
}

/// One direction of a link.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wire {
    quality: LinkQuality,
    counts: LinkCounts,
    /// When the rate limit has let through all that it took.
    line_free: Duration,
    /// When the last packet in order is due.
    last_due: Duration,
    /// How often the wire was cut: what was taken before the last cut is lost.
    cuts: u64,
    /// Packets since the last cut whose time has not come.
    under_way: u64,
    /// What all packets whose time has not come hold in memory, those of before a cut included.
    under_way_bytes: usize,
}

impl Wire {
    /// Changes the quality for all packets that are taken from now on; a cut also loses what is under way.
    ///
    /// # Panics
    /// When a part is not between 0 and 1.
    pub(crate) fn set(&mut self, quality: LinkQuality) {
        for part in [quality.loss, quality.duplicate, quality.reorder] {
            assert!((0.0..=1.0).contains(&part), "{part} is not a part of one");
        }
        if quality.blocked {
            self.cuts += 1;
            self.counts.dropped += std::mem::take(&mut self.under_way);
        }
        self.quality = quality;
        self.line_free = Duration::ZERO;
        self.last_due = Duration::ZERO;
    }

    pub(crate) fn counts(&self) -> LinkCounts {
        self.counts
    }

    /// Names the time between two cuts; what is queued keeps it for [`Wire::deliver`].
    pub(crate) fn cuts(&self) -> u64 {
        self.cuts
    }

    /// Takes a packet of so many bytes.
    pub(crate) fn take(&mut self, now: Duration, bytes: usize, random: &mut StdRng) -> Fate {
        if self.quality.blocked || happens(self.quality.loss, random) {
            return self.lose();
        }
        let Some(sent) = self.pass_rate(now, bytes) else {
            return self.lose();
        };
        let arrival = sent + self.quality.delay + up_to(self.quality.jitter, random);
        let mut due = arrival.max(self.last_due);
        let is_held_back = happens(self.quality.reorder, random);
        if is_held_back {
            due += REORDER_HOLD;
        }
        let copies = 1 + usize::from(happens(self.quality.duplicate, random));
        if due <= now {
            self.count_delivery(copies);
            return Fate::Now { copies };
        }
        if self.under_way_bytes + bytes + PACKET_OVERHEAD_BYTES > UNDER_WAY_BYTES_MAX {
            return self.lose();
        }
        if is_held_back {
            self.counts.reordered += 1;
        } else {
            self.last_due = due;
        }
        self.under_way += 1;
        self.under_way_bytes += bytes + PACKET_OVERHEAD_BYTES;
        self.counts.delayed += 1;
        Fate::Later { due, copies }
    }

    /// Ends the way of a packet that was [`Fate::Later`]; whether it may be handed over.
    pub(crate) fn deliver(&mut self, taken_after_cuts: u64, bytes: usize, copies: usize) -> bool {
        self.under_way_bytes -= bytes + PACKET_OVERHEAD_BYTES;
        if taken_after_cuts != self.cuts {
            return false;
        }
        self.under_way -= 1;
        self.count_delivery(copies);
        true
    }

    /// Takes a piece of a stream, which is never lost: a loss delays it, as TCP would send it again. Pieces
    /// of one stream keep their order; `stream_due` is when its last one is due.
    pub(crate) fn take_piece(
        &mut self,
        now: Duration,
        bytes: usize,
        stream_due: Duration,
        random: &mut StdRng,
    ) -> Piece {
        let mut sent = now;
        if let Some(rate) = self.quality.bytes_per_second {
            self.line_free = now.max(self.line_free) + time_at(rate, bytes);
            sent = self.line_free;
        }
        let mut losses = 0;
        while losses < RETRANSMISSIONS_MAX && happens(self.quality.loss, random) {
            losses += 1;
        }
        let arrival = sent + self.quality.delay + up_to(self.quality.jitter, random);
        let due = stream_due.max(arrival + RETRANSMISSION * ((1 << losses) - 1));
        self.counts.dropped += u64::from(losses);
        self.counts.delayed += u64::from(due > now);
        Piece {
            due,
            next: sent.saturating_sub(RATE_QUEUE_MAX),
        }
    }

    /// Counts a piece of a stream that was handed over.
    pub(crate) fn count_piece(&mut self) {
        self.counts.forwarded += 1;
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.quality.blocked
    }

    pub(crate) fn delay(&self) -> Duration {
        self.quality.delay
    }

    /// When the rate limit has let so many bytes through, or `None` when they would wait for too long.
    fn pass_rate(&mut self, now: Duration, bytes: usize) -> Option<Duration> {
        let Some(rate) = self.quality.bytes_per_second else {
            return Some(now);
        };
        let begin = now.max(self.line_free);
        if begin - now > RATE_QUEUE_MAX {
            return None;
        }
        self.line_free = begin + time_at(rate, bytes);
        Some(self.line_free)
    }

    fn lose(&mut self) -> Fate {
        self.counts.dropped += 1;
        Fate::Lost
    }

    fn count_delivery(&mut self, copies: usize) {
        self.counts.forwarded += 1;
        self.counts.duplicated += copies as u64 - 1;
    }
}

/// What so many bytes take at a rate.
fn time_at(bytes_per_second: u64, bytes: usize) -> Duration {
    Duration::from_secs_f64(bytes as f64 / bytes_per_second.max(1) as f64)
}

/// Whether something that happens so often happens now. Draws nothing for 0, so that a wire without
/// faults costs no randomness.
fn happens(part: f64, random: &mut StdRng) -> bool {
    part > 0.0 && random.random_bool(part)
}

fn up_to(longest: Duration, random: &mut StdRng) -> Duration {
    match longest.is_zero() {
        true => Duration::ZERO,
        false => longest.mul_f64(random.random::<f64>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    const NOW: Duration = Duration::from_secs(100);

    fn wire(quality: LinkQuality) -> (Wire, StdRng) {
        let mut wire = Wire::default();
        wire.set(quality);
        (wire, StdRng::seed_from_u64(1))
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_plain_wire_hands_over_at_once() {
        let (mut wire, mut random) = wire(LinkQuality::default());
        assert_eq!(wire.take(NOW, 1500, &mut random), Fate::Now { copies: 1 });
        let forwarded = LinkCounts {
            forwarded: 1,
            ..LinkCounts::default()
        };
        assert_eq!(wire.counts(), forwarded);
    }

    #[test]
    fn a_cut_loses_what_is_under_way_also_after_healing() {
        let quality = LinkQuality {
            delay: millis(50),
            ..LinkQuality::default()
        };
        let (mut wire, mut random) = wire(quality);
        let taken = wire.cuts();
        let due = NOW + millis(50);
        assert_eq!(
            wire.take(NOW, 10, &mut random),
            Fate::Later { due, copies: 1 }
        );
        wire.set(LinkQuality::cut());
        assert_eq!(wire.counts().dropped, 1);
        assert_eq!(wire.take(NOW, 10, &mut random), Fate::Lost);
        wire.set(LinkQuality::default());
        assert!(!wire.deliver(taken, 10, 1));
        assert_eq!(wire.under_way_bytes, 0);
        let counts = wire.counts();
        assert_eq!((counts.dropped, counts.forwarded), (2, 0));
    }

    #[test]
    fn jitter_keeps_the_order_and_its_bounds() {
        let quality = LinkQuality {
            delay: millis(20),
            jitter: millis(30),
            ..LinkQuality::default()
        };
        let (mut wire, mut random) = wire(quality);
        let (mut last, mut sum) = (Duration::ZERO, Duration::ZERO);
        for packet in 0..1000 {
            let now = NOW + millis(100 * packet);
            let Fate::Later { due, copies: 1 } = wire.take(now, 100, &mut random) else {
                panic!("a delayed packet was not delayed");
            };
            assert!(due >= last);
            assert!(
                due >= now + millis(20) && due <= now + millis(50),
                "{due:?}"
            );
            assert!(wire.deliver(wire.cuts(), 100, 1));
            (last, sum) = (due, sum + (due - now));
        }
        let mean = sum / 1000;
        assert!(mean > millis(33) && mean < millis(37), "{mean:?}");
    }

    #[test]
    fn parts_are_as_wanted() {
        let quality = LinkQuality {
            loss: 0.3,
            duplicate: 0.1,
            reorder: 0.2,
            ..LinkQuality::default()
        };
        let (mut wire, mut random) = wire(quality);
        let mut overtaken = 0;
        for packet in 0..10_000 {
            let now = NOW + Duration::from_millis(packet);
            if let Fate::Later { due, copies } = wire.take(now, 100, &mut random) {
                assert_eq!(due, now + REORDER_HOLD);
                assert!(wire.deliver(wire.cuts(), 100, copies));
                overtaken += 1;
            }
        }
        let counts = wire.counts();
        assert_eq!(counts.forwarded + counts.dropped, 10_000);
        assert!(counts.dropped.abs_diff(3000) < 200, "{counts:?}");
        assert!(counts.duplicated.abs_diff(700) < 100, "{counts:?}");
        assert!(counts.reordered.abs_diff(1400) < 150, "{counts:?}");
        assert_eq!((counts.reordered, counts.delayed), (overtaken, overtaken));
    }

    #[test]
    fn a_rate_spaces_packets_and_loses_what_would_wait_too_long() {
        let quality = LinkQuality {
            bytes_per_second: Some(100_000),
            ..LinkQuality::default()
        };
        let (mut wire, mut random) = wire(quality);
        let fates: Vec<Fate> = (0..100)
            .map(|_| wire.take(NOW, 1000, &mut random))
            .collect();
        let due = |packets: u64| NOW + millis(10 * packets);
        assert_eq!(
            fates[0],
            Fate::Later {
                due: due(1),
                copies: 1
            }
        );
        assert_eq!(
            fates[19],
            Fate::Later {
                due: due(20),
                copies: 1
            }
        );
        // 20 packets of 10 ms fill the 200 ms; one more begins exactly at their end.
        assert_eq!(
            fates[20],
            Fate::Later {
                due: due(21),
                copies: 1
            }
        );
        assert!(fates[21..].iter().all(|fate| *fate == Fate::Lost));
    }

    #[test]
    fn what_is_under_way_is_bounded() {
        let quality = LinkQuality {
            delay: Duration::from_secs(3600),
            ..LinkQuality::default()
        };
        let (mut wire, mut random) = wire(quality);
        let sent = 10 * UNDER_WAY_BYTES_MAX / PACKET_OVERHEAD_BYTES;
        for _ in 0..sent {
            wire.take(NOW, 0, &mut random);
        }
        let kept = UNDER_WAY_BYTES_MAX / PACKET_OVERHEAD_BYTES;
        assert_eq!(wire.counts().delayed, kept as u64);
        assert_eq!(wire.counts().dropped, (sent - kept) as u64);
    }

    #[test]
    fn the_same_seed_gives_the_same_fates() {
        let quality = LinkQuality {
            jitter: millis(5),
            loss: 0.2,
            duplicate: 0.2,
            reorder: 0.2,
            ..LinkQuality::default()
        };
        let run = |seed| {
            let (mut wire, _) = wire(quality);
            let mut random = StdRng::seed_from_u64(seed);
            let fates = (0..100).map(|n| wire.take(NOW + millis(n), 100, &mut random));
            fates.collect::<Vec<Fate>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }
}
