//! Telling what the sender that does not count has sent, and leaving out the label that tells senders apart.

use crate::{cluster::replicas::Verdict, config::PairSettings};
use std::{collections::BTreeSet, ops::RangeInclusive};
use trefoil_api::remote_write::{SeriesRef, WriteRequest};
use trefoil_model::{Millis, read_varint, write_varint};

/// Pairs and senders in one request; the series of others are refused. A sender writes for itself, so there is
/// usually one.
const SENDERS_MAX: usize = 64;

/// A pair and one of its senders.
pub(crate) type Sender = (String, String);

/// What is stored of a request.
pub(crate) struct Filter<'a> {
    settings: &'a PairSettings,
    verdicts: &'a [(Sender, Verdict)],
    /// Whether what senders that count send from before their election is stored as it comes.
    stores_late: bool,
}

/// What becomes of a series.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kept<'b> {
    /// It is stored under these labels, but for samples of these times, which are held back.
    Stored(&'b [u8], HeldTimes),
    /// Another sender of its pair counts; [`Filter::held`] says of what.
    Held,
    /// It cannot be stored, because of this.
    Refused(String),
}

/// From when until when samples are held back of a series that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeldTimes {
    from: Millis,
    until: Millis,
}

/// What is held back of a series.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HeldBack {
    /// The place of its sender's verdict.
    pub(crate) place: usize,
    /// Samples of these times are held.
    pub(crate) times: RangeInclusive<Millis>,
    /// Whether its sender does not count. Then those of other times are left out: comparing them would be about all times between.
    /// Of one that counts they are stored as they come.
    pub(crate) is_all: bool,
}

impl HeldTimes {
    /// No times.
    pub(crate) const NONE: Self = Self {
        from: Millis::MAX,
        until: Millis::MIN,
    };

    pub(crate) fn contain(&self, time: Millis) -> bool {
        (self.from..=self.until).contains(&time)
    }
}

/// Name and value of a label.
type LabelRef<'a> = (&'a [u8], &'a [u8]);

/// The senders of a request's series, each once, as many as a request may have.
pub(crate) fn senders_of(request: &WriteRequest, settings: &PairSettings) -> BTreeSet<Sender> {
    let mut senders = BTreeSet::new();
    let mut last: Option<(&[u8], &[u8])> = None;
    for series in request.series() {
        let sender = sender_of(series.canonical(), settings);
        if sender == last {
            continue;
        }
        last = sender;
        if let Some((pair, replica)) = sender {
            // Labels were checked to be UTF-8.
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            senders.insert((text(pair), text(replica)));
        }
        if senders.len() == SENDERS_MAX {
            break;
        }
    }
    senders
}

impl<'a> Filter<'a> {
    /// Keeps what has no sender, and what is to be stored by these verdicts.
    pub(crate) fn new(settings: &'a PairSettings, verdicts: &'a [(Sender, Verdict)]) -> Self {
        Self {
            settings,
            verdicts,
            stores_late: false,
        }
    }

    /// Has what senders that count send from before their election stored as it comes, as if nothing were held.
    pub(crate) fn store_late(&mut self) {
        self.stores_late = true;
    }

    /// Whether the request has samples that are held though their sender counts.
    pub(crate) fn has_late(&self, request: &WriteRequest) -> bool {
        // Mostly nobody has taken another one's place.
        let may_have = self.late_senders().next().is_some();
        may_have
            && request
                .series()
                .any(|series| self.late_of(&series).next().is_some())
    }

    /// How many those are.
    pub(crate) fn samples_late(&self, request: &WriteRequest) -> u64 {
        let of_series = request.series().map(|series| self.late_of(&series).count());
        of_series.sum::<usize>() as u64
    }

