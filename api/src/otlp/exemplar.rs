//! Exemplars of data points.
//!
//! An exemplar's labels are `trace_id` and `span_id` in hexadecimal digits, where it has them, and the attributes that
//! its series does not have, by their own names: all of those or, where they are too long together, none.
//!
//! Source: the behaviour of Prometheus' OTLP receiver.

use super::message::{KeyValue, push_attribute};
use crate::{
    ApiError,
    remote_write::{EXEMPLAR_CHARACTERS_MAX, Exemplar},
    wire::{Reader, WireType},
};

/// Nanoseconds in a millisecond.
const NANOS: u64 = 1_000_000;
/// A longer text does not fit an exemplar, whatever its characters are.
const TEXT_BYTES_MAX: usize = EXEMPLAR_CHARACTERS_MAX * 4;
const NAME: &str = "Exemplar";

/// Reads an exemplar. `None`: it cannot be kept.
///
/// # Errors
/// [`ApiError::CorruptProtobuf`], [`ApiError::BadData`] when it has too many attributes.
pub(super) fn read(mut reader: Reader<'_>) -> Result<Option<Exemplar>, ApiError> {
    let mut attributes = Vec::new();
    let (mut time, mut value) = (0, None);
    let (mut trace_id, mut span_id): (&[u8], &[u8]) = (&[], &[]);
    while !reader.is_at_end() {
        match reader.tag(NAME)? {
            (2, WireType::Fixed64) => time = reader.fixed64(NAME)?,
            (3, WireType::Fixed64) => value = Some(f64::from_bits(reader.fixed64(NAME)?)),
            (4, WireType::Bytes) => span_id = reader.bytes(NAME)?,
            (5, WireType::Bytes) => trace_id = reader.bytes(NAME)?,
            (6, WireType::Fixed64) => value = Some(reader.fixed64(NAME)? as i64 as f64),
            (7, WireType::Bytes) => push_attribute(reader.message(NAME)?, &mut attributes)?,
            (_, wire_type) => reader.skip(wire_type, NAME)?,
        }
    }
    let Some(value) = value else {
        return Ok(None);
    };
    let time = (time / NANOS) as i64;
    let mut ids = Vec::new();
    for (name, bytes) in [("trace_id", trace_id), ("span_id", span_id)] {
        if !bytes.is_empty() && bytes.len() <= TEXT_BYTES_MAX {
            ids.push((name, hexadecimal(bytes)));
        }
    }
    let texts = texts(&attributes)?;
    let ids: Vec<(&str, &str)> = ids
        .iter()
        .map(|(n, digits)| (*n, digits.as_str()))
        .collect();
    if let Some(texts) = &texts {
        let others = texts.iter().map(|(name, text)| (*name, text.as_str()));
        let all = Exemplar::of_pairs(ids.iter().copied().chain(others), value, time);
        if all.is_some() {
            return Ok(all);
        }
    }
    Ok(Exemplar::of_pairs(ids, value, time))
}

/// The attributes as texts, if all of them may fit.
fn texts<'a>(attributes: &[KeyValue<'a>]) -> Result<Option<Vec<(&'a str, String)>>, ApiError> {
    let (mut texts, mut bytes) = (Vec::new(), 0);
    for attribute in attributes {
        let mut text = String::new();
        let fits = attribute.value.write(&mut text, TEXT_BYTES_MAX)?;
        bytes += attribute.key.len() + text.len();
        if !fits || bytes > TEXT_BYTES_MAX {
            return Ok(None);
        }
        texts.push((attribute.key, text));
    }
    Ok(Some(texts))
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or('0');
    let digits = bytes.iter();
    digits
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}
