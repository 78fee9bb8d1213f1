//! Binary operators between two vectors: matching of series, per time.
//!
//! Rules: Prometheus, `docs/querying/operators.md`, "vector matching". Series match when the labels that
//! count are equal; at each time at most one series of the "one" side may match.

use super::unify::unify;
use crate::{
    QueryError, Span,
    ast::{Binary, BinaryOp, Cardinality, VectorMatching},
    evaluate::METADATA_LABELS,
    note::Notes,
    operators,
    pace::{LOOKS_OF_HISTOGRAM, LOOKS_OF_ROW, Pace, stretches},
    row::{ABSENT, Cell, Row, is_absent},
};
use std::collections::HashMap;
use trefoil_model::{LABEL_NAME_METRIC, Labels, LabelsBuilder, write_varint};

/// The result of `binary` for the rows of its sides, whose columns are equally long.
///
/// # Errors
/// [`QueryError::Execution`] with Prometheus' texts when matches are ambiguous; those of the pace.
pub(crate) fn join(
    binary: &Binary,
    span: Span,
    left: Vec<Row>,
    right: Vec<Row>,
    delayed: bool,
    notes: &mut Notes,
    pace: &mut Pace<'_>,
) -> Result<Vec<Row>, QueryError> {
    let Some(matching) = &binary.matching else {
        return Err(QueryError::Internal("a join has no matching".into()));
    };
    match binary.op {
        BinaryOp::And => intersect(matching, left, &right, true, pace),
        BinaryOp::Unless => intersect(matching, left, &right, false, pace),
        BinaryOp::Or => {
            let rows = unite(matching, left, right, pace)?;
            unify(rows, pace)
        }
        _ => {
            let mut join = Join::new(binary, matching, &left, &right, delayed);
            join.span = span;
            join.run(notes, pace)
        }
    }
}

/// The bytes that two series share when they match.
fn signature(matching: &VectorMatching, labels: &Labels) -> Vec<u8> {
    let mut key = Vec::new();
    for (name, value) in labels {
        let listed = matching.labels.iter().any(|label| label == name);
        if listed != matching.on || (!matching.on && name == LABEL_NAME_METRIC) {
            continue;
        }
        for text in [name, value] {
            write_varint(&mut key, text.len() as u64);
            key.extend_from_slice(text.as_bytes());
        }
    }
    key
}

/// At which times any row of each signature has a sample.
fn presence(
    matching: &VectorMatching,
    rows: &[Row],
    pace: &mut Pace<'_>,
) -> Result<HashMap<Vec<u8>, Vec<bool>>, QueryError> {
    let mut present: HashMap<Vec<u8>, Vec<bool>> = HashMap::new();
    for row in rows {
        pace.look(row.looks())?;
        let times = present
            .entry(signature(matching, &row.labels))
            .or_insert_with(|| vec![false; row.values.len()]);
        for (present, value) in times.iter_mut().zip(&row.values) {
            *present |= !is_absent(*value);
        }
    }
    Ok(present)
}

fn intersect(
    matching: &VectorMatching,
    mut left: Vec<Row>,
    right: &[Row],
    keep_matches: bool,
    pace: &mut Pace<'_>,
) -> Result<Vec<Row>, QueryError> {
    let present = presence(matching, right, pace)?;
    for row in &mut left {
        pace.look(row.looks())?;
        let times = present.get(&signature(matching, &row.labels));
        for (at, value) in row.values.iter_mut().enumerate() {
            if times.is_some_and(|times| times[at]) != keep_matches {
                *value = ABSENT;
            }
        }
    }
    left.retain(|row| !row.is_empty());
    left.iter_mut().for_each(Row::tidy);
    Ok(left)
}

