//! Questions to a head's label index: which series satisfy matchers, which names and values are on some series.
//!
//! A matcher is answered from the side that is smaller: by the values that it wants or by those that it does not want,
//! or by the labels of the series that are left when these are fewer than the values.

use super::{HeadIndex, OfName};
use crate::Matcher;
use crate::dense::{DenseSet, Union};
use crate::matcher::{Telling, easiest_first};
use roaring::RoaringBitmap;
use std::ops::ControlFlow;
use trefoil_model::{ShardSet, write_varint};

/// Looking up a label of a series takes as long as looking at so many values, about.
const VALUES_PER_SERIES: u64 = 4;

impl HeadIndex {
    /// The series below `limit` that satisfy all matchers.
    pub(crate) fn find(&self, matchers: &[Matcher], limit: u32) -> RoaringBitmap {
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
        &self,
        matcher: &Matcher,
        telling: &Telling<'_>,
        among: &RoaringBitmap,
    ) -> RoaringBitmap {
        let name = matcher.name().as_bytes();
        let Some(&place) = self.names.get(name) else {
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
    fn with_any_value(&self, name: &[u8], place: u32) -> RoaringBitmap {
        let mut found = RoaringBitmap::new();
        self.of_names[place as usize].postings.collect(&mut found);
        found - self.with_values(name, &[b""])
    }

    fn with_values(&self, name: &[u8], values: &[&[u8]]) -> RoaringBitmap {
        let pairs = values.iter();
        let pairs = pairs.filter_map(|value| self.find_pair(&pair_text(name, value)));
        self.union(&pairs.collect::<Vec<_>>())
    }

    fn with_telling_values(
        &self,
        matcher: &Matcher,
        place: u32,
        among: &RoaringBitmap,
    ) -> RoaringBitmap {
        let pairs = &self.of_names[place as usize].pairs;
        if among.len() * VALUES_PER_SERIES < pairs.len() as u64 {
            let tells = |series: &u32| {
                let pair = self.pair_of(*series, place);
                pair.is_some_and(|pair| matcher.tells(self.value_of(pair)))
            };
            return among.iter().filter(tells).collect();
        }
        let tells = |pair: &u32| matcher.tells(self.value_of(*pair));
        let (telling, others): (Vec<u32>, Vec<u32>) = pairs.iter().partition(|pair| tells(pair));
        if telling.len() <= others.len() {
            return self.union(&telling);
        }
        let mut found = RoaringBitmap::new();
        self.of_names[place as usize].postings.collect(&mut found);
        found - self.union(&others)
    }

    /// The series of any of these pairs.
    fn union(&self, pairs: &[u32]) -> RoaringBitmap {
        let mut union = Union::new(self.len());
        for pair in pairs {
            let postings = &self.pairs[*pair as usize].postings;
            union.begin_set(postings.heap_bytes());
            postings.each_run(|run| {
                union.insert(run);
                true
            });
        }
        union.finish()
    }

    /// The pair of a series with the label whose name has this place.
    pub(super) fn pair_of(&self, series: u32, place: u32) -> Option<u32> {
        let mut pairs = self.pairs_of(series).iter().copied();
        pairs.find(|pair| self.pairs[*pair as usize].of_name == place)
    }

    /// Leaves out the series of other shards.
    pub(crate) fn retain_shards(&self, found: &mut RoaringBitmap, shards: &ShardSet) {
        if !self.shards.is_subset(shards) {
            let kept = |series: &u32| shards.contains(self.shard(*series));
            *found = found.iter().filter(kept).collect();
        }
    }

    /// The values of label `name` on series of `among`, in no order.
    pub(crate) fn label_values(
        &self,
        name: &[u8],
        among: &RoaringBitmap,
        mut each: impl FnMut(&[u8]),
    ) {
        let Some(&place) = self.names.get(name) else {
            return;
        };
        let OfName { pairs, .. } = &self.of_names[place as usize];
        if among.len() * VALUES_PER_SERIES < pairs.len() as u64 {
            let on = among
                .iter()
                .filter_map(|series| self.pair_of(series, place));
            let mut on: Vec<u32> = on.collect();
            on.sort_unstable();
            on.dedup();
            on.iter().for_each(|pair| each(self.value_of(*pair)));
            return;
        }
        let among = DenseSet::of(among, self.len());
        for &pair in pairs {
            let postings = &self.pairs[pair as usize].postings;
            if !postings.each_run(|run| !among.meets(run)) {
                each(self.value_of(pair));
            }
        }
    }

    /// How many series of `among` have each value of label `name`, in no order, until `each` breaks. Values on none are left
    /// out.
    pub(crate) fn count_values(
        &self,
        name: &[u8],
        among: &DenseSet,
        mut each: impl FnMut(&[u8], u64) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let place = self.names.get(name).map(|place| *place as usize);
        for &pair in place.map_or(&[][..], |place| &self.of_names[place].pairs) {
            let mut count = 0;
            self.pairs[pair as usize].postings.each_run(|run| {
                count += among.count(run);
                true
            });
            if count > 0 {
                each(self.value_of(pair), count)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// All label names, ascending.
    pub(crate) fn all_label_names(&self) -> impl Iterator<Item = &[u8]> {
        self.names.keys().map(|name| &**name)
    }

    /// The label names on series of `among`, ascending.
    pub(crate) fn label_names(&self, among: &RoaringBitmap, mut each: impl FnMut(&[u8])) {
        let among = DenseSet::of(among, self.len());
        for (name, place) in &self.names {
            let postings = &self.of_names[*place as usize].postings;
            if !postings.each_run(|run| !among.meets(run)) {
                each(name);
            }
        }
    }
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
