//! Exemplars as the two versions of remote write carry them.
//!
//! ```text
//! 1.0  Exemplar   repeated Label = 1, double value = 2, int64 timestamp = 3
//! 2.0  Exemplar   packed uint32 labels_refs = 1, double value = 2, int64 timestamp = 3
//! ```
//! Exemplars are examples: one that cannot be kept is counted and left out, and refuses nothing, as in Prometheus.

use super::sample::{EXEMPLAR_CHARACTERS_MAX, Exemplar};
use crate::{
    ApiError,
    wire::{Reader, WireType},
};

/// Most messages or numbers of labels: each label has a character at least, and two numbers.
const PARTS_MAX: usize = 2 * EXEMPLAR_CHARACTERS_MAX;

/// What of an exemplar is the same in both versions.
#[derive(Default)]
pub(super) struct Parts<'a> {
    /// The messages or packed numbers of its labels.
    labels: Vec<Reader<'a>>,
    value: f64,
    time: i64,
}

/// Reads all but the labels.
///
/// # Errors
/// [`ApiError::CorruptProtobuf`].
pub(super) fn read(mut reader: Reader<'_>) -> Result<Parts<'_>, ApiError> {
    let mut parts = Parts::default();
    while !reader.is_at_end() {
        match reader.tag("Exemplar")? {
            (1, WireType::Bytes) => {
                let labels = reader.message("Exemplar.labels")?;
                keep(&mut parts.labels, labels);
            }
            (2, WireType::Fixed64) => {
                parts.value = f64::from_bits(reader.fixed64("Exemplar.value")?);
            }
            (3, WireType::Varint) => parts.time = reader.varint("Exemplar.timestamp")? as i64,
            (1..=3, _) => return Err(reader.corrupt("Exemplar")),
            (_, wire_type) => reader.skip(wire_type, "Exemplar")?,
        }
    }
    Ok(parts)
}

/// Keeps a part of an exemplar's labels, up to more than an exemplar that is kept can have.
fn keep<T>(parts: &mut Vec<T>, part: T) {
    if parts.len() <= PARTS_MAX {
        parts.push(part);
    }
}

impl<'a> Parts<'a> {
    /// The exemplar of 1.0; `None` when it cannot be kept.
    ///
    /// # Errors
    /// [`ApiError::CorruptProtobuf`].
    pub(super) fn with_labels(self) -> Result<Option<Exemplar>, ApiError> {
        if self.labels.len() > PARTS_MAX {
            return Ok(None);
        }
        let mut pairs = Vec::with_capacity(self.labels.len());
        for mut label in self.labels {
            let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
            while !label.is_at_end() {
                match label.tag("Label")? {
                    (1, WireType::Bytes) => name = label.bytes("Label.name")?,
                    (2, WireType::Bytes) => value = label.bytes("Label.value")?,
                    (_, wire_type) => label.skip(wire_type, "Label")?,
                }
            }
            pairs.push((name, value));
        }
        Ok(exemplar(pairs, self.value, self.time))
    }

    /// The exemplar of 2.0, whose symbols `text` knows; `None` when it cannot be kept.
    ///
    /// # Errors
    /// [`ApiError::CorruptProtobuf`].
    pub(super) fn with_symbols(
        self,
        text: impl Fn(u64) -> Option<&'a [u8]>,
    ) -> Result<Option<Exemplar>, ApiError> {
        if self.labels.len() > PARTS_MAX {
            return Ok(None);
        }
        let mut texts = Vec::new();
        for mut references in self.labels {
            while !references.is_at_end() {
                let text = text(references.varint("Exemplar.labels_refs")?);
                keep(&mut texts, text);
            }
        }
        let (pairs, rest) = texts.as_chunks::<2>();
        let pairs: Option<Vec<_>> = pairs
            .iter()
            .map(|[name, value]| (*name).zip(*value))
            .collect();
        let kept = pairs.filter(|_| rest.is_empty() && texts.len() <= PARTS_MAX);
        Ok(kept.and_then(|pairs| exemplar(pairs, self.value, self.time)))
    }
}

fn exemplar(pairs: Vec<(&[u8], &[u8])>, value: f64, time: i64) -> Option<Exemplar> {
    let text = |bytes| std::str::from_utf8(bytes).ok();
    let pairs = pairs
        .into_iter()
        .map(|(name, value)| text(name).zip(text(value)));
    Exemplar::of_pairs(pairs.collect::<Option<Vec<_>>>()?, value, time)
}
