//! Reading a body: checked, in one pass, without an allocation per series. Hostile bytes give an error,
//! never a panic, and cost memory in proportion to [`BODY_CONTENT_BYTES_MAX`] at most.

use super::{
    BODY_CONTENT_BYTES_MAX, BODY_VERSION, BODY_VERSION_PLAIN, LENGTH_HISTOGRAM, MetricMetadata,
    MetricType, SECTION_COUNTS, SECTION_EXEMPLARS, SECTION_HISTOGRAMS, SECTION_LENGTHS,
    SECTION_METADATA, SECTION_NUMBERS, SECTION_ROWS, SECTION_SHAPES, SECTION_SHARDS,
    SECTION_STARTS, SECTION_TIMESTAMPS, SECTION_VALUES, unzigzag,
};
use crate::MetricsError;
use crate::exemplars::{FoundExemplar, read_exemplars};
use crate::histogram::unpack;
use crate::rows::{RowReader, RowSections, read_short, text_end};
use crate::value::HISTOGRAM_BITS;
use std::ops::Range;
use trefoil_model::{Millis, ShardId, ShardSet, read_varint};
use zstd::bulk::Decompressor;

const SECTIONS: usize = 13;
const SECTIONS_PLAIN: usize = 10;

/// Reads one body after another; keeps its memory and the decompressor.
pub struct BodyReader {
    rows: RowReader,
    content: Vec<u8>,
    decompressor: Decompressor<'static>,
}

fn malformed(what: &'static str) -> MetricsError {
    MetricsError::MalformedBody { what }
}

impl BodyReader {
    /// A reader without a body.
    ///
    /// # Errors
    /// [`MetricsError::Compression`] when memory is short.
    pub fn new() -> Result<Self, MetricsError> {
        Ok(Self {
            rows: RowReader::default(),
            content: Vec::new(),
            decompressor: Decompressor::new().map_err(MetricsError::Compression)?,
        })
    }

    /// Decompresses a body and checks its symbol table.
    ///
    /// # Errors
    /// [`MetricsError::UnknownBodyVersion`], [`MetricsError::BodyTooLarge`] or
    /// [`MetricsError::MalformedBody`].
    pub fn open(&mut self, body: &[u8]) -> Result<Body<'_>, MetricsError> {
        let version = self.decompress(body)?;
        let sections = find_sections(&self.content, version)?;
        let of = |kind: u8| &self.content[sections[usize::from(kind)].clone()];
        let labels = RowSections {
            shapes: of(SECTION_SHAPES),
            values: of(SECTION_VALUES),
            rows: of(SECTION_ROWS),
        };
        self.rows.open(labels).map_err(malformed)?;
        let shards = of(SECTION_SHARDS);
        if shards.len() != self.rows.left() * 2 {
            return Err(malformed("shards"));
        }
        Ok(Body {
            rows: &mut self.rows,
            labels,
            shards,
            counts: of(SECTION_COUNTS),
            counts_at: 0,
            samples: Samples {
                timestamps: of(SECTION_TIMESTAMPS),
                timestamps_at: 0,
                previous: 0,
                lengths: of(SECTION_LENGTHS),
                numbers: of(SECTION_NUMBERS),
                histograms: of(SECTION_HISTOGRAMS),
                histogram: None,
                starts: of(SECTION_STARTS),
                starts_at: 0,
                start: 0,
                is_plain: version == BODY_VERSION_PLAIN,
                left: 0,
                malformed: false,
            },
            metadata: of(SECTION_METADATA),
            exemplars: of(SECTION_EXEMPLARS),
        })
    }

    /// Decompresses a body and says its version.
    fn decompress(&mut self, body: &[u8]) -> Result<u8, MetricsError> {
        let Some((&[version, ref length @ ..], frame)) = body.split_first_chunk::<5>() else {
            return Err(malformed("header"));
        };
        if !(BODY_VERSION_PLAIN..=BODY_VERSION).contains(&version) {
            return Err(MetricsError::UnknownBodyVersion {
                found: version,
                supported: BODY_VERSION,
            });
        }
        let bytes = u32::from_le_bytes(*length) as usize;
        if bytes > BODY_CONTENT_BYTES_MAX {
            let limit = BODY_CONTENT_BYTES_MAX;
            return Err(MetricsError::BodyTooLarge { bytes, limit });
        }
        self.content.clear();
        self.content.reserve(bytes);
        let written = self
            .decompressor
            .decompress_to_buffer(frame, &mut self.content)
            .map_err(|_| malformed("zstd frame"))?;
        if written != bytes {
            return Err(malformed("content length"));
        }
        Ok(version)
    }
}

