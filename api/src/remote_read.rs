//! Prometheus' remote read: the request, and its two kinds of answer.
//!
//! ```text
//! request  snappy( ReadRequest{queries=1 Query, accepted_response_types=2 enum} )
//! Query    start_timestamp_ms=1, end_timestamp_ms=2, matchers=3 LabelMatcher, hints=4 (not used)
//! matcher  type=1 (0 =, 1 !=, 2 =~, 3 !~), name=2, value=3
//! SAMPLES (0)              snappy( ReadResponse{results=1 QueryResult{timeseries=1 TimeSeries}} )
//! STREAMED_XOR_CHUNKS (1)  frames of: length varint | CRC32C of the message, u32 big-endian | ChunkedReadResponse
//! ```
//! Source: `prompb/remote.proto` and `types.proto` of Prometheus; `tsdb/docs/format/chunks.md` for the chunks.

#[cfg(test)]
mod bit_reader;
mod bits;
mod chunk;
mod histogram_chunk;
mod samples;

use crate::{
    ApiError,
    wire::{Reader, WireType, write_bytes},
};
pub(crate) use chunk::Frames;
pub(crate) use samples::Response;
use trefoil_model::{Labels, Millis};
use trefoil_query_promql::{MatchOp, Matcher, REGEX_BYTES_PER_QUERY};

/// Queries of a request; senders put one into each.
const QUERIES_MAX: usize = 64;
/// Matchers of all queries of a request. A compiled expression may take megabytes.
const MATCHERS_MAX: usize = 128;

/// What a client asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ReadRequest {
    /// Each is answered on its own.
    pub(crate) queries: Vec<ReadQuery>,
    /// Whether it takes chunks, and rather than samples.
    pub(crate) wants_chunks: bool,
}

/// One query of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ReadQuery {
    /// First millisecond, inclusive.
    pub(crate) start: Millis,
    /// Last millisecond, inclusive.
    pub(crate) end: Millis,
    /// All must fit.
    pub(crate) matchers: Vec<Matcher>,
}

impl ReadRequest {
    /// Reads an uncompressed message.
    ///
    /// # Errors
    /// [`ApiError::CorruptProtobuf`]; [`ApiError::BadData`] for matchers that cannot be, too many queries, and a client
    /// that takes none of the answers.
    pub(crate) fn decode(body: &[u8]) -> Result<Self, ApiError> {
        let mut request = Self::default();
        let mut kinds = Vec::new();
        let mut regex_bytes_left = REGEX_BYTES_PER_QUERY;
        let mut reader = Reader::new(body, body.len());
        while !reader.is_at_end() {
            match reader.tag("ReadRequest")? {
                (1, WireType::Bytes) => {
                    let query = reader.message("queries")?;
                    let query = ReadQuery::decode(query, &mut regex_bytes_left)?;
                    request.queries.push(query);
                }
                (2, WireType::Varint) => kinds.push(reader.varint("accepted_response_types")?),
                (2, WireType::Bytes) => {
                    let mut packed = reader.message("accepted_response_types")?;
                    while !packed.is_at_end() {
                        kinds.push(packed.varint("accepted_response_types")?);
                    }
                }
                (_, wire) => reader.skip(wire, "ReadRequest")?,
            }
            let matchers: usize = request
                .queries
                .iter()
                .map(|query| query.matchers.len())
                .sum();
            if matchers > MATCHERS_MAX {
                return Err(ApiError::BadData(format!(
                    "more than {MATCHERS_MAX} matchers in a read request"
                )));
            }
            if request.queries.len() > QUERIES_MAX {
                return Err(ApiError::BadData(format!(
                    "more than {QUERIES_MAX} queries in a read request"
                )));
            }
        }
        request.wants_chunks = match kinds.iter().find(|kind| **kind <= 1) {
            Some(kind) => *kind == 1,
            None if kinds.is_empty() => false,
            None => {
                return Err(ApiError::BadData(
                    "server does not support any of the requested response types".to_owned(),
                ));
            }
        };
        Ok(request)
    }
}

impl ReadQuery {
    fn decode(mut reader: Reader<'_>, regex_bytes_left: &mut usize) -> Result<Self, ApiError> {
        let mut query = Self::default();
        while !reader.is_at_end() {
            match reader.tag("Query")? {
                (1, WireType::Varint) => query.start = reader.varint("start_timestamp_ms")? as i64,
                (2, WireType::Varint) => query.end = reader.varint("end_timestamp_ms")? as i64,
                (3, WireType::Bytes) if query.matchers.len() <= MATCHERS_MAX => {
                    let message = reader.message("matchers")?;
                    query.matchers.push(matcher(message, regex_bytes_left)?);
                }
                (_, wire) => reader.skip(wire, "Query")?,
            }
        }
        Ok(query)
    }
}

