//! All checkers together: what is wrong with a run, and the table of what it did per kind of fault.

use super::{
    Seconds, Span, Timeline, Violation, Violations,
    availability::{self, AvailabilityFindings},
    coverage, digests, form, register,
    set::{self, SetFindings, Sighting},
};
use crate::history::{Action, Fault, History, Micros, Numbered, Operation, Outcome, Run};
use anyhow::Context;
use serde::Serialize;
use std::{collections::HashMap, fmt, path::Path};

/// The row of what happened while no fault was in force.
const QUIET: &str = "(none)";

/// What a run did while faults of one kind were in force. What overlaps faults of two kinds stands in both rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The kind of fault.
    pub kind: String,
    /// How many of them struck something.
    pub faults: u64,
    /// Operations of all clients.
    pub operations: u64,
    /// Elements that were acknowledged.
    pub acknowledged: u64,
    /// Acknowledged elements that last answers lack; each stands at the fault during which, or after which, it was
    /// first missing.
    pub lost: u64,
    /// Elements in answers that were never begun, and strange samples.
    pub phantom: u64,
    /// Answers that lacked acknowledged elements without saying so.
    pub incomplete_silent: u64,
    /// Answers that said that they are incomplete.
    pub incomplete_declared: u64,
    /// The longest error window at a node that was not struck, microseconds; of the time without faults: before the
    /// first one; of the total: over all kinds.
    pub window_untouched: Micros,
    /// The longest error window at any node.
    pub window_anywhere: Micros,
}

/// Whether a run kept all promises, and what it did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// What was asked for.
    pub run: Run,
    /// Everything that must not be: the first of every checker.
    pub violations: Vec<Violation>,
    /// How many there were, also of those that are not in `violations`.
    pub violations_count: u64,
    /// Kinds of faults: those asked for in their order, then others, then the time without any.
    pub rows: Vec<Row>,
    /// The whole run; what stands in several rows counts once.
    pub total: Row,
}

/// Runs all checkers.
#[must_use]
pub fn check(history: &History) -> Verdict {
    let timeline = Timeline::new(history);
    let found = set::check(history);
    let windows = availability::check(history, &timeline);
    let mut table = Table::new(history, &timeline);
    table.count_operations(history);
    table.count_set(&found);
    table.measure(&windows);
    let (rows, total) = table.finish();
    let all = [
        form::check(history),
        found.violations,
        register::check(history),
        digests::check(history),
        windows.violations,
        coverage::check(history, &timeline),
    ];
    Verdict {
        run: history.run.clone(),
        violations_count: all.iter().map(Violations::count).sum(),
        violations: all.iter().flat_map(Violations::kept).cloned().collect(),
        rows,
        total,
    }
}

/// Reads a history and runs all checkers.
///
/// # Errors
/// When it cannot be read or is no history; see [`History::read`].
pub fn check_file(path: &Path) -> anyhow::Result<Verdict> {
    Ok(check(&History::read(path).context("read a history")?))
}

impl Verdict {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.violations_count == 0
    }

    /// What a program that printed the verdict ends with: 0 or 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        u8::from(!self.is_good())
    }

    /// For programs: one object, indented.
    ///
    /// # Errors
    /// Never in practice: all of it is plain data.
    pub fn to_json(&self) -> anyhow::Result<String> {
        serde_json::to_string_pretty(self).context("write a verdict as JSON")
    }
}

/// For a terminal.
impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let run = &self.run;
        writeln!(
            out,
            "seed {}, {} nodes ({}), workloads {}, {}\n",
            run.seed,
            run.nodes.len(),
            run.hosts,
            run.workloads.join(" "),
            Seconds(run.duration),
        )?;
        let all = self.rows.iter().chain([&self.total]);
        let cells: Vec<_> = [HEADS.map(str::to_owned)]
            .into_iter()
            .chain(all.map(Row::cells))
            .collect();
        for row in &cells {
            write_row(out, &cells, row)?;
        }
        writeln!(out)?;
        for violation in &self.violations {
            writeln!(out, "VIOLATION {}: {}", violation.checker, violation.text)?;
        }
        match self.violations_count - self.violations.len() as u64 {
            0 => {}
            more => writeln!(out, "and {more} more")?,
        }
        match self.violations_count {
            0 => writeln!(out, "every promise was kept"),
            1 => writeln!(out, "1 violation"),
            count => writeln!(out, "{count} violations"),
        }
    }
}

const COLUMNS: usize = 10;
const HEADS: [&str; COLUMNS] = [
    "fault",
    "times",
    "operations",
    "acknowledged",
    "lost",
    "phantom",
    "incomplete",
    "declared",
    "untouched",
    "anywhere",
];

