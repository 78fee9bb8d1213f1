//! Labels while they are put together, in memory that is used again.
//!
//! What a set holds is bounded by the limits of a series: whatever does not fit is refused before it is copied, so a
//! set costs no more than the series that it may become.

use super::flaw::Flaw;
use crate::WriteLimits;

/// Labels with unique names, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub(super) struct LabelSet {
    /// The first `count` are the labels; those behind keep their memory.
    slots: Vec<(String, String)>,
    count: usize,
}

impl LabelSet {
    pub(super) fn clear(&mut self) {
        self.count = 0;
    }

    /// Whether there is such a label and it has a value: without one it is the same as no label.
    pub(super) fn has(&self, name: &str) -> bool {
        self.find(name)
            .is_some_and(|index| !self.slots[index].1.is_empty())
    }

    /// Sets a label, whatever it was. An empty value is kept: it takes the label off where the set is put over another.
    ///
    /// # Errors
    /// [`Flaw`] when it does not fit; nothing changed.
    pub(super) fn set(
        &mut self,
        name: &str,
        value: &str,
        limits: &WriteLimits,
    ) -> Result<(), Flaw> {
        Flaw::check(name, value, limits)?;
        let index = self.slot(name, limits)?;
        let slot = &mut self.slots[index].1;
        slot.clear();
        slot.push_str(value);
        Ok(())
    }

    /// Sets a label; when it has a value already, the new one goes behind it with a semicolon between them.
    ///
    /// # Errors
    /// [`Flaw`] when it does not fit; nothing changed.
    pub(super) fn join(
        &mut self,
        name: &str,
        value: &str,
        limits: &WriteLimits,
    ) -> Result<(), Flaw> {
        if value.is_empty() && !self.has(name) {
            return Ok(());
        }
        Flaw::check(name, value, limits)?;
        let index = self.slot(name, limits)?;
        let slot = &mut self.slots[index].1;
        if !slot.is_empty() {
            if slot.len() + 1 + value.len() > limits.label_value_bytes_max {
                return Err(Flaw::Value(limits.label_value_bytes_max));
            }
            slot.push(';');
        }
        slot.push_str(value);
        Ok(())
    }

    /// Names and values.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let slots = self.slots[..self.count].iter();
        slots.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    fn find(&self, name: &str) -> Option<usize> {
        let mut slots = self.slots[..self.count].iter();
        slots.position(|(known, _)| known == name)
    }

    /// The place of a label, without a value when it is new.
    fn slot(&mut self, name: &str, limits: &WriteLimits) -> Result<usize, Flaw> {
        if let Some(index) = self.find(name) {
            return Ok(index);
        }
        // Twice as many as any series has: which are too many is counted where the series is known, and empty ones are left out.
        if self.count == limits.label_names_most() * 2 {
            return Err(Flaw::too_many(limits, true));
        }
        if self.count == self.slots.len() {
            self.slots.push(Default::default());
        }
        let (known, value) = &mut self.slots[self.count];
        known.clear();
        known.push_str(name);
        value.clear();
        self.count += 1;
        Ok(self.count - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: WriteLimits = WriteLimits {
        compressed_bytes_max: 0,
        decompressed_bytes_max: 0,
        samples_max: 0,
        label_names_max: 2,
        info_label_names_max: 0,
        label_name_bytes_max: 4,
        label_value_bytes_max: 8,
        metadata_bytes_max: 0,
        native_histograms: true,
        native_buckets_max: 0,
        reduces_native_buckets: true,
        type_and_unit_labels: false,
    };

    #[test]
    fn labels_are_replaced_and_joined() {
        let mut labels = LabelSet::default();
        labels.set("a", "1", &LIMITS).unwrap();
        labels.join("b", "", &LIMITS).unwrap();
        labels.join("b", "2", &LIMITS).unwrap();
        labels.join("b", "3", &LIMITS).unwrap();
        labels.join("b", "", &LIMITS).unwrap();
        labels.set("a", "4", &LIMITS).unwrap();
        assert_eq!(
            labels.iter().collect::<Vec<_>>(),
            [("a", "4"), ("b", "2;3;")]
        );
        labels.set("a", "", &LIMITS).unwrap();
        assert!(labels.has("b") && !labels.has("a"));
        labels.clear();
        assert!(!labels.has("b"));
        labels.join("b", "5", &LIMITS).unwrap();
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("b", "5")]);
    }

    #[test]
    fn a_set_is_bounded() {
        let mut labels = LabelSet::default();
        let value = Err(Flaw::Value(8));
        assert_eq!(labels.set("a", "123456789", &LIMITS), value);
        assert_eq!(labels.join("a", "123456789", &LIMITS), value);
        assert_eq!(labels.set("abcde", "1", &LIMITS), Err(Flaw::Name(4)));
        for _ in 0..4 {
            labels.join("a", "1", &LIMITS).unwrap();
        }
        assert_eq!(labels.join("a", "1", &LIMITS), value);
        for name in ["b", "c", "d"] {
            labels.set(name, "1", &LIMITS).unwrap();
        }
        assert_eq!(labels.join("e", "1", &LIMITS), Err(Flaw::InfoLabels(2)));
        assert_eq!(labels.iter().next(), Some(("a", "1;1;1;1")));
    }
}
