//! `info`: adds the labels of info series to the series that they describe.

use super::{Coordinator, looks, samples, unify::unify, wrong_body};
use crate::{
    Expr, Grid, PartBody, PartOutput, QueryError,
    ast::Call,
    evaluate::info::InfoSelector,
    pace::{LOOKS_OF_ROW, Pace},
    row::{ABSENT, Cell, Row, is_absent},
};
use std::collections::{BTreeMap, HashMap};
use trefoil_model::{LABEL_NAME_METRIC, Labels, LabelsBuilder};

/// The labels by which a series and what describes it find each other.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

impl Coordinator<'_> {
    pub(super) async fn info(
        &self,
        expr: &Expr,
        call: &Call,
        grid: Grid,
    ) -> Result<Vec<Row>, QueryError> {
        let base = self.rows(&call.arguments[0], grid).await?;
        let info = InfoSelector::of(call, &self.context(&[]))?;
        let body = self.part(expr, PartOutput::Info, grid, Vec::new()).await?;
        let PartBody::Rows(infos) = body else {
            return Err(wrong_body());
        };
        let before = samples(&base);
        // Each sample may look at all that describes its series.
        let looks = looks(&base).saturating_mul(infos.len().max(1));
        let rows = self.work(looks, |pace| {
            unify(enrich(&info, base, &infos, pace)?, pace)
        })?;
        self.hold(rows, before)
    }
}

fn identity(labels: &Labels) -> [&str; 2] {
    IDENTIFYING.map(|name| labels.get(name).unwrap_or(""))
}

fn enrich(
    info: &InfoSelector,
    base: Vec<Row>,
    infos: &[Row],
    pace: &mut Pace<'_>,
) -> Result<Vec<Row>, QueryError> {
    let mut by_identity: HashMap<[&str; 2], Vec<&Row>> = HashMap::new();
    for row in infos {
        pace.look(LOOKS_OF_ROW)?;
        by_identity
            .entry(identity(&row.labels))
            .or_default()
            .push(row);
    }
    let mut enriched = Vec::with_capacity(base.len());
    for row in base {
        pace.look(row.looks())?;
        if info.is_info(&row.labels) {
            enriched.push(row);
            continue;
        }
        let candidates = by_identity.get(&identity(&row.labels));
        let candidates = candidates.map_or(&[][..], Vec::as_slice);
        enrich_row(info, &row, candidates, &mut enriched, pace)?;
    }
    Ok(enriched)
}

/// Adds the parts of a row that have the same labels from info series.
fn enrich_row(
    info: &InfoSelector,
    row: &Row,
    candidates: &[&Row],
    into: &mut Vec<Row>,
    pace: &mut Pace<'_>,
) -> Result<(), QueryError> {
    let needs_info = info.data.iter().any(|matcher| !matcher.matches(""));
    let mut known: HashMap<Vec<usize>, usize> = HashMap::new();
    for at in 0..row.values.len() {
        let cell = row.at(at);
        if matches!(cell, Cell::Absent) {
            continue;
        }
        pace.look(candidates.len())?;
        let newest = newest(candidates, at)?;
        if newest.is_empty() && needs_info {
            continue;
        }
        let target = match known.get(&newest) {
            Some(target) => *target,
            None => {
                let sources = newest.iter().map(|index| &candidates[*index].labels);
                let labels = with_data(info, &row.labels, sources)?;
                into.push(Row::floats(
                    labels,
                    row.drop_name,
                    vec![ABSENT; row.values.len()],
                ));
                known.insert(newest, into.len() - 1);
                into.len() - 1
            }
        };
        into[target].put(at, cell);
    }
    Ok(())
}

/// For each info metric the series with the newest sample at a time, ascending by the metric's name.
fn newest(candidates: &[&Row], at: usize) -> Result<Vec<usize>, QueryError> {
    let mut newest: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, candidate) in candidates.iter().enumerate() {
        let time = candidate.values[at];
        if is_absent(time) {
            continue;
        }
        let name = candidate.labels.metric_name().unwrap_or("");
        let best = *newest.entry(name).or_insert(index);
        let best_time = candidates[best].values[at];
        if best != index && time == best_time {
            return Err(QueryError::execution(format!(
                "found duplicate series for info metric: existing {}, new {}",
                candidates[best].labels, candidate.labels
            )));
        }
        if time > best_time {
            newest.insert(name, index);
        }
    }
    Ok(newest.into_values().collect())
}

/// The labels of a series with the data labels of what describes it; its own labels stay.
fn with_data<'r>(
    info: &InfoSelector,
    labels: &Labels,
    sources: impl Iterator<Item = &'r Labels>,
) -> Result<Labels, QueryError> {
    let mut added: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, value) in sources.flatten() {
        let is_data = name != LABEL_NAME_METRIC && !IDENTIFYING.contains(&name);
        let is_wanted = info.data.is_empty() || info.data.iter().any(|m| m.name() == name);
        if !is_data || !is_wanted || labels.get(name).is_some() {
            continue;
        }
        if *added.entry(name).or_insert(value) != value {
            return Err(QueryError::execution(format!("conflicting label: {name}")));
        }
    }
    let mut builder = LabelsBuilder::from_labels(labels);
    for (name, value) in added {
        builder.set(name, value);
    }
    Ok(builder.build())
}
