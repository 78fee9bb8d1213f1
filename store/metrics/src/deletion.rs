//! Deletions: numbered facts of the metadata plane that erase items which are older than they are.

use crate::Matcher;
use crate::order::pairs;
use trefoil_model::{DeletionVersion, TimeRange};

/// Erases a tenant's items of versions below its own that it selects, on arrival too.
#[derive(Clone, Debug)]
pub struct Deletion {
    /// Items of lower versions are erased.
    pub version: DeletionVersion,
    /// All must be satisfied; without any, every series is selected.
    pub matchers: Vec<Matcher>,
    /// Samples inside are erased; `end` is exclusive.
    pub range: TimeRange,
}

impl Deletion {
    /// Whether the deletion selects a series.
    pub(crate) fn selects(&self, canonical: &[u8]) -> bool {
        selects(&self.matchers, canonical)
    }
}

/// Whether a series satisfies all matchers.
pub(crate) fn selects(matchers: &[Matcher], canonical: &[u8]) -> bool {
    matchers.iter().all(|matcher| {
        let name = matcher.name().as_bytes();
        let value = pairs(canonical).find(|(n, _)| *n == name);
        matcher.matches(value.map_or(&[][..], |(_, value)| value))
    })
}
