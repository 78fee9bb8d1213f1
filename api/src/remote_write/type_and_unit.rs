//! Labels `__type__` and `__unit__` of series whose family the same request declares, as Prometheus adds them with its feature
//! `type-and-unit-labels`. What a sender gives for these labels itself is replaced.

use super::{MetricKind, WriteRequest, request::SeriesEnd};
use std::collections::HashMap;
use trefoil_model::{LABEL_NAME_METRIC, Labels, LabelsBuilder};

/// What series of a family are called behind its name.
const SUFFIXES: [&str; 8] = [
    "_bucket", "_count", "_sum", "_total", "_created", "_info", "_gcount", "_gsum",
];

/// Kinds and units by family.
#[derive(Default)]
pub(crate) struct Declarations(HashMap<String, (MetricKind, String)>);

impl Declarations {
    /// What a request declares; of several declarations of a family the last one.
    pub(crate) fn of(request: &WriteRequest) -> Self {
        let entry = |declared: super::MetadataRef<'_>| {
            let meaning = (declared.kind, declared.unit.to_owned());
            (declared.metric.to_owned(), meaning)
        };
        Self(request.metadata().map(entry).collect())
    }

    fn of_series(&self, name: &str) -> Option<&(MetricKind, String)> {
        let family = |suffix: &&str| self.0.get(name.strip_suffix(*suffix)?);
        self.0
            .get(name)
            .or_else(|| SUFFIXES.iter().find_map(family))
    }

    /// The labels with those two; none if the family is not declared.
    fn labelled(&self, labels: &Labels) -> Option<Labels> {
        let (kind, unit) = self.of_series(labels.get(LABEL_NAME_METRIC)?)?;
        let kind = match kind {
            MetricKind::Unknown => "",
            kind => kind.as_str(),
        };
        let mut builder = LabelsBuilder::from_labels(labels);
        // An empty one is none.
        builder.set("__type__", kind);
        builder.set("__unit__", unit);
        Some(builder.build())
    }

    /// Sets the labels of all series and exemplars.
    pub(crate) fn label(&self, request: &mut WriteRequest) {
        if self.0.is_empty() {
            return;
        }
        let mut canonical = super::short_copy::PaddedBuffer::default();
        let mut ends = Vec::with_capacity(request.series.len());
        for (series, end) in request.series().zip(&request.series) {
            let labels = series.to_labels();
            let labels = self.labelled(&labels).unwrap_or(labels);
            for (name, value) in &labels {
                canonical.push_text(name.as_bytes());
                canonical.push_text(value.as_bytes());
            }
            ends.push(SeriesEnd {
                labels: canonical.len() as u32,
                samples: end.samples,
            });
        }
        request.canonical = canonical;
        request.series = ends;
        for (labels, _) in &mut request.exemplars {
            if let Some(labelled) = self.labelled(labels) {
                *labels = labelled;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WriteLimits;

    #[test]
    fn declared_series_get_their_type_and_unit() {
        let limits = WriteLimits::default();
        let mut request = WriteRequest::default();
        for (name, own) in [
            ("a_seconds_bucket", ("__type__", "gauge")),
            ("a_seconds", ("le", "1")),
            ("b_total", ("job", "x")),
            ("c", ("__unit__", "own")),
        ] {
            let mut pairs = [("__name__", name), own];
            request
                .push_series(&mut pairs, [(1, 2.0)], &limits)
                .expect("within the limits");
        }
        let declared: [(MetricKind, [&[u8]; 3]); 2] = [
            (MetricKind::Histogram, [b"a_seconds", b"help", b"seconds"]),
            (MetricKind::Counter, [b"b", b"", b""]),
        ];
        for (kind, texts) in declared {
            request.push_metadata(kind, texts, &limits);
        }
        Declarations::of(&request).label(&mut request);
        let labels = request
            .series()
            .map(|series| series.to_labels().to_string());
        assert_eq!(
            labels.collect::<Vec<_>>(),
            [
                r#"a_seconds_bucket{__type__="histogram", __unit__="seconds"}"#,
                r#"a_seconds{__type__="histogram", __unit__="seconds", le="1"}"#,
                r#"b_total{__type__="counter", job="x"}"#,
                r#"c{__unit__="own"}"#,
            ]
        );
        assert!(
            request
                .series()
                .all(|series| series.samples() == [(1, 2.0)])
        );
    }
}
