//! What a gate of series keeps out of the parcels: numbers, histograms and exemplars alike.

use super::*;
use crate::limits::series::RefusedSeries;
use remote_write::{Exemplar, Sample, SampleValue, WriteRequest};
use trefoil_model::Histogram;

#[test]
fn times_that_are_refused_name_their_limit() {
    let acceptance = Acceptance {
        oldest: 5,
        past: 3,
        newest: 10,
        held: HeldTimes::NONE,
    };
    let accepted: Vec<i64> = (0..20).filter(|at| acceptance.accepts(*at)).collect();
    assert_eq!(accepted, [5, 6, 7, 8, 9, 10]);
    for (time, id) in [
        (2, "(err-mimir-too-far-in-past)"),
        (3, "(err-mimir-sample-timestamp-too-old)"),
        (11, "(err-mimir-too-far-in-future)"),
    ] {
        let reason = acceptance.refusal(time, "up");
        assert!(reason.contains(id), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_series_that_may_not_begin_leaves_nothing() {
    let mut machine = Machine::new();
    let run = machine.start();
    let limits = ApiLimits::default().write;
    let histogram = Sample {
        time: 2,
        start: 0,
        value: SampleValue::Histogram(Arc::new(Histogram::default())),
    };
    let mut request = WriteRequest::default();
    for metric in ["admitted", "refused"] {
        let samples = [Sample::float(1, 1.0), histogram.clone()];
        let pushed = request.push_samples(&mut [("__name__", metric)], samples, &limits);
        pushed.expect("a small request");
        let exemplar = Exemplar {
            labels: Labels::from_pairs([("trace_id", "a")]),
            value: 1.0,
            time: 1,
        };
        let pushed = request.push_exemplar(&mut [("__name__", metric)], Some(exemplar), &limits);
        pushed.expect("a small request");
    }
    let refused = Labels::from_pairs([("__name__", "refused")]);
    let mut gate = |canonical: &[u8]| match canonical == refused.canonical() {
        true => Err(RefusedSeries::OfTenant(1)),
        false => Ok(()),
    };
    let encoder = Encoder::default();
    // While there are members that cannot read exemplars, all of them are left out, and nothing else.
    for (takes_exemplars, skipped_exemplars) in [(true, 1), (false, 2)] {
        let admission = Admission {
            acceptance: Acceptance {
                oldest: 0,
                past: 0,
                newest: 10,
                held: HeldTimes::NONE,
            },
            filter: None,
            takes_exemplars,
            gate: &mut gate,
        };
        let encoded = encoder.encode(TENANT, &request, &run.plane.routing(), admission);
        let encoded = encoded.expect("a small request");
        assert_eq!((encoded.samples, encoded.out_of_bounds), (2, 0));
        let refusals = (encoded.refusals.series, encoded.refusals.samples);
        assert_eq!(refusals, (1, 2));
        assert_eq!(encoded.refused_histograms, 1);
        assert_eq!(encoded.skipped_exemplars, skipped_exemplars);
    }
    run.kill(&machine);
}

#[tokio::test(flavor = "multi_thread")]
async fn series_with_samples_out_of_bounds_are_told_from_those_without_others() {
    let mut machine = Machine::new();
    let run = machine.start();
    let limits = ApiLimits::default().write;
    let histogram = Sample {
        time: 99,
        start: 0,
        value: SampleValue::Histogram(Arc::new(Histogram::default())),
    };
    let mut request = WriteRequest::default();
    for (metric, samples) in [
        ("good", vec![Sample::float(1, 1.0)]),
        (
            "partly",
            vec![Sample::float(1, 1.0), Sample::float(99, 1.0)],
        ),
        (
            "whole",
            vec![Sample::float(99, 1.0), Sample::float(99, 2.0)],
        ),
        ("histogram", vec![Sample::float(1, 1.0), histogram]),
    ] {
        let pushed = request.push_samples(&mut [("__name__", metric)], samples, &limits);
        pushed.expect("a small request");
    }
    let admission = Admission {
        acceptance: Acceptance {
            oldest: 0,
            past: 0,
            newest: 10,
            held: HeldTimes::NONE,
        },
        filter: None,
        takes_exemplars: true,
        gate: &mut |_| Ok(()),
    };
    let encoded = Encoder::default().encode(TENANT, &request, &run.plane.routing(), admission);
    let encoded = encoded.expect("a small request");
    assert_eq!((encoded.samples, encoded.out_of_bounds), (3, 4));
    assert_eq!(encoded.out_of_bounds_series, (3, 2));
    run.kill(&machine);
}
