//! Questions to a tenant's label index in a block: which series satisfy matchers, which names and values are on some
//! series.
//!
//! A label is read from the side that is smaller: from the pages of its values, or from the label rows of the series that
//! are asked about.

use super::TenantReader;
use crate::MetricsError;
use crate::block::directory::{NameEntry, PageEntry};
use crate::dense::{DenseSet, Union};
use crate::matcher::{Matcher, Telling, easiest_first};
use crate::order::pairs;
use crate::postings::read_runs;
use roaring::RoaringBitmap;
use std::collections::BTreeSet;
use std::ops::{ControlFlow, Range};

impl TenantReader {
    /// The series that satisfy all matchers.
    pub(super) fn find_in_all(&self, matchers: &[Matcher]) -> Result<RoaringBitmap, MetricsError> {
        let mut found = RoaringBitmap::new();
        found.insert_range(0..self.entry().series);
        for (matcher, telling) in easiest_first(matchers) {
            if found.is_empty() {
                return Ok(found);
            }
            let told = self.told(matcher, &telling, &found)?;
            match matcher.matches(b"") {
                true => found -= told,
                false => found &= told,
            }
        }
        Ok(found)
    }

    /// Of the series `among`, and perhaps others, those with a value that tells.
    fn told(
        &self,
        matcher: &Matcher,
        telling: &Telling<'_>,
        among: &RoaringBitmap,
    ) -> Result<RoaringBitmap, MetricsError> {
        let Some(name) = self.name(matcher.name().as_bytes()) else {
            return Ok(RoaringBitmap::new());
        };
        let pages = match telling {
            Telling::Nothing => return Ok(RoaringBitmap::new()),
            Telling::OneOf(values) => return self.with_values(name, values),
            Telling::Some(Some((low, high))) => pages_between(&name.pages, low, high),
            Telling::Everything | Telling::AllBut(_) | Telling::Some(None) => &name.pages[..],
        };
        if self.rows_are_fewer(among, pages.len()) {
            return self.with_telling_rows(matcher, among);
        }
        let high = match telling {
            Telling::Some(Some((_, high))) => Some(&high[..]),
            _ => None,
        };
        let mut union = Union::new(self.entry().series);
        for page in pages {
            self.page(page, |value, postings| {
                if matcher.tells(value) {
                    self.add(postings, &mut union)?;
                }
                // Values ascend.
                Some(high.is_none_or(|high| value < high))
            })?;
        }
        Ok(union.finish())
    }

    fn add(&self, postings: &[u8], union: &mut Union) -> Option<()> {
        union.begin_set(postings.len());
        self.each_run(postings, |run| {
            union.insert(run);
            true
        })
        .map(drop)
    }

    fn each_run(&self, postings: &[u8], each: impl FnMut(Range<u32>) -> bool) -> Option<bool> {
        read_runs(postings, self.entry().series, each)
    }

    /// The series with one of these values, which ascend.
    fn with_values(
        &self,
        name: &NameEntry,
        values: &[&[u8]],
    ) -> Result<RoaringBitmap, MetricsError> {
        let mut union = Union::new(self.entry().series);
        let mut wanted = values.iter().copied().peekable();
        while let Some(first) = wanted.peek() {
            let behind = name
                .pages
                .partition_point(|page| *page.first_value <= **first);
            let Some(at) = behind.checked_sub(1) else {
                // Below the first value that there is.
                wanted.next();
                continue;
            };
            self.page(&name.pages[at], |value, postings| {
                while wanted.next_if(|wanted| *wanted < value).is_some() {}
                if wanted.next_if_eq(&value).is_some() {
                    self.add(postings, &mut union)?;
                }
                Some(wanted.peek().is_some())
            })?;
            // What the page should have had is not there.
            let next = name.pages.get(behind).map(|page| &*page.first_value);
            while wanted
                .next_if(|one| next.is_none_or(|next| *one < next))
                .is_some()
            {}
        }
        Ok(union.finish())
    }

    fn with_telling_rows(
        &self,
        matcher: &Matcher,
        among: &RoaringBitmap,
    ) -> Result<RoaringBitmap, MetricsError> {
        let mut found = Vec::new();
        self.labels(among.iter(), |number, canonical| {
            let value = value_of(canonical, matcher.name().as_bytes());
            if value.is_some_and(|value| matcher.tells(value)) {
                found.push(number);
            }
        })?;
        Ok(found.into_iter().collect())
    }

