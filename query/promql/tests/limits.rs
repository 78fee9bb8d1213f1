//! What one query may cost: samples held at once, sub-queries of any length, and how soon it ends when it must.

use async_trait::async_trait;
use futures::executor::block_on;
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};
use trefoil_model::Labels;
use trefoil_query_promql::{
    Budget, EvalOptions, Grid, Listing, MemorySource, MemoryStorage, Part, PartOutput, PartResult,
    QueryError, QueryOptions, SeriesFilter, Source, Span, evaluate_part, query_instant,
    query_range,
};

const TOO_MANY: &str =
    "query processing would load too many samples into memory in query execution";

/// One series with a sample each second for an hour.
fn one_series() -> MemorySource {
    let mut source = MemorySource::new(1);
    let labels = Labels::from_pairs([("__name__", "m")]);
    for second in 0..3600 {
        source.insert(&labels, second * 1000, second as f64);
    }
    source
}

fn options(budget: Budget) -> QueryOptions {
    QueryOptions {
        budget,
        ..QueryOptions::default()
    }
}

/// Counts what is long work.
struct Counting {
    source: MemorySource,
    long: AtomicUsize,
}

#[async_trait]
impl Source for Counting {
    async fn evaluate(&self, part: Part) -> Result<PartResult, QueryError> {
        self.source.evaluate(part).await
    }

    async fn series(&self, filter: SeriesFilter) -> Result<Listing<Labels>, QueryError> {
        self.source.series(filter).await
    }

    async fn label_names(&self, filter: SeriesFilter) -> Result<Listing<String>, QueryError> {
        self.source.label_names(filter).await
    }

    async fn label_values(
        &self,
        name: &str,
        filter: SeriesFilter,
    ) -> Result<Listing<String>, QueryError> {
        self.source.label_values(name, filter).await
    }

    fn work_long(&self, work: &mut dyn FnMut()) {
        self.long.fetch_add(1, Ordering::Relaxed);
        work();
    }
}

#[test]
fn long_work_of_the_coordinator_is_given_to_the_source() {
    let source = Counting {
        source: one_series(),
        long: AtomicUsize::new(0),
    };
    let grid = Grid {
        start: 0,
        end: 3_600_000,
        step: 1000,
    };
    for (query, is_long) in [
        ("m", false),
        ("sum(m) + sum(m)", false),
        ("quantile(0.5, m)", false),
        ("max_over_time(sum(m)[5s:1s])", false),
        ("max_over_time(sum(m)[1m:1s])", true),
        ("absent_over_time(sum(m)[1m:1s])", true),
        ("quantile_over_time(0.5, vector(1)[10m:1s])", true),
    ] {
        let options = options(Budget::new(1 << 30));
        let answer = block_on(query_range(&source, query, grid, &options));
        let of_memory = block_on(query_range(&source.source, query, grid, &options));
        assert_eq!(answer.map(|a| a.data), of_memory.map(|a| a.data), "{query}");
        let long = source.long.swap(0, Ordering::Relaxed);
        assert_eq!(long > 0, is_long, "{query}: {long}");
    }
}

fn check_samples(query: &str, samples_max: u64, expected: Result<(), &str>) {
    let source = one_series();
    let budget = Budget::new(samples_max);
    let answer = block_on(query_instant(&source, query, 3_600_000, &options(budget)));
    let answer = answer.map(|_| ()).map_err(|error| error.to_string());
    assert_eq!(answer, expected.map_err(str::to_owned), "{query}");
}

#[test]
fn samples_held_at_once_are_limited() {
    check_samples("sum_over_time(m[50m])", 2_998, Err(TOO_MANY));
    check_samples("sum_over_time(m[50m])", 2_999, Ok(()));
    check_samples("m[50m]", 2_998, Err(TOO_MANY));
    check_samples("m", 298, Err(TOO_MANY));
    check_samples("m", 299, Ok(()));
}

