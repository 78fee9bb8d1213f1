//! The workload `set` (D1, D2): elements that were acknowledged before a read was sent are in its answer, elements
//! that were never begun are in none, whichever node was asked and whatever was broken then.
//!
//! For every writer: an answer that does not declare itself incomplete holds every element of the asked range whose
//! acknowledgement came before the read was sent, with all samples; it may hold others that were begun before it was
//! over, whole or in part; and nothing else. At the end, when all adds of the writer and all faults are over, every
//! node gives complete answers that cover everything that the writer ever began.
//!
//! Cost: sorting, plus for every answer the number of its ranges, not of its elements. Twice the same number by one
//! writer is one element (sent again); it is begun with the first and acknowledged with the first acknowledgement.

mod writer;

use super::{
    Seconds, Span, Violations,
    ranges::{Ranges, count, gaps},
};
use crate::history::{History, Micros};
use writer::{Answer, Writer};

/// Acknowledged elements that an answer lacks, as ascending ranges.
type Missing<'m> = dyn Iterator<Item = (u64, u64)> + 'm;

/// Elements that were seen lost or made up in one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// When the answer was asked for and given.
    pub span: Span,
    /// How many elements were seen so for the first time.
    pub elements: u64,
}

/// What the histories of all writers show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetFindings {
    /// What must not be.
    pub violations: Violations,
    /// Acknowledged elements that a last answer lacks, each at the first answer that lacked it.
    pub lost: Vec<Sighting>,
    /// Elements in answers that were not begun, and strange samples, each at its first answer.
    pub phantom: Vec<Sighting>,
    /// Answers that lacked acknowledged elements and did not say so.
    pub incomplete_silent: Vec<Span>,
    /// Answers that said that they are incomplete.
    pub incomplete_declared: Vec<Span>,
}

/// Holds all answers against all acknowledgements.
#[must_use]
pub fn check(history: &History) -> SetFindings {
    let mut findings = SetFindings {
        violations: Violations::none("set"),
        lost: Vec::new(),
        phantom: Vec::new(),
        incomplete_silent: Vec::new(),
        incomplete_declared: Vec::new(),
    };
    let faults_over = history.faults.iter().map(|fault| fault.ended).max();
    for (name, writer) in Writer::all(history) {
        let mut check = WriterCheck {
            history,
            name,
            writer: &writer,
            over: writer.over.max(faults_over.unwrap_or(0)),
            findings: &mut findings,
        };
        let lost = check.check_complete();
        check.report_lost(lost);
        check.check_begun();
        check.check_last();
    }
    let order = |span: &Span| (span.from, span.to);
    findings.lost.sort_by_key(|seen| order(&seen.span));
    findings.phantom.sort_by_key(|seen| order(&seen.span));
    findings.incomplete_silent.sort_by_key(order);
    findings.incomplete_declared.sort_by_key(order);
    findings
}

struct WriterCheck<'a, 'f> {
    history: &'a History,
    name: &'a str,
    writer: &'a Writer<'a>,
    /// When this writer and all faults were over: answers asked for from then on are its last ones.
    over: Micros,
    findings: &'f mut SetFindings,
}

