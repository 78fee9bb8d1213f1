//! Series as JSON lines, some KiB at a time.

use super::{histogram, value::write_number};
use crate::json::write_labels;
use bytes::Bytes;
use std::{io::Write, ops::Range};
use trefoil_query_promql::{RawSeries, is_histogram};

/// A piece of text ends with the line that makes it longer than this.
const PIECE_BYTES: usize = 64 << 10;
/// A line ends with the sample that makes its values longer than this, however many samples it may have: a line of
/// histograms would be longer than a body that the import takes.
const VALUES_BYTES: usize = 4 << 20;

/// Samples of a line, where nobody says: a line of them is some 300 KiB, which every importer takes.
pub const ROWS_MAX: usize = 10_000;

/// The lines of some series, each series whole before the next one.
pub struct Lines {
    series: std::vec::IntoIter<RawSeries>,
    /// The series that is being written, and how many of its samples were.
    current: Option<(RawSeries, usize)>,
    rows_max: usize,
}

impl Lines {
    /// Lines of at most `rows_max` samples, which is not 0.
    #[must_use]
    pub fn of(series: Vec<RawSeries>, rows_max: usize) -> Self {
        Self {
            series: series.into_iter(),
            current: None,
            rows_max: rows_max.max(1),
        }
    }
}

impl Iterator for Lines {
    type Item = Bytes;

    /// Whole lines, each with its end.
    fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        while out.len() < PIECE_BYTES {
            let Some((series, from)) = &mut self.current else {
                match self.series.next() {
                    Some(series) => self.current = Some((series, 0)),
                    None => break,
                }
                continue;
            };
            let to = from
                .saturating_add(self.rows_max)
                .min(series.timestamps.len());
            if *from < to {
                *from = write_line(&mut out, series, *from..to);
            } else {
                self.current = None;
            }
        }
        (!out.is_empty()).then(|| Bytes::from(out))
    }
}