fn find_sections(content: &[u8], version: u8) -> Result<[Range<usize>; SECTIONS], MetricsError> {
    let known = match version {
        BODY_VERSION_PLAIN => SECTIONS_PLAIN,
        _ => SECTIONS,
    };
    let mut sections = [const { 0..0 }; SECTIONS];
    let mut at = 0;
    let mut previous = 0;
    while at < content.len() {
        let kind = content[at];
        at += 1;
        if kind <= previous || usize::from(kind) >= known {
            return Err(malformed("section kind"));
        }
        previous = kind;
        let length = read_varint(content, &mut at)
            .and_then(|length| usize::try_from(length).ok())
            .filter(|length| *length <= content.len() - at)
            .ok_or_else(|| malformed("section length"))?;
        sections[usize::from(kind)] = at..at + length;
        at += length;
    }
    Ok(sections)
}

/// An open body: a cursor over its series.
pub struct Body<'a> {
    rows: &'a mut RowReader,
    labels: RowSections<'a>,
    shards: &'a [u8],
    counts: &'a [u8],
    counts_at: usize,
    samples: Samples<'a>,
    metadata: &'a [u8],
    exemplars: &'a [u8],
}

/// One series of a body.
pub struct BodySeries<'b, 'a> {
    /// The shard that the coordinator gave it.
    pub shard: ShardId,
    /// Canonical label bytes, checked.
    pub canonical: &'b [u8],
    /// Its samples in the order of the request; at least one. The caller need not read them all.
    pub samples: &'b mut Samples<'a>,
}

impl<'a> Body<'a> {
    /// How many series are left, of all shards.
    #[must_use]
    pub fn series_left(&self) -> usize {
        self.rows.left()
    }

    /// The next series of a shard in `accepted`, or `None` behind the last one. A series may come twice.
    ///
    /// # Errors
    /// [`MetricsError::MalformedBody`]; series that came before are sound, later ones are lost. Only the
    /// call that returns `None` proves that all samples were sound.
    pub fn next_series(
        &mut self,
        accepted: &ShardSet,
    ) -> Result<Option<BodySeries<'_, 'a>>, MetricsError> {
        loop {
            self.samples.skip_rest();
            if self.samples.malformed {
                return Err(malformed("samples"));
            }
            if !self.rows.advance(self.labels).map_err(malformed)? {
                self.check_end()?;
                return Ok(None);
            }
            let shard = self.read_shard()?;
            self.samples.left = read_short(self.counts, &mut self.counts_at)
                .filter(|count| (1..=self.samples.lengths.len() as u64).contains(count))
                .ok_or_else(|| malformed("sample count"))? as usize;
            if accepted.contains(shard) {
                return Ok(Some(BodySeries {
                    shard,
                    canonical: self.rows.canonical(),
                    samples: &mut self.samples,
                }));
            }
        }
    }

    fn read_shard(&mut self) -> Result<ShardId, MetricsError> {
        let (shard, rest) = self
            .shards
            .split_first_chunk::<2>()
            .ok_or_else(|| malformed("shards"))?;
        self.shards = rest;
        Ok(ShardId(u16::from_le_bytes(*shard)))
    }

    fn check_end(&self) -> Result<(), MetricsError> {
        let samples = &self.samples;
        let all_read = self.counts_at == self.counts.len()
            && samples.timestamps_at == samples.timestamps.len()
            && samples.lengths.is_empty()
            && samples.numbers.is_empty()
            && samples.histograms.is_empty()
            && samples.starts_at == samples.starts.len();
        all_read
            .then_some(())
            .ok_or_else(|| malformed("bytes behind the samples"))
    }

    /// The metadata entries of shards in `accepted`, with their shards, in the order of the request.
    ///
    /// # Errors
    /// [`MetricsError::MalformedBody`].
    pub fn metadata(
        &self,
        accepted: &ShardSet,
    ) -> Result<Vec<(ShardId, MetricMetadata)>, MetricsError> {
        if self.metadata.is_empty() {
            return Ok(Vec::new());
        }
        read_metadata(self.metadata, accepted).ok_or_else(|| malformed("metadata"))
    }

    /// The exemplars of shards in `accepted`, in the order of the request.
    ///
    /// # Errors
    /// [`MetricsError::MalformedBody`].
    pub fn exemplars(&self, accepted: &ShardSet) -> Result<Vec<FoundExemplar>, MetricsError> {
        if self.exemplars.is_empty() {
            return Ok(Vec::new());
        }
        read_exemplars(self.exemplars, accepted).ok_or_else(|| malformed("exemplars"))
    }
}

