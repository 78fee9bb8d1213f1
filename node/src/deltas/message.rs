//! Deltas on their way to the node that adds them up, and its answer: bincode behind the version byte of questions.

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use trefoil_api::remote_write::{Sample, SampleValue, SeriesRef, WriteRequest};
use trefoil_model::{Histogram, Millis};

/// The kind of [`Deltas`] among the calls of the `Queries` service.
pub(crate) const KIND_DELTAS: u32 = 9;
/// Bytes of a message, about; the delta that passes it is the message's last.
const BYTES_MAX: usize = 16 << 20;
/// Bytes of a delta beside its histogram, about.
const DELTA_BYTES: usize = 32;

/// Deltas of a tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Deltas {
    pub(crate) tenant: String,
    /// What is left of the request's time, in milliseconds.
    pub(crate) timeout_ms: u64,
    /// Ascending by labels, each once.
    pub(crate) series: Vec<DeltaSeries>,
}

/// Deltas of a series, ascending by time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DeltaSeries {
    /// Canonical bytes.
    pub(crate) labels: Vec<u8>,
    deltas: Vec<Delta>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Delta {
    time: Millis,
    start: Millis,
    value: Value,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Value {
    Number(f64),
    Histogram(Arc<Histogram>),
}

/// What became of deltas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answered {
    /// A majority of owners has the totals on disk, but for those that were refused.
    Stored(Refused),
    /// Another node adds them up.
    NotHere,
    /// Nobody knows what is stored; they have to be sent again.
    Later {
        message: String,
        retry_after_ms: u64,
    },
    /// They cannot be stored.
    Wrong(String),
}

/// What was left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refused {
    pub(crate) series: u64,
    pub(crate) deltas: u64,
    /// How many of them are histograms.
    pub(crate) histograms: u64,
    pub(crate) reasons: Vec<String>,
}

impl Deltas {
    /// The deltas of a request, in messages of bounded size, to be sent one after the other: the later deltas of a series may be
    /// in a later one.
    pub(crate) fn of(tenant: &str, request: &WriteRequest) -> Vec<Self> {
        Self::within(BYTES_MAX, tenant, request)
    }

    fn within(bytes_max: usize, tenant: &str, request: &WriteRequest) -> Vec<Self> {
        let mut series: Vec<SeriesRef<'_>> = request.series().collect();
        // A point is a series of its own in a request of OpenTelemetry's.
        series.sort_by_key(|series| series.canonical());
        let mut messages: Vec<Self> = Vec::new();
        let mut bytes = bytes_max;
        for same in series.chunk_by(|one, other| one.canonical() == other.canonical()) {
            let deltas = same.iter().flat_map(|series| series.whole_samples());
            let mut deltas: Vec<Delta> = deltas.map(Delta::new).collect();
            deltas.sort_by_key(|delta| delta.time);
            let labels = same[0].canonical();
            let mut deltas = deltas.into_iter().peekable();
            while deltas.peek().is_some() {
                if bytes >= bytes_max {
                    bytes = 0;
                    messages.push(Self {
                        tenant: tenant.to_owned(),
                        timeout_ms: 0,
                        series: Vec::new(),
                    });
                }
                bytes += labels.len();
                let mut fitting = Vec::new();
                while let Some(delta) = deltas.next_if(|_| fitting.is_empty() || bytes < bytes_max)
                {
                    bytes += delta.bytes();
                    fitting.push(delta);
                }
                if let Some(message) = messages.last_mut() {
                    message.series.push(DeltaSeries {
                        labels: labels.to_vec(),
                        deltas: fitting,
                    });
                }
            }
        }
        messages
    }
}

impl DeltaSeries {
    /// The deltas, whose histograms are shared.
    pub(crate) fn samples(&self) -> impl Iterator<Item = Sample> + '_ {
        self.deltas.iter().map(|delta| Sample {
            time: delta.time,
            start: delta.start,
            value: match &delta.value {
                Value::Number(value) => SampleValue::Float(*value),
                Value::Histogram(histogram) => SampleValue::Histogram(histogram.clone()),
            },
        })
    }
}

impl Delta {
    fn new(sample: Sample) -> Self {
        Self {
            time: sample.time,
            start: sample.start,
            value: match sample.value {
                SampleValue::Float(value) => Value::Number(value),
                SampleValue::Histogram(histogram) => Value::Histogram(histogram),
            },
        }
    }

    fn bytes(&self) -> usize {
        let histogram = match &self.value {
            Value::Number(_) => 0,
            Value::Histogram(histogram) => histogram.bytes(),
        };
        DELTA_BYTES + histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::question;
    use trefoil_api::ApiLimits;

    fn request(points: &[(&str, Millis)]) -> WriteRequest {
        let limits = ApiLimits::default().write;
        let mut request = WriteRequest::default();
        for (name, time) in points {
            let sample = Sample {
                start: time - 5,
                ..Sample::float(*time, 2.0)
            };
            let pushed = request.push_samples(&mut [("__name__", name)], [sample], &limits);
            pushed.expect("a small request");
        }
        request
    }

    #[test]
    fn deltas_of_a_series_come_together_by_time() {
        let messages = Deltas::of("t", &request(&[("b", 30), ("a", 20), ("b", 10)]));
        let [message] = &messages[..] else {
            panic!("{messages:?}");
        };
        let times = |series: &DeltaSeries| series.samples().map(|s| s.time).collect::<Vec<_>>();
        let found: Vec<_> = message.series.iter().map(times).collect();
        assert_eq!(found, [vec![20], vec![10, 30]]);
        assert!(Deltas::of("t", &WriteRequest::default()).is_empty());
    }

    #[test]
    fn a_large_series_is_in_several_messages() {
        let points: Vec<_> = (1..=10)
            .map(|at| ("a", at * 10))
            .chain([("b", 5)])
            .collect();
        let messages = Deltas::within(100, "t", &request(&points));
        let times = |message: &Deltas| -> Vec<Vec<Millis>> {
            let of = |series: &DeltaSeries| series.samples().map(|s| s.time).collect();
            message.series.iter().map(of).collect()
        };
        let found: Vec<_> = messages.iter().map(times).collect();
        let expected = [
            vec![vec![10, 20, 30]],
            vec![vec![40, 50, 60]],
            vec![vec![70, 80, 90]],
            vec![vec![100], vec![5]],
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn bytes_between_nodes() {
        let mut messages = Deltas::of("t", &request(&[("a", 20)]));
        let message = messages.pop().expect("one");
        let bytes = question::encode(&message).expect("small");
        let expected = b"\x04\x01t\0\x01\x0b\x08__name__\x01a\x01\x28\x1e\0\0\0\0\0\0\0\0\x40";
        assert_eq!(&bytes[..], expected);
        let read: Deltas = question::decode(&bytes).expect("what was written");
        assert_eq!(read, message);
        let answered = Answered::Stored(Refused {
            series: 1,
            deltas: 2,
            histograms: 1,
            reasons: vec!["r".to_owned()],
        });
        let bytes = question::encode(&answered).expect("small");
        let read: Answered = question::decode(&bytes).expect("what was written");
        assert_eq!(read, answered);
    }
}
