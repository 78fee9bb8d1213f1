//! Runs the commands of a test file.

use super::{
    Target, check,
    histogram::from_classic,
    script::{Command, CommandKind, Eval, commands},
    sequence::{Item, Sequence},
};
use crate::{
    Budget, EvalOptions, Expr, Grid, QueryData, QueryError, QueryOptions, Sample, Value,
    ast::{At, ExprKind, TimeModifier},
    function::{FunctionKind, WindowFunction},
    parse, query_instant, query_range,
};
use std::collections::HashMap;
use trefoil_model::{Labels, Millis};

/// The limit of samples of a test query.
const SAMPLES_MAX: u64 = 10_000;
const MINUTE: Millis = 60_000;

/// An evaluation that went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The line of the command, counted from one.
    pub line: usize,
    /// The query.
    pub query: String,
    /// What was wrong.
    pub reason: String,
}

/// The outcome of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Evaluations that gave what was expected, in all their forms.
    pub passed: usize,
    /// The others.
    pub failures: Vec<Failure>,
}

/// Runs the file `text` against `target`.
///
/// # Errors
/// When the file cannot be read, or the target takes no samples.
pub async fn run(text: &str, target: &mut dyn Target) -> Result<Report, String> {
    let mut report = Report::default();
    target.clear().map_err(|error| error.to_string())?;
    for Command { line, kind } in commands(text)? {
        match kind {
            CommandKind::Clear => target.clear().map_err(|error| error.to_string())?,
            CommandKind::Load {
                step,
                mut series,
                as_native,
            } => {
                let lines = series.len();
                if as_native {
                    series.extend(from_classic(&series));
                }
                load(step, &series, target).map_err(|(at, error)| {
                    // What was made of other lines has none of its own.
                    let below = if at < lines { at + 1 } else { 0 };
                    format!("line {}: {error}", line + below)
                })?;
            }
            CommandKind::Eval(eval) => match run_eval(&eval, target).await {
                Ok(()) => report.passed += 1,
                Err(reason) => report.failures.push(Failure {
                    line,
                    query: eval.query.clone(),
                    reason,
                }),
            },
        }
    }
    Ok(report)
}

/// Loads series whose values are `step` apart; what is not taken has the index of its series.
fn load(
    step: Millis,
    series: &[Sequence],
    target: &mut dyn Target,
) -> Result<(), (usize, QueryError)> {
    let starts: HashMap<&Labels, &Vec<Option<Millis>>> = series
        .iter()
        .filter_map(|sequence| Some((&sequence.labels, sequence.starts.as_ref()?)))
        .collect();
    let samples = series.iter().enumerate();
    let samples = samples.filter(|(_, sequence)| sequence.starts.is_none());
    let last: HashMap<&Labels, usize> = samples.clone().map(|(at, s)| (&s.labels, at)).collect();
    // Of two lines about a series the last one counts, as in Prometheus: a store may prefer the samples of the first.
    for (index, sequence) in samples.filter(|(at, s)| *at == last[&s.labels]) {
        let starts = starts.get(&sequence.labels);
        let mut samples = Vec::with_capacity(sequence.items.len());
        for (at, item) in sequence.items.iter().enumerate() {
            let time = at as Millis * step;
            let offset = starts.and_then(|starts| *starts.get(at)?);
            samples.push(Sample {
                time,
                start: offset.map_or(0, |offset| time + offset),
                value: match item {
                    Item::Gap => continue,
                    Item::Value(value) => Value::Float(*value),
                    Item::Histogram(literal) => Value::Histogram(literal.histogram.clone()),
                },
            });
        }
        let loaded = target.load(&sequence.labels, &samples);
        loaded.map_err(|error| (index, error))?;
    }
    Ok(())
}

fn eval_options() -> EvalOptions {
    EvalOptions {
        delayed_name_removal: true,
        experimental_functions: true,
        extended_range_selectors: true,
        fill_modifiers: true,
        use_start_timestamps: true,
        ..EvalOptions::default()
    }
}

fn options() -> QueryOptions {
    QueryOptions {
        eval: eval_options(),
        budget: Budget::new(SAMPLES_MAX),
    }
}

async fn run_eval(eval: &Eval, target: &dyn Target) -> Result<(), String> {
    if eval.is_range {
        return run_range(eval, target).await;
    }
    let time = eval.grid.start;
    run_instant(eval, &eval.query, time, true, target).await?;
    if eval.expected.fail.is_some() && parse(&eval.query, &eval_options()).is_err() {
        return Ok(());
    }
    for (query, at) in with_fixed_times(&eval.query, time)? {
        run_instant(eval, &query, at, false, target)
            .await
            .map_err(|reason| format!("as {query} at {at}: {reason}"))?;
    }
    Ok(())
}

async fn run_range(eval: &Eval, target: &dyn Target) -> Result<(), String> {
    let result = query_range(target.source(), &eval.query, eval.grid, &options()).await;
    match (result, &eval.expected.fail) {
        (Err(error), Some(expected)) => check::failure(&error, expected),
        (Err(error), None) => Err(failed(&error)),
        (Ok(_), Some(_)) => Err("want a failure".into()),
        (Ok(result), None) => {
            check::remarks(&result, &eval.expected, true)?;
            let got = check::samples(&result.data).ok_or("got no matrix")?;
            check::series(&got, &eval.expected.series, eval.grid)
        }
    }
}

fn failed(error: &QueryError) -> String {
    format!("failed: {error}")
}