    /// The times of samples of a series that are held though its sender counts.
    fn late_of<'r>(&self, series: &SeriesRef<'r>) -> impl Iterator<Item = Millis> + use<'r> {
        let sender = sender_of(series.canonical(), self.settings);
        let place = sender.and_then(|sender| self.place_of(sender));
        let held = match place.map(|place| &self.verdicts[place].1) {
            Some(Verdict::Stored(until)) => self.held_times(*until),
            _ => HeldTimes::NONE,
        };
        let times = series.samples().iter().map(|(time, _)| *time);
        times.filter(move |time| held.contain(*time))
    }

    /// The senders that count of which there may be samples that are held.
    pub(crate) fn late_senders(&self) -> impl Iterator<Item = &'a Sender> {
        let late = self.verdicts.iter().filter(|(_, verdict)| match verdict {
            Verdict::Stored(until) => self.held_times(*until) != HeldTimes::NONE,
            Verdict::Held | Verdict::Refused(_) => false,
        });
        late.map(|(sender, _)| sender)
    }

    /// Until when others were accepted, of a sender that counts.
    pub(crate) fn others_until(&self, place: usize) -> Option<Millis> {
        match self.verdicts[place].1 {
            Verdict::Stored(until) => Some(until),
            Verdict::Held | Verdict::Refused(_) => None,
        }
    }

    /// How many samples of a request are stored, sooner or later, because their sender counts.
    pub(crate) fn samples_stored(&self, request: &WriteRequest) -> u64 {
        let mut memory = Vec::new();
        let of_series =
            request
                .series()
                .map(|series| match self.keep(series.canonical(), &mut memory) {
                    Kept::Stored(..) => series.samples().len() as u64,
                    Kept::Held | Kept::Refused(_) => 0,
                });
        of_series.sum()
    }

    /// What becomes of a series. `memory` may hold the labels under which it is stored.
    pub(crate) fn keep<'b>(&self, canonical: &'b [u8], memory: &'b mut Vec<u8>) -> Kept<'b> {
        let Some(sender) = sender_of(canonical, self.settings) else {
            return Kept::Stored(canonical, HeldTimes::NONE);
        };
        match self.place_of(sender).map(|place| &self.verdicts[place].1) {
            Some(Verdict::Stored(until)) => {
                self.stored_labels(canonical, memory);
                Kept::Stored(memory, self.held_times(*until))
            }
            Some(Verdict::Held) => Kept::Held,
            Some(Verdict::Refused(reason)) => Kept::Refused(reason.clone()),
            None => Kept::Refused(format!(
                "the series of the request come from more than {SENDERS_MAX} senders of pairs"
            )),
        }
    }

    /// Whether a sender of the request does not count.
    pub(crate) fn holds(&self) -> bool {
        let mut verdicts = self.verdicts.iter();
        verdicts.any(|(_, verdict)| *verdict == Verdict::Held)
    }

    /// What is held back of a series at this time; `labels` are then those under which it may be stored later.
    pub(crate) fn held(
        &self,
        canonical: &[u8],
        labels: &mut Vec<u8>,
        now: Millis,
    ) -> Option<HeldBack> {
        let place = self.place_of(sender_of(canonical, self.settings)?)?;
        let (times, is_all) = match &self.verdicts[place].1 {
            Verdict::Held => {
                let newest = now + self.settings.ahead().as_millis() as Millis;
                (now - self.kept()..=newest, true)
            }
            Verdict::Stored(until) => match self.held_times(*until) {
                HeldTimes::NONE => return None,
                held => (held.from..=held.until, false),
            },
            Verdict::Refused(_) => return None,
        };
        self.stored_labels(canonical, labels);
        Some(HeldBack {
            place,
            times,
            is_all,
        })
    }

    /// Which samples of a sender that counts are held back, when others may have sent until this time. Older ones than can be
    /// held are stored as they come, and where nothing is held all are: left out they would be lost.
    fn held_times(&self, until: Millis) -> HeldTimes {
        if !self.settings.holds() || self.stores_late || until == Millis::MIN {
            return HeldTimes::NONE;
        }
        let from = until - self.kept();
        HeldTimes { from, until }
    }

    fn kept(&self) -> Millis {
        self.settings.kept().as_millis() as Millis
    }

    /// The sender of the verdict at a place.
    pub(crate) fn sender(&self, place: usize) -> &Sender {
        &self.verdicts[place].0
    }

    fn place_of(&self, (pair, replica): LabelRef<'_>) -> Option<usize> {
        let is_sender =
            |((p, r), _): &(Sender, Verdict)| (p.as_bytes(), r.as_bytes()) == (pair, replica);
        self.verdicts.iter().position(is_sender)
    }

    /// Writes the labels without that of the sender.
    fn stored_labels(&self, canonical: &[u8], memory: &mut Vec<u8>) {
        memory.clear();
        let label = self.settings.replica_label.as_bytes();
        for (name, value) in labels_of(canonical).filter(|(name, _)| *name != label) {
            for text in [name, value] {
                write_varint(memory, text.len() as u64);
                memory.extend_from_slice(text);
            }
        }
    }
}

