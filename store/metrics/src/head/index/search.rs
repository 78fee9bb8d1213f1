//! Questions to a head's label index: which series satisfy matchers, which names and values are on some series.
//!
//! A matcher is answered from the side that is smaller: by the values that it wants or by those that it does not want,
//! or by the labels of the series that are left when these are fewer than the values.
//!
//! Questions go in steps, between which the applier adds series. A question is about series that were there when its view
//! was made; what an index has of those does not change any more.

use super::HeadIndex;
use crate::Matcher;
use crate::dense::{DenseSet, Union};
use crate::head::growing::Steps;
use crate::matcher::{Telling, easiest_first};
use crate::postings::Postings;
use roaring::RoaringBitmap;
use std::ops::{Bound, ControlFlow};
use trefoil_model::{ShardSet, write_varint};

/// Looking up a label of a series takes as long as looking at so many values, about.
const VALUES_PER_SERIES: u64 = 4;

impl Steps<'_, HeadIndex> {
    /// The series below `limit` that satisfy all matchers.
    pub(crate) fn find(&mut self, matchers: &[Matcher], limit: u32) -> RoaringBitmap {
        let mut found = RoaringBitmap::new();
        found.insert_range(0..limit);
        for (matcher, telling) in easiest_first(matchers) {
            if found.is_empty() {
                break;
            }
            let told = self.told(matcher, &telling, &found);
            match matcher.matches(b"") {
                true => found -= told,
                false => found &= told,
            }
        }
        found
    }

    /// Of the series `among`, and perhaps others, those with a value that tells.
    fn told(
        &mut self,
        matcher: &Matcher,
        telling: &Telling<'_>,
        among: &RoaringBitmap,
    ) -> RoaringBitmap {
        let name = matcher.name().as_bytes();
        let Some(place) = self.names.get(name).copied() else {
            return RoaringBitmap::new();
        };
        match telling {
            Telling::Nothing => RoaringBitmap::new(),
            Telling::Everything => self.with_any_value(name, place),
            Telling::OneOf(values) => self.with_values(name, values),
            Telling::AllBut(values) => {
                self.with_any_value(name, place) - self.with_values(name, values)
            }
            Telling::Some(_) => self.with_telling_values(matcher, place, among),
        }
    }

    /// The series on which the label is not empty.
    fn with_any_value(&mut self, name: &[u8], place: u32) -> RoaringBitmap {
        self.with_label(place) - self.with_values(name, &[b""])
    }

    /// The series that have the label.
    fn with_label(&mut self, place: u32) -> RoaringBitmap {
        let mut found = RoaringBitmap::new();
        let postings = &self.of_names[place as usize].postings;
        postings.collect(&mut found);
        let work = runs_about(postings);
        self.worked(work);
        found
    }

    fn with_values(&mut self, name: &[u8], values: &[&[u8]]) -> RoaringBitmap {
        let mut pairs = Vec::new();
        for value in values {
            pairs.extend(self.find_pair(&pair_text(name, value)));
            self.worked(1);
        }
        self.union(&pairs)
    }

    fn with_telling_values(
        &mut self,
        matcher: &Matcher,
        place: u32,
        among: &RoaringBitmap,
    ) -> RoaringBitmap {
        let pairs = self.pairs_of_name(place);
        if among.len() * VALUES_PER_SERIES < pairs as u64 {
            let mut found = Vec::new();
            for series in among {
                let pair = self.pair_of(series, place);
                if pair.is_some_and(|pair| matcher.tells(self.value_of(pair))) {
                    found.push(series);
                }
                self.worked(1);
            }
            return found.into_iter().collect();
        }
        let (mut telling, mut others) = (Vec::new(), Vec::new());
        for at in 0..pairs {
            let pair = self.of_names[place as usize].pairs[at];
            match matcher.tells(self.value_of(pair)) {
                true => telling.push(pair),
                false => others.push(pair),
            }
            self.worked(1);
        }
        if telling.len() <= others.len() {
            return self.union(&telling);
        }
        self.with_label(place) - self.union(&others)
    }

    /// How many values a label has now. Those that come later are of series that the question is not about.
    fn pairs_of_name(&self, place: u32) -> usize {
        self.of_names[place as usize].pairs.len()
    }

    /// The series of any of these pairs; of those that came meanwhile perhaps some.
    fn union(&mut self, pairs: &[u32]) -> RoaringBitmap {
        let mut union = Union::new(self.len());
        for pair in pairs {
            let postings = &self.pairs[*pair as usize].postings;
            union.begin_set(postings.heap_bytes());
            postings.each_run(|run| {
                union.insert(run);
                true
            });
            let work = runs_about(postings);
            self.worked(work);
        }
        union.finish()
    }

    /// Leaves out the series of other shards.
    pub(crate) fn retain_shards(&mut self, found: &mut RoaringBitmap, shards: &ShardSet) {
        if self.shards.is_subset(shards) {
            return;
        }
        let mut kept = Vec::new();
        for series in &*found {
            if shards.contains(self.shard(series)) {
                kept.push(series);
            }
            self.worked(1);
        }
        *found = kept.into_iter().collect();
    }

    /// The values of label `name` on series of `among`, in no order.
    pub(crate) fn label_values(
        &mut self,
        name: &[u8],
        among: &RoaringBitmap,
        mut each: impl FnMut(&[u8]),
    ) {
        let Some(place) = self.names.get(name).copied() else {
            return;
        };
        let pairs = self.pairs_of_name(place);
        if among.len() * VALUES_PER_SERIES < pairs as u64 {
            let mut on = Vec::new();
            for series in among {
                on.extend(self.pair_of(series, place));
                self.worked(1);
            }
            on.sort_unstable();
            on.dedup();
            for pair in on {
                each(self.value_of(pair));
                self.worked(1);
            }
            return;
        }
        let among = DenseSet::of(among, self.len());
        for at in 0..pairs {
            let pair = self.of_names[place as usize].pairs[at];
            let postings = &self.pairs[pair as usize].postings;
            if !postings.each_run(|run| !among.meets(run)) {
                each(self.value_of(pair));
            }
            let work = runs_about(postings);
            self.worked(work);
        }
    }

    /// How many series of `among` have each value of label `name`, in no order, until `each` breaks. Values on none are left
    /// out.
    pub(crate) fn count_values(
        &mut self,
        name: &[u8],
        among: &DenseSet,
        mut each: impl FnMut(&[u8], u64) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Some(place) = self.names.get(name).copied() else {
            return ControlFlow::Continue(());
        };
        for at in 0..self.pairs_of_name(place) {
            let pair = self.of_names[place as usize].pairs[at];
            let postings = &self.pairs[pair as usize].postings;
            let mut count = 0;
            postings.each_run(|run| {
                count += among.count(run);
                true
            });
            if count > 0 {
                each(self.value_of(pair), count)?;
            }
            let work = runs_about(postings);
            self.worked(work);
        }
        ControlFlow::Continue(())
    }

    /// The label names on series of `among`, ascending.
    pub(crate) fn label_names(&mut self, among: &RoaringBitmap, mut each: impl FnMut(&[u8])) {
        let among = DenseSet::of(among, self.len());
        // A name that comes meanwhile may be met or not: it is on none of these series.
        let mut last: Option<Box<[u8]>> = None;
        loop {
            let behind = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let mut names = self.names.range::<[u8], _>((behind, Bound::Unbounded));
            let Some((name, place)) = names.next() else {
                return;
            };
            let postings = &self.of_names[*place as usize].postings;
            if !postings.each_run(|run| !among.meets(run)) {
                each(name);
            }
            last = Some(name.clone());
            let work = runs_about(postings);
            self.worked(work);
        }
    }
}

impl HeadIndex {
    /// The pair of a series with the label whose name has this place.
    pub(super) fn pair_of(&self, series: u32, place: u32) -> Option<u32> {
        let mut pairs = self.pairs_of(series).iter().copied();
        pairs.find(|pair| self.pairs[*pair as usize].of_name == place)
    }

    /// All label names, ascending.
    pub(crate) fn all_label_names(&self) -> impl Iterator<Item = &[u8]> {
        self.names.keys().map(|name| &**name)
    }
}

/// What it takes to go through postings, in [`Steps::worked`].
fn runs_about(postings: &Postings) -> usize {
    /// Runs that take as long as looking at a value.
    const RUN_BYTES: usize = 16;
    1 + postings.heap_bytes() / RUN_BYTES
}

/// The canonical bytes of a label.
fn pair_text(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() + value.len() + 4);
    for text in [name, value] {
        write_varint(&mut bytes, text.len() as u64);
        bytes.extend_from_slice(text);
    }
    bytes
}
