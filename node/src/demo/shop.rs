//! The demo's shop: four services whose metrics are pure functions of time.
//!
//! Every counter is the closed-form integral of its rate, so that an hour of history and the live feed
//! agree to the last bit, and a restart of the demo continues where it was. For five minutes of every
//! twenty the checkout's payment calls fail and slow down, so that there is something to find.

use std::f64::consts::TAU;
use trefoil_model::{LABEL_NAME_METRIC, Labels, LabelsBuilder, Millis};

/// One series' value at the asked time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) labels: Labels,
    pub(crate) value: f64,
}

/// Upper bounds of the latency histogram, seconds.
const BOUNDS: [f64; 8] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];
/// Length of the cycle of faults, seconds.
const FAULT_CYCLE: f64 = 1200.0;
/// How long the fault lasts in each cycle, seconds.
const FAULT_LENGTH: f64 = 300.0;

struct Route {
    service: &'static str,
    path: &'static str,
    /// Mean requests per second.
    rate: f64,
    /// Share of requests that fail outside a fault.
    failing: f64,
    /// Median latency outside a fault, seconds.
    median: f64,
    /// Whether the fault concerns this route.
    faulty: bool,
}

const ROUTES: [Route; 6] = [
    Route {
        service: "frontend",
        path: "/",
        rate: 42.0,
        failing: 0.001,
        median: 0.012,
        faulty: false,
    },
    Route {
        service: "frontend",
        path: "/product",
        rate: 31.0,
        failing: 0.002,
        median: 0.021,
        faulty: false,
    },
    Route {
        service: "cart",
        path: "/cart",
        rate: 12.0,
        failing: 0.002,
        median: 0.008,
        faulty: false,
    },
    Route {
        service: "checkout",
        path: "/checkout",
        rate: 4.0,
        failing: 0.004,
        median: 0.060,
        faulty: true,
    },
    Route {
        service: "payment",
        path: "/charge",
        rate: 3.8,
        failing: 0.004,
        median: 0.045,
        faulty: true,
    },
    Route {
        service: "payment",
        path: "/refund",
        rate: 0.2,
        failing: 0.010,
        median: 0.050,
        faulty: false,
    },
];

/// All samples of the shop at a time, in no particular order.
pub(crate) fn samples_at(at: Millis) -> Vec<Sample> {
    let seconds = at as f64 / 1000.0;
    let mut samples = Vec::new();
    for (index, route) in ROUTES.iter().enumerate() {
        route_samples(route, index as f64, seconds, &mut samples);
    }
    let day = (TAU * seconds / 3600.0).sin();
    let orders = whole(ROUTES[3].rate * 0.9 * busy_seconds(3.0, seconds));
    push(
        &mut samples,
        "shop_orders_total",
        &[("service", "checkout")],
        orders,
    );
    push(
        &mut samples,
        "shop_cart_items",
        &[("service", "cart")],
        (180.0 + 60.0 * day).round(),
    );
    let backlog = if in_fault(seconds) { 40.0 } else { 3.0 };
    push(
        &mut samples,
        "shop_queue_depth",
        &[("service", "payment"), ("queue", "charges")],
        backlog,
    );
    for service in ["frontend", "cart", "checkout", "payment"] {
        push(&mut samples, "up", &[("service", service)], 1.0);
    }
    samples
}

fn route_samples(route: &Route, phase: f64, seconds: f64, samples: &mut Vec<Sample>) {
    let total = route.rate * busy_seconds(phase, seconds);
    // Never more than the quietest moment's requests, so that what is left over never falls.
    let share = if route.faulty { 0.3 } else { 0.0 };
    let in_faults = share * route.rate * fault_seconds(seconds);
    let failed = whole(route.failing * total + 0.3 * in_faults);
    let labels = [("service", route.service), ("route", route.path)];
    let with = |name, value: &str, samples: &mut Vec<Sample>, metric, amount| {
        let all = [labels[0], labels[1], (name, value)];
        push(samples, metric, &all, amount);
    };
    with(
        "code",
        "200",
        samples,
        "shop_http_requests_total",
        whole(total) - failed,
    );
    with("code", "500", samples, "shop_http_requests_total", failed);
    let metric = "shop_http_request_duration_seconds_bucket";
    for bound in BOUNDS {
        let normal = share_below(bound, route.median) * (total - in_faults);
        let slow = share_below(bound, route.median * 8.0) * in_faults;
        with(
            "le",
            &bound.to_string(),
            samples,
            metric,
            whole(normal + slow),
        );
    }
    with("le", "+Inf", samples, metric, whole(total));
    push(
        samples,
        "shop_http_request_duration_seconds_count",
        &labels,
        whole(total),
    );
    let sum = route.median * 1.2 * (total - in_faults) + route.median * 9.6 * in_faults;
    push(
        samples,
        "shop_http_request_duration_seconds_sum",
        &labels,
        sum,
    );
}

/// Seconds of mean load since the start of the day: the integral of `1 + 0.5 sin`, never falling.
fn busy_seconds(phase: f64, seconds: f64) -> f64 {
    let period = 900.0;
    let since = seconds.rem_euclid(86_400.0);
    since + 0.5 * period / TAU * (phase.cos() - (TAU * since / period + phase).cos())
}

/// Seconds spent in faults since the start of the day.
fn fault_seconds(seconds: f64) -> f64 {
    let since = seconds.rem_euclid(86_400.0);
    let cycles = (since / FAULT_CYCLE).floor();
    let begun = (since - cycles * FAULT_CYCLE - (FAULT_CYCLE - FAULT_LENGTH)).max(0.0);
    cycles * FAULT_LENGTH + begun
}

fn in_fault(seconds: f64) -> bool {
    seconds.rem_euclid(FAULT_CYCLE) >= FAULT_CYCLE - FAULT_LENGTH
}

/// The share of requests faster than `bound` when half are faster than `median` (log-logistic).
fn share_below(bound: f64, median: f64) -> f64 {
    1.0 / (1.0 + (bound / median).powf(-2.5))
}

fn whole(value: f64) -> f64 {
    value.floor()
}

fn push(samples: &mut Vec<Sample>, metric: &str, labels: &[(&str, &str)], value: f64) {
    let mut builder = LabelsBuilder::new();
    builder.set(LABEL_NAME_METRIC, metric).set("job", "shop");
    for (name, text) in labels {
        builder.set(name, text);
    }
    samples.push(Sample {
        labels: builder.build(),
        value,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_never_fall_and_buckets_are_cumulative() {
        let start = 1_700_000_000_000;
        let mut previous = samples_at(start);
        for step in 1..200 {
            let current = samples_at(start + step * 15_000);
            assert_eq!(previous.len(), current.len());
            for (before, after) in previous.iter().zip(&current) {
                assert_eq!(before.labels, after.labels);
                let name = after.labels.metric_name().unwrap_or_default();
                if name.ends_with("_total") || name.ends_with("_bucket") {
                    assert!(after.value >= before.value, "{:?}", after.labels);
                }
            }
            let buckets: Vec<f64> = current
                .iter()
                .filter(|s| s.labels.get("le").is_some() && s.labels.get("route") == Some("/"))
                .map(|s| s.value)
                .collect();
            assert!(
                buckets.windows(2).all(|pair| pair[0] <= pair[1]),
                "{buckets:?}"
            );
            previous = current;
        }
    }
}
