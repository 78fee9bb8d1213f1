//! A label set in its canonical bytes.
//!
//! ```text
//! canonical bytes = for each label, ascending by name (byte order), names unique:
//!     varint name length | name | varint value length | value
//! varint = LEB128, at most 5 bytes here
//! ```
//! The same set always has the same bytes, so equality, order and hash are those of the bytes where
//! only identity matters. [`Labels`] orders by (name, value) pairs, as Prometheus does.

use crate::ModelError;
use std::{cmp::Ordering, fmt, sync::Arc};

/// The label that carries a metric's name.
pub const LABEL_NAME_METRIC: &str = "__name__";

/// Appends `value` as LEB128.
pub fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a LEB128 at `*at` and moves `*at` behind it. `None`: the bytes end early, or more than 64 bits.
#[must_use]
pub fn read_varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// A label set: sorted by name, names unique, cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Labels(Arc<[u8]>);

impl Labels {
    /// The set without labels.
    #[must_use]
    pub fn empty() -> Self {
        Self(Arc::from(&[][..]))
    }

    /// Checks and takes canonical bytes.
    ///
    /// # Errors
    /// When the bytes are malformed, not UTF-8, out of order or name a label twice.
    pub fn from_canonical(bytes: &[u8]) -> Result<Self, ModelError> {
        let mut at = 0;
        let mut previous: Option<&str> = None;
        while at < bytes.len() {
            let name = read_text(bytes, &mut at)?;
            let _value = read_text(bytes, &mut at)?;
            match previous.map(|p| p.cmp(name)) {
                Some(Ordering::Greater) => {
                    return Err(ModelError::OutOfOrder {
                        name: name.to_owned(),
                    });
                }
                Some(Ordering::Equal) => {
                    return Err(ModelError::DuplicateName {
                        name: name.to_owned(),
                    });
                }
                Some(Ordering::Less) | None => {}
            }
            previous = Some(name);
        }
        Ok(Self(Arc::from(bytes)))
    }

    /// Sorts the pairs and makes a set of them; of a repeated name the last value stays.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut builder = LabelsBuilder::new();
        for (name, value) in pairs {
            builder.set(name, value);
        }
        builder.build()
    }

    /// The canonical bytes.
    #[must_use]
    pub fn canonical(&self) -> &[u8] {
        &self.0
    }

    /// The pairs in ascending order of name.
    #[must_use]
    pub fn iter(&self) -> LabelsIter<'_> {
        LabelsIter {
            bytes: &self.0,
            at: 0,
        }
    }

    /// The value of a label, if the set has it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .take_while(|(n, _)| *n <= name)
            .find(|(n, _)| *n == name)
            .map(|(_, v)| v)
    }

    /// The metric's name, if the set has one.
    #[must_use]
    pub fn metric_name(&self) -> Option<&str> {
        self.get(LABEL_NAME_METRIC)
    }

    /// Whether the set has no label.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many labels the set has. Walks the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().count()
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        self.iter().cmp(other.iter())
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Labels {
    /// `name{label="value", ...}`, as Prometheus prints a metric.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.metric_name() {
            f.write_str(name)?;
            if self.len() == 1 {
                return Ok(());
            }
        }
        f.write_str("{")?;
        let others = self.iter().filter(|(name, _)| *name != LABEL_NAME_METRIC);
        for (index, (name, value)) in others.enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{name}={value:?}")?;
        }
        f.write_str("}")
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = (&'a str, &'a str);
    type IntoIter = LabelsIter<'a>;
    fn into_iter(self) -> LabelsIter<'a> {
        self.iter()
    }
}

/// The pairs of a [`Labels`], in ascending order of name.
#[derive(Clone)]
pub struct LabelsIter<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for LabelsIter<'a> {
    type Item = (&'a str, &'a str);
    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        // The bytes were checked when the set was made, so neither read can fail.
        let name = read_text(self.bytes, &mut self.at).ok()?;
        let value = read_text(self.bytes, &mut self.at).ok()?;
        Some((name, value))
    }
}

fn read_text<'a>(bytes: &'a [u8], at: &mut usize) -> Result<&'a str, ModelError> {
    let start = *at;
    let malformed = ModelError::MalformedLabels { at: start };
    let length = read_varint(bytes, at).ok_or_else(|| malformed.clone())? as usize;
    let end = at.checked_add(length).ok_or_else(|| malformed.clone())?;
    let text = bytes.get(*at..end).ok_or(malformed)?;
    *at = end;
    std::str::from_utf8(text).map_err(|_| ModelError::NotUtf8 { at: start })
}

/// Builds a [`Labels`] from pairs in any order.
#[derive(Clone, Debug, Default)]
pub struct LabelsBuilder {
    pairs: Vec<(String, String)>,
}

impl LabelsBuilder {
    /// An empty builder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A builder that starts with the labels of `labels`.
    #[must_use]
    pub fn from_labels(labels: &Labels) -> Self {
        let pairs = labels
            .iter()
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .collect();
        Self { pairs }
    }

    /// Sets a label; an empty value removes it, as in Prometheus.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        match self.pairs.binary_search_by(|(n, _)| n.as_str().cmp(name)) {
            Ok(at) if value.is_empty() => drop(self.pairs.remove(at)),
            Ok(at) => value.clone_into(&mut self.pairs[at].1),
            Err(_) if value.is_empty() => {}
            Err(at) => self.pairs.insert(at, (name.to_owned(), value.to_owned())),
        }
        self
    }

    /// Removes a label if it is there.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.set(name, "")
    }

    /// Keeps the labels for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) -> &mut Self {
        self.pairs.retain(|(name, _)| keep(name));
        self
    }

    /// The set in canonical form.
    #[must_use]
    pub fn build(&self) -> Labels {
        let mut bytes =
            Vec::with_capacity(self.pairs.iter().map(|(n, v)| n.len() + v.len() + 2).sum());
        for (name, value) in &self.pairs {
            for text in [name, value] {
                write_varint(&mut bytes, text.len() as u64);
                bytes.extend_from_slice(text.as_bytes());
            }
        }
        Labels(Arc::from(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_bytes_are_frozen() {
        let labels = Labels::from_pairs([("job", "a"), ("__name__", "up")]);
        assert_eq!(labels.canonical(), b"\x08__name__\x02up\x03job\x01a");
        assert_eq!(
            Labels::from_canonical(labels.canonical()),
            Ok(labels.clone())
        );
        assert_eq!(labels.to_string(), r#"up{job="a"}"#);
        assert_eq!(labels.get("job"), Some("a"));
        assert_eq!(labels.get("zone"), None);
    }

    #[test]
    fn malformed_bytes_are_refused() {
        let check = |bytes: &[u8], expected| {
            assert_eq!(Labels::from_canonical(bytes), Err(expected), "{bytes:?}");
        };
        check(b"\x05ab", ModelError::MalformedLabels { at: 0 });
        check(b"\x01a", ModelError::MalformedLabels { at: 2 });
        check(b"\x01\xff\x00", ModelError::NotUtf8 { at: 0 });
        check(
            b"\x01b\x00\x01a\x00",
            ModelError::OutOfOrder { name: "a".into() },
        );
        check(
            b"\x01a\x00\x01a\x00",
            ModelError::DuplicateName { name: "a".into() },
        );
    }
}
