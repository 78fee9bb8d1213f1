//! What one query may cost: samples held at once, sub-queries of any length, and how soon it ends when it must.

use async_trait::async_trait;
use futures::executor::block_on;
use std::sync::{
    Arc, Mutex, OnceLock,
    atomic::{AtomicBool, AtomicUsize, Ordering},
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

/// Counts what is long work, and how often it asks its budget. One piece of it may be ended as soon as it has begun.
struct Counting {
    source: MemorySource,
    budget: Budget,
    /// The number of the piece that is ended, and whether it is canceled or late.
    ended: Option<(usize, End)>,
    is_late: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    /// How often each piece has asked.
    asked_in: Mutex<Vec<usize>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Canceled,
    Late,
}

impl Counting {
    fn new(source: &MemorySource, ended: Option<(usize, End)>) -> Self {
        let (asked, is_late) = <(Arc<AtomicUsize>, Arc<AtomicBool>)>::default();
        let (count, late) = (Arc::clone(&asked), Arc::clone(&is_late));
        let look = move || {
            count.fetch_add(1, Ordering::Relaxed);
            late.load(Ordering::Relaxed)
        };
        Self {
            source: source.clone(),
            budget: Budget::with_deadline(1 << 30, u64::MAX, look),
            ended,
            is_late,
            asked,
            asked_in: Mutex::default(),
        }
    }

    fn asked_in(&self) -> Vec<usize> {
        self.asked_in.lock().expect("no panic").clone()
    }
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
        let mut pieces = self.asked_in.lock().expect("no panic");
        match self.ended {
            Some((piece, End::Canceled)) if piece == pieces.len() => self.budget.cancel(),
            Some((piece, End::Late)) if piece == pieces.len() => {
                self.is_late.store(true, Ordering::Relaxed);
            }
            _ => {}
        }
        let before = self.asked.load(Ordering::Relaxed);
        work();
        pieces.push(self.asked.load(Ordering::Relaxed) - before);
    }
}

#[test]
fn long_work_of_the_coordinator_is_given_to_the_source() {
    let data = one_series();
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
        let source = Counting::new(&data, None);
        let options = options(source.budget.clone());
        let answer = block_on(query_range(&source, query, grid, &options));
        let of_memory = block_on(query_range(&data, query, grid, &options));
        assert_eq!(answer.map(|a| a.data), of_memory.map(|a| a.data), "{query}");
        let long = source.asked_in();
        assert_eq!(!long.is_empty(), is_long, "{query}: {long:?}");
    }
}

/// Classic histograms of `instances`, each with four buckets, and what describes them.
fn histograms(instances: usize) -> MemorySource {
    let mut source = MemorySource::new(1);
    for instance in 0..instances {
        let instance = instance.to_string();
        for (at, bound) in ["1", "2", "4", "+Inf"].into_iter().enumerate() {
            let pairs = [("__name__", "m"), ("instance", &*instance), ("le", bound)];
            source.insert(&Labels::from_pairs(pairs), 0, at as f64);
        }
        let pairs = [("__name__", "target_info"), ("instance", &*instance)];
        source.insert(&Labels::from_pairs(pairs), 0, 1.0);
    }
    source
}

/// Has a query worked out at all times of `grid`, then once more for each piece of the coordinator's work that asks whether it may go
/// on, which ends as soon as it begins: with its first question. There are so many pieces.
fn check_ends(data: &MemorySource, query: &str, grid: Grid, pieces: usize) {
    let ask = |ended: Option<(usize, End)>| {
        let source = Counting::new(data, ended);
        let mut options = options(source.budget.clone());
        options.eval.look_back_ms = 86_400_000;
        options.eval.experimental_functions = true;
        options.eval.fill_modifiers = true;
        let answer = match grid.steps() {
            1 => block_on(query_instant(&source, query, grid.start, &options)),
            _ => block_on(query_range(&source, query, grid, &options)),
        };
        (answer, source.asked_in())
    };
    let (answer, asked_in) = ask(None);
    assert!(answer.is_ok(), "{query}: {answer:?}");
    let asking = asked_in.iter().enumerate().filter(|(_, asked)| **asked > 0);
    assert_eq!(asking.clone().count(), pieces, "{query}: {asked_in:?}");
    for (piece, _) in asking {
        let (late, mut until_late) = ask(Some((piece, End::Late)));
        assert_eq!(until_late.pop(), Some(1), "{query}, piece {piece}");
        assert_eq!(late.err(), Some(QueryError::Timeout), "{query}");
        // Whoever cancels is seen before the clock is.
        let (canceled, mut until_canceled) = ask(Some((piece, End::Canceled)));
        assert_eq!(until_canceled.pop(), Some(0), "{query}, piece {piece}");
        assert_eq!(canceled.err(), Some(QueryError::Canceled), "{query}");
        assert_eq!(
            (until_late, until_canceled.len()),
            (asked_in[..piece].to_vec(), piece)
        );
    }
}

#[test]
fn a_query_ends_in_the_middle_of_a_piece_over_many_times() {
    let data = histograms(12);
    let grid = Grid::range(0, 6_000_000, 1000).expect("valid times");
    // The answer's matrix is a piece, too, and so are brackets.
    for (query, pieces) in [
        ("m", 1),
        ("m + on (instance, le) m", 2),
        ("m * on (instance) group_left () target_info", 2),
        (
            "m * ignoring (le) group_left () (target_info + fill_right(1) nothing)",
            4,
        ),
        ("m and m", 2),
        ("m unless on (le) vector(1)", 2),
        ("m or on (le) vector(1)", 2),
        ("histogram_quantile(0.9, m)", 2),
        ("histogram_quantiles(m, \"q\", 0.5, 0.7, 0.9)", 2),
        ("histogram_fraction(0, 2, m)", 2),
        ("topk(40, m)", 2),
        ("bottomk by (le) (10, m)", 2),
        ("limitk(40, m)", 2),
        ("limit_ratio(0.9, m)", 2),
        ("quantile(0.5, m)", 1),
        ("stddev by (instance, le) (m)", 2),
        ("sum by (instance, le) (m)", 2),
        ("sum by (instance) (m + on (instance, le) m)", 3),
        ("count_values(\"v\", m + on (instance, le) m)", 2),
        ("-(m + on (instance, le) m)", 4),
        ("absent(m + on (instance, le) m)", 2),
        ("scalar(m + on (instance, le) m) + m", 3),
        ("info(m)", 2),
    ] {
        check_ends(&data, query, grid, pieces);
    }
}

#[test]
fn a_query_ends_in_the_middle_of_a_piece_over_many_series() {
    let data = histograms(3000);
    // The answer's vector is a piece, and so is what becomes of the rows.
    for (query, pieces) in [
        ("m", 1),
        ("label_replace(m, \"a\", \"$1\", \"instance\", \"(.*)\")", 2),
        ("label_join(m, \"a\", \"-\", \"instance\", \"le\")", 2),
        ("sort_desc(m)", 2),
        ("sort_by_label(m, \"le\", \"instance\")", 2),
        ("topk(10000, m)", 2),
        ("count by (instance, le) (m)", 2),
        ("m unless on (le) vector(1)", 2),
    ] {
        check_ends(&data, query, Grid::instant(0), pieces);
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
