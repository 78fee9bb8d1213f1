//! Prometheus' JSON: its envelope and the forms of its results, written piece by piece.
//!
//! ```text
//! {"status":"success","data":D[,"warnings":[...]][,"infos":[...]]}
//! {"status":"error","errorType":"...","error":"..."}
//! D of a query = {"resultType":"vector","result":[{"metric":{...},"value":[seconds,"value"]},...]}
//! A series with native histograms has "histogram" or "histograms" instead of "value", or beside "values".
//! ```

use crate::number::{write_float, write_time};
use trefoil_model::{Histogram, Labels};
use trefoil_query_promql::{MatrixSeries, Point, QueryData, QueryResult, Value, VectorSample};

/// Something that writes itself in pieces. `false`: that was the last piece.
pub(crate) type Pieces = Box<dyn FnMut(&mut Vec<u8>) -> bool + Send>;

/// Appends a JSON string.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut plain_from = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..0x20 => &[],
            _ => continue,
        };
        out.extend_from_slice(&bytes[plain_from..at]);
        plain_from = at + 1;
        if escape.is_empty() {
            out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
        } else {
            out.extend_from_slice(escape);
        }
    }
    out.extend_from_slice(&bytes[plain_from..]);
    out.push(b'"');
}

/// Appends `{"name":"value",...}` in the order of the labels.
pub(crate) fn write_labels(out: &mut Vec<u8>, labels: &Labels) {
    out.push(b'{');
    for (index, (name, value)) in labels.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(out, name);
        out.push(b':');
        write_string(out, value);
    }
    out.push(b'}');
}

fn write_point(out: &mut Vec<u8>, point: &Point) {
    out.push(b'[');
    write_time(out, point.time);
    out.push(b',');
    match &point.value {
        Value::Float(value) => write_quoted(out, *value),
        Value::Histogram(histogram) => write_histogram(out, histogram),
    }
    out.push(b']');
}

/// Appends a number in quotation marks.
pub(crate) fn write_quoted(out: &mut Vec<u8>, value: f64) {
    out.push(b'"');
    write_float(out, value);
    out.push(b'"');
}

/// Appends `{"count":"...","sum":"...","buckets":[[ends,"lower","upper","count"],...]}`, without empty buckets. Ends:
/// 0 the upper one is inside, 1 the lower one, 2 none, 3 both.
fn write_histogram(out: &mut Vec<u8>, histogram: &Histogram) {
    out.extend_from_slice(b"{\"count\":");
    write_quoted(out, histogram.count);
    out.extend_from_slice(b",\"sum\":");
    write_quoted(out, histogram.sum);
    let mut separator: &[u8] = b",\"buckets\":[";
    for bucket in histogram.buckets().iter().filter(|b| b.count != 0.0) {
        let ends: &[u8] = match histogram.includes(bucket) {
            (false, true) => b"0",
            (true, false) => b"1",
            (false, false) => b"2",
            (true, true) => b"3",
        };
        out.extend_from_slice(separator);
        out.push(b'[');
        out.extend_from_slice(ends);
        for value in [bucket.lower, bucket.upper, bucket.count] {
            out.push(b',');
            write_quoted(out, value);
        }
        out.push(b']');
        separator = b",";
    }
    if separator == b"," {
        out.push(b']');
    }
    out.push(b'}');
}

fn write_vector_sample(out: &mut Vec<u8>, sample: &VectorSample) {
    out.extend_from_slice(b"{\"metric\":");
    write_labels(out, &sample.labels);
    out.extend_from_slice(match sample.point.value {
        Value::Float(_) => &b",\"value\":"[..],
        Value::Histogram(_) => b",\"histogram\":",
    });
    write_point(out, &sample.point);
    out.push(b'}');
}

fn write_matrix_series(out: &mut Vec<u8>, series: &MatrixSeries) {
    out.extend_from_slice(b"{\"metric\":");
    write_labels(out, &series.labels);
    for (name, histograms) in [(&b"values"[..], false), (b"histograms", true)] {
        let wanted = |point: &&Point| matches!(point.value, Value::Histogram(_)) == histograms;
        let mut points = series.points.iter().filter(wanted).peekable();
        if points.peek().is_none() {
            continue;
        }
        out.extend_from_slice(b",\"");
        out.extend_from_slice(name);
        out.extend_from_slice(b"\":[");
        for (index, point) in points.enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_point(out, point);
        }
        out.push(b']');
    }
    out.push(b'}');
}

