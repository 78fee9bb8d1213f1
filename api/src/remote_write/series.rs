//! The rules that a series must keep to be stored, whatever protocol it came in.
//!
//! Labels mostly arrive in ascending order of name; others are put in order when all of them are there. A series that
//! breaks a rule is taken out of the request again and reported, with all others kept.

use super::{
    request::{SeriesEnd, WriteRequest, pairs_of},
    short_copy::PaddedBuffer,
};
use crate::{WriteLimits, limits::is_info, wire::UsualPair};
use std::cmp::Ordering;
use trefoil_model::LABEL_NAME_METRIC;

/// What [`sort_key`] gives for `__name__`, which has just eight bytes.
const METRIC_NAME_KEY: u64 = u64::from_be_bytes(*b"__name__");
/// Bytes of a label's name that are shown in a message.
const NAME_SHOWN_BYTES_MAX: usize = 200;

/// Why a series is left out, before it is put into words.
#[derive(Clone, Copy)]
enum Broken {
    NoMetricName,
    EmptyName,
    Duplicate,
    NameNotUtf8,
    ValueNotUtf8,
    MetricNameNotUtf8,
    TooManyLabels,
    TooManyInfoLabels,
    NameTooLong,
    ValueTooLong,
}

/// The labels of a series while they are read.
#[derive(Default)]
pub(super) struct LabelsState<'a> {
    previous_name: &'a [u8],
    /// The first bytes of that name, as [`sort_key`] gives them.
    previous_key: u64,
    count: usize,
    has_metric_name: bool,
    /// Whether a name came behind a greater one.
    is_unsorted: bool,
    /// The first broken rule, and the name and value at which it broke.
    broken: Option<(Broken, &'a [u8], &'a [u8])>,
}

impl<'a> LabelsState<'a> {
    /// Labels up to now.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Counts a label that is not written out, because there are too many already.
    pub(super) fn count_only(&mut self) {
        self.count += 1;
    }

    /// Checks a label of the usual form and appends it: what [`LabelsState::push`] does, faster.
    #[inline(always)]
    pub(super) fn push_usual(
        &mut self,
        buffer: &'a [u8],
        pair: UsualPair,
        limits: &WriteLimits,
        canonical: &mut PaddedBuffer,
    ) {
        let name = &buffer[pair.name_at..pair.name_at + pair.name_length];
        let key = sort_key(buffer, pair.name_at, pair.name_length);
        let is_allowed = pair.name_length <= limits.label_name_bytes_max
            && pair.value_length <= limits.label_value_bytes_max;
        if key <= self.previous_key || !is_allowed || pair.value_length == 0 {
            // Equal first bytes, or a broken rule: the slower way finds out.
            let value = &buffer[pair.value_at..pair.value_at + pair.value_length];
            self.push(name, value, limits, canonical);
            if !value.is_empty() {
                self.previous_key = key;
            }
            return;
        }
        self.previous_name = name;
        self.previous_key = key;
        self.count += 1;
        self.has_metric_name |= key == METRIC_NAME_KEY && pair.name_length == 8;
        canonical.push_short(buffer, pair.name_at - 1, pair.name_length + 1);
        canonical.push_short(buffer, pair.value_at - 1, pair.value_length + 1);
    }

    /// Checks a label against the rules and the one before it, and appends it.
    pub(super) fn push(
        &mut self,
        name: &'a [u8],
        value: &'a [u8],
        limits: &WriteLimits,
        canonical: &mut PaddedBuffer,
    ) {
        if value.is_empty() && (1..=limits.label_name_bytes_max).contains(&name.len()) {
            // A label without a value is the same as no label.
            return;
        }
        let order = self.previous_name.cmp(name);
        self.is_unsorted |= order == Ordering::Greater;
        if order == Ordering::Equal
            || name.is_empty()
            || name.len() > limits.label_name_bytes_max
            || value.len() > limits.label_value_bytes_max
        {
            self.note_broken(name, value, order, limits);
        }
        if name.len() > limits.label_name_bytes_max || value.len() > limits.label_value_bytes_max {
            // The series is refused; what is too long is not written out even for the message.
            self.previous_name = name;
            self.previous_key = u64::MAX;
            return;
        }
        self.previous_name = name;
        self.previous_key = u64::MAX;
        self.count += 1;
        self.has_metric_name |= name == LABEL_NAME_METRIC.as_bytes();
        canonical.push_text(name);
        canonical.push_text(value);
    }

