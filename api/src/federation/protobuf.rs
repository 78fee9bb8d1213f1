//! The answer of `/federate` in protobuf, which has native histograms too.
//!
//! ```text
//! body          = *(varint length | MetricFamily)
//! MetricFamily    name = 1, type = 3 (UNTYPED 3, HISTOGRAM 4, GAUGE_HISTOGRAM 5), Metric = 4
//! Metric          LabelPair = 1, Untyped = 5, timestamp_ms = 6, Histogram = 7
//! ```
//! The other messages are drawn in `exposition/protobuf.rs`, which reads them. As in Prometheus, what has one name and
//! several types makes several families.
//!
//! Counts that are all whole are written as integers, which is what most clients expose. A histogram with custom buckets
//! has no native form in this format; it is written as the classic histogram that it means, which a reader stores as series
//! `_bucket`, `_sum` and `_count`, or makes one with custom buckets of. Where the answer has numbers of such a name, those
//! are the classic histogram already, and the ones with custom buckets are left out.
//!
//! Source: `metrics.proto` of the Prometheus client model, `web/federate.go` of Prometheus.

use super::{FederationFormat, Kind, Newest, family_of, shown};
use crate::wire::{write_buckets, write_bytes, write_double, write_number, write_spans, zigzag};
use std::{borrow::Cow, collections::HashSet};
use trefoil_model::{Histogram, write_varint};
use trefoil_query_promql::Value;

/// What readers append to the name of a classic histogram.
const CLASSIC: [&str; 3] = ["_bucket", "_count", "_sum"];

/// Writes samples that are sorted by name and kind.
pub(super) fn write_families(newest: &[Newest], format: FederationFormat) -> Vec<u8> {
    let of_one_family = |a: &Newest, b: &Newest| {
        family_of(a, format) == family_of(b, format) && a.kind() == b.kind()
    };
    let numbers = newest.iter().filter(|one| one.kind() == Kind::Number);
    let numbers: HashSet<Cow<'_, str>> = numbers.map(|one| family_of(one, format)).collect();
    let (mut out, mut family, mut metric) = (Vec::new(), Vec::new(), Vec::new());
    for members in newest.chunk_by(of_one_family) {
        let name = family_of(&members[0], format);
        let has_classic = CLASSIC
            .iter()
            .any(|suffix| numbers.contains(format!("{name}{suffix}").as_str()));
        let mut members = members
            .iter()
            .filter(|one| !(has_classic && one.is_custom()))
            .peekable();
        let Some(first) = members.peek() else {
            continue;
        };
        family.clear();
        write_bytes(&mut family, 1, name.as_bytes());
        let kind = match first.kind() {
            Kind::Number => 3,
            Kind::Histogram => 4,
            Kind::GaugeHistogram => 5,
        };
        write_number(&mut family, 3, kind);
        for one in members {
            metric.clear();
            write_metric(&mut metric, one, format);
            write_bytes(&mut family, 4, &metric);
        }
        write_varint(&mut out, family.len() as u64);
        out.extend_from_slice(&family);
    }
    out
}

/// Whether readers take the histogram for what it is. Prometheus takes one for a float histogram only if the number of
/// observations or that in the zero bucket is positive; all others it reads as integers, finds spans without their
/// counts, and gives the whole scrape up.
pub(super) fn can_tell(histogram: &Histogram) -> bool {
    histogram.has_whole_counts() || histogram.count > 0.0 || histogram.zero_count > 0.0
}

fn write_metric(out: &mut Vec<u8>, one: &Newest, format: FederationFormat) {
    let mut message = Vec::new();
    for (name, value) in one.other_labels() {
        message.clear();
        write_bytes(&mut message, 1, shown(name, false, format).as_bytes());
        write_bytes(&mut message, 2, value.as_bytes());
        write_bytes(out, 1, &message);
    }
    message.clear();
    let field = match &one.value {
        Value::Float(value) => {
            write_double(&mut message, 1, *value);
            5
        }
        Value::Histogram(histogram) if histogram.is_custom() => {
            write_classic(&mut message, histogram);
            7
        }
        Value::Histogram(histogram) => {
            write_native(&mut message, histogram);
            7
        }
    };
    write_bytes(out, field, &message);
    write_number(out, 6, one.time as u64);
}