impl<'a> WriterCheck<'a, '_> {
    /// Calls `see` with every answer, by the times at which they were asked for, and with what of the asked
    /// elements had been acknowledged then and is not in it, ascending.
    fn sweep(&mut self, mut see: impl FnMut(&mut Self, &Answer<'a>, &mut Missing<'_>)) {
        let writer = self.writer;
        let mut acknowledged = Ranges::default();
        let mut next = writer.by_acknowledgement().into_iter().peekable();
        for answer in &writer.answers {
            // An acknowledgement in the same microsecond may have come later than the question.
            while let Some((_, number)) = next.next_if(|(at, _)| *at < answer.span.from) {
                acknowledged.insert(number, number);
            }
            let (first, last) = answer.asked;
            let whole = answer.found.whole.iter().copied();
            let mut missing =
                gaps(first, last, whole).flat_map(|(from, to)| acknowledged.within(from, to));
            see(self, answer, &mut missing);
        }
    }

    /// Checks that answers have what was acknowledged before; the elements that the last answer of some node about
    /// them lacks.
    fn check_complete(&mut self) -> Ranges {
        let mut lost = vec![Ranges::default(); self.history.run.nodes.len()];
        self.sweep(|check, answer, missing| {
            if answer.found.declared_incomplete {
                check.findings.incomplete_declared.push(answer.span);
                return;
            }
            let is_last = answer.span.from >= check.over;
            let mut lost = lost.get_mut(answer.node).filter(|_| is_last);
            if let Some(lost) = &mut lost {
                // What an earlier answer lacked and this one has came late, but is not lost.
                lost.remove(answer.asked.0, answer.asked.1);
            }
            let mut first = None;
            let mut elements = 0;
            for range in missing {
                first = first.or(Some(range.0));
                elements += count(range);
                if let Some(lost) = &mut lost {
                    lost.insert(range.0, range.1);
                }
            }
            if let Some(first) = first {
                check.findings.incomplete_silent.push(answer.span);
                check.report_missing(answer, elements, first);
            }
        });
        let mut anywhere = Ranges::default();
        for (first, last) in lost.iter().flat_map(|lost| lost.within(0, u64::MAX)) {
            anywhere.insert(first, last);
        }
        anywhere
    }

    fn report_missing(&mut self, answer: &Answer<'_>, elements: u64, first: u64) {
        let place = self.place(answer);
        let add = self.writer.elements.get(&first);
        let known = add.and_then(|add| add.acknowledged);
        let partial = answer.found.partial.contains(&first);
        let violations = &mut self.findings.violations;
        violations.push(Some(answer.span.from), || {
            let state = if partial { "there in part" } else { "missing" };
            let (at, line) = known.unwrap_or_default();
            let at = Seconds(at);
            format!(
                "{place} lacks {elements} acknowledged elements and does not say so; number {first} is {state}, \
                 acknowledged at {at} (line {line})"
            )
        });
    }

    /// Checks that answers have nothing that was not begun before they were given.
    fn check_begun(&mut self) {
        let mut begun = Ranges::default();
        let mut phantoms = Ranges::default();
        let mut next = self.writer.by_begin().into_iter().peekable();
        let mut answers: Vec<&Answer<'_>> = self.writer.answers.iter().collect();
        answers.sort_by_key(|answer| (answer.span.to, answer.line));
        for answer in answers {
            while let Some((_, number)) = next.next_if(|(at, _)| *at <= answer.span.to) {
                begun.insert(number, number);
            }
            let parts = answer.found.partial.iter().map(|number| (*number, *number));
            let there = answer.found.whole.iter().copied().chain(parts);
            let never: Vec<(u64, u64)> = there
                .flat_map(|(first, last)| begun.missing(first, last))
                .collect();
            let new = never
                .iter()
                .map(|(first, last)| phantoms.insert(*first, *last));
            let new: u64 = new.sum();
            let elements = new.saturating_add(answer.found.strange.len() as u64);
            if elements > 0 {
                let span = answer.span;
                self.findings.phantom.push(Sighting { span, elements });
            }
            self.report_never_begun(answer, &never);
        }
    }

    fn report_never_begun(&mut self, answer: &Answer<'_>, never: &[(u64, u64)]) {
        if never.is_empty() && answer.found.strange.is_empty() {
            return;
        }
        let place = self.place(answer);
        let violations = &mut self.findings.violations;
        if let Some((first, _)) = never.first() {
            let elements: u64 = never.iter().map(|range| count(*range)).sum();
            violations.push(Some(answer.span.to), || {
                format!(
                    "{place} has {elements} elements that were not begun before it was given; the first is number {first}"
                )
            });
        }
        if !answer.found.strange.is_empty() {
            violations.push(Some(answer.span.to), || {
                format!(
                    "{place} has strange samples: {}",
                    answer.found.strange.join("; ")
                )
            });
        }
    }

    /// Checks that every node's last answers cover all that was ever begun.
    fn check_last(&mut self) {
        let Some(greatest) = self.writer.elements.keys().next_back() else {
            return;
        };
        let mut covered = vec![Ranges::default(); self.history.run.nodes.len()];
        for answer in &self.writer.answers {
            let last = answer.span.from >= self.over && !answer.found.declared_incomplete;
            if let Some(covered) = covered.get_mut(answer.node).filter(|_| last) {
                covered.insert(answer.asked.0, answer.asked.1);
            }
        }
        for (node, covered) in covered.iter().enumerate() {
            let Some((first, last)) = covered.missing(0, *greatest).next() else {
                continue;
            };
            let (name, over) = (self.history.node_name(node), Seconds(self.over));
            let writer = self.name;
            self.findings.violations.push(None, || {
                format!(
                    "{name} gave no complete last answer with elements {first} to {last} of writer {writer} (one asked for \
                     after {over}, when its adds and all faults were over)"
                )
            });
        }
    }

    /// Gives each lost element to the first answer that lacked it.
    fn report_lost(&mut self, mut lost: Ranges) {
        let all = lost.count();
        if all == 0 {
            return;
        }
        let mut first = None;
        self.sweep(|check, answer, missing| {
            if answer.found.declared_incomplete {
                return;
            }
            let elements = missing.map(|(from, to)| lost.remove(from, to)).sum();
            if elements > 0 {
                let span = answer.span;
                first.get_or_insert_with(|| (span.from, check.place(answer)));
                check.findings.lost.push(Sighting { span, elements });
            }
        });
        let (at, place) = first.unwrap_or_default();
        let writer = self.name;
        self.findings.violations.push(Some(at), || {
            format!(
                "{all} acknowledged elements of writer {writer} are lost: the last answer of a node lacks them; the first to lack some was \
                 {place}"
            )
        });
    }

    fn place(&self, answer: &Answer<'_>) -> String {
        let (line, name) = (answer.line, self.history.node_name(answer.node));
        let (writer, asked) = (self.name, Seconds(answer.span.from));
        format!("the answer of line {line} ({name}, writer {writer}, asked for at {asked})")
    }
}
