//! Building a body. One writer serves many requests: `finish` keeps the memory and the compressor.

use super::{
    BODY_CONTENT_BYTES_MAX, BODY_VERSION, BODY_VERSION_PLAIN, LENGTH_HISTOGRAM, MetricMetadata,
    SECTION_COUNTS, SECTION_EXEMPLARS, SECTION_HISTOGRAMS, SECTION_LENGTHS, SECTION_METADATA,
    SECTION_NUMBERS, SECTION_ROWS, SECTION_SHAPES, SECTION_SHARDS, SECTION_STARTS,
    SECTION_TIMESTAMPS, SECTION_VALUES, zigzag,
};
use crate::MetricsError;
use crate::columns::SampleRef;
use crate::exemplars::{Exemplar, write_exemplar};
use crate::histogram::pack;
use crate::rows::{LABEL_BYTES_PER_SERIES_MAX, RowWriter};
use trefoil_model::{Millis, ShardId, write_varint};
use zstd::bulk::Compressor;

/// zstd level of bodies: the fastest whose frames are small enough. Measured in `benches/body.rs`.
const COMPRESSION_LEVEL: i32 = 1;

/// Builds the body of one parcel after another.
pub struct BodyWriter {
    rows: RowWriter,
    shards: Vec<u8>,
    counts: Vec<u8>,
    timestamps: Vec<u8>,
    lengths: Vec<u8>,
    numbers: Vec<u8>,
    histograms: Vec<u8>,
    /// Empty until a start timestamp is known, then one for each sample.
    starts: Vec<u8>,
    metadata: Vec<u8>,
    metadata_count: usize,
    exemplars: Vec<u8>,
    exemplar_count: usize,
    previous_timestamp: Millis,
    previous_start: Millis,
    content: Vec<u8>,
    section: Vec<u8>,
    compressor: Compressor<'static>,
}

impl BodyWriter {
    /// A writer without series.
    ///
    /// # Errors
    /// [`MetricsError::Compression`] when memory is short.
    pub fn new() -> Result<Self, MetricsError> {
        let compressor = Compressor::new(COMPRESSION_LEVEL).map_err(MetricsError::Compression)?;
        Ok(Self {
            rows: RowWriter::default(),
            shards: Vec::new(),
            counts: Vec::new(),
            timestamps: Vec::new(),
            lengths: Vec::new(),
            numbers: Vec::new(),
            histograms: Vec::new(),
            starts: Vec::new(),
            metadata: Vec::new(),
            metadata_count: 0,
            exemplars: Vec::new(),
            exemplar_count: 0,
            previous_timestamp: 0,
            previous_start: 0,
            content: Vec::new(),
            section: Vec::new(),
            compressor,
        })
    }

    /// Adds a series with its samples. A series without samples is left out; the same series may be
    /// added again. Samples stand in any order.
    ///
    /// # Errors
    /// [`MetricsError::BodyTooLarge`] when the labels are longer than a series may have, or the body is
    /// full; nothing was added: finish the body and begin another one.
    ///
    /// # Panics
    /// When `canonical` is not canonical label bytes of at most [`crate::LABELS_PER_SERIES_MAX`] labels.
    pub fn add_series(
        &mut self,
        shard: ShardId,
        canonical: &[u8],
        samples: impl IntoIterator<Item = (Millis, f64)>,
    ) -> Result<(), MetricsError> {
        self.check_room(canonical.len())?;
        let mut count = 0;
        for (timestamp, value) in samples {
            self.add_number(timestamp, value);
            count += 1;
        }
        if !self.starts.is_empty() {
            (0..count).for_each(|_| self.add_start(0));
        }
        self.end_series(shard, canonical, count);
        Ok(())
    }

