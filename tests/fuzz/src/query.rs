//! Queries from clients, and parts of queries between nodes.

use crate::Target;
use bincode::Options;
use trefoil_query_promql::{EvalOptions, Part, PartResult, parse, parse_selector};

/// As much as a node takes of a question from another.
const PART_BYTES_MAX: u64 = 16 << 20;

pub(crate) const PROMQL: Target = Target {
    name: "promql",
    run: |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        let options = EvalOptions::default();
        if let Ok(expression) = parse(text, &options) {
            // What is printed means the same.
            let printed = expression.to_string();
            let again = parse(&printed, &options);
            let again =
                again.unwrap_or_else(|error| panic!("{text:?} prints as {printed:?}: {error}"));
            assert_eq!(again.to_string(), printed, "{text:?}");
        }
        parse_selector(text).ok();
    },
    seeds: || {
        let texts = [
            "sum by (job) (rate(http_requests_total{job=~\"a.*\", code!=\"500\"}[5m] offset 1h))",
            "a / on (instance) group_left (x) b > bool 1.5e3",
            "max_over_time(deriv(x[1m])[1h:30s] @ end()) or vector(-Inf)",
            "topk(3, {\"a.b\", c='\\u00e9'}) unless count_values(\"v\", y) ^ -2",
            "histogram_quantile(0.9, sum by (le) (rate(h_bucket[5m])))",
        ];
        texts.map(|text| text.as_bytes().to_vec()).to_vec()
    },
};

pub(crate) const PARTS: Target = Target {
    name: "parts",
    run: |bytes| {
        let options = || bincode::DefaultOptions::new().with_limit(PART_BYTES_MAX);
        if let Ok(part) = options().deserialize::<Part>(bytes) {
            options().serialize(&part).expect("it was read just now");
        }
        if let Ok(result) = options().deserialize::<PartResult>(bytes) {
            options().serialize(&result).expect("it was read just now");
        }
    },
    seeds: || vec![vec![0; 64], vec![1; 64]],
};
