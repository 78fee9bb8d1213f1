//! Pins the bytes of docs/formats/promql-parts.md.

use std::sync::Arc;
use trefoil_model::{Histogram, Labels, ResetHint, histogram::Buckets};
use trefoil_query_promql::{
    ABSENT, Annotations, Binding, EvalOptions, Grid, GroupColumn, GroupPartial, Histograms, Part,
    PartBody, PartOutput, PartResult, RawSeries, Row, Span,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks bytes against their pieces, and that they read back as the same.
fn check<T>(value: &T, pieces: &[&str])
where
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    let bytes = bincode::serialize(value).expect("serialises");
    assert_eq!(hex(&bytes), pieces.concat());
    let back: T = bincode::deserialize(&bytes).expect("deserialises");
    // By bytes: NaN is not equal to itself.
    let again = bincode::serialize(&back).expect("serialises");
    assert_eq!(hex(&again), hex(&bytes));
}

#[test]
fn golden_part() {
    let part = Part {
        query: "sum(a)".into(),
        node: Span::new(4, 5),
        output: PartOutput::Groups,
        grid: Grid {
            start: 1,
            end: 2,
            step: 3,
        },
        query_grid: Grid::instant(-1),
        bindings: vec![Binding {
            node: Span::new(0, 1),
            values: vec![1.0],
        }],
        options: EvalOptions::default(),
        samples_max: 255,
    };
    check(
        &part,
        &[
            "0600000000000000",
            "73756d286129",
            "0400000005000000",
            "01000000",
            "010000000000000002000000000000000300000000000000",
            "ffffffffffffffffffffffffffffffff0100000000000000",
            "0100000000000000",
            "0000000001000000",
            "0100000000000000000000000000f03f",
            "e09304000000000060ea000000000000",
            "0000000000",
            "0000000000000000",
            "ff00000000000000",
        ],
    );
}

fn labels() -> Labels {
    Labels::from_pairs([("x", "y")])
}

const LABELS: &str = "040000000000000001780179";
/// An empty list.
const NONE: &str = "0000000000000000";
const ONE: &str = "0100000000000000";

#[test]
fn golden_rows_and_samples() {
    let row = Row::floats(labels(), true, vec![2.0]);
    let mut annotations = Annotations::default();
    annotations.info(Span::new(1, 2), "i");
    let result = PartResult {
        body: PartBody::Rows(vec![row]),
        annotations,
    };
    let value = "01000000000000000000000000000040";
    let info = "01000000010000000000000069010100000002000000";
    check(
        &result,
        &["00000000", ONE, LABELS, "01", value, NONE, ONE, info],
    );
    let raw = RawSeries {
        labels: labels(),
        timestamps: vec![5],
        values: vec![2.0],
        histograms: Histograms::default(),
    };
    let result = PartResult {
        body: PartBody::Samples(vec![raw]),
        annotations: Annotations::default(),
    };
    let time = "01000000000000000500000000000000";
    check(&result, &["02000000", ONE, LABELS, time, value, NONE, NONE]);
}

fn histogram() -> Histogram {
    Histogram {
        schema: -1,
        reset_hint: ResetHint::NotReset,
        zero_threshold: 1.0,
        zero_count: 2.0,
        count: 5.0,
        sum: 4.0,
        positive: Buckets::from_spans(&[(-1, 1)], vec![3.0]).expect("one bucket"),
        ..Histogram::default()
    }
}

const HISTOGRAM: &str = concat!(
    "ff02000000",
    "000000000000f03f000000000000004000000000000014400000000000001040",
    "0100000000000000ffffffff01000000000000000000000000000840",
    "000000000000000000000000000000000000000000000000"
);

#[test]
fn golden_histograms() {
    let mut row = Row::floats(
        labels(),
        false,
        vec![ABSENT, trefoil_query_promql::HISTOGRAM],
    );
    row.histograms.put(1, Arc::new(histogram()));
    let result = PartResult {
        body: PartBody::Rows(vec![row]),
        annotations: Annotations::default(),
    };
    let values = "0200000000000000020000000000f07f040000000000f07f";
    let places = ["0100000000000000", "01000000"].concat();
    check(
        &result,
        &[
            "00000000", ONE, LABELS, "00", values, &places, HISTOGRAM, NONE,
        ],
    );
}

#[test]
fn malformed_histograms_are_refused() {
    let mut bytes = bincode::serialize(&histogram()).expect("serialises");
    bytes[0] = 9;
    assert!(bincode::deserialize::<Histogram>(&bytes).is_err());
}

#[test]
fn golden_groups() {
    let columns = [
        (
            GroupColumn::Sum(vec![1.0], vec![0.0]),
            "000000000100000000000000000000000000f03f01000000000000000000000000000000",
        ),
        (
            GroupColumn::Min(vec![1.0]),
            "020000000100000000000000000000000000f03f",
        ),
        (
            GroupColumn::Max(vec![1.0]),
            "030000000100000000000000000000000000f03f",
        ),
        (
            GroupColumn::Count(vec![1.0]),
            "040000000100000000000000000000000000f03f",
        ),
        (
            GroupColumn::Group(vec![1.0]),
            "050000000100000000000000000000000000f03f",
        ),
        (
            GroupColumn::Avg(vec![trefoil_query_promql::MeanState::default()]),
            "01000000010000000000000000000000000000000000000000000000000000000000000000",
        ),
    ];
    for (column, bytes) in columns {
        let group = GroupPartial::new(labels(), column);
        let result = PartResult {
            body: PartBody::Groups(vec![group]),
            annotations: Annotations::default(),
        };
        check(
            &result,
            &["01000000", ONE, LABELS, "00", bytes, NONE, NONE, NONE],
        );
    }
}