    /// Whether the labels of some series stand in fewer pieces than so many.
    fn rows_are_fewer(&self, series: &RoaringBitmap, pieces: usize) -> bool {
        let rows = &self.directory.rows;
        let mut series = series.iter();
        let mut touched = 0;
        while let Some((piece, _)) = series.next().and_then(|first| rows.find(first)) {
            touched += 1;
            if touched >= pieces {
                return false;
            }
            match rows.first.get(piece + 1) {
                Some(next) => series.advance_to(*next),
                None => break,
            }
        }
        true
    }

    /// The label names on series of `among`, ascending.
    pub(crate) fn label_names(
        &self,
        among: &RoaringBitmap,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), MetricsError> {
        let pages = self.directory.names.iter().map(|name| name.pages.len());
        if self.rows_are_fewer(among, pages.sum()) {
            let mut names = BTreeSet::new();
            self.labels(among.iter(), |_, canonical| {
                for (name, _) in pairs(canonical) {
                    if !names.contains(name) {
                        names.insert(name.to_vec());
                    }
                }
            })?;
            names.iter().for_each(|name| each(name));
            return Ok(());
        }
        let among = DenseSet::of(among, self.entry().series);
        for name in &self.directory.names {
            let mut is_on = false;
            self.each_value_on(name, &among, |_| {
                is_on = true;
                false
            })?;
            if is_on {
                each(&name.name);
            }
        }
        Ok(())
    }

    /// The values of label `name` on series of `among`, in ascending order.
    pub(crate) fn label_values(
        &self,
        name: &[u8],
        among: &RoaringBitmap,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), MetricsError> {
        let Some(entry) = self.name(name) else {
            return Ok(());
        };
        if self.rows_are_fewer(among, entry.pages.len()) {
            let mut values = BTreeSet::new();
            self.labels(among.iter(), |_, canonical| {
                if let Some(value) = value_of(canonical, name)
                    && !values.contains(value)
                {
                    values.insert(value.to_vec());
                }
            })?;
            values.iter().for_each(|value| each(value));
            return Ok(());
        }
        let among = DenseSet::of(among, self.entry().series);
        self.each_value_on(entry, &among, |value| {
            each(value);
            true
        })
    }

    /// The values of a label on series of `among`, ascending, while `each` wants more.
    fn each_value_on(
        &self,
        name: &NameEntry,
        among: &DenseSet,
        mut each: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), MetricsError> {
        let mut wants_more = true;
        for page in &name.pages {
            self.page(page, |value, postings| {
                let is_off = self.each_run(postings, |run| !among.meets(run))?;
                wants_more = is_off || each(value);
                Some(wants_more)
            })?;
            if !wants_more {
                break;
            }
        }
        Ok(())
    }

    /// How many series of `among` have each value of label `name`, ascending, until `each` breaks. Values on none are left
    /// out.
    pub(crate) fn count_values(
        &self,
        name: &[u8],
        among: &DenseSet,
        mut each: impl FnMut(&[u8], u64) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, MetricsError> {
        let mut flow = ControlFlow::Continue(());
        for page in self.name(name).map_or(&[][..], |entry| &entry.pages) {
            self.page(page, |value, postings| {
                let mut count = 0;
                self.each_run(postings, |run| {
                    count += among.count(run);
                    true
                })?;
                if count > 0 {
                    flow = each(value, count);
                }
                Some(flow.is_continue())
            })?;
            if flow.is_break() {
                break;
            }
        }
        Ok(flow)
    }

    /// All label names, ascending.
    pub(crate) fn all_label_names(&self) -> impl Iterator<Item = &[u8]> {
        self.directory.names.iter().map(|entry| &*entry.name)
    }
}

fn value_of<'a>(canonical: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut pairs = pairs(canonical);
    pairs.find(|(one, _)| *one == name).map(|(_, value)| value)
}

/// The pages that can hold values from `low` to `high`, inclusive.
fn pages_between<'a>(pages: &'a [PageEntry], low: &[u8], high: &[u8]) -> &'a [PageEntry] {
    let behind = pages.partition_point(|page| *page.first_value <= *high);
    let first = pages.partition_point(|page| *page.first_value <= *low);
    &pages[first.saturating_sub(1).min(behind)..behind]
}