fn unite(
    matching: &VectorMatching,
    mut left: Vec<Row>,
    right: Vec<Row>,
    pace: &mut Pace<'_>,
) -> Result<Vec<Row>, QueryError> {
    let present = presence(matching, &left, pace)?;
    for mut row in right {
        pace.look(row.looks())?;
        if let Some(times) = present.get(&signature(matching, &row.labels)) {
            for (value, _) in row.values.iter_mut().zip(times).filter(|(_, p)| **p) {
                *value = ABSENT;
            }
        }
        if !row.is_empty() {
            row.tidy();
            left.push(row);
        }
    }
    Ok(left)
}

/// The rows of one side that have the same signature.
#[derive(Default)]
struct MatchGroup {
    /// Indexes of rows of the "one" side.
    ones: Vec<usize>,
    /// How many rows of the "many" side there are.
    many_count: usize,
    /// At which times a row of the "many" side has matched, when there are several and one may.
    taken: Vec<bool>,
}

struct Join<'a> {
    binary: &'a Binary,
    matching: &'a VectorMatching,
    many: &'a [Row],
    one: &'a [Row],
    many_is_left: bool,
    delayed: bool,
    /// Values of series that are missing on the "many" and on the "one" side.
    fill_many: Option<f64>,
    fill_one: Option<f64>,
    steps: usize,
    /// Where the operation stands.
    span: Span,
}

impl<'a> Join<'a> {
    fn new(
        binary: &'a Binary,
        matching: &'a VectorMatching,
        left: &'a [Row],
        right: &'a [Row],
        delayed: bool,
    ) -> Self {
        let many_is_left = matching.cardinality != Cardinality::OneToMany;
        let (many, one) = if many_is_left {
            (left, right)
        } else {
            (right, left)
        };
        let mut rows = left.iter().chain(right);
        Self {
            binary,
            matching,
            many,
            one,
            many_is_left,
            delayed,
            // With `group_right` Prometheus swaps the sides but not what fills them.
            fill_many: matching.fill_left,
            fill_one: matching.fill_right,
            steps: rows.next().map_or(0, |row| row.values.len()),
            span: Span::default(),
        }
    }

    fn run(&self, notes: &mut Notes, pace: &mut Pace<'_>) -> Result<Vec<Row>, QueryError> {
        let many_signatures = self.signatures(self.many, pace)?;
        let one_signatures = self.signatures(self.one, pace)?;
        let mut groups: HashMap<&[u8], MatchGroup> = HashMap::new();
        for (at, signature) in one_signatures.iter().enumerate() {
            groups.entry(signature).or_default().ones.push(at);
        }
        self.check_one_side(&groups, pace)?;
        for signature in &many_signatures {
            groups.entry(signature).or_default().many_count += 1;
        }
        let mut results = Results {
            notes,
            pace,
            indexes: HashMap::new(),
            rows: Vec::new(),
            matched: Vec::new(),
        };
        for (many, signature) in self.many.iter().zip(&many_signatures) {
            if let Some(group) = groups.get_mut(signature.as_slice()) {
                self.match_row(many, group, &mut results)?;
            }
        }
        if let Some(value) = self.fill_many {
            let present = presence(self.matching, self.many, results.pace)?;
            for (one, signature) in self.one.iter().zip(&one_signatures) {
                let values = self.filled(one, present.get(signature), value);
                let many = self.stand_in(one, values);
                self.match_pair(&many, one, &mut Vec::new(), &mut results)?;
            }
        }
        let mut rows = results.rows;
        rows.retain(|row| !row.is_empty());
        Ok(rows)
    }

    fn signatures(&self, rows: &[Row], pace: &mut Pace<'_>) -> Result<Vec<Vec<u8>>, QueryError> {
        let signature = |row: &Row| {
            pace.look(LOOKS_OF_ROW)?;
            Ok(signature(self.matching, &row.labels))
        };
        rows.iter().map(signature).collect()
    }

