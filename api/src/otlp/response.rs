//! What an exporter is answered, in the encoding in which it asked.

use super::translate::Rejections;
use serde_json::json;
use trefoil_model::write_varint;

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Protobuf,
    Json,
}

/// `ExportMetricsServiceResponse`: empty when everything was stored. A message without rejected points is a warning.
pub(crate) fn export_response(encoding: Encoding, rejections: &Rejections) -> Vec<u8> {
    let message = rejections.reasons.join("; ");
    let is_whole = rejections.points == 0 && message.is_empty();
    match encoding {
        Encoding::Json if is_whole => b"{}".to_vec(),
        Encoding::Json => {
            let rejected = rejections.points.to_string();
            let partial = json!({"rejectedDataPoints": rejected, "errorMessage": message});
            json!({ "partialSuccess": partial })
                .to_string()
                .into_bytes()
        }
        Encoding::Protobuf if is_whole => Vec::new(),
        Encoding::Protobuf => {
            let mut partial = Vec::new();
            write_number(&mut partial, 1, rejections.points);
            write_text(&mut partial, 2, &message);
            let mut out = vec![1 << 3 | 2];
            write_varint(&mut out, partial.len() as u64);
            out.extend_from_slice(&partial);
            out
        }
    }
}

/// `google.rpc.Status` without details.
pub(crate) fn status_body(encoding: Encoding, code: u32, message: &str) -> Vec<u8> {
    match encoding {
        Encoding::Json => json!({"code": code, "message": message})
            .to_string()
            .into_bytes(),
        Encoding::Protobuf => {
            let mut out = Vec::new();
            write_number(&mut out, 1, code.into());
            write_text(&mut out, 2, message);
            out
        }
    }
}

fn write_number(out: &mut Vec<u8>, field: u8, number: u64) {
    if number > 0 {
        out.push(field << 3);
        write_varint(out, number);
    }
}

fn write_text(out: &mut Vec<u8>, field: u8, text: &str) {
    if !text.is_empty() {
        out.push(field << 3 | 2);
        write_varint(out, text.len() as u64);
        out.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses() {
        let none = Rejections::default();
        assert_eq!(export_response(Encoding::Protobuf, &none), b"");
        assert_eq!(export_response(Encoding::Json, &none), b"{}");
        let some = Rejections {
            points: 300,
            reasons: vec!["a".to_owned(), "b".to_owned()],
        };
        let expected = b"\x0a\x09\x08\xac\x02\x12\x04a; b";
        assert_eq!(export_response(Encoding::Protobuf, &some), expected);
        assert_eq!(
            export_response(Encoding::Json, &some),
            br#"{"partialSuccess":{"errorMessage":"a; b","rejectedDataPoints":"300"}}"#
        );
    }

    #[test]
    fn statuses() {
        assert_eq!(
            status_body(Encoding::Protobuf, 3, "no"),
            b"\x08\x03\x12\x02no"
        );
        assert_eq!(
            status_body(Encoding::Json, 3, "no"),
            br#"{"code":3,"message":"no"}"#
        );
    }
}
