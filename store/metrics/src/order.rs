//! The two orders of series, as keys that compare byte by byte.
//!
//! *Label order* is that of Prometheus and of query results: pairs of (name, value), ascending.
//! *Block order* puts series that look alike next to each other: by metric name, job, instance, then the rest.
//! Texts end with a zero byte, which is below all others; zero and one bytes inside a text are escaped.

use crate::rows::{read_short, text_end};
use trefoil_model::{LABEL_NAME_METRIC, read_varint};

/// In which order a cursor gives series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SeriesOrder {
    /// That of query results, in which a walk can be continued by another one.
    Label,
    /// That in which blocks store them: a walk reads every piece once, with few samples in memory.
    Block,
}

impl SeriesOrder {
    /// Appends the key of canonical label bytes in this order.
    pub(crate) fn write_key(self, canonical: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Label => write_label_key(canonical, out),
            Self::Block => write_block_key(canonical, out),
        }
    }
}

/// Walks the (name, value) pairs of canonical label bytes. Ends early when the bytes are not canonical.
pub(crate) struct Pairs<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// The pairs of canonical label bytes, in ascending order of name.
pub(crate) fn pairs(canonical: &[u8]) -> Pairs<'_> {
    Pairs {
        bytes: canonical,
        at: 0,
    }
}

impl<'a> Pairs<'a> {
    fn text(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(read_varint(self.bytes, &mut self.at)?).ok()?;
        let text = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(text)
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.text()?, self.text()?))
    }
}

/// Walks the pairs of canonical label bytes as they are stored: each pair's bytes, and how many of them are the name
/// with its length. Ends early when the bytes are not canonical.
pub(crate) fn pair_bytes(canonical: &[u8]) -> impl Iterator<Item = (&[u8], usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at;
        let name_end = text_end(canonical, start)?;
        at = text_end(canonical, name_end)?;
        Some((&canonical[start..at], name_end - start))
    })
}

/// The text behind its length prefix, in a piece of canonical label bytes.
pub(crate) fn text_of(piece: &[u8]) -> &[u8] {
    let mut at = 0;
    let length = read_short(piece, &mut at);
    assert!(length.is_some(), "canonical label bytes");
    &piece[at..]
}

/// Appends the label order key of canonical label bytes.
pub(crate) fn write_label_key(canonical: &[u8], out: &mut Vec<u8>) {
    for (name, value) in pairs(canonical) {
        write_text(name, out);
        write_text(value, out);
    }
}

/// Appends the block order key of canonical label bytes.
pub(crate) fn write_block_key(canonical: &[u8], out: &mut Vec<u8>) {
    for name in [LABEL_NAME_METRIC, "job", "instance"] {
        let value = pairs(canonical).find(|(n, _)| *n == name.as_bytes());
        write_text(value.map_or(&[][..], |(_, value)| value), out);
    }
    write_label_key(canonical, out);
}

fn write_text(text: &[u8], out: &mut Vec<u8>) {
    if text.iter().any(|byte| *byte < 2) {
        for &byte in text {
            if byte < 2 {
                out.push(1);
            }
            out.push(if byte < 2 { byte + 1 } else { byte });
        }
    } else {
        out.extend_from_slice(text);
    }
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_model::Labels;

    #[test]
    fn label_keys_order_as_labels_do() {
        let sets = [
            Labels::empty(),
            Labels::from_pairs([("a", "\0")]),
            Labels::from_pairs([("a", "\0\0")]),
            Labels::from_pairs([("a", "\x01")]),
            Labels::from_pairs([("a", "b")]),
            Labels::from_pairs([("a", "b"), ("c", "d")]),
            Labels::from_pairs([("a", "bb")]),
            Labels::from_pairs([("ab", "a")]),
        ];
        let key = |labels: &Labels| {
            let mut key = Vec::new();
            write_label_key(labels.canonical(), &mut key);
            key
        };
        for a in &sets {
            for b in &sets {
                assert_eq!(key(a).cmp(&key(b)), a.cmp(b), "{a} {b}");
            }
        }
    }
}
