//! Answers to parts in pieces: an answer is cut along its times, and pieces of several answers are put together again.
//!
//! The whole of the pieces of one answer is that answer. The whole of pieces of different answers is the answer for all of their
//! times, as long as the part is [divisible](crate::Divided), the samples were the same, and nothing was said that depends on other
//! times ([`Worked::is_divisible`]). Rows of several series that have lost their names can be the same row in the whole, which is
//! what the coordinator makes of them, too.

use crate::{
    Annotations, Budget, PartBody, PartOutput, PartResult, QueryError,
    evaluate::{
        group_bytes,
        said::{Kinds, Said},
    },
    merge,
    pace::{LOOKS_OF_ROW, Pace},
    partial::{GroupColumn, GroupPartial},
    row::{ABSENT, Histograms, Row},
};
use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};
use trefoil_model::Labels;

/// An answer to a part, with what was said about stretches of its times.
#[derive(Clone, Debug)]
pub struct Worked {
    /// The answer.
    pub result: PartResult,
    pub(crate) said: Said,
}

/// An answer to a part at some of its times.
#[derive(Clone, Debug)]
pub struct Piece {
    steps: usize,
    body: PartBody,
    annotations: Annotations,
    kinds: Kinds,
}

impl Worked {
    /// Puts the answers for disjoint series together, as [`merge`] does.
    ///
    /// # Errors
    /// As there.
    pub fn merge(all: Vec<Self>, budget: &Budget) -> Result<Self, QueryError> {
        let mut said: Option<Said> = None;
        let mut results = Vec::with_capacity(all.len());
        for one in all {
            match &mut said {
                None => said = Some(one.said),
                Some(said) => said.merge(one.said),
            }
            results.push(one.result);
        }
        Ok(Self {
            result: merge(results, budget)?,
            said: said.unwrap_or_default(),
        })
    }

    /// Whether pieces of the answer can be put together with others.
    #[must_use]
    pub fn is_divisible(&self) -> bool {
        let is_unique = match &self.result.body {
            PartBody::Rows(rows) => are_unique(rows),
            PartBody::Groups(_) => true,
            PartBody::Samples(_) => false,
        };
        is_unique && !self.said.is_blurred && !self.said.kinds.are_mixed()
    }

    /// The answer in one piece.
    #[must_use]
    pub fn into_piece(self, steps: usize) -> Piece {
        Piece {
            steps,
            body: self.result.body,
            annotations: self.result.annotations,
            kinds: self.said.kinds,
        }
    }

    /// The answer at the times of the stretch with this number, among those that it was worked out for.
    #[must_use]
    pub fn piece(&self, stretch: usize, steps: Range<usize>) -> Piece {
        let annotations = self.said.of_stretches().get(stretch);
        Piece {
            steps: steps.len(),
            body: slice(&self.result.body, steps),
            annotations: annotations.cloned().unwrap_or_default(),
            kinds: self.said.kinds,
        }
    }

    /// The memory that the answer takes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        body_bytes(&self.result.body) + self.result.annotations.bytes()
    }
}

impl Piece {
    /// How many times it is about.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Whether something is said about it, maybe because of any of its times, so that it can only be had as a whole.
    #[must_use]
    pub fn is_remarked_upon(&self) -> bool {
        !self.annotations.is_empty()
    }

    /// The memory that it takes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + body_bytes(&self.body) + self.annotations.bytes()
    }
}

impl PartResult {
    /// Holds in the budget what the answer would have held when it was worked out.
    ///
    /// # Errors
    /// Those of [`Budget::hold`] and [`Budget::hold_bytes`].
    pub fn hold(&self, output: PartOutput, budget: &Budget) -> Result<(), QueryError> {
        match &self.body {
            PartBody::Groups(_) if output == PartOutput::Presence => {}
            PartBody::Groups(groups) => {
                for group in groups {
                    budget.hold(group.column.len())?;
                    let bytes = group_bytes(&group.labels, group.column.len());
                    budget.hold_bytes(bytes + group.histograms.bytes())?;
                }
            }
            PartBody::Rows(rows) => {
                for row in rows {
                    budget.hold(row.samples())?;
                    budget.hold_bytes(row.bytes())?;
                }
            }
            PartBody::Samples(_) => {}
        }
        Ok(())
    }
}