    /// Refuses two rows of the "one" side with equal signatures at the same time.
    fn check_one_side(
        &self,
        groups: &HashMap<&[u8], MatchGroup>,
        pace: &mut Pace<'_>,
    ) -> Result<(), QueryError> {
        // When one side is empty nothing is matched, so nothing is ambiguous.
        let any = |rows: &[Row], at: usize| rows.iter().any(|row| !is_absent(row.values[at]));
        let fills = self.fill_many.is_some() || self.fill_one.is_some();
        let mut several: Vec<_> = groups.values().filter(|g| g.ones.len() > 1).collect();
        // Of several mistakes the same one is told each time.
        several.sort_by_key(|group| group.ones[0]);
        for group in several {
            for at in 0..self.steps {
                pace.look(group.ones.len())?;
                let mut present = group
                    .ones
                    .iter()
                    .map(|one| &self.one[*one])
                    .filter(|row| !is_absent(row.values[at]));
                if let (Some(first), Some(second)) = (present.next(), present.next()) {
                    pace.look(self.many.len())?;
                    if fills || any(self.many, at) {
                        return Err(self.ambiguous(first, second));
                    }
                }
            }
        }
        Ok(())
    }

    fn ambiguous(&self, first: &Row, second: &Row) -> QueryError {
        let side = if self.many_is_left { "right" } else { "left" };
        QueryError::execution(format!(
            "found duplicate series for the match group {} on the {side} hand-side of the \
             operation: [{}, {}];many-to-many matching not allowed: matching labels must be \
             unique on one side",
            braced(&self.matched_labels(&first.labels)),
            braced(&first.labels),
            braced(&second.labels),
        ))
    }

    fn matched_labels(&self, labels: &Labels) -> Labels {
        let mut builder = LabelsBuilder::from_labels(labels);
        builder.retain(|name| {
            let listed = self.matching.labels.iter().any(|label| label == name);
            listed == self.matching.on && (self.matching.on || name != LABEL_NAME_METRIC)
        });
        builder.build()
    }

    /// Matches a row of the "many" side with all rows of the other side that may be its partners.
    fn match_row(
        &self,
        many: &Row,
        group: &mut MatchGroup,
        results: &mut Results<'_, '_>,
    ) -> Result<(), QueryError> {
        let one_to_one = self.matching.cardinality == Cardinality::OneToOne;
        if one_to_one && group.many_count > 1 && group.taken.is_empty() {
            group.taken = vec![false; self.steps];
        }
        for one in &group.ones {
            self.match_pair(many, &self.one[*one], &mut group.taken, results)?;
        }
        let Some(value) = self.fill_one else {
            return Ok(());
        };
        let mut present = vec![false; self.steps];
        for one in &group.ones {
            results.pace.look(self.steps)?;
            let values = present.iter_mut().zip(&self.one[*one].values);
            values.for_each(|(present, value)| *present |= !is_absent(*value));
        }
        let one = self.stand_in(many, self.filled(many, Some(&present), value));
        self.match_pair(many, &one, &mut group.taken, results)
    }

    /// The column of a stand-in for the missing partner of `row`: `value` where the row has a sample
    /// and no partner is `present`.
    fn filled(&self, row: &Row, present: Option<&Vec<bool>>, value: f64) -> Vec<f64> {
        let wanted =
            |at: usize| !is_absent(row.values[at]) && !present.is_some_and(|present| present[at]);
        let column = (0..self.steps).map(|at| if wanted(at) { value } else { ABSENT });
        column.collect()
    }

    /// A series that takes the place of the missing partner of `row`.
    fn stand_in(&self, row: &Row, values: Vec<f64>) -> Row {
        Row::floats(self.matched_labels(&row.labels), false, values)
    }