fn matcher(mut reader: Reader<'_>, regex_bytes_left: &mut usize) -> Result<Matcher, ApiError> {
    let (mut kind, mut name, mut value) = (0, "", "");
    while !reader.is_at_end() {
        match reader.tag("LabelMatcher")? {
            (1, WireType::Varint) => kind = reader.varint("type")?,
            (2, WireType::Bytes) => name = text(&mut reader, "name")?,
            (3, WireType::Bytes) => value = text(&mut reader, "value")?,
            (_, wire) => reader.skip(wire, "LabelMatcher")?,
        }
    }
    let op = match kind {
        0 => MatchOp::Equal,
        1 => MatchOp::NotEqual,
        2 => MatchOp::Regex,
        3 => MatchOp::NotRegex,
        _ => return Err(ApiError::BadData(format!("invalid matcher type {kind}"))),
    };
    let matcher = Matcher::new_within(name, op, value, regex_bytes_left);
    matcher.map_err(|error| ApiError::BadData(error.to_string()))
}

fn text<'a>(reader: &mut Reader<'a>, field: &'static str) -> Result<&'a str, ApiError> {
    let bytes = reader.bytes(field)?;
    std::str::from_utf8(bytes).map_err(|_| reader.corrupt(field))
}

/// Appends the labels of a series as field 1.
fn write_labels(out: &mut Vec<u8>, labels: &Labels) {
    let mut label = Vec::new();
    for (name, value) in labels.iter() {
        label.clear();
        write_bytes(&mut label, 1, name.as_bytes());
        write_bytes(&mut label, 2, value.as_bytes());
        write_bytes(out, 1, &label);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::write_number;

    fn query(kinds: &[u8]) -> Vec<u8> {
        query_with(kinds, b"a|b")
    }

    fn query_with(kinds: &[u8], expression: &[u8]) -> Vec<u8> {
        let mut matcher = Vec::new();
        write_number(&mut matcher, 1, 2);
        write_bytes(&mut matcher, 2, b"job");
        write_bytes(&mut matcher, 3, expression);
        let mut query = Vec::new();
        write_number(&mut query, 1, -5i64 as u64);
        write_number(&mut query, 2, 7);
        write_bytes(&mut query, 3, &matcher);
        write_bytes(&mut query, 4, b"\x08\x01");
        let mut body = Vec::new();
        write_bytes(&mut body, 1, &query);
        write_bytes(&mut body, 2, kinds);
        body
    }

    #[test]
    fn requests_are_read() {
        let request = ReadRequest::decode(&query(&[])).unwrap();
        assert!(!request.wants_chunks);
        let [one] = request.queries.as_slice() else {
            panic!("one query: {request:?}")
        };
        assert_eq!((one.start, one.end), (-5, 7));
        let matcher = Matcher::new("job", MatchOp::Regex, "a|b").unwrap();
        assert_eq!(one.matchers, [matcher]);
        assert!(
            ReadRequest::decode(&query(&[9, 1, 0]))
                .unwrap()
                .wants_chunks
        );
        assert!(!ReadRequest::decode(&query(&[0, 1])).unwrap().wants_chunks);
        assert!(ReadRequest::decode(&query(&[9])).is_err());
        // Expressions are compiled, so there are few.
        assert!(ReadRequest::decode(&query(&[]).repeat(QUERIES_MAX)).is_ok());
        assert!(ReadRequest::decode(&query(&[]).repeat(QUERIES_MAX + 1)).is_err());
        let matchers = b"\x1a\x04\x12\x02ab".repeat(MATCHERS_MAX + 1);
        let mut many = Vec::new();
        write_bytes(&mut many, 1, &matchers);
        assert!(ReadRequest::decode(&many).is_err());
        let malformed = ReadRequest::decode(&query_with(&[], b"a)|(?:b")).unwrap_err();
        let text = malformed.to_string();
        assert!(text.contains("unexpected ): `a)|(?:b`"), "{text}");
        let large = query_with(&[], b"(a|b.){2000}");
        assert!(ReadRequest::decode(&large.repeat(3)).is_ok());
        assert!(ReadRequest::decode(&large.repeat(40)).is_err());
        let body = query(&[]);
        for end in 1..body.len() - 2 {
            // Whatever it says, it says it without a panic.
            ReadRequest::decode(&body[..end]).ok();
        }
    }
}