#[test]
fn the_times_of_sub_queries_count_as_samples() {
    // Each of these would fill more memory than there is before it looked at any sample.
    for query in [
        "sum_over_time(vector(1)[10y:1ms])",
        "count_over_time(m[10y:1ms])",
        "count_over_time(vector(time())[10y:1ms])",
        "absent_over_time(nothing[10y:1ms])",
        "sum(max_over_time(rate(m[5m])[10y:1ms]))",
        "max_over_time(sum(m)[10y:1ms])",
        "vector(1)[10y:1ms]",
        "scalar(last_over_time(m[10y:1ms])) + 1",
    ] {
        check_samples(query, 50_000_000, Err(TOO_MANY));
    }
    check_samples("max_over_time(m[10m:1s])", 1_000, Err(TOO_MANY));
    check_samples("max_over_time(m[10m:1s])", 2_000, Ok(()));
}

/// Evaluates a query over one series, whose windows show 20 million samples to the function, with a budget that asks
/// `end` whether it is late, from its third look at the clock on. How often it looked.
fn looks_until_ended(end: impl Fn(&Budget) -> bool + Send + Sync + 'static) -> (usize, QueryError) {
    let mut storage = MemoryStorage::default();
    let labels = Labels::from_pairs([("__name__", "m")]);
    for second in 0..3600 {
        storage.insert(&labels, second * 1000, second as f64);
    }
    let looks = Arc::new(AtomicUsize::new(0));
    let budget = Arc::new(OnceLock::<Budget>::new());
    let (counted, own) = (Arc::clone(&looks), Arc::downgrade(&budget));
    let is_late = move || {
        let number = counted.fetch_add(1, Ordering::Relaxed) + 1;
        let budget = own.upgrade();
        number >= 3 && budget.is_some_and(|budget| budget.get().is_some_and(&end))
    };
    let limited = budget.get_or_init(|| Budget::with_deadline(50_000_000, u64::MAX, is_late));
    let grid = Grid::range(0, 3_600_000, 330).expect("valid times");
    let query = "sum_over_time(m[1h])";
    let part = Part {
        query: query.to_owned(),
        node: Span::new(0, query.len()),
        output: PartOutput::Rows,
        grid,
        query_grid: grid,
        bindings: Vec::new(),
        options: EvalOptions::default(),
        samples_max: 50_000_000,
    };
    let error = evaluate_part(&part, &storage, limited).expect_err("it was ended");
    (looks.load(Ordering::Relaxed), error)
}

#[test]
fn a_query_ends_in_the_middle_of_a_series() {
    let (looks, error) = looks_until_ended(|_| true);
    assert_eq!((looks, error), (3, QueryError::Timeout));
    // Whoever cancels does so beside the evaluation; the next look finds it.
    let (looks, error) = looks_until_ended(|budget| {
        budget.cancel();
        false
    });
    assert_eq!((looks, error), (3, QueryError::Canceled));
}

#[test]
fn a_late_query_has_no_answer() {
    let source = one_series();
    let budget = Budget::with_deadline(1_000_000, u64::MAX, || true);
    let grid = Grid::range(0, 60_000, 1_000).expect("valid times");
    let error = block_on(query_range(&source, "m", grid, &options(budget)));
    let text = error.expect_err("it is late").to_string();
    assert_eq!(text, "query timed out in expression evaluation");
}

#[test]
fn labels_that_a_query_makes_are_limited() {
    let source = one_series();
    let grown = |times: usize| {
        let ten = "$1".repeat(10);
        (0..times).fold(
            "label_replace(m, \"x\", \"0123456789\", \"\", \"\")".to_owned(),
            |inner, _| format!("label_replace({inner}, \"x\", \"{ten}\", \"x\", \"(.*)\")"),
        )
    };
    let ask = |query: &str| {
        let budget = Budget::with_deadline(1_000_000, 100_000, || false);
        let answer = block_on(query_instant(&source, query, 3_600_000, &options(budget)));
        answer.map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(ask(&grown(3)), Ok(()));
    let joined = format!(
        "label_join({}, \"y\", \"\", \"x\", \"x\", \"x\", \"x\", \"x\", \"x\", \"x\", \"x\", \"x\", \"x\")",
        grown(3)
    );
    for query in [grown(4), joined] {
        let error = ask(&query).expect_err("its labels take more");
        assert!(
            error.ends_with("more than 100000 bytes of results"),
            "{error}"
        );
    }
}