/// The pieces of `[item,item,...]` between a head and a tail.
fn list<T: Send + 'static>(
    head: Vec<u8>,
    items: impl IntoIterator<Item = T, IntoIter: Send + 'static>,
    tail: Vec<u8>,
    write: impl Fn(&mut Vec<u8>, &T) + Send + 'static,
) -> Pieces {
    let mut items = items.into_iter();
    let mut head = Some(head);
    Box::new(move |out| {
        let is_first = match head.take() {
            Some(head) => {
                out.extend_from_slice(&head);
                out.push(b'[');
                true
            }
            None => false,
        };
        let Some(item) = items.next() else {
            out.push(b']');
            out.extend_from_slice(&tail);
            return false;
        };
        if !is_first {
            out.push(b',');
        }
        write(out, &item);
        true
    })
}

/// What closes an envelope: warnings and infos, where there are any.
fn envelope_tail(warnings: &[String], infos: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, texts) in [("warnings", warnings), ("infos", infos)] {
        if texts.is_empty() {
            continue;
        }
        out.push(b',');
        write_string(&mut out, name);
        out.extend_from_slice(b":[");
        for (index, text) in texts.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_string(&mut out, text);
        }
        out.push(b']');
    }
    out.push(b'}');
    out
}

const SUCCESS: &[u8] = b"{\"status\":\"success\",\"data\":";

/// The pieces of a query's answer, with what it took where that is asked for.
pub(crate) fn query_answer(result: QueryResult, stats: Option<&serde_json::Value>) -> Pieces {
    let mut head = SUCCESS.to_vec();
    head.extend_from_slice(b"{\"resultType\":\"");
    head.extend_from_slice(result.data.result_type().as_bytes());
    head.extend_from_slice(b"\",\"result\":");
    let mut tail = match stats {
        Some(stats) => format!(",\"stats\":{stats}}}").into_bytes(),
        None => b"}".to_vec(),
    };
    tail.extend_from_slice(&envelope_tail(&result.warnings, &result.infos));
    match result.data {
        QueryData::Vector(samples) => list(head, samples, tail, write_vector_sample),
        QueryData::Matrix(series) => list(head, series, tail, write_matrix_series),
        QueryData::Scalar(point) => {
            write_point(&mut head, &point);
            whole(head, &tail)
        }
        QueryData::String { time, text } => {
            head.push(b'[');
            write_time(&mut head, time);
            head.push(b',');
            write_string(&mut head, &text);
            head.push(b']');
            whole(head, &tail)
        }
    }
}

/// The pieces of an answer whose data is a list of label sets.
pub(crate) fn series_answer(series: Vec<Labels>, warnings: &[String]) -> Pieces {
    list(
        SUCCESS.to_vec(),
        series,
        envelope_tail(warnings, &[]),
        write_labels,
    )
}

/// The pieces of an answer whose data is a list of what `write` writes.
pub(crate) fn list_answer<T: Send + 'static>(
    items: Vec<T>,
    warnings: &[String],
    write: impl Fn(&mut Vec<u8>, &T) + Send + 'static,
) -> Pieces {
    list(SUCCESS.to_vec(), items, envelope_tail(warnings, &[]), write)
}

/// The pieces of an answer whose data is a list of texts.
pub(crate) fn texts_answer(texts: Vec<String>, warnings: &[String]) -> Pieces {
    let tail = envelope_tail(warnings, &[]);
    list(SUCCESS.to_vec(), texts, tail, |out, text: &String| {
        write_string(out, text)
    })
}

/// The only piece of an answer whose data is already JSON.
pub(crate) fn data_answer(data: &[u8]) -> Pieces {
    let mut out = SUCCESS.to_vec();
    out.extend_from_slice(data);
    whole(out, b"}")
}

/// The only piece of an answer without an envelope.
pub(crate) fn plain_answer(document: &serde_json::Value) -> Pieces {
    whole(document.to_string().into_bytes(), b"")
}

/// The pieces of an answer without an envelope, whose `data` is a list of label sets.
pub(crate) fn plain_series_answer(series: Vec<Labels>) -> Pieces {
    list(b"{\"data\":".to_vec(), series, b"}".to_vec(), write_labels)
}

/// The body of an error.
pub(crate) fn error_body(error_type: &str, message: &str) -> Vec<u8> {
    let mut out = b"{\"status\":\"error\",\"errorType\":".to_vec();
    write_string(&mut out, error_type);
    out.extend_from_slice(b",\"error\":");
    write_string(&mut out, message);
    out.push(b'}');
    out
}

