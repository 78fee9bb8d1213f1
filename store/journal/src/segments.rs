//! The segment files: names, beginning and retiring them, and recovery at a start.
//!
//! A segment is named by its base, a spare by the number of the file it was. Every state that a crash
//! can leave is one of: the old set, the old set with an unused file more, the new set. This needs three
//! orders, each with a directory sync between: a spare has its spare name before its header is
//! overwritten; a segment has its header before its name, and its name before its first group;
//! trimmed segments go one by one from the lowest, so that no gap can appear.

use crate::{DamagedRange, JournalError, JournalFaults, JournalOptions, Recovery};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use trefoil_model::LineageId;
use trefoil_store_pages::{
    Disk, FileHeader, PAGE_BYTES, PageReader, PageWriter, PagesError, copy_records,
};

const PURPOSE: [u8; 4] = *b"jrnl";
const SEGMENT_SUFFIX: &str = ".segment";
const SPARE_SUFFIX: &str = ".spare";
const NEW_SEGMENT_NAME: &str = "segment.new";

/// One segment as readers see it.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) base: u64,
    /// Offset behind its last durable record.
    pub(crate) end: u64,
    pub(crate) file_bytes: u64,
    /// None: its header cannot be read, all of it is damaged.
    pub(crate) reader: Option<PageReader>,
}

/// The files of the journal's directory and the one that is being written.
pub(crate) struct SegmentFiles {
    pub(crate) writer: PageWriter,
    pub(crate) segments_begun: u64,
    place: Directory,
    lineage: LineageId,
}

/// What is needed to make a segment file.
struct Directory {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    faults: JournalFaults,
    spares_max: usize,
    next_number: u64,
    spares: Vec<Spare>,
}

/// Whether a new file may take the last spare: a restart may, and frees the file that it copies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LastSpare {
    Stays,
    Goes,
}

struct Spare {
    path: PathBuf,
    file_bytes: u64,
}

impl SegmentFiles {
    /// Reads the directory, brings the last segment into a fresh file, and gives the segments in order
    /// (never none) with what was found.
    pub(crate) fn recover(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: &JournalOptions,
    ) -> Result<(Self, Vec<Segment>, Recovery), JournalError> {
        disk.create_dir_all(dir)
            .map_err(JournalError::io("create directory", dir))?;
        let mut place = Directory {
            disk,
            dir: dir.to_owned(),
            segment_bytes: options.segment_bytes,
            faults: options.faults,
            spares_max: options.spares_max.max(1),
            next_number: 1,
            spares: Vec::new(),
        };
        let mut segments = place.open_files()?;
        let mut recovery = Recovery {
            fresh: segments.is_empty(),
            ..Recovery::default()
        };
        verify_sealed(&mut segments, options.verify_from, &mut recovery)?;
        let newest = segments.iter().rev().find_map(|s| s.reader.as_ref());
        let lineage = newest.map_or(options.lineage_if_new, |reader| {
            LineageId(reader.header().lineage)
        });
        let (mut writer, last) = match segments.pop() {
            Some(last) => place.replace_last(last, lineage, &mut recovery)?,
            None => {
                let begin = behind(options.known_end).max(options.begin_if_new);
                place.begin_empty(begin, lineage)?
            }
        };
        segments.extend(last);
        if writer.end() < options.known_end {
            let lost = DamagedRange {
                start: writer.end(),
                end: behind(options.known_end),
            };
            let (next, segment) = place.begin_empty(lost.end, lineage)?;
            if let Some(last) = segments.last_mut() {
                last.end = lost.end;
            }
            segments.extend(segment);
            recovery.damage.push(lost);
            writer = next;
        }
        recovery.lineage = lineage;
        recovery.floor = segments.first().map_or(writer.end(), |s| s.base);
        recovery.end = writer.end();
        place.keep_a_spare();
        let files = Self {
            writer,
            segments_begun: 0,
            place,
            lineage,
        };
        Ok((files, segments, recovery))
    }

    /// Begins a segment at `base` with room for `group_bytes`. After an error of a full disk nothing
    /// has changed.
    pub(crate) fn begin(&mut self, base: u64, group_bytes: u64) -> Result<Segment, JournalError> {
        // The header takes a page, and a mark may follow.
        let bytes = group_bytes + 2 * PAGE_BYTES as u64;
        let mut writer = self
            .place
            .new_file(base, self.lineage, bytes, LastSpare::Stays)?;
        let path = self.place.segment_path(base);
        writer.rename(&*self.place.disk, &path)?;
        self.writer = writer;
        self.segments_begun += 1;
        segment_of(&self.writer)
    }