impl Row {
    fn cells(&self) -> [String; COLUMNS] {
        [
            self.kind.clone(),
            self.faults.to_string(),
            self.operations.to_string(),
            self.acknowledged.to_string(),
            self.lost.to_string(),
            self.phantom.to_string(),
            self.incomplete_silent.to_string(),
            self.incomplete_declared.to_string(),
            Seconds(self.window_untouched).to_string(),
            Seconds(self.window_anywhere).to_string(),
        ]
    }
}

/// The first column to the left, numbers to the right.
fn write_row(
    out: &mut fmt::Formatter<'_>,
    all: &[[String; COLUMNS]],
    row: &[String; COLUMNS],
) -> fmt::Result {
    for (column, cell) in row.iter().enumerate() {
        let width = all.iter().map(|row| row[column].len()).max().unwrap_or(0);
        match column {
            0 => write!(out, "{cell:width$}")?,
            _ => write!(out, "  {cell:>width$}")?,
        }
    }
    writeln!(out)
}

/// Counts per kind.
struct Table<'a> {
    timeline: &'a Timeline<'a>,
    rows: Vec<Row>,
    places: HashMap<String, usize>,
    total: Row,
}

impl<'a> Table<'a> {
    fn new(history: &History, timeline: &'a Timeline<'a>) -> Self {
        let mut table = Self {
            timeline,
            rows: Vec::new(),
            places: HashMap::new(),
            total: Row {
                kind: "total".to_owned(),
                ..Row::default()
            },
        };
        let happened = timeline.faults().iter().map(|(_, fault)| &fault.kind);
        let quiet = QUIET.to_owned();
        for kind in history.run.faults.iter().chain(happened).chain([&quiet]) {
            if !table.places.contains_key(kind) {
                table.places.insert(kind.clone(), table.rows.len());
                table.rows.push(Row {
                    kind: kind.clone(),
                    ..Row::default()
                });
            }
        }
        for (_, fault) in timeline.faults().iter().filter(|(_, f)| f.struck > 0) {
            table.rows[table.places[&fault.kind]].faults += 1;
            table.total.faults += 1;
        }
        table
    }

    fn count_operations(&mut self, history: &History) {
        for operation in &history.operations {
            let acknowledged = u64::from(is_acknowledged_add(operation));
            self.count(self.in_force(span(operation, self.timeline)), |row| {
                row.operations += 1;
                row.acknowledged += acknowledged;
            });
        }
    }

    fn count_set(&mut self, found: &SetFindings) {
        for Sighting { span, elements } in &found.lost {
            let suspects = self.places_of(self.timeline.suspects(*span));
            self.count(suspects, |row| {
                row.lost = row.lost.saturating_add(*elements)
            });
        }
        for Sighting { span, elements } in &found.phantom {
            let suspects = self.places_of(self.timeline.suspects(*span));
            self.count(suspects, |row| {
                row.phantom = row.phantom.saturating_add(*elements);
            });
        }
        for span in &found.incomplete_silent {
            self.count(self.in_force(*span), |row| row.incomplete_silent += 1);
        }
        for span in &found.incomplete_declared {
            self.count(self.in_force(*span), |row| row.incomplete_declared += 1);
        }
    }

    fn measure(&mut self, windows: &AvailabilityFindings) {
        for ((_, fault), seen) in self.timeline.faults().iter().zip(&windows.by_fault) {
            for row in [&mut self.rows[self.places[&fault.kind]], &mut self.total] {
                row.window_untouched = row.window_untouched.max(seen.untouched);
                row.window_anywhere = row.window_anywhere.max(seen.anywhere);
            }
        }
        let quiet = &mut self.rows[self.places[QUIET]];
        (quiet.window_untouched, quiet.window_anywhere) = (windows.quiet, windows.quiet);
        self.total.window_anywhere = windows.longest;
    }

    fn in_force(&self, span: Span) -> Vec<usize> {
        self.places_of(self.timeline.in_force(span))
    }

    /// Every kind once; the quiet row where there is none.
    fn places_of<'f>(&self, faults: impl IntoIterator<Item = &'f Numbered<Fault>>) -> Vec<usize> {
        let mut places: Vec<usize> = faults
            .into_iter()
            .map(|fault| self.places[&fault.kind])
            .collect();
        places.sort_unstable();
        places.dedup();
        if places.is_empty() {
            places.push(self.places[QUIET]);
        }
        places
    }

    fn count(&mut self, places: Vec<usize>, mut add: impl FnMut(&mut Row)) {
        for place in places {
            add(&mut self.rows[place]);
        }
        add(&mut self.total);
    }

    fn finish(self) -> (Vec<Row>, Row) {
        (self.rows, self.total)
    }
}

fn is_acknowledged_add(operation: &Operation) -> bool {
    matches!(operation.action, Action::Add { .. }) && operation.outcome == Outcome::Done
}

/// From its begin to its end, or to the end of the run.
fn span(operation: &Operation, timeline: &Timeline<'_>) -> Span {
    Span {
        from: operation.invoked,
        to: operation.completed.unwrap_or(timeline.end()),
    }
}
