//! How far a query looks: the times between the oldest and the newest sample that any of its selectors may
//! need. Whoever answers a part must promise to be complete for these times, and for no others.
//!
//! The reach is that of the whole query, not of the part alone, so that all parts of a query can be answered
//! on one pinned view. It follows from what every part carries: text, times and settings.

use crate::{
    Expr, Grid, Part, QueryError, Selector, SeriesStorage, SeriesVisitor,
    ast::ExprKind,
    evaluate::{
        context::Context,
        info::InfoSelector,
        instant::{Instant, InstantValue},
        windows::Windows,
    },
    function::{FunctionKind, WindowFunction},
    parse::parse,
};
use trefoil_model::TimeRange;

impl Part {
    /// The times of all samples that the whole query may need: look-back, ranges, offsets, `@` and sub-queries
    /// counted in. Empty for a query without selectors.
    ///
    /// # Errors
    /// [`QueryError::BadData`] for a text or a duration that the evaluation would refuse, too.
    pub fn reach(&self) -> Result<TimeRange, QueryError> {
        let root = parse(&self.query, &self.options)?;
        // No duration and no time depends on a bound scalar.
        let context = Context::new(self.query_grid, self.options, &[], self.samples_max);
        let mut reach = None;
        widen(&mut reach, &root, self.query_grid, &context)?;
        Ok(reach.unwrap_or(TimeRange { start: 0, end: 0 }))
    }
}

impl Part {
    /// Whether the query has further parts: one selector is in one part.
    ///
    /// # Errors
    /// [`QueryError::BadData`] for a text that cannot be parsed.
    pub fn is_one_of_several(&self) -> Result<bool, QueryError> {
        let root = parse(&self.query, &self.options)?;
        Ok(selectors(&root) > 1)
    }
}

fn selectors(expr: &Expr) -> usize {
    let own = match &expr.kind {
        ExprKind::Selector(_) | ExprKind::Range(_) => true,
        // Its info series are a part of their own, whether or not they have a selector.
        ExprKind::Call(call) => call.function.kind == FunctionKind::Info,
        _ => false,
    };
    let below = expr.children().into_iter().map(selectors);
    usize::from(own) + below.sum::<usize>()
}

/// Adds what `expr` needs to be evaluated at the times of `grid`.
fn widen(
    reach: &mut Option<TimeRange>,
    expr: &Expr,
    grid: Grid,
    context: &Context,
) -> Result<(), QueryError> {
    let bounds = match &expr.kind {
        ExprKind::Selector(selector) => {
            let instant = Instant::of(selector, expr.span, context, InstantValue::Value)?;
            Some(instant.bounds(grid))
        }
        ExprKind::Range(_) => {
            // Which function it is for does not matter to the bounds.
            let windows = Windows::over(expr, WindowFunction::PresentOverTime, context)?;
            Some(windows.bounds(grid))
        }
        ExprKind::Call(call) if call.function.kind == FunctionKind::Info => {
            let selector = InfoSelector::of(call, context)?.selector(grid, context);
            Some((selector.start, selector.end))
        }
        _ => None,
    };
    if let Some((first, last)) = bounds {
        let own = inclusive(first, last);
        let all = reach.get_or_insert(own);
        all.start = all.start.min(own.start);
        all.end = all.end.max(own.end);
    }
    let inner = match &expr.kind {
        ExprKind::SubQuery(sub_query) => context.sub_query_grid(sub_query, grid)?.unwrap_or(grid),
        _ => grid,
    };
    for child in expr.children() {
        widen(reach, child, inner, context)?;
    }
    Ok(())
}

fn inclusive(start: i64, end: i64) -> TimeRange {
    TimeRange {
        start,
        end: end.saturating_add(1),
    }
}

/// A storage that is asked for nothing outside of a query's reach: nobody promised that it is complete there.
pub(crate) struct Confined<'a> {
    pub(crate) storage: &'a dyn SeriesStorage,
    pub(crate) reach: TimeRange,
}