/// Whether no two rows have the same labels.
fn are_unique(rows: &[Row]) -> bool {
    // What was selected at a single time is not in order.
    rows.is_sorted_by(|a, b| a.labels < b.labels) || {
        let mut seen = HashSet::with_capacity(rows.len());
        rows.iter().all(|row| seen.insert(&row.labels))
    }
}

fn body_bytes(body: &PartBody) -> usize {
    match body {
        PartBody::Rows(rows) => rows.iter().map(Row::bytes).sum(),
        PartBody::Groups(groups) => {
            let bytes = |group: &GroupPartial| {
                let states = match &group.column {
                    GroupColumn::Avg(states) => size_of_val(&states[..]),
                    _ => 0,
                };
                group_bytes(&group.labels, group.column.len()) + states + group.histograms.bytes()
            };
            groups.iter().map(bytes).sum()
        }
        PartBody::Samples(_) => 0,
    }
}

/// What a body has at some of its times.
fn slice(body: &PartBody, steps: Range<usize>) -> PartBody {
    match body {
        PartBody::Rows(rows) => {
            let slice = |row: &Row| {
                let values = &row.values[steps.clone()];
                let row = Row {
                    labels: row.labels.clone(),
                    drop_name: row.drop_name,
                    values: values.to_vec(),
                    histograms: row.histograms.slice(steps.clone()),
                };
                (!row.is_empty()).then_some(row)
            };
            PartBody::Rows(rows.iter().filter_map(slice).collect())
        }
        PartBody::Groups(groups) => {
            let slice = |group: &GroupPartial| {
                let histograms = group.histograms.slice(steps.clone());
                if histograms.is_empty() && group.column.has_no_member(steps.clone()) {
                    return None;
                }
                Some(GroupPartial {
                    labels: group.labels.clone(),
                    drop_name: group.drop_name,
                    column: group.column.slice(steps.clone()),
                    histograms,
                })
            };
            PartBody::Groups(groups.iter().filter_map(slice).collect())
        }
        PartBody::Samples(_) => PartBody::Samples(Vec::new()),
    }
}

/// Puts pieces together that follow each other: of each the times that are wanted, which make `steps` together. `None`: they do not
/// make an answer, though each of them is one, or only some times of one are wanted [about which something is
/// said](Piece::is_remarked_upon). What is made holds its bytes of the budget while it grows: many small pieces may come to one
/// large answer.
///
/// # Errors
/// When the budget is exceeded, the query is late or canceled; what was held is then the caller's to release.
pub fn join(
    pieces: &[(&Piece, Range<usize>)],
    steps: usize,
    output: PartOutput,
    budget: &Budget,
) -> Result<Option<PartResult>, QueryError> {
    let mut annotations = Annotations::default();
    let mut kinds = Kinds::default();
    let (mut rows, mut groups) = (Joined::default(), Joined::default());
    let (mut has_rows, mut has_groups) = (false, false);
    let mut start = 0;
    for (piece, wanted) in pieces {
        budget.check()?;
        if piece.is_remarked_upon() && wanted.len() < piece.steps {
            return Ok(None);
        }
        kinds = kinds.union(piece.kinds);
        if !annotations.has_all(&piece.annotations) {
            annotations.merge(piece.annotations.clone());
        }
        let place = (start, wanted.clone(), steps);
        let are_one = match &piece.body {
            PartBody::Rows(list) => {
                has_rows = true;
                rows.add_all(list, &place, budget)?
            }
            PartBody::Groups(list) => {
                has_groups = true;
                groups.add_all(list, &place, budget)?
            }
            PartBody::Samples(_) => false,
        };
        if !are_one {
            return Ok(None);
        }
        start += wanted.len();
    }
    if kinds.are_mixed() || (has_rows && has_groups) || start != steps {
        return Ok(None);
    }
    let mut body = match has_groups {
        true => PartBody::Groups(groups.in_order()),
        false => PartBody::Rows(rows.in_order()),
    };
    if let PartBody::Groups(groups) = &mut body
        && output == PartOutput::Presence
        && groups.is_empty()
    {
        let column = GroupColumn::Group(vec![ABSENT; steps]);
        groups.push(GroupPartial::new(Labels::empty(), column));
    }
    Ok(Some(PartResult { body, annotations }))
}