    /// Combines two rows at the times at which both have a sample.
    fn match_pair(
        &self,
        many: &Row,
        one: &Row,
        taken: &mut [bool],
        results: &mut Results<'_, '_>,
    ) -> Result<(), QueryError> {
        let mut into = None;
        let floats =
            many.histograms.is_empty() && one.histograms.is_empty() && !self.binary.op.is_trim();
        let of_value = if floats { 1 } else { LOOKS_OF_HISTOGRAM };
        for times in stretches(self.steps) {
            results.pace.look(times.len() * of_value)?;
            for at in times {
                let (many_value, one_value) = (many.values[at], one.values[at]);
                if is_absent(many_value) || is_absent(one_value) {
                    continue;
                }
                if !taken.is_empty() && std::mem::replace(&mut taken[at], true) {
                    return Err(QueryError::execution(
                        "multiple matches for labels: many-to-one matching must be explicit \
                         (group_left/group_right)",
                    ));
                }
                let into = *into.get_or_insert_with(|| {
                    let (labels, drop_name) = self.result_labels(many, one);
                    results.row(labels, drop_name, self.steps)
                });
                if std::mem::replace(&mut results.matched[into][at], true) {
                    return Err(QueryError::execution(
                        "multiple matches for labels: grouping labels must ensure unique matches",
                    ));
                }
                if floats {
                    results.rows[into].values[at] = self.value(many_value, one_value);
                } else {
                    let cell = self.cell(many.at(at), one.at(at), results.notes);
                    results.rows[into].put(at, cell);
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn value(&self, many: f64, one: f64) -> f64 {
        let (left, right) = if self.many_is_left {
            (many, one)
        } else {
            (one, many)
        };
        operators::apply(self.binary.op, left, right, self.binary.return_bool, left)
    }

    /// The same for samples of any kind.
    fn cell(&self, many: Cell, one: Cell, notes: &mut Notes) -> Cell {
        let (left, right) = match self.many_is_left {
            true => (many, one),
            false => (one, many),
        };
        let Binary {
            op, return_bool, ..
        } = self.binary;
        operators::apply_cells(*op, &left, &right, *return_bool, self.span, notes)
    }

    fn result_labels(&self, many: &Row, one: &Row) -> (Labels, bool) {
        let changes_meaning = self.binary.op.changes_meaning();
        let drops_name = changes_meaning || self.binary.return_bool;
        let mut builder = LabelsBuilder::from_labels(&many.labels);
        if drops_name && !self.delayed {
            builder.retain(|name| !METADATA_LABELS.contains(&name));
        } else if changes_meaning {
            // Type and unit go at once, even where the removal of the name is delayed.
            builder.retain(|name| name == LABEL_NAME_METRIC || !METADATA_LABELS.contains(&name));
        }
        if self.matching.cardinality == Cardinality::OneToOne {
            let on = self.matching.on;
            builder.retain(|name| {
                self.matching.labels.iter().any(|label| label == name) == on
                    // A name whose removal is delayed stays until then.
                    || (on && self.delayed && drops_name && name == LABEL_NAME_METRIC)
            });
        }
        for label in &self.matching.include {
            builder.set(label, one.labels.get(label).unwrap_or(""));
        }
        let drop_name = many.drop_name || (drops_name && self.delayed);
        (builder.build(), drop_name)
    }
}

/// Result rows by their labels.
struct Results<'n, 'b> {
    notes: &'n mut Notes,
    pace: &'n mut Pace<'b>,
    indexes: HashMap<Labels, usize>,
    rows: Vec<Row>,
    /// At which times each row has been matched, whether or not a comparison kept it.
    matched: Vec<Vec<bool>>,
}

impl Results<'_, '_> {
    fn row(&mut self, labels: Labels, drop_name: bool, steps: usize) -> usize {
        if let Some(at) = self.indexes.get(&labels) {
            return *at;
        }
        let at = self.rows.len();
        self.indexes.insert(labels.clone(), at);
        self.rows
            .push(Row::floats(labels, drop_name, vec![ABSENT; steps]));
        self.matched.push(vec![false; steps]);
        at
    }
}

/// Labels as Prometheus prints them in errors: the name among the others.
fn braced(labels: &Labels) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}={value:?}"))
        .collect();
    format!("{{{}}}", pairs.join(", "))
}