fn write_count(out: &mut Vec<u8>, histogram: &Histogram, is_whole: bool) {
    match is_whole {
        true => write_number(out, 1, histogram.count as u64),
        false => write_double(out, 4, histogram.count),
    }
    write_double(out, 2, histogram.sum);
}

fn write_native(out: &mut Vec<u8>, histogram: &Histogram) {
    let is_whole = histogram.has_whole_counts();
    write_count(out, histogram, is_whole);
    write_number(out, 5, zigzag(i64::from(histogram.schema)));
    write_double(out, 6, histogram.zero_threshold);
    match is_whole {
        true => write_number(out, 7, histogram.zero_count as u64),
        false => write_double(out, 8, histogram.zero_count),
    }
    write_buckets(out, &histogram.negative, is_whole, [9, 10, 11]);
    write_buckets(out, &histogram.positive, is_whole, [12, 13, 14]);
    let sides = [&histogram.positive, &histogram.negative];
    if sides.iter().all(|side| side.is_empty()) {
        // A span without buckets says that this is a native histogram.
        write_spans(out, 12, &[(0, 0)]);
    }
}

fn write_classic(out: &mut Vec<u8>, histogram: &Histogram) {
    let is_whole = histogram.has_whole_counts();
    write_count(out, histogram, is_whole);
    let bounds = histogram.custom_bounds.iter().copied();
    let mut buckets = histogram.positive.iter().peekable();
    let (mut bucket, mut count) = (Vec::new(), 0.0);
    for (at, bound) in (0..).zip(bounds.chain([f64::INFINITY])) {
        while let Some((_, more)) = buckets.next_if(|(index, _)| *index <= at) {
            count += more;
        }
        bucket.clear();
        match is_whole {
            true => write_number(&mut bucket, 1, count as u64),
            false => write_double(&mut bucket, 4, count),
        }
        write_double(&mut bucket, 2, bound);
        write_bytes(out, 3, &bucket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        WriteLimits,
        exposition::{ImportOptions, import_protobuf},
        federation::write_federation,
        remote_write::{MetricKind, SampleValue, WriteRequest},
    };
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    use std::sync::Arc;
    use trefoil_model::histogram::Buckets;
    use trefoil_model::{Labels, Millis, ResetHint, histogram::SCHEMA_CUSTOM};
    use trefoil_query_promql::{HISTOGRAM, Histograms, RawSeries, STALE_MARKER_BITS};

    const ACCEPT: &str = "application/vnd.google.protobuf;encoding=delimited;\
         proto=io.prometheus.client.MetricFamily;escaping=allow-utf-8";

    fn newest(pairs: &[(&str, &str)], time: Millis, value: Value) -> Option<Newest> {
        let mut histograms = Histograms::default();
        let value = match value {
            Value::Float(value) => value,
            Value::Histogram(histogram) => {
                histograms.put(1, histogram);
                HISTOGRAM
            }
        };
        let series = RawSeries {
            labels: Labels::from_pairs(pairs.iter().copied()),
            timestamps: vec![time - 1, time],
            values: vec![7.0, value],
            histograms,
        };
        Newest::of(series, FederationFormat::of_accept(ACCEPT))
    }

    fn imported(body: &[u8]) -> WriteRequest {
        let mut request = WriteRequest::default();
        let (options, limits) = (ImportOptions::default(), WriteLimits::default());
        import_protobuf(body, &options, &limits, &mut request).unwrap();
        request
    }

    /// Writes samples, imports them and returns them by labels.
    fn again(newest: Vec<Newest>) -> Vec<(Labels, Millis, SampleValue)> {
        let request = imported(&write_federation(
            newest,
            FederationFormat::of_accept(ACCEPT),
        ));
        let series = request.series().flat_map(|series| {
            let samples = series.whole_samples();
            samples
                .map(|sample| (series.to_labels(), sample.time, sample.value))
                .collect::<Vec<_>>()
        });
        let mut all: Vec<_> = series.collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    fn buckets(random: &mut StdRng, add: f64) -> Buckets {
        let count = random.random_range(0..9);
        let spans: Vec<_> = (0..count).map(|_| (random.random_range(0..5), 1)).collect();
        let counts = spans
            .iter()
            .map(|_| f64::from(random.random_range(0..1 << 30)) + add);
        let counts = counts.collect();
        Buckets::from_spans(&spans, counts).unwrap()
    }

    fn random_histogram(random: &mut StdRng) -> Histogram {
        let add = [0.0, 0.0, 0.125][random.random_range(0..3)];
        let mut histogram = Histogram {
            schema: random.random_range(-4..=8),
            reset_hint: [ResetHint::Unknown, ResetHint::Gauge][random.random_range(0..2)],
            zero_threshold: [0.0, 0.001][random.random_range(0..2)],
            zero_count: add,
            sum: f64::from_bits(random.random()),
            positive: buckets(random, add),
            negative: buckets(random, add),
            ..Histogram::default()
        };
        if histogram.sum.is_nan() {
            histogram.sum = -0.0;
        }
        let sides = [&histogram.positive, &histogram.negative];
        let in_buckets: f64 = sides.iter().flat_map(|side| side.counts()).sum();
        histogram.count = histogram.zero_count + in_buckets;
        histogram
    }

    #[test]
    fn what_is_federated_imports_again() {
        let mut random = StdRng::seed_from_u64(7);
        let mut expected = Vec::new();
        for number in 0..300 {
            let name = ["a", "b:c", "d.e"][number % 3];
            let number = number.to_string();
            let pairs = [("__name__", name), ("instance", &number), ("f g", "\"h\n")];
            let value = match random.random_range(0..4) {
                0 => Value::Float(f64::from_bits(random.random())),
                1 => Value::Histogram(Arc::new(Histogram::default())),
                _ => Value::Histogram(Arc::new(random_histogram(&mut random))),
            };
            let time = random.random_range(-1_000_000..1 << 41);
            expected.extend(newest(&pairs, time, value));
        }
        let found = again(expected.clone());
        assert_eq!(found.len(), expected.len());
        expected.sort_by(|a, b| a.labels.cmp(&b.labels));
        for ((labels, time, value), one) in found.iter().zip(&expected) {
            assert_eq!((labels, *time), (&one.labels, one.time));
            match (value, &one.value) {
                (SampleValue::Float(found), Value::Float(value)) => {
                    assert_eq!(found.to_bits(), value.to_bits());
                }
                (SampleValue::Histogram(found), Value::Histogram(histogram)) => {
                    assert!(found.same_content(histogram), "{found:?}\n{histogram:?}");
                    assert_eq!(found.reset_hint, histogram.reset_hint);
                }
                _ => panic!("{value:?} of {:?}", one.value),
            }
        }
    }

    #[test]
    fn kinds_of_one_name_are_families() {
        let gauge = Histogram {
            reset_hint: ResetHint::Gauge,
            ..Histogram::default()
        };
        let histogram = |histogram| Value::Histogram(Arc::new(histogram));
        let samples = [
            newest(&[("__name__", "x"), ("a", "1")], 5, histogram(gauge)),
            newest(&[("__name__", "x"), ("a", "2")], 5, Value::Float(1.5)),
            newest(
                &[("__name__", "x"), ("a", "3")],
                5,
                histogram(Histogram::default()),
            ),
            newest(
                &[("__name__", "y")],
                5,
                Value::Float(f64::from_bits(STALE_MARKER_BITS)),
            ),
            newest(&[("a", "4")], 5, Value::Float(1.0)),
        ];
        let samples: Vec<_> = samples.into_iter().flatten().collect();
        let body = write_federation(samples, FederationFormat::of_accept(ACCEPT));
        let request = imported(&body);
        let kinds: Vec<MetricKind> = request.metadata().map(|family| family.kind).collect();
        let expected = [
            MetricKind::Unknown,
            MetricKind::Histogram,
            MetricKind::GaugeHistogram,
        ];
        assert_eq!(kinds, expected);
        // 1.5 of x{a="2", instance=""} at 5, by hand.
        let float = [
            &b"\x2a\x0a\x01x\x18\x03\x22\x23\x0a\x06\x0a\x01a\x12\x012\x0a\x0c\x0a\x08instance\x12\x00"[..],
            &b"\x2a\x09\x09"[..],
            &1.5f64.to_le_bytes(),
            b"\x30\x05",
        ];
        assert!(body.starts_with(&float.concat()), "{body:x?}");
    }

    fn custom(counts: [f64; 2]) -> Histogram {
        Histogram {
            schema: SCHEMA_CUSTOM,
            count: counts.iter().sum(),
            sum: 2.5,
            positive: Buckets::from_spans(&[(0, 1), (1, 1)], counts.to_vec()).unwrap(),
            custom_bounds: [0.5, 1.0].into(),
            ..Histogram::default()
        }
    }

    /// A float histogram whose counts are not positive would be read as one of integers, and its buckets as a mistake.
    #[test]
    fn what_readers_take_for_integers_is_left_out() {
        let counted = |count: f64, zero_count: f64| Histogram {
            count,
            zero_count,
            positive: Buckets::from_spans(&[(0, 1)], vec![f64::NAN]).unwrap(),
            ..Histogram::default()
        };
        let check = |histogram: Histogram, is_told: bool| {
            let shown = format!("{histogram:?}");
            let one = newest(
                &[("__name__", "x")],
                5,
                Value::Histogram(Arc::new(histogram)),
            );
            assert_eq!(one.is_some(), is_told, "{shown}");
        };
        check(counted(f64::NAN, f64::NAN), false);
        check(counted(-0.0, 0.0), false);
        check(counted(0.0, -0.0), false);
        check(counted(f64::NAN, 1.0), true);
        check(counted(0.5, 0.0), true);
        check(Histogram::default(), true);
        let alone = |count| Histogram {
            count,
            ..Histogram::default()
        };
        check(alone(f64::NAN), false);
        check(alone(-0.0), false);
        check(custom([f64::NAN, 1.0]), false);
    }

    #[test]
    fn custom_buckets_give_way_to_classic_series() {
        let all = |other: &str| {
            let value = Value::Histogram(Arc::new(custom([3.0, 4.0])));
            let native = Value::Histogram(Arc::new(Histogram::default()));
            let samples = [
                newest(&[("__name__", "x"), ("a", "1")], 9, value.clone()),
                newest(&[("__name__", "x"), ("a", "2")], 9, native),
                newest(&[("__name__", "y")], 9, value),
                newest(&[("__name__", other), ("a", "3")], 9, Value::Float(1.0)),
            ];
            let found = again(samples.into_iter().flatten().collect());
            let of = |name: &str| {
                let is = |labels: &&Labels| labels.metric_name() == Some(name);
                found.iter().map(|(labels, ..)| labels).filter(is).count()
            };
            [
                of("x"),
                of("x_bucket"),
                of("x_count"),
                of("x_sum"),
                of("y_bucket"),
            ]
        };
        assert_eq!(all("x_total"), [1, 3, 1, 1, 3]);
        assert_eq!(all("x_bucket"), [1, 1, 0, 0, 3]);
        assert_eq!(all("x_count"), [1, 0, 1, 0, 3]);
        assert_eq!(all("x_sum"), [1, 0, 0, 1, 3]);
        // Nothing is left of the family.
        assert_eq!(all("y_sum"), [1, 3, 1, 1, 0]);
    }

    #[test]
    fn custom_buckets_become_classic_ones() {
        for counts in [[3.0, 4.0], [3.25, 4.0]] {
            let value = Value::Histogram(Arc::new(custom(counts)));
            let found = again(newest(&[("__name__", "x")], 9, value).into_iter().collect());
            let mut shown: Vec<String> = found
                .iter()
                .map(|(labels, time, value)| match value {
                    SampleValue::Float(value) => format!("{labels} {value} {time}"),
                    SampleValue::Histogram(_) => panic!("{labels} is native"),
                })
                .collect();
            let (first, all) = (counts[0], counts[0] + counts[1]);
            let mut expected = vec![
                format!("x_bucket{{le=\"+Inf\"}} {all} 9"),
                format!("x_bucket{{le=\"0.5\"}} {first} 9"),
                format!("x_bucket{{le=\"1.0\"}} {first} 9"),
                format!("x_count {all} 9"),
                "x_sum 2.5 9".to_owned(),
            ];
            shown.sort();
            expected.sort();
            assert_eq!(shown, expected);
        }
    }
}