    #[cold]
    fn note_broken(
        &mut self,
        name: &'a [u8],
        value: &'a [u8],
        order: Ordering,
        limits: &WriteLimits,
    ) {
        let rule = match order {
            _ if name.is_empty() => Broken::EmptyName,
            Ordering::Equal => Broken::Duplicate,
            _ if name.len() > limits.label_name_bytes_max => Broken::NameTooLong,
            _ => Broken::ValueTooLong,
        };
        self.broken.get_or_insert((rule, name, value));
    }

    /// Puts the labels, which begin at `labels_start` and end the buffer, in order if they came in another one: many clients
    /// send the metric's name first and all else as it comes. To be called when all of them are there.
    #[inline(always)]
    pub(super) fn sort(
        &self,
        limits: &WriteLimits,
        labels_start: usize,
        canonical: &mut PaddedBuffer,
    ) {
        // A series with too many is refused, and what sorting takes stays small.
        if self.is_unsorted && self.count <= limits.label_names_most() {
            sort_pairs(labels_start, canonical);
        }
    }
}

#[cold]
fn sort_pairs(labels_start: usize, canonical: &mut PaddedBuffer) {
    let copy = canonical.as_slice()[labels_start..].to_vec();
    let mut pairs: Vec<(&[u8], &[u8])> = pairs_of(&copy).collect();
    pairs.sort_by_key(|(name, _)| *name);
    canonical.truncate(labels_start);
    for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
        canonical.push_text(text);
    }
}

/// The first eight bytes of a name as a number; a shorter name is filled up with zeros. Of two names
/// with different keys the one with the smaller key is the smaller name.
#[inline(always)]
fn sort_key(buffer: &[u8], at: usize, length: usize) -> u64 {
    let first = buffer[at..].first_chunk::<8>();
    // The buffer's padding is longer than eight bytes.
    let key = u64::from_be_bytes(*first.unwrap_or(&[0; 8]));
    if length >= 8 {
        key
    } else {
        key & !(u64::MAX >> (8 * length))
    }
}

/// Keeps the series or takes its parts out again.
pub(super) fn finish_series(
    state: &LabelsState<'_>,
    limits: &WriteLimits,
    labels_start: usize,
    samples_start: usize,
    out: &mut WriteRequest,
) {
    let canonical = &out.canonical.as_slice()[labels_start..];
    let samples = out.samples.len() - samples_start;
    match find_broken(state, limits, canonical) {
        None if samples > 0 => {
            out.series.push(SeriesEnd {
                labels: out.canonical.len() as u32,
                samples: out.samples.len() as u32,
            });
            return;
        }
        None => {}
        Some((rule, name, value)) => out.refusals.add(samples as u64, || {
            let series = describe(canonical);
            explain(rule, name, value, &series, state.count, limits)
        }),
    }
    out.canonical.truncate(labels_start);
    out.truncate_samples(samples_start);
}

/// Whether the series may be stored.
pub(super) fn keeps_rules(
    state: &LabelsState<'_>,
    limits: &WriteLimits,
    canonical: &[u8],
) -> Option<()> {
    find_broken(state, limits, canonical)
        .is_none()
        .then_some(())
}

/// The first rule that the series breaks, with the name and value at which it breaks it.
#[inline(always)]
fn find_broken<'a>(
    state: &LabelsState<'a>,
    limits: &WriteLimits,
    canonical: &'a [u8],
) -> Option<(Broken, &'a [u8], &'a [u8])> {
    if state.broken.is_some() {
        return state.broken;
    }
    if state.count > limits.label_names_max
        && let Some(rule) = too_many(state.count, limits, canonical)
    {
        return Some((rule, &[], &[]));
    }
    if !state.has_metric_name {
        return Some((Broken::NoMetricName, &[], &[]));
    }
    if state.is_unsorted
        && let Some((name, value)) = find_duplicate(canonical)
    {
        return Some((Broken::Duplicate, name, value));
    }
    // Lengths below 128 are ASCII too, so one look at all labels is nearly always enough.
    if canonical.is_ascii() {
        return None;
    }
    let is_text = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
    pairs_of(canonical)
        .find(|(name, value)| !is_text(name) || !is_text(value))
        .map(|(name, value)| {
            let rule = match name {
                _ if !is_text(name) => Broken::NameNotUtf8,
                _ if name == LABEL_NAME_METRIC.as_bytes() => Broken::MetricNameNotUtf8,
                _ => Broken::ValueNotUtf8,
            };
            (rule, name, value)
        })
}

