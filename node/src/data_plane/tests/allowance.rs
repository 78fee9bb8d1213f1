//! What a tenant's limits leave of an expression, where its samples are read.

use super::*;
use crate::query::allowance::{Allowance, Fetched};

/// The rows of a query at 1,000 s within limits, and what was fetched; or the error.
async fn ask(
    run: &Run,
    query: &str,
    (oldest_s, series_max, bytes_max): (i64, u64, u64),
) -> Result<(usize, Fetched), String> {
    let allowance = Allowance {
        oldest: oldest_s * 1000,
        series_max,
        bytes_max,
    };
    let mut ask = question(query, 1_000_000, 1 << 20);
    ask.allowance = Some(allowance);
    let answered = answer(run, &Evaluator::new(1), ask).await;
    let fetched = answered.fetched;
    match answered.answer.as_ref().expect("this node is complete") {
        Ok(_) => Ok((rows(answered), fetched)),
        Err(error) => Err(error.to_string()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn selectors_see_no_older_samples_and_stop_at_the_limits() {
    let mut machine = Machine::new();
    let run = machine.start();
    for shard in 0..2 {
        for at in [100_000, 990_000] {
            assert_eq!(run.write(shard, at, 1.0).await, WriteOutcome::Held);
        }
    }
    let none = (i64::MIN / 1000, 0, 0);
    for query in ["m", "m offset 15m", "m @ 100", "max_over_time(m[1000s])"] {
        let (found, fetched) = ask(&run, query, none).await.expect(query);
        assert_eq!((found, fetched.series), (2, 2), "{query}");
    }
    for query in ["m offset 15m", "m @ 100"] {
        let seen = ask(&run, query, (500, 0, 0)).await;
        assert_eq!(seen, Ok((0, Fetched::default())), "{query}");
    }
    let all = ask(&run, "max_over_time(m[1000s])", none)
        .await
        .expect("both are seen");
    let new = ask(&run, "max_over_time(m[1000s])", (500, 0, 0))
        .await
        .expect("the newer");
    assert_eq!((all.1.bytes, new.1.bytes), (64, 32));
    let error = ask(&run, "m", (0, 1, 0)).await.expect_err("there are two");
    assert!(error.contains("err-mimir-max-series-per-query"), "{error}");
    let error = ask(&run, "max_over_time(m[1000s])", (0, 0, 63)).await;
    let error = error.expect_err("there are four samples");
    assert!(error.contains("err-mimir-max-chunks-bytes"), "{error}");
    run.kill(&machine);
}
