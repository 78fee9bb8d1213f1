//! What a block answered to queries before. It never changes, so an answer holds as long as the block.

use super::TenantReader;
use crate::MetricsError;
use crate::block::kept::Spot;
use crate::matcher::Matcher;
use roaring::RoaringBitmap;
use trefoil_model::ShardSet;
use xxhash_rust::xxh3::xxh3_64;

/// Labels of more series at once are not kept: they take several times the memory of the rows that they stand in.
const LABELS_KEPT_MAX: u64 = 512;

/// An answer, and to what: hashes may be equal by accident.
struct Remembered<T> {
    question: Vec<u8>,
    answer: T,
}

/// The canonical labels of series, one behind the other.
#[derive(Default)]
struct LabelRows {
    texts: Vec<u8>,
    /// The series' numbers, and where their labels end.
    rows: Vec<(u32, usize)>,
}

impl LabelRows {
    fn push(&mut self, number: u32, canonical: &[u8]) {
        self.texts.extend_from_slice(canonical);
        self.rows.push((number, self.texts.len()));
    }

    fn each(&self, mut each: impl FnMut(u32, &[u8])) {
        let mut start = 0;
        for (number, end) in &self.rows {
            each(*number, &self.texts[start..*end]);
            start = *end;
        }
    }

    fn bytes(&self) -> usize {
        self.texts.capacity() + self.rows.capacity() * size_of::<(u32, usize)>()
    }
}

impl TenantReader {
    /// The series that satisfy all matchers and lie in `shards`.
    pub(crate) fn find(
        &self,
        matchers: &[Matcher],
        shards: &ShardSet,
    ) -> Result<RoaringBitmap, MetricsError> {
        let mut found = self.find_or_remember(matchers)?;
        self.retain_shards(&mut found, shards)?;
        Ok(found)
    }

    fn find_or_remember(&self, matchers: &[Matcher]) -> Result<RoaringBitmap, MetricsError> {
        let Some(kept) = self.pieces.kept() else {
            return self.find_in_all(matchers);
        };
        let mut question = self.question();
        matchers
            .iter()
            .for_each(|matcher| matcher.write_key(&mut question));
        let place = (self.block.id, Spot::Found(xxh3_64(&question)));
        let bytes = |found: &Remembered<RoaringBitmap>| {
            found.question.capacity() + found.answer.serialized_size()
        };
        let found = kept.get_or_read(place, bytes, || {
            let (question, answer) = (question.clone(), self.find_in_all(matchers)?);
            Ok(Remembered { question, answer })
        })?;
        match found.question == question {
            true => Ok(found.answer.clone()),
            false => self.find_in_all(matchers),
        }
    }

    /// As [`TenantReader::labels`], for series that the same query is likely to ask for again.
    pub(crate) fn labels_of(
        &self,
        series: &RoaringBitmap,
        each: impl FnMut(u32, &[u8]),
    ) -> Result<(), MetricsError> {
        let kept = match self.pieces.kept() {
            Some(kept) if series.len() <= LABELS_KEPT_MAX => kept,
            _ => return self.labels(series.iter(), each),
        };
        let mut question = self.question();
        for number in series {
            question.extend_from_slice(&number.to_le_bytes());
        }
        let place = (self.block.id, Spot::Labels(xxh3_64(&question)));
        let bytes = |kept: &Remembered<LabelRows>| kept.question.capacity() + kept.answer.bytes();
        let rows = kept.get_or_read(place, bytes, || {
            let (question, mut answer) = (question.clone(), LabelRows::default());
            self.labels(series.iter(), |number, canonical| {
                answer.push(number, canonical);
            })?;
            answer.texts.shrink_to_fit();
            answer.rows.shrink_to_fit();
            Ok(Remembered { question, answer })
        })?;
        if rows.question != question {
            return self.labels(series.iter(), each);
        }
        rows.answer.each(each);
        Ok(())
    }

    /// The beginning of every question.
    fn question(&self) -> Vec<u8> {
        let mut question = Vec::with_capacity(128);
        question.extend_from_slice(&self.entry().tenant.0.to_le_bytes());
        question
    }
}