/// The entries of a metadata section whose shards are in `accepted`; `None` when it is malformed.
pub(crate) fn read_metadata(
    bytes: &[u8],
    accepted: &ShardSet,
) -> Option<Vec<(ShardId, MetricMetadata)>> {
    let mut at = 0;
    let mut entries = Vec::new();
    for _ in 0..read_varint(bytes, &mut at)? {
        let [low, high, kind] = *bytes.get(at..)?.first_chunk::<3>()?;
        at += 3;
        let mut text = || {
            let length = usize::try_from(read_varint(bytes, &mut at)?).ok()?;
            let text = bytes.get(at..at.checked_add(length)?)?;
            at += length;
            std::str::from_utf8(text).ok().map(str::to_owned)
        };
        let entry = MetricMetadata {
            metric_type: MetricType::from_byte(kind)?,
            metric: text()?,
            help: text()?,
            unit: text()?,
        };
        let shard = ShardId(u16::from_le_bytes([low, high]));
        if accepted.contains(shard) {
            entries.push((shard, entry));
        }
    }
    (at == bytes.len()).then_some(entries)
}

/// The samples of a series that were not read yet.
pub struct Samples<'a> {
    timestamps: &'a [u8],
    timestamps_at: usize,
    previous: Millis,
    lengths: &'a [u8],
    numbers: &'a [u8],
    histograms: &'a [u8],
    /// The histogram of the sample that was read last, packed.
    histogram: Option<&'a [u8]>,
    starts: &'a [u8],
    starts_at: usize,
    start: Millis,
    is_plain: bool,
    left: usize,
    malformed: bool,
}

/// One sample of a body.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BodySample<'a> {
    /// Milliseconds.
    pub time: Millis,
    /// The number; [`crate::HISTOGRAM_BITS`] beside a histogram.
    pub value: f64,
    /// The native histogram, when it is one; checked.
    pub(crate) histogram: Option<&'a [u8]>,
    /// When its counter began, in milliseconds, or 0 where that is not known.
    pub start: Millis,
}

impl BodySample<'_> {
    /// The native histogram, when it is one.
    #[must_use]
    pub fn histogram(&self) -> Option<trefoil_model::Histogram> {
        self.histogram.and_then(unpack)
    }
}

impl<'a> Samples<'a> {
    /// Whether the body has only numbers without start timestamps.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// The next sample with all that it has; `None` behind the last of the series.
    ///
    /// # Errors
    /// [`MetricsError::MalformedBody`] for a histogram that is none; the next call goes on behind it.
    pub fn next_with_extras(&mut self) -> Result<Option<BodySample<'a>>, MetricsError> {
        let Some((time, value)) = self.next() else {
            return Ok(None);
        };
        if self
            .histogram
            .is_some_and(|packed| unpack(packed).is_none())
        {
            return Err(malformed("histogram"));
        }
        Ok(Some(BodySample {
            time,
            value,
            histogram: self.histogram,
            start: self.start,
        }))
    }

    /// Reads what a sample has that is no number, and gives the bits of its value.
    #[cold]
    fn read_histogram(&mut self) -> Option<u64> {
        let end = text_end(self.histograms, 0)?;
        let mut at = 0;
        read_short(self.histograms, &mut at)?;
        let (histogram, rest) = self.histograms.split_at(end);
        self.histogram = Some(&histogram[at..]);
        self.histograms = rest;
        Some(HISTOGRAM_BITS)
    }
}

impl Samples<'_> {
    fn skip_rest(&mut self) {
        while self.next().is_some() {}
    }

    fn read(&mut self) -> Option<(Millis, f64)> {
        let step = read_short(self.timestamps, &mut self.timestamps_at)?;
        let (&length, lengths) = self.lengths.split_first()?;
        let mut length = usize::from(length);
        if !self.is_plain {
            self.histogram = None;
        }
        let bits = match self.numbers.first_chunk::<8>() {
            // Reading eight bytes and dropping the rest is faster than copying `length` ones.
            Some(eight) if (1..=8).contains(&length) => {
                u64::from_be_bytes(*eight) & (u64::MAX << (64 - 8 * length))
            }
            _ if length == usize::from(LENGTH_HISTOGRAM) => {
                length = 0;
                self.read_histogram()?
            }
            _ => {
                let mut eight = [0; 8];
                eight
                    .get_mut(..length)?
                    .copy_from_slice(self.numbers.get(..length)?);
                u64::from_be_bytes(eight)
            }
        };
        self.numbers = &self.numbers[length..];
        self.lengths = lengths;
        self.previous = self.previous.wrapping_add(unzigzag(step));
        if !self.starts.is_empty() {
            let step = read_short(self.starts, &mut self.starts_at)?;
            self.start = self.start.wrapping_add(unzigzag(step));
        }
        Some((self.previous, f64::from_bits(bits)))
    }
}

impl Iterator for Samples<'_> {
    type Item = (Millis, f64);

    #[inline]
    fn next(&mut self) -> Option<(Millis, f64)> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let sample = self.read();
        if sample.is_none() {
            self.left = 0;
            self.malformed = true;
        }
        sample
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}