/// The second of two labels with one name, among labels in order.
#[cold]
fn find_duplicate(canonical: &[u8]) -> Option<(&[u8], &[u8])> {
    let following = pairs_of(canonical).skip(1);
    let mut both = pairs_of(canonical).zip(following);
    both.find(|(one, next)| one.0 == next.0)
        .map(|(_, next)| next)
}

/// Whether more labels than usual series have are too many for this one.
#[cold]
fn too_many(count: usize, limits: &WriteLimits, canonical: &[u8]) -> Option<Broken> {
    let informs = metric_of(canonical).is_some_and(is_info);
    let is_within = count <= limits.label_names_max_of(informs);
    match informs {
        _ if is_within => None,
        true => Some(Broken::TooManyInfoLabels),
        false => Some(Broken::TooManyLabels),
    }
}

/// The metric's name among the labels.
fn metric_of(canonical: &[u8]) -> Option<&[u8]> {
    let mut pairs = pairs_of(canonical);
    let found = pairs.find(|(name, _)| *name == LABEL_NAME_METRIC.as_bytes());
    found.map(|(_, value)| value)
}

/// A series as people write it: `name{label="value", ...}`.
pub(super) fn describe(canonical: &[u8]) -> String {
    let text = String::from_utf8_lossy;
    let is_name = |(name, _): &(&[u8], &[u8])| *name == LABEL_NAME_METRIC.as_bytes();
    let mut out = metric_of(canonical).map_or_else(String::new, |name| text(name).into_owned());
    out.push('{');
    for (index, (name, value)) in pairs_of(canonical).filter(|p| !is_name(p)).enumerate() {
        out.push_str(if index == 0 { "" } else { ", " });
        out.push_str(&format!("{}={:?}", text(name), text(value)));
    }
    out.push('}');
    out
}

/// Why a series was left out, for the client.
fn explain(
    rule: Broken,
    name: &[u8],
    value: &[u8],
    series: &str,
    count: usize,
    limits: &WriteLimits,
) -> String {
    let mut text = String::from_utf8_lossy(name).into_owned();
    if text.len() > NAME_SHOWN_BYTES_MAX {
        text.truncate(text.floor_char_boundary(NAME_SHOWN_BYTES_MAX));
        text.push_str("...");
    }
    let reason = match rule {
        Broken::NoMetricName => {
            "has no metric name (label __name__) (err-mimir-missing-metric-name)".to_owned()
        }
        Broken::EmptyName => {
            let value = String::from_utf8_lossy(value);
            format!("has a label with an empty name (value {value:?}) (err-mimir-label-invalid)")
        }
        Broken::Duplicate => {
            format!("label {text:?} appears twice (err-mimir-duplicate-label-names)")
        }
        Broken::NameNotUtf8 => {
            format!("the name of label {text:?} is not valid UTF-8 (err-mimir-label-invalid)")
        }
        Broken::ValueNotUtf8 => {
            format!("label {text:?} is not valid UTF-8 (err-mimir-label-value-invalid)")
        }
        Broken::MetricNameNotUtf8 => {
            "the metric name is not valid UTF-8 (err-mimir-metric-name-invalid)".to_owned()
        }
        Broken::TooManyLabels => format!(
            "has {count} labels, more than {} (max_label_names_per_series) (err-mimir-max-label-names-per-series)",
            limits.label_names_max
        ),
        Broken::TooManyInfoLabels => format!(
            "has {count} labels, more than {} (max_label_names_per_info_series) (err-mimir-max-label-names-per-info-series)",
            limits.label_names_most()
        ),
        Broken::NameTooLong => format!(
            "label name {text:?} has {} bytes, more than {} (max_label_name_length) (err-mimir-label-name-too-long)",
            name.len(),
            limits.label_name_bytes_max
        ),
        Broken::ValueTooLong => format!(
            "value of label {text:?} has {} bytes, more than {} (max_label_value_length) (err-mimir-label-value-too-long)",
            value.len(),
            limits.label_value_bytes_max
        ),
    };
    format!("{reason}, in series {series}")
}