/// Where a piece goes: behind so many times, the wanted ones of its times, of how many in all.
type Place = (usize, Range<usize>, usize);

/// What pieces have at times that follow each other, by labels.
trait Column: Sized {
    fn labels(&self) -> &Labels;

    /// Whether there is anything at these times.
    fn has(&self, steps: Range<usize>) -> bool;

    /// The same, at so many times at which there is nothing.
    fn emptied(&self, steps: usize) -> Self;

    /// Memory, in bytes.
    fn bytes(&self) -> usize;

    /// Takes what another one has. `false`: it cannot be of the same answer.
    fn take(&mut self, other: &Self, place: &Place) -> bool;
}

struct Joined<T> {
    columns: Vec<T>,
    indexes: HashMap<Labels, usize>,
    /// Which column is probably the next one: most pieces have the same ones.
    next: usize,
}

impl<T> Default for Joined<T> {
    fn default() -> Self {
        Self {
            columns: Vec::new(),
            indexes: HashMap::new(),
            next: 0,
        }
    }
}

impl<T: Column> Joined<T> {
    /// Takes the columns of one piece. `false`: they cannot be of the same answer.
    fn add_all(&mut self, list: &[T], place: &Place, budget: &Budget) -> Result<bool, QueryError> {
        self.next = 0;
        let mut pace = Pace::new(budget);
        for column in list {
            pace.look(LOOKS_OF_ROW + place.1.len())?;
            if !self.add(column, place, budget)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn add(&mut self, column: &T, place: &Place, budget: &Budget) -> Result<bool, QueryError> {
        let (_, wanted, steps) = place;
        if !column.has(wanted.clone()) {
            return Ok(true);
        }
        let labels = column.labels();
        let is_next = |column: &T| column.labels() == labels;
        let mut at = self.next;
        if !self.columns.get(at).is_some_and(is_next) {
            let known = self.indexes.get(labels).copied();
            at = known.unwrap_or(self.columns.len());
            if known.is_none() {
                let emptied = column.emptied(*steps);
                budget.hold_bytes(emptied.bytes())?;
                self.columns.push(emptied);
                self.indexes.insert(labels.clone(), at);
            }
        }
        self.next = at + 1;
        Ok(self.columns[at].take(column, place))
    }

    fn in_order(mut self) -> Vec<T> {
        let columns = &mut self.columns;
        columns.sort_by(|a, b| a.labels().cmp(b.labels()));
        self.columns
    }
}

impl Column for Row {
    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn has(&self, steps: Range<usize>) -> bool {
        let mut values = self.values[steps].iter();
        values.any(|value| !crate::is_absent(*value))
    }

    fn emptied(&self, steps: usize) -> Self {
        Row {
            labels: self.labels.clone(),
            drop_name: self.drop_name,
            values: vec![ABSENT; steps],
            histograms: Histograms::default(),
        }
    }

    fn bytes(&self) -> usize {
        Row::bytes(self)
    }

    fn take(&mut self, other: &Self, (start, wanted, _): &Place) -> bool {
        let to = *start..*start + wanted.len();
        self.values[to].copy_from_slice(&other.values[wanted.clone()]);
        if !other.histograms.is_empty() {
            let histograms = other.histograms.slice(wanted.clone());
            self.histograms.put_all(*start, &histograms);
        }
        self.drop_name == other.drop_name
    }
}

impl Column for GroupPartial {
    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn has(&self, steps: Range<usize>) -> bool {
        !self.column.has_no_member(steps.clone()) || !self.histograms.slice(steps).is_empty()
    }

    fn emptied(&self, steps: usize) -> Self {
        Self {
            drop_name: self.drop_name,
            ..Self::new(self.labels.clone(), self.column.without_members(steps))
        }
    }

    fn bytes(&self) -> usize {
        group_bytes(&self.labels, self.column.len()) + self.histograms.bytes()
    }

    fn take(&mut self, other: &Self, (start, wanted, steps): &Place) -> bool {
        let histograms = other.histograms.slice(wanted.clone());
        if !histograms.is_empty() {
            self.histograms
                .copy(*start, &histograms, 0..wanted.len(), *steps);
        }
        self.drop_name == other.drop_name && self.column.copy(*start, &other.column, wanted.clone())
    }
}