    /// As [`BodyWriter::add_series`], for samples that may be histograms and have start timestamps. The caller keeps the
    /// histograms of one call below some MiB.
    ///
    /// # Errors
    /// As for [`BodyWriter::add_series`].
    pub fn add_samples<'s>(
        &mut self,
        shard: ShardId,
        canonical: &[u8],
        samples: impl IntoIterator<Item = SampleRef<'s>>,
    ) -> Result<(), MetricsError> {
        self.check_room(canonical.len())?;
        let mut count = 0;
        for sample in samples {
            count += 1;
            let before = self.lengths.len();
            match sample.histogram {
                None => self.add_number(sample.time, sample.value),
                Some(histogram) => {
                    self.add_time(sample.time);
                    self.lengths.push(LENGTH_HISTOGRAM);
                    self.section.clear();
                    pack(histogram, &mut self.section);
                    write_varint(&mut self.histograms, self.section.len() as u64);
                    self.histograms.append(&mut self.section);
                }
            }
            if sample.start != 0 && self.starts.is_empty() {
                // Each of the samples before has 0 behind 0.
                self.starts.resize(before, 0);
                self.add_start(sample.start);
            } else if !self.starts.is_empty() {
                self.add_start(sample.start);
            }
        }
        self.end_series(shard, canonical, count);
        Ok(())
    }

    #[inline]
    fn add_time(&mut self, timestamp: Millis) {
        let step = timestamp.wrapping_sub(self.previous_timestamp);
        write_varint(&mut self.timestamps, zigzag(step));
        self.previous_timestamp = timestamp;
    }

    #[inline]
    fn add_number(&mut self, timestamp: Millis, value: f64) {
        self.add_time(timestamp);
        let bits = value.to_bits();
        let length = 8 - (bits.trailing_zeros() / 8) as usize;
        self.lengths.push(length as u8);
        self.numbers
            .extend_from_slice(&bits.to_be_bytes()[..length]);
    }

    fn add_start(&mut self, start: Millis) {
        let step = start.wrapping_sub(self.previous_start);
        write_varint(&mut self.starts, zigzag(step));
        self.previous_start = start;
    }

    /// Adds the series of the last `count` samples.
    fn end_series(&mut self, shard: ShardId, canonical: &[u8], count: u64) {
        if count == 0 {
            return;
        }
        write_varint(&mut self.counts, count);
        self.shards.extend_from_slice(&shard.0.to_le_bytes());
        self.rows.push(canonical);
    }

    /// Adds what a metric family is declared as.
    ///
    /// # Errors
    /// [`MetricsError::BodyTooLarge`] as in [`BodyWriter::add_series`].
    pub fn add_metadata(
        &mut self,
        shard: ShardId,
        entry: &MetricMetadata,
    ) -> Result<(), MetricsError> {
        self.check_room(entry.metric.len() + entry.help.len() + entry.unit.len())?;
        write_metadata_entry(shard, entry, &mut self.metadata);
        self.metadata_count += 1;
        Ok(())
    }

    /// Adds an exemplar of the series with these canonical labels.
    ///
    /// # Errors
    /// [`MetricsError::BodyTooLarge`] as in [`BodyWriter::add_series`].
    pub fn add_exemplar(
        &mut self,
        shard: ShardId,
        canonical: &[u8],
        exemplar: &Exemplar,
    ) -> Result<(), MetricsError> {
        self.check_room(canonical.len() + exemplar.labels.canonical().len())?;
        write_exemplar(shard, canonical, exemplar, &mut self.exemplars);
        self.exemplar_count += 1;
        Ok(())
    }

    /// Half of the limit is kept free, so that the samples of one series always fit behind the check.
    fn check_room(&self, more: usize) -> Result<(), MetricsError> {
        let bytes = self.content_bytes() + more;
        let limit = BODY_CONTENT_BYTES_MAX / 2;
        if more > LABEL_BYTES_PER_SERIES_MAX || bytes > limit {
            return Err(MetricsError::BodyTooLarge { bytes, limit });
        }
        Ok(())
    }

    /// About how many uncompressed bytes the body has now.
    #[must_use]
    pub fn content_bytes(&self) -> usize {
        let numbers = self.timestamps.len() + self.lengths.len() + self.numbers.len();
        let samples = numbers + self.histograms.len() + self.starts.len();
        let series = self.rows.bytes() + self.shards.len() + self.counts.len();
        samples + series + self.metadata.len() + self.exemplars.len()
    }

    /// Whether nothing was added since the last [`BodyWriter::finish`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 0 && self.metadata_count == 0 && self.exemplar_count == 0
    }

    /// How many samples were added since the last [`BodyWriter::finish`].
    #[must_use]
    pub fn samples(&self) -> usize {
        self.lengths.len()
    }

    /// The body of what was added; the writer is empty afterwards.
    ///
    /// # Errors
    /// [`MetricsError::BodyTooLarge`] when one series had millions of samples (the writer is empty
    /// afterwards too), [`MetricsError::Compression`] when memory is short.
    pub fn finish(&mut self) -> Result<Vec<u8>, MetricsError> {
        let is_plain =
            self.histograms.is_empty() && self.starts.is_empty() && self.exemplar_count == 0;
        let version = match is_plain {
            true => BODY_VERSION_PLAIN,
            false => BODY_VERSION,
        };
        self.move_to_content();
        let bytes = self.content.len();
        if bytes > BODY_CONTENT_BYTES_MAX {
            let limit = BODY_CONTENT_BYTES_MAX;
            return Err(MetricsError::BodyTooLarge { bytes, limit });
        }
        let frame = self
            .compressor
            .compress(&self.content)
            .map_err(MetricsError::Compression)?;
        let mut body = Vec::with_capacity(frame.len() + 5);
        body.push(version);
        body.extend_from_slice(&(bytes as u32).to_le_bytes());
        body.extend_from_slice(&frame);
        Ok(body)
    }

    /// Moves everything into `self.content`; the writer is empty afterwards.
    fn move_to_content(&mut self) {
        let (content, section) = (&mut self.content, &mut self.section);
        content.clear();
        self.rows.write_shapes(section);
        move_section(content, SECTION_SHAPES, section);
        self.rows.write_values(section);
        move_section(content, SECTION_VALUES, section);
        self.rows.write_rows(section);
        move_section(content, SECTION_ROWS, section);
        self.rows.clear();
        move_section(content, SECTION_SHARDS, &mut self.shards);
        move_section(content, SECTION_COUNTS, &mut self.counts);
        move_section(content, SECTION_TIMESTAMPS, &mut self.timestamps);
        move_section(content, SECTION_LENGTHS, &mut self.lengths);
        move_section(content, SECTION_NUMBERS, &mut self.numbers);
        self.previous_timestamp = 0;
        if self.metadata_count > 0 {
            write_varint(section, self.metadata_count as u64);
            section.append(&mut self.metadata);
            move_section(content, SECTION_METADATA, section);
            self.metadata_count = 0;
        }
        if !self.histograms.is_empty() {
            move_section(content, SECTION_HISTOGRAMS, &mut self.histograms);
        }
        if !self.starts.is_empty() {
            move_section(content, SECTION_STARTS, &mut self.starts);
        }
        if self.exemplar_count > 0 {
            write_varint(section, self.exemplar_count as u64);
            section.append(&mut self.exemplars);
            move_section(content, SECTION_EXEMPLARS, section);
            self.exemplar_count = 0;
        }
        self.previous_start = 0;
    }
}

fn move_section(content: &mut Vec<u8>, kind: u8, bytes: &mut Vec<u8>) {
    content.push(kind);
    write_varint(content, bytes.len() as u64);
    content.append(bytes);
}

/// Appends one entry of a metadata section.
pub(crate) fn write_metadata_entry(shard: ShardId, entry: &MetricMetadata, out: &mut Vec<u8>) {
    out.extend_from_slice(&shard.0.to_le_bytes());
    out.push(entry.metric_type as u8);
    for text in [&entry.metric, &entry.help, &entry.unit] {
        write_varint(out, text.len() as u64);
        out.extend_from_slice(text.as_bytes());
    }
}