impl SeriesStorage for Confined<'_> {
    fn select(&self, selector: &Selector, each: &mut SeriesVisitor<'_>) -> Result<(), QueryError> {
        let wanted = inclusive(selector.start, selector.end);
        let is_empty = wanted.start >= wanted.end;
        if !is_empty && (wanted.start < self.reach.start || wanted.end > self.reach.end) {
            return Err(QueryError::Internal(format!(
                "a selector looks at {wanted:?}, outside of the query's reach {:?}",
                self.reach
            )));
        }
        self.storage.select(selector, each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EvalOptions, PartOutput, Span};

    /// Times in seconds, the look-back is five minutes.
    fn part(query: &str, (start, end, step): (i64, i64, i64)) -> Part {
        Part {
            query: query.into(),
            node: Span::new(0, 0),
            output: PartOutput::Rows,
            grid: Grid::instant(0),
            query_grid: Grid {
                start: start * 1000,
                end: end * 1000,
                step: step * 1000,
            },
            bindings: Vec::new(),
            options: EvalOptions {
                extended_range_selectors: true,
                ..EvalOptions::default()
            },
            samples_max: 1_000_000,
        }
    }

    fn check(query: &str, grid: (i64, i64, i64), expected: (i64, i64)) {
        let part = part(query, grid);
        let reach = part.reach().expect(query);
        // The left end of what a selector looks at is open.
        let found = (reach.start - 1, reach.end - 1);
        assert_eq!(found, (expected.0 * 1000, expected.1 * 1000), "{query}");
    }

    #[test]
    fn reach_is_that_of_all_selectors() {
        let instant = (10_000, 10_000, 1);
        check("x", instant, (9_700, 10_000));
        check("x offset 1h", instant, (6_100, 6_400));
        check("x offset -1h", instant, (13_300, 13_600));
        check("x @ 500", instant, (200, 500));
        check("x - x offset 1h", instant, (6_100, 10_000));
        check("rate(x[10m])", instant, (9_400, 10_000));
        check("rate(x[10m] @ 700 offset 1m)", instant, (40, 640));
        check("scalar(x @ 500) * y", instant, (200, 10_000));
        check("topk(scalar(x @ 500), y)", instant, (200, 10_000));
        check("absent_over_time(x[1h])", instant, (6_400, 10_000));
        check("x[1h]", instant, (6_400, 10_000));
        check("rate(x[10m] smoothed)", instant, (9_100, 10_300));
        check("rate(x[10m] anchored)", instant, (9_100, 10_000));
        check("x smoothed", instant, (9_700, 10_300));
        let range = (10_000, 10_100, 60);
        check("x", range, (9_700, 10_060));
        check("x @ start() - x @ end()", range, (9_700, 10_100));
        check("sum(x) / sum(y)", range, (9_700, 10_060));
    }

    #[test]
    fn queries_with_one_selector_have_one_part() {
        let check = |query: &str, expected| {
            let part = part(query, (0, 0, 1));
            assert_eq!(part.is_one_of_several(), Ok(expected), "{query}");
        };
        check("x", false);
        check("sum(rate(x[5m])) * 2", false);
        check("x or x", true);
        check("topk(scalar(x), max_over_time(y[5m:1m]))", true);
    }

    #[test]
    fn sub_queries_look_back_from_their_first_time() {
        let instant = (10_000, 10_000, 1);
        // Its times are the multiples of a minute behind 6,400 s, up to 10,000 s.
        check("max_over_time(x[1h:1m])", instant, (6_120, 9_960));
        check(
            "max_over_time(rate(x[10m])[1h:1m])",
            instant,
            (5_820, 9_960),
        );
        check("max_over_time(x[1h:1m] offset 1h)", instant, (2_520, 6_360));
        let fixed = "sum(max_over_time(sum(x)[1h:1m] @ 7200))";
        check(fixed, instant, (3_360, 7_200));
    }
}