async fn run_instant(
    eval: &Eval,
    query: &str,
    time: Millis,
    as_written: bool,
    target: &dyn Target,
) -> Result<(), String> {
    let expected = &eval.expected;
    let result = query_instant(target.source(), query, time, &options()).await;
    let result = match (result, &expected.fail) {
        (Err(error), Some(expected)) => return check::failure(&error, expected),
        (Err(error), None) => return Err(failed(&error)),
        (Ok(_), Some(_)) => return Err("want a failure".into()),
        (Ok(result), None) => result,
    };
    check::remarks(&result, expected, as_written)?;
    check::instant(&result.data, expected, time, expected.ordered)?;
    let depends_on_range = ["start()", "end()", "range()", "step()"];
    let in_range = !matches!(result.data, QueryData::String { .. } | QueryData::Matrix(_));
    let lower = query.to_ascii_lowercase();
    if !in_range || depends_on_range.iter().any(|call| lower.contains(call)) {
        return Ok(());
    }
    let is_scalar = matches!(result.data, QueryData::Scalar(_));
    run_as_middle(eval, query, time, is_scalar, target)
        .await
        .map_err(|reason| format!("as a range query: {reason}"))
}

/// Runs an instant query as the middle step of a range query.
async fn run_as_middle(
    eval: &Eval,
    query: &str,
    time: Millis,
    is_scalar: bool,
    target: &dyn Target,
) -> Result<(), String> {
    let grid = Grid::range(time - MINUTE, time + MINUTE, MINUTE).map_err(|e| e.to_string())?;
    let result = query_range(target.source(), query, grid, &options()).await;
    let result = result.map_err(|error| failed(&error))?;
    if eval.expected.ordered {
        return Ok(());
    }
    let mut got = check::samples(&result.data).ok_or("got no matrix")?;
    if !got.is_sorted_by(|a, b| a.0 < b.0) {
        return Err("the matrix is not sorted".into());
    }
    for (_, samples) in &mut got {
        samples.retain(|(at, _)| *at == time);
    }
    got.retain(|(_, samples)| !samples.is_empty());
    if !is_scalar {
        return check::series(&got, &eval.expected.series, Grid::instant(time));
    }
    let value = got.first().map(|(_, samples)| samples[0].1.clone());
    let data = QueryData::Scalar(crate::Point {
        time,
        value: value.unwrap_or(Value::Float(f64::NAN)),
    });
    check::instant(&data, &eval.expected, time, false)
}

/// The query with `@ time` on all selectors, at several other times; none if it depends on the time.
fn with_fixed_times(query: &str, time: Millis) -> Result<Vec<(String, Millis)>, String> {
    let mut expr = parse(query, &eval_options()).map_err(|error| error.to_string())?;
    if depends_on_time(&expr) {
        return Ok(Vec::new());
    }
    fix_times(&mut expr, time);
    let query = expr.to_string();
    let times = if time == 0 {
        vec![-1000, 0, 1000]
    } else {
        vec![-10 * time, 0, time / 5, time, 10 * time]
    };
    Ok(times.into_iter().map(|at| (query.clone(), at)).collect())
}

fn depends_on_time(expr: &Expr) -> bool {
    let own = match &expr.kind {
        ExprKind::Call(call) => matches!(
            call.function.kind,
            FunctionKind::Date(_)
                | FunctionKind::Time(_)
                | FunctionKind::Timestamp
                | FunctionKind::Window(WindowFunction::PredictLinear)
        ),
        _ => false,
    };
    own || expr.children().into_iter().any(depends_on_time)
}

fn fix_times(expr: &mut Expr, time: Millis) {
    let fix = |modifier: &mut TimeModifier| {
        modifier.at.get_or_insert(At::Time(time));
    };
    match &mut expr.kind {
        ExprKind::Selector(selector) => fix(&mut selector.time),
        ExprKind::Range(range) => fix(&mut range.selector.time),
        ExprKind::SubQuery(sub_query) => fix(&mut sub_query.time),
        ExprKind::Call(call) => {
            // The info series of `info` are looked at when its other argument is.
            let count = match call.function.kind {
                FunctionKind::Info => 1,
                _ => call.arguments.len(),
            };
            for argument in call.arguments.iter_mut().take(count) {
                fix_times(argument, time);
            }
        }
        ExprKind::Binary(binary) => {
            fix_times(&mut binary.left, time);
            fix_times(&mut binary.right, time);
        }
        ExprKind::Unary { operand, .. } => fix_times(operand, time),
        ExprKind::Paren(inner) => fix_times(inner, time),
        ExprKind::Aggregate(aggregate) => {
            if let Some(parameter) = &mut aggregate.parameter {
                fix_times(parameter, time);
            }
            fix_times(&mut aggregate.operand, time);
        }
        ExprKind::Number(_) | ExprKind::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemorySource, Source};

    /// Takes no series with the name `b`.
    struct Picky(MemorySource);

    impl Target for Picky {
        fn clear(&mut self) -> Result<(), QueryError> {
            Ok(())
        }

        fn load(&mut self, labels: &Labels, _: &[Sample]) -> Result<(), QueryError> {
            match labels.metric_name() {
                Some("b") => Err(QueryError::Execution("no b".to_owned())),
                _ => Ok(()),
            }
        }

        fn source(&self) -> &dyn Source {
            &self.0
        }
    }

    #[test]
    fn a_series_that_is_not_taken_is_named_by_its_line() {
        let text = "clear\n\nload 1m\n  a 1\n  b@st -30s\n  b 1\n";
        let mut target = Picky(MemorySource::new(1));
        let run = futures::executor::block_on(run(text, &mut target));
        assert_eq!(run.expect_err("b is not taken"), "line 6: no b");
    }
}