    /// From now on segments carry another lineage; gives the one before.
    pub(crate) fn set_lineage(&mut self, lineage: LineageId) -> LineageId {
        std::mem::replace(&mut self.lineage, lineage)
    }

    /// Whether a group of this size needs another segment.
    pub(crate) fn is_full_for(&self, group_bytes: u64) -> bool {
        self.writer.used_bytes() + group_bytes > self.place.segment_bytes
    }

    /// Takes a segment's file away, durably: as a spare, or for good.
    pub(crate) fn retire(&mut self, segment: &Segment) -> Result<(), JournalError> {
        let path = self.place.segment_path(segment.base);
        let number = segment.reader.as_ref().map(|r| r.header().number);
        let disk = &self.place.disk;
        match number {
            Some(number) if self.place.spares.len() < self.place.spares_max => {
                let spare = self.place.dir.join(format!("{number:016x}{SPARE_SUFFIX}"));
                disk.rename(&path, &spare)
                    .map_err(JournalError::io("rename segment to", &spare))?;
                self.place.spares.push(Spare {
                    path: spare,
                    file_bytes: segment.file_bytes,
                });
            }
            _ => disk
                .remove(&path)
                .map_err(JournalError::io("remove segment", &path))?,
        }
        self.place.sync()
    }

    /// Reserves a spare if there is none, so that a restart has room for its copy.
    pub(crate) fn keep_a_spare(&mut self) {
        self.place.keep_a_spare();
    }

    /// Bytes of the spares.
    pub(crate) fn spare_bytes(&self) -> u64 {
        self.place.spares.iter().map(|spare| spare.file_bytes).sum()
    }
}

impl Directory {
    /// Opens what is there: segments in order, spares, the highest file number. Removes leftovers.
    fn open_files(&mut self) -> Result<Vec<Segment>, JournalError> {
        let names = self.disk.list(&self.dir);
        let names = names.map_err(JournalError::io("list", &self.dir))?;
        let mut segments = Vec::new();
        for name in names {
            let path = self.dir.join(&name);
            if let Some(base) = parse_name(&name, SEGMENT_SUFFIX) {
                segments.push(self.open_segment(&path, base)?);
            } else if parse_name(&name, SPARE_SUFFIX).is_some() {
                match self.open_reader(&path)? {
                    Some(reader) if self.spares.len() < self.spares_max => {
                        let file_bytes = reader.file_bytes()?;
                        self.spares.push(Spare { path, file_bytes });
                    }
                    // Also a spare whose header was being overwritten at the crash: no group can
                    // have followed it.
                    _ => self.remove(&path)?,
                }
            } else if name == NEW_SEGMENT_NAME {
                self.remove(&path)?;
            }
        }
        // What was just seen may be names that the disk never saw.
        self.sync()?;
        Ok(segments)
    }

    fn open_segment(&mut self, path: &Path, base: u64) -> Result<Segment, JournalError> {
        let reader = self.open_reader(path)?;
        let reader = reader.filter(|reader| reader.header().base == base);
        let file_bytes = match &reader {
            Some(reader) => reader.file_bytes()?,
            None => {
                let file = self.disk.open(path).and_then(|file| file.length());
                file.map_err(JournalError::io("measure", path))?
            }
        };
        Ok(Segment {
            base,
            end: base,
            file_bytes,
            reader,
        })
    }