/// The pair and the sender of a series that has both.
fn sender_of<'a>(canonical: &'a [u8], settings: &PairSettings) -> Option<LabelRef<'a>> {
    let find = |wanted: &str| {
        let mut labels = labels_of(canonical);
        labels.find(|(name, _)| *name == wanted.as_bytes())
    };
    let (_, replica) = find(&settings.replica_label)?;
    let (_, pair) = find(&settings.cluster_label)?;
    Some((pair, replica))
}

/// The value of a label of canonical bytes; empty when there is none.
pub(crate) fn value_of<'a>(canonical: &'a [u8], name: &str) -> &'a [u8] {
    let mut labels = labels_of(canonical);
    let found = labels.find(|(own, _)| *own == name.as_bytes());
    found.map_or(&[], |(_, value)| value)
}

/// The labels of canonical bytes, which were checked when they came in.
fn labels_of(canonical: &[u8]) -> impl Iterator<Item = LabelRef<'_>> {
    let mut at = 0;
    let mut text = move || {
        let length = usize::try_from(read_varint(canonical, &mut at)?).ok()?;
        let text = canonical.get(at..at.checked_add(length)?)?;
        at += length;
        Some(text)
    };
    std::iter::from_fn(move || Some((text()?, text()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_api::{ApiLimits, remote_write::Sample};
    use trefoil_model::Labels;

    /// The labels under which a series is stored.
    fn kept(
        labels: &[(&str, &str)],
        verdicts: &[(&str, &str, Verdict)],
    ) -> Result<Option<Labels>, String> {
        let settings = PairSettings::default();
        let own = |(pair, replica, verdict): &(&str, &str, Verdict)| {
            let sender = ((*pair).to_owned(), (*replica).to_owned());
            (sender, verdict.clone())
        };
        let verdicts: Vec<_> = verdicts.iter().map(own).collect();
        let labels = Labels::from_pairs(labels.iter().copied());
        let mut memory = Vec::new();
        match Filter::new(&settings, &verdicts).keep(labels.canonical(), &mut memory) {
            Kept::Stored(kept, _) => Ok(Labels::from_canonical(kept).ok()),
            Kept::Held => Ok(None),
            Kept::Refused(reason) => Err(reason),
        }
    }

    #[test]
    fn the_label_of_the_sender_goes_and_what_others_sent_too() {
        let series = [
            ("__name__", "up"),
            ("__replica__", "a"),
            ("cluster", "c"),
            ("job", "x"),
        ];
        let stored = Labels::from_pairs([("__name__", "up"), ("cluster", "c"), ("job", "x")]);
        let stored_always = Verdict::Stored(Millis::MIN);
        let verdicts = [("d", "a", Verdict::Held), ("c", "a", stored_always.clone())];
        assert_eq!(kept(&series, &verdicts), Ok(Some(stored.clone())));
        assert_eq!(kept(&series, &[("c", "a", Verdict::Held)]), Ok(None));
        let (settings, labels) = (PairSettings::default(), Labels::from_pairs(series));
        let sender = |pair: &str| (pair.to_owned(), "a".to_owned());
        let verdicts = [(sender("d"), stored_always), (sender("c"), Verdict::Held)];
        let (filter, mut memory) = (Filter::new(&settings, &verdicts), Vec::new());
        assert!(filter.holds());
        let now = 1_000_000;
        let held = HeldBack {
            place: 1,
            times: 400_000..=1_007_500,
            is_all: true,
        };
        assert_eq!(
            filter.held(labels.canonical(), &mut memory, now),
            Some(held)
        );
        assert_eq!(memory, stored.canonical());
        assert_eq!(value_of(&memory, "job"), b"x");
        assert_eq!(value_of(&memory, "__replica__"), b"");
        assert_eq!(filter.held(stored.canonical(), &mut memory, now), None);
        let filter = Filter::new(&settings, &verdicts[..1]);
        assert!(!filter.holds());
        assert_eq!(filter.held(labels.canonical(), &mut memory, now), None);
    }

    /// Settings with which requests are held.
    fn holding() -> PairSettings {
        PairSettings {
            accepted: true,
            held_bytes_max: 1,
            ..PairSettings::default()
        }
    }

    #[test]
    fn where_nothing_is_held_all_of_a_sender_that_counts_is_stored() {
        let settings = PairSettings {
            held_bytes_max: 0,
            ..holding()
        };
        let verdicts = [(("c".to_owned(), "a".to_owned()), Verdict::Stored(2_000_000))];
        let filter = Filter::new(&settings, &verdicts);
        let series = [("__name__", "up"), ("__replica__", "a"), ("cluster", "c")];
        let labels = Labels::from_pairs(series);
        let stored = Labels::from_pairs([("__name__", "up"), ("cluster", "c")]);
        let mut memory = Vec::new();
        assert_eq!(filter.held(labels.canonical(), &mut memory, 0), None);
        let kept = filter.keep(labels.canonical(), &mut memory);
        assert_eq!(kept, Kept::Stored(stored.canonical(), HeldTimes::NONE));
        let mut request = WriteRequest::default();
        let samples = [1, 1_999_999, 2_000_000, 2_000_001].map(|time| Sample::float(time, 1.0));
        let pushed =
            request.push_samples(&mut series.clone(), samples, &ApiLimits::default().write);
        pushed.expect("a small request");
        assert_eq!(filter.samples_stored(&request), 4);
        assert!(!filter.has_late(&request));
    }

    #[test]
    fn of_a_sender_that_took_another_ones_place_old_samples_are_held() {
        let settings = holding();
        let verdicts = [(("c".to_owned(), "a".to_owned()), Verdict::Stored(2_000_000))];
        let mut filter = Filter::new(&settings, &verdicts);
        let series = [("__name__", "up"), ("__replica__", "a"), ("cluster", "c")];
        let labels = Labels::from_pairs(series);
        let mut memory = Vec::new();
        let held = HeldBack {
            place: 0,
            times: 1_400_000..=2_000_000,
            is_all: false,
        };
        assert_eq!(filter.held(labels.canonical(), &mut memory, 0), Some(held));
        assert!(!filter.holds(), "it counts");
        let mut request = WriteRequest::default();
        // Older ones than can be held are stored as they come.
        let times = [1_399_999, 1_400_000, 2_000_000, 2_000_001];
        let samples = times.map(|time| Sample::float(time, 1.0));
        let pushed =
            request.push_samples(&mut series.clone(), samples, &ApiLimits::default().write);
        pushed.expect("a small request");
        // What is held is charged when it comes.
        assert_eq!(filter.samples_stored(&request), 4);
        assert!(filter.has_late(&request));
        assert!(filter.late_senders().eq([&verdicts[0].0]));
        let direct = |filter: &Filter<'_>, memory: &mut Vec<u8>| {
            let Kept::Stored(_, held) = filter.keep(labels.canonical(), memory) else {
                panic!("it counts");
            };
            times.map(|time| !held.contain(time))
        };
        assert_eq!(direct(&filter, &mut memory), [true, false, false, true]);
        // Without room all is stored as it comes.
        filter.store_late();
        assert_eq!(direct(&filter, &mut memory), [true; 4]);
        assert!(!filter.has_late(&request));
    }

    #[test]
    fn refusals_are_of_series() {
        let series = [("__name__", "up"), ("__replica__", "a"), ("cluster", "c")];
        let refused = Verdict::Refused("no room".to_owned());
        assert_eq!(
            kept(&series, &[("c", "a", refused)]),
            Err("no room".to_owned())
        );
        // Of senders beyond the bound nobody was asked.
        let reason = kept(&series, &[("c", "b", Verdict::Stored(0))]).unwrap_err();
        assert!(reason.contains("more than 64 senders"), "{reason}");
    }

    #[test]
    fn series_without_both_labels_stay_as_they_are() {
        for series in [
            &[("__name__", "up")][..],
            &[("__name__", "up"), ("cluster", "c")],
            &[("__name__", "up"), ("__replica__", "a")],
        ] {
            let stored = Labels::from_pairs(series.iter().copied());
            assert_eq!(kept(series, &[]), Ok(Some(stored)));
        }
    }
}