/// Writes a line of as many of these samples as fit, at least one. The place of the first that did not.
fn write_line(out: &mut Vec<u8>, series: &RawSeries, mut rows: Range<usize>) -> usize {
    out.extend_from_slice(b"{\"metric\":");
    write_labels(out, &series.labels);
    out.extend_from_slice(b",\"values\":[");
    let begin = out.len();
    for at in rows.clone() {
        if at > rows.start {
            if out.len() - begin > VALUES_BYTES {
                rows.end = at;
                break;
            }
            out.push(b',');
        }
        let value = series.values[at];
        match series.histograms.at(at).filter(|_| is_histogram(value)) {
            Some(histogram) => histogram::write(out, histogram),
            None => write_number(out, value),
        }
    }
    out.extend_from_slice(b"],\"timestamps\":[");
    for at in rows.clone() {
        let separator = if at > rows.start { "," } else { "" };
        // Writing into memory does not fail.
        drop(write!(out, "{separator}{}", series.timestamps[at]));
    }
    out.extend_from_slice(b"]}\n");
    rows.end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        WriteLimits,
        exposition::ImportOptions,
        json_lines::import_json_lines,
        remote_write::{Sample, SampleValue, WriteRequest},
    };
    use std::sync::Arc;
    use trefoil_model::{Histogram, Labels, histogram::Buckets};
    use trefoil_query_promql::{HISTOGRAM, Histograms, STALE_MARKER_BITS};

    fn series() -> RawSeries {
        let mut histograms = Histograms::default();
        let histogram = Histogram {
            count: 2.0,
            zero_count: 2.0,
            sum: 0.5,
            ..Histogram::default()
        };
        histograms.put(4, Arc::new(histogram));
        RawSeries {
            labels: Labels::from_pairs([("__name__", "a.b"), ("c", "\"\u{e9}\n")]),
            timestamps: vec![-1, 2, 3, 4, 5],
            values: vec![
                1.5,
                f64::from_bits(STALE_MARKER_BITS),
                f64::from_bits(0x7ff8_0000_0000_0001),
                f64::INFINITY,
                HISTOGRAM,
            ],
            histograms,
        }
    }

    #[test]
    fn a_series_has_as_many_lines_as_it_needs() {
        let lines: Vec<Bytes> = Lines::of(vec![series()], 4).collect();
        let expected = "{\"metric\":{\"__name__\":\"a.b\",\"c\":\"\\\"\u{e9}\\n\"},\
             \"values\":[1.5,null,\"NaN(0x7ff8000000000001)\",\"Infinity\"],\"timestamps\":[-1,2,3,4]}\n\
             {\"metric\":{\"__name__\":\"a.b\",\"c\":\"\\\"\u{e9}\\n\"},\
             \"values\":[{\"schema\":0,\"count\":2,\"sum\":0.5,\"zero_threshold\":0,\"zero_count\":2}],\
             \"timestamps\":[5]}\n";
        assert_eq!(lines.len(), 1);
        assert_eq!(std::str::from_utf8(&lines[0]).unwrap(), expected);
    }

    #[test]
    fn what_is_exported_is_imported_to_the_bit() {
        let original = series();
        let lines: Vec<Bytes> = Lines::of(vec![original.clone()], 2).collect();
        let mut request = WriteRequest::default();
        let options = ImportOptions::default();
        import_json_lines(
            &lines.concat(),
            &options,
            &WriteLimits::default(),
            &mut request,
        )
        .unwrap();
        let mut samples: Vec<Sample> = Vec::new();
        for found in request.series() {
            assert_eq!(found.to_labels(), original.labels);
            samples.extend(found.whole_samples());
        }
        assert_eq!(samples.len(), original.values.len());
        for (at, sample) in samples.iter().enumerate() {
            assert_eq!(sample.time, original.timestamps[at]);
            match &sample.value {
                SampleValue::Float(value) => {
                    assert_eq!(value.to_bits(), original.values[at].to_bits());
                }
                SampleValue::Histogram(histogram) => {
                    assert_eq!(Some(histogram), original.histograms.at(at));
                }
            }
        }
    }

    #[test]
    fn lines_of_histograms_are_bounded() {
        let buckets = vec![0.125; 2_000];
        let histogram = Arc::new(Histogram {
            count: 250.0,
            positive: Buckets::from_spans(&[(0, 2_000)], buckets).unwrap(),
            ..Histogram::default()
        });
        let count = 1_000;
        let mut histograms = Histograms::default();
        (0..count).for_each(|at| histograms.put(at, histogram.clone()));
        let many = RawSeries {
            timestamps: (0..count as i64).collect(),
            values: vec![HISTOGRAM; count],
            histograms,
            ..series()
        };
        let lines = Lines::of(vec![many], usize::MAX);
        let mut request = WriteRequest::default();
        let (options, limits) = (ImportOptions::default(), WriteLimits::default());
        let (mut samples, mut lines_count) = (0, 0);
        for line in lines {
            assert!(line.len() < VALUES_BYTES + (1 << 20), "{}", line.len());
            import_json_lines(&line, &options, &limits, &mut request).unwrap();
            samples += request.sample_count();
            lines_count += 1;
        }
        assert_eq!((samples, lines_count), (count, 3));
    }

    #[test]
    fn pieces_are_bounded() {
        let many = RawSeries {
            timestamps: (0..100_000).collect(),
            values: vec![0.5; 100_000],
            histograms: Histograms::default(),
            ..series()
        };
        let pieces: Vec<Bytes> = Lines::of(vec![many.clone(), many], 1_000).collect();
        let longest = pieces.iter().map(Bytes::len).max();
        assert!(
            longest.is_some_and(|longest| longest < 2 * PIECE_BYTES),
            "{longest:?}"
        );
        let lines = pieces
            .concat()
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        assert_eq!(lines, 200);
    }
}