    /// A reader, or None if the header is damaged. A newer format version is an error.
    fn open_reader(&mut self, path: &Path) -> Result<Option<PageReader>, JournalError> {
        match PageReader::open(&*self.disk, path, PURPOSE) {
            Ok(reader) => {
                self.next_number = self.next_number.max(reader.header().number + 1);
                Ok(Some(match self.faults.torn_pages_applied {
                    true => reader.unchecked(),
                    false => reader,
                }))
            }
            Err(PagesError::NoHeader { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a segment without records that begins at `base`.
    fn begin_empty(
        &mut self,
        base: u64,
        lineage: LineageId,
    ) -> Result<(PageWriter, Vec<Segment>), JournalError> {
        let mut writer = self.new_file(base, lineage, 0, LastSpare::Goes)?;
        writer.rename(&*self.disk, &self.segment_path(base))?;
        let segment = segment_of(&writer)?;
        Ok((writer, vec![segment]))
    }

    /// Puts a fresh file in the place of the last segment, with the same records.
    /// Gives the segment that is being written, preceded by an unreadable one if there was one.
    fn replace_last(
        &mut self,
        mut last: Segment,
        lineage: LineageId,
        recovery: &mut Recovery,
    ) -> Result<(PageWriter, Vec<Segment>), JournalError> {
        let Some(source) = last.reader.clone() else {
            // Its records are unknown. Offsets go on behind anything that it can have held.
            last.end = last.base + last.file_bytes.max(self.segment_bytes);
            recovery.damage.push(DamagedRange {
                start: last.base,
                end: last.end,
            });
            let (writer, segment) = self.begin_empty(last.end, lineage)?;
            return Ok((writer, [vec![last], segment].concat()));
        };
        let bytes = source.file_bytes()?;
        let mut writer = self.new_file(last.base, lineage, bytes, LastSpare::Goes)?;
        let summary = copy_records(&source, &mut writer, &mut |_, _| {})?;
        writer.rename(&*self.disk, &self.segment_path(last.base))?;
        recovery.torn_bytes_cut += summary.torn_bytes;
        recovery.damage.extend(summary.damage);
        let segment = segment_of(&writer)?;
        Ok((writer, vec![segment]))
    }

    /// A new page file under a name that recovery ignores, from a spare if there is one.
    fn new_file(
        &mut self,
        base: u64,
        lineage: LineageId,
        bytes: u64,
        last_spare: LastSpare,
    ) -> Result<PageWriter, JournalError> {
        let header = FileHeader {
            purpose: PURPOSE,
            lineage: lineage.0,
            number: self.next_number,
            base,
            note: Vec::new(),
        };
        let bytes = self.segment_bytes.max(bytes);
        let kept = match last_spare {
            LastSpare::Stays => 1,
            LastSpare::Goes => 0,
        };
        let writer = match self.spares.get(kept..).and_then(<[Spare]>::last) {
            Some(spare) => {
                let writer = PageWriter::recycle(&*self.disk, &spare.path, header, bytes)?;
                self.spares.pop();
                writer
            }
            None => {
                let path = self.dir.join(NEW_SEGMENT_NAME);
                self.remove(&path)?;
                PageWriter::create(&*self.disk, &path, header, bytes)?
            }
        };
        self.next_number += 1;
        Ok(writer)
    }

    /// Reserves a spare if there is none. Without space there is none; that is no error.
    fn keep_a_spare(&mut self) {
        if !self.spares.is_empty() {
            return;
        }
        let header = FileHeader {
            purpose: PURPOSE,
            lineage: 0,
            number: self.next_number,
            base: 0,
            note: Vec::new(),
        };
        let name = format!("{:016x}{SPARE_SUFFIX}", self.next_number);
        let path = self.dir.join(name);
        let file_bytes = self.segment_bytes;
        match PageWriter::create(&*self.disk, &path, header, file_bytes) {
            Ok(_) => {
                self.next_number += 1;
                self.spares.push(Spare { path, file_bytes });
            }
            // A file that was half made has no header and is removed at the next start.
            Err(_) => drop(self.remove(&path)),
        }
    }

    fn remove(&self, path: &Path) -> Result<(), JournalError> {
        match self.disk.remove(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(JournalError::io("remove", path)(error))
            }
            _ => Ok(()),
        }
    }

    fn sync(&self) -> Result<(), JournalError> {
        self.disk
            .sync_dir(&self.dir)
            .map_err(JournalError::io("sync directory", &self.dir))
    }

    fn segment_path(&self, base: u64) -> PathBuf {
        self.dir.join(format!("{base:016x}{SEGMENT_SUFFIX}"))
    }
}

/// Gives every segment but the last its end, and reports what cannot be read of those that end above
/// `verify_from`. A segment followed by another one was durable up to the other's base.
fn verify_sealed(
    segments: &mut [Segment],
    verify_from: u64,
    recovery: &mut Recovery,
) -> Result<(), JournalError> {
    for at in 1..segments.len() {
        let next_base = segments[at].base;
        let segment = &mut segments[at - 1];
        segment.end = next_base;
        if next_base <= verify_from {
            continue;
        }
        let readable_to = match &segment.reader {
            Some(reader) => {
                let summary = reader.scan(&mut |_, _| {})?;
                recovery.damage.extend(summary.damage);
                summary.end
            }
            None => segment.base,
        };
        if readable_to < next_base {
            recovery.damage.push(DamagedRange {
                start: readable_to,
                end: next_base,
            });
        }
    }
    Ok(())
}

/// The first offset behind a known end. One more, so that damage up to here reaches beyond all that was known.
fn behind(known_end: u64) -> u64 {
    match known_end {
        0 => 0,
        known => known + 1,
    }
}

fn segment_of(writer: &PageWriter) -> Result<Segment, JournalError> {
    let reader = writer.reader();
    Ok(Segment {
        base: writer.header().base,
        end: writer.end(),
        file_bytes: reader.file_bytes()?,
        reader: Some(reader),
    })
}

fn parse_name(name: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_suffix(suffix)?;
    let canonical = digits.len() == 16
        && digits
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    canonical.then(|| u64::from_str_radix(digits, 16).ok())?
}
