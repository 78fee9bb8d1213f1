//! Why attributes cannot become labels, and texts of any length in messages.

use crate::WriteLimits;
use std::fmt;

/// Bytes of a text of the client's that are shown in a message.
const SHOWN_BYTES_MAX: usize = 200;

/// Why attributes cannot become labels of a series; a number is the limit that they break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Nothing of a name can be kept.
    Nameless,
    /// Bytes of a label's name.
    Name(usize),
    /// Bytes of a label's value.
    Value(usize),
    /// Labels of a series.
    Labels(usize),
    /// Labels of a series that informs.
    InfoLabels(usize),
}

impl Flaw {
    /// # Errors
    /// When the name or the value of a label is too long.
    pub(super) fn check(name: &str, value: &str, limits: &WriteLimits) -> Result<(), Self> {
        if name.len() > limits.label_name_bytes_max {
            return Err(Self::Name(limits.label_name_bytes_max));
        }
        match value.len() > limits.label_value_bytes_max {
            true => Err(Self::Value(limits.label_value_bytes_max)),
            false => Ok(()),
        }
    }

    /// # Errors
    /// When the key of an attribute cannot become a name that is short enough. Of each character, which has four bytes
    /// at most, a name keeps one byte at least.
    pub(super) fn check_key(key: &str, limits: &WriteLimits) -> Result<(), Self> {
        match key.len() > 4 * limits.label_name_bytes_max {
            true => Err(Self::Name(limits.label_name_bytes_max)),
            false => Ok(()),
        }
    }

    /// A series has too many labels.
    pub(super) fn too_many(limits: &WriteLimits, is_info: bool) -> Self {
        let max = limits.label_names_max_of(is_info);
        match is_info {
            true => Self::InfoLabels(max),
            false => Self::Labels(max),
        }
    }

    /// What is wrong, at the attribute with this key.
    pub(super) fn describe(self, key: &str) -> String {
        let key = Shown(key);
        match self {
            Self::Nameless => format!("has an attribute {key} of whose name nothing can be kept"),
            Self::Name(max) => format!(
                "has an attribute {key} whose name has more than {max} bytes (max_label_name_length)"
            ),
            Self::Value(max) => format!(
                "has an attribute {key} whose value has more than {max} bytes (max_label_value_length)"
            ),
            Self::Labels(max) => {
                format!("has more than {max} labels (max_label_names_per_series)")
            }
            Self::InfoLabels(max) => {
                format!("has more than {max} labels (max_label_names_per_info_series)")
            }
        }
    }
}

/// The beginning of a text in quotation marks.
pub(super) struct Shown<'a>(pub(super) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.floor_char_boundary(SHOWN_BYTES_MAX);
        let more = if end < self.0.len() { "..." } else { "" };
        write!(f, "{:?}{more}", &self.0[..end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(Shown("a\"b").to_string(), r#""a\"b""#);
        let long = format!("{}\u{e9}", "x".repeat(SHOWN_BYTES_MAX - 1));
        let shown = format!("\"{}\"...", "x".repeat(SHOWN_BYTES_MAX - 1));
        assert_eq!(Shown(&long).to_string(), shown);
    }
}
