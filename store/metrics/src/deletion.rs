//! Deletions: numbered facts of the metadata plane that erase items which are older than they are; and the cut-offs of
//! selectors, which erase what is from before an instant, whenever it was written.

use crate::Matcher;
use crate::order::pairs;
use std::sync::Arc;
use trefoil_model::{DeletionVersion, Millis, TimeRange};

/// No item has this version, so a deletion that has it erases whatever fits.
pub(crate) const EVER: DeletionVersion = DeletionVersion(u64::MAX);

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
    /// Whether the deletion selects the series with these canonical labels.
    #[must_use]
    pub fn selects(&self, canonical: &[u8]) -> bool {
        selects(&self.matchers, canonical)
    }
}

/// Takes a tenant's samples before an instant from the series that it selects, also those that come later.
#[derive(Clone, Debug)]
pub struct SelectedCutOff {
    /// The selector as text; tells the cut-offs of a tenant apart, and is compiled in `matchers`.
    pub selector: Arc<str>,
    /// All must be satisfied.
    pub matchers: Vec<Matcher>,
    /// Samples before this instant are gone.
    pub before: Millis,
}

impl SelectedCutOff {
    /// Whether the same selectors have the same cut-offs, in the same order.
    pub(crate) fn are_same(one: &[Self], other: &[Self]) -> bool {
        let parts = |one: &Self| (Arc::clone(&one.selector), one.before);
        one.iter().map(parts).eq(other.iter().map(parts))
    }

    /// The same as a deletion that comes after everything.
    pub(crate) fn deletion(&self) -> Deletion {
        Deletion {
            version: EVER,
            matchers: self.matchers.clone(),
            range: TimeRange {
                start: Millis::MIN,
                end: self.before,
            },
        }
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
