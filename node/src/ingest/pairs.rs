//! Telling what the sender that does not count has sent, and leaving out the label that tells senders apart.

use crate::{cluster::replicas::Verdict, config::PairSettings};
use std::collections::BTreeSet;
use trefoil_api::remote_write::WriteRequest;
use trefoil_model::{read_varint, write_varint};

/// Pairs and senders in one request; the series of others are refused. A sender writes for itself, so there is
/// usually one.
const SENDERS_MAX: usize = 64;

/// A pair and one of its senders.
pub(crate) type Sender = (String, String);

/// What is stored of a request.
pub(crate) struct Filter<'a> {
    settings: &'a PairSettings,
    verdicts: &'a [(Sender, Verdict)],
}

/// What becomes of a series.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kept<'b> {
    /// It is stored under these labels.
    Stored(&'b [u8]),
    /// Another sender of its pair counts; [`Filter::held`] says of what.
    Held,
    /// It cannot be stored, because of this.
    Refused(String),
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
        Self { settings, verdicts }
    }

    /// How many samples of a request are to be stored.
    pub(crate) fn samples_stored(&self, request: &WriteRequest) -> u64 {
        let mut memory = Vec::new();
        let mut stored = |canonical| matches!(self.keep(canonical, &mut memory), Kept::Stored(_));
        let series = request.series().filter(|series| stored(series.canonical()));
        series.map(|series| series.samples().len() as u64).sum()
    }

    /// What becomes of a series. `memory` may hold the labels under which it is stored.
    pub(crate) fn keep<'b>(&self, canonical: &'b [u8], memory: &'b mut Vec<u8>) -> Kept<'b> {
        let Some(sender) = sender_of(canonical, self.settings) else {
            return Kept::Stored(canonical);
        };
        match self.place_of(sender).map(|place| &self.verdicts[place].1) {
            Some(Verdict::Stored) => {
                self.stored_labels(canonical, memory);
                Kept::Stored(memory)
            }
            Some(Verdict::Held) => Kept::Held,
            Some(Verdict::Refused(reason)) => Kept::Refused(reason.clone()),
            None => Kept::Refused(format!(
                "the series of the request come from more than {SENDERS_MAX} senders of pairs"
            )),
        }
    }

    /// Whether anything of the request is held back.
    pub(crate) fn holds(&self) -> bool {
        let mut verdicts = self.verdicts.iter();
        verdicts.any(|(_, verdict)| *verdict == Verdict::Held)
    }

    /// The place of the verdict by which a series is held back, if it is; `labels` are then those under which it may be
    /// stored later.
    pub(crate) fn held(&self, canonical: &[u8], labels: &mut Vec<u8>) -> Option<usize> {
        let place = self.place_of(sender_of(canonical, self.settings)?)?;
        if self.verdicts[place].1 != Verdict::Held {
            return None;
        }
        self.stored_labels(canonical, labels);
        Some(place)
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
            Kept::Stored(kept) => Ok(Labels::from_canonical(kept).ok()),
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
        let verdicts = [("d", "a", Verdict::Held), ("c", "a", Verdict::Stored)];
        assert_eq!(kept(&series, &verdicts), Ok(Some(stored.clone())));
        assert_eq!(kept(&series, &[("c", "a", Verdict::Held)]), Ok(None));
        let (settings, labels) = (PairSettings::default(), Labels::from_pairs(series));
        let sender = |pair: &str| (pair.to_owned(), "a".to_owned());
        let verdicts = [(sender("d"), Verdict::Stored), (sender("c"), Verdict::Held)];
        let (filter, mut memory) = (Filter::new(&settings, &verdicts), Vec::new());
        assert!(filter.holds());
        assert_eq!(filter.held(labels.canonical(), &mut memory), Some(1));
        assert_eq!(memory, stored.canonical());
        assert_eq!(filter.held(stored.canonical(), &mut memory), None);
        let filter = Filter::new(&settings, &verdicts[..1]);
        assert!(!filter.holds());
        assert_eq!(filter.held(labels.canonical(), &mut memory), None);
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
        let reason = kept(&series, &[("c", "b", Verdict::Stored)]).unwrap_err();
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