/// A single piece.
pub(crate) fn whole(mut head: Vec<u8>, tail: &[u8]) -> Pieces {
    head.extend_from_slice(tail);
    Box::new(move |out| {
        out.append(&mut head);
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use trefoil_model::histogram::Buckets;

    fn text(mut pieces: Pieces) -> String {
        let mut out = Vec::new();
        while pieces(&mut out) {}
        String::from_utf8(out).unwrap()
    }

    fn point(time: i64, value: f64) -> Point {
        Point {
            time,
            value: Value::Float(value),
        }
    }

    fn histogram(time: i64) -> Point {
        let positive = Buckets::from_spans(&[(1, 1)], vec![3.0]).unwrap();
        let histogram = Histogram {
            zero_threshold: 0.5,
            zero_count: 2.0,
            count: 5.0,
            sum: 4.0,
            positive,
            ..Histogram::default()
        };
        Point {
            time,
            value: Value::Histogram(Arc::new(histogram)),
        }
    }

    fn check(data: QueryData, warnings: &[&str], infos: &[&str], expected: &str) {
        let texts = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect();
        let result = QueryResult {
            data,
            warnings: texts(warnings),
            infos: texts(infos),
            samples_peak: 0,
        };
        assert_eq!(text(query_answer(result, None)), expected);
    }

    #[test]
    fn golden_answers() {
        let labels = Labels::from_pairs([("__name__", "up"), ("path", "C:\\\"x\"\n\u{1}\u{e9}")]);
        check(
            QueryData::Vector(vec![
                VectorSample {
                    labels: labels.clone(),
                    point: point(1_435_781_451_781, 1.0),
                },
                VectorSample {
                    labels: Labels::empty(),
                    point: point(0, f64::NAN),
                },
            ]),
            &[],
            &[],
            concat!(
                r#"{"status":"success","data":{"resultType":"vector","result":["#,
                r#"{"metric":{"__name__":"up","path":"C:\\\"x\"\n\u0001"#,
                "\u{e9}",
                r#""},"value":[1435781451.781,"1"]},{"metric":{},"value":[0,"NaN"]}]}}"#
            ),
        );
        check(
            QueryData::Matrix(vec![MatrixSeries {
                labels: Labels::from_pairs([("a", "b")]),
                points: vec![point(1000, 1e21), point(16_000, f64::INFINITY)],
            }]),
            &["w1", "w2"],
            &["i"],
            concat!(
                r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"a":"b"},"#,
                r#""values":[[1,"1e+21"],[16,"+Inf"]]}]},"warnings":["w1","w2"],"infos":["i"]}"#
            ),
        );
        let mixed = MatrixSeries {
            labels: Labels::empty(),
            points: vec![point(1000, 2.0), histogram(2000)],
        };
        check(
            QueryData::Matrix(vec![mixed]),
            &[],
            &[],
            concat!(
                r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"#,
                r#""values":[[1,"2"]],"histograms":[[2,{"count":"5","sum":"4","buckets":["#,
                r#"[3,"-0.5","0.5","2"],[0,"1","2","3"]]}]]}]}}"#
            ),
        );
        let custom = Histogram {
            schema: trefoil_model::histogram::SCHEMA_CUSTOM,
            custom_bounds: [1.0].into(),
            count: 3.0,
            positive: Buckets::from_spans(&[(0, 2)], vec![1.0, 2.0]).unwrap(),
            ..Histogram::default()
        };
        let mut out = Vec::new();
        write_histogram(&mut out, &custom);
        let ends = r#""buckets":[[3,"-Inf","1","1"],[0,"1","+Inf","2"]]"#;
        assert!(String::from_utf8(out).unwrap().contains(ends));
        check(
            QueryData::Matrix(vec![]),
            &[],
            &["i"],
            r#"{"status":"success","data":{"resultType":"matrix","result":[]},"infos":["i"]}"#,
        );
        check(
            QueryData::Scalar(point(1500, -0.5)),
            &[],
            &[],
            r#"{"status":"success","data":{"resultType":"scalar","result":[1.500,"-0.5"]}}"#,
        );
        check(
            QueryData::String {
                time: 0,
                text: "a\tb".to_owned(),
            },
            &[],
            &[],
            r#"{"status":"success","data":{"resultType":"string","result":[0,"a\tb"]}}"#,
        );
    }

    #[test]
    fn golden_listings() {
        let series = vec![Labels::from_pairs([("a", "1")]), Labels::empty()];
        assert_eq!(
            text(series_answer(series, &[])),
            r#"{"status":"success","data":[{"a":"1"},{}]}"#
        );
        assert_eq!(
            text(texts_answer(vec![], &[])),
            r#"{"status":"success","data":[]}"#
        );
        assert_eq!(
            text(texts_answer(vec!["a".into(), "b".into()], &["w".into()])),
            r#"{"status":"success","data":["a","b"],"warnings":["w"]}"#
        );
        assert_eq!(
            String::from_utf8(error_body("bad_data", "a \"b\"")).unwrap(),
            r#"{"status":"error","errorType":"bad_data","error":"a \"b\""}"#
        );
    }
}
