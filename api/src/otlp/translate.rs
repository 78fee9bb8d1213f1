//! Data points as series.
//!
//! | OTLP | series |
//! |---|---|
//! | gauge, sum | the metric's name |
//! | histogram | `_bucket` with `le`, `_sum` if it has one, `_count`; or the metric's name, a native histogram |
//! | exponential histogram | the metric's name, a native histogram |
//! | summary | the metric's name with `quantile`, `_sum`, `_count` |
//! | resource | `job`, `instance`; `target_info` with its other attributes |
//!
//! A data point that cannot be kept is rejected by name and counted, all others are kept.
//!
//! Source: the behaviour of Prometheus' OTLP receiver.

use super::{
    Deltas, OtlpOptions, custom, exemplar,
    flaw::{Flaw, Shown},
    labels::LabelSet,
    message::{KeyValue, Resource, Scope},
    metrics::{Data, DataKind, Metric, PARTS_MAX, Point, Temporality},
    name::NamedKind,
    origin::{FlawAt, Origin, SERVICE_INSTANCE, SERVICE_NAME, SERVICE_NAMESPACE},
    same_time::{self, Interval},
};
use crate::{
    ApiError, WriteLimits,
    limits::is_info,
    recycle,
    remote_write::{MetricKind, Sample, SampleValue, WriteRequest},
    wire::{Reader, WireType},
};
use std::{collections::HashSet, ops::RangeInclusive, sync::Arc};
use trefoil_model::{LABEL_NAME_METRIC, Millis, histogram::ResetHint};
use trefoil_query_promql::STALE_MARKER_BITS;

/// The series that tells a resource's attributes.
const TARGET_INFO: &str = "target_info";
/// Distance of its samples between the first and the last point of a resource: half of the usual look-back.
const TARGET_INFO_STEP: Millis = 150_000;
/// Most samples of it for one resource of a request, 25 hours; before that there are none.
const TARGET_INFO_SAMPLES_MAX: Millis = 600;
/// Nanoseconds in a millisecond.
const NANOS: u64 = 1_000_000;
/// Families whose declaration is sent once for a request; those beyond may be sent for each resource.
const FAMILIES_MAX: usize = 4096;
/// How many rejections are kept as text; all are counted.
const REASONS_MAX: usize = 10;
/// Why a delta is rejected by which a series would fall.
const NEGATIVE_DELTA: &str = "has a negative delta of a sum; its total would fall";
/// Longest text about a rejection, bytes.
const REASON_BYTES_MAX: usize = 1024;

/// Data points that were rejected, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejections {
    /// How many were rejected, those of series that break a limit included.
    pub points: u64,
    /// The first few in words; those of series are in the request's refusals.
    pub reasons: Vec<String>,
}

impl Rejections {
    fn add(&mut self, points: u64, reason: impl FnOnce() -> String) {
        self.points += points;
        if self.reasons.len() < REASONS_MAX {
            let mut reason = reason();
            if reason.len() > REASON_BYTES_MAX {
                reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
                reason.push_str("...");
            }
            self.reasons.push(reason);
        }
    }
}

/// What a request comes to.
#[derive(Clone, Debug, Default)]
pub struct Imported {
    /// What is to be stored.
    pub request: WriteRequest,
    /// What is to be added up first: series alone, of each of which no two samples end in the same millisecond that follow each
    /// other.
    pub deltas: WriteRequest,
    /// Of the deltas' samples, while they are read.
    pub(crate) intervals: Vec<Interval>,
}

impl Imported {
    pub(crate) fn clear(&mut self) {
        self.request.clear();
        self.deltas.clear();
        self.intervals.clear();
    }

    /// Bytes of memory that the buffers hold.
    #[must_use]
    pub fn capacity_bytes(&self) -> usize {
        let intervals = self.intervals.capacity() * size_of::<Interval>();
        self.request.capacity_bytes() + self.deltas.capacity_bytes() + intervals
    }

    fn refused(&self) -> u64 {
        self.request.refusals().series + self.deltas.refusals().series
    }
}

/// Reads an `ExportMetricsServiceRequest` into `out`, whose former content is lost. `grow` is asked for the bytes of
/// `out` before each series and declaration that it takes, and its error ends the reading. `accepted` are the times
/// that the node will store: all points are read, but `target_info` is told for these times only.
///
/// # Errors
/// [`ApiError::CorruptProtobuf`], [`ApiError::TooLarge`], [`ApiError::BadData`] for attributes without end, and the
/// errors of `grow`; `out` is empty then.
pub fn import_metrics(
    body: &[u8],
    options: &OtlpOptions,
    limits: &WriteLimits,
    accepted: RangeInclusive<Millis>,
    out: &mut Imported,
    grow: &mut dyn FnMut(usize) -> Result<(), ApiError>,
) -> Result<Rejections, ApiError> {
    out.clear();
    let mut translator = Translator {
        options,
        limits,
        accepted,
        out,
        grow,
        is_adding_up: false,
        interval: Interval::default(),
        reset_hint: ResetHint::Unknown,
        scratch: Scratch::default(),
        families: HashSet::new(),
        rejections: Rejections::default(),
    };
    let outcome = translator.request(Reader::new(body, body.len()));
    let mut rejections = translator.rejections;
    match outcome.and_then(|()| same_time::add_up(out, limits, grow)) {
        Ok(twice) => {
            if twice.samples > 0 {
                let reason = || format!("a data point comes twice, in series {}", twice.first);
                rejections.add(twice.samples, reason);
            }
            Ok(rejections)
        }
        Err(error) => {
            out.clear();
            Err(error)
        }
    }
}

struct Translator<'a, 'o> {
    options: &'o OtlpOptions,
    limits: &'o WriteLimits,
    accepted: RangeInclusive<Millis>,
    out: &'o mut Imported,
    grow: &'o mut dyn FnMut(usize) -> Result<(), ApiError>,
    /// Whether points are deltas that have to be added up.
    is_adding_up: bool,
    /// Of the present point.
    interval: Interval,
    /// Whether native histograms of these points are counters.
    reset_hint: ResetHint,
    scratch: Scratch<'a>,
    families: HashSet<String>,
    rejections: Rejections,
}

/// Memory that is used again for every point.
#[derive(Default)]
struct Scratch<'a> {
    sorted: Vec<KeyValue<'a>>,
    name: String,
    value: String,
    labels: LabelSet,
    pairs: Vec<(&'static str, &'static str)>,
}

/// The first and the last time of a resource's points, of those that will be stored.
struct Span(Option<(Millis, Millis)>);

/// How a family of series is called.
struct Family<'a> {
    /// The metric's name as it came, for messages.
    metric: &'a str,
    name: String,
    bucket: String,
    sum: String,
    count: String,
    /// Whether all its series inform, and may have more labels for that.
    informs: bool,
}

impl<'a> Translator<'a, '_> {
    fn request(&mut self, mut reader: Reader<'a>) -> Result<(), ApiError> {
        while !reader.is_at_end() {
            match reader.tag("ExportMetricsServiceRequest")? {
                (1, WireType::Bytes) => {
                    self.resource_metrics(reader.message("resource_metrics")?)?;
                }
                (_, wire_type) => reader.skip(wire_type, "ExportMetricsServiceRequest")?,
            }
        }
        Ok(())
    }

    /// The resource may stand behind its scopes, so it is looked for first.
    fn resource_metrics(&mut self, message: Reader<'a>) -> Result<(), ApiError> {
        let mut resource = Resource::default();
        let mut reader = message;
        while !reader.is_at_end() {
            match reader.tag("ResourceMetrics")? {
                (1, WireType::Bytes) => resource = Resource::read(reader.message("resource")?)?,
                (_, wire_type) => reader.skip(wire_type, "ResourceMetrics")?,
            }
        }
        let mut origin = Origin::default();
        origin.begin_resource(&resource, self.options, self.limits)?;
        let mut span = Span(None);
        let mut reader = message;
        while !reader.is_at_end() {
            match reader.tag("ResourceMetrics")? {
                (2, WireType::Bytes) => {
                    let scope = reader.message("scope_metrics")?;
                    self.scope_metrics(scope, &mut origin, &mut span)?;
                }
                (_, wire_type) => reader.skip(wire_type, "ResourceMetrics")?,
            }
        }
        self.target_info(&resource, &origin, &span)
    }

    fn scope_metrics(
        &mut self,
        message: Reader<'a>,
        origin: &mut Origin,
        span: &mut Span,
    ) -> Result<(), ApiError> {
        let (mut scope, mut schema_url) = (Scope::default(), "");
        let mut reader = message;
        while !reader.is_at_end() {
            match reader.tag("ScopeMetrics")? {
                (1, WireType::Bytes) => scope = Scope::read(reader.message("scope")?)?,
                (3, WireType::Bytes) => schema_url = reader.text("ScopeMetrics.schema_url")?,
                (_, wire_type) => reader.skip(wire_type, "ScopeMetrics")?,
            }
        }
        origin.begin_scope(&scope, schema_url, self.options, self.limits)?;
        let mut reader = message;
        while !reader.is_at_end() {
            match reader.tag("ScopeMetrics")? {
                (2, WireType::Bytes) => {
                    let metric = Metric::read(reader.message("metrics")?)?;
                    if let Some(data) = metric.data {
                        self.metric(&metric, &data, origin, span)?;
                    }
                }
                (_, wire_type) => reader.skip(wire_type, "ScopeMetrics")?,
            }
        }
        Ok(())
    }

    /// How the series of a metric are called, or why none of its points can be kept.
    fn family(&self, metric: &Metric<'a>, data: &Data<'a>) -> Result<Family<'a>, String> {
        if let Some(reason) = unfit(data, self.options.deltas) {
            return Err(reason.to_owned());
        }
        let bytes_max = self.limits.label_value_bytes_max;
        let too_long = || {
            Err(format!(
                "has a name or unit of more than {bytes_max} bytes (max_label_value_length)"
            ))
        };
        if metric.name.len() > bytes_max || metric.unit.len() > bytes_max {
            return too_long();
        }
        let strategy = self.options.strategy;
        let (named, _) = kinds(data);
        let Some(name) = strategy.metric_name(metric.name, metric.unit, named) else {
            return Err("has a name of which nothing can be kept".to_owned());
        };
        let has_other_names = match data.kind {
            DataKind::Histogram | DataKind::Summary => !self.is_native(data.kind),
            _ => false,
        };
        let family = Family {
            metric: metric.name,
            informs: !has_other_names && is_info(name.as_bytes()),
            bucket: format!("{name}_bucket"),
            sum: format!("{name}_sum"),
            count: format!("{name}_count"),
            name,
        };
        let longest = match data.kind {
            DataKind::Gauge | DataKind::Sum => &family.name,
            DataKind::Histogram | DataKind::Exponential => &family.bucket,
            DataKind::Summary => &family.count,
        };
        match longest.len() > bytes_max {
            true => too_long(),
            false => Ok(family),
        }
    }

    fn metric(
        &mut self,
        metric: &Metric<'a>,
        data: &Data<'a>,
        origin: &Origin,
        span: &mut Span,
    ) -> Result<(), ApiError> {
        let family = match origin.unfit() {
            Some(reason) => Err(reason.to_owned()),
            None => self.family(metric, data),
        };
        let family = match family {
            Ok(family) => family,
            Err(reason) => {
                let mut points = 0;
                for point in data.points() {
                    point?;
                    points += 1;
                }
                let name = Shown(metric.name);
                self.rejections
                    .add(points, || format!("metric {name} {reason}"));
                return Ok(());
            }
        };
        let is_delta = data.temporality == Temporality::Delta && data.has_temporality();
        let declared = match (is_delta, self.options.deltas) {
            // There is no kind for it.
            (true, Deltas::Store) => MetricKind::Unknown,
            _ => kinds(data).1,
        };
        self.declare(declared, &family.name, metric)?;
        self.is_adding_up = is_delta && self.options.deltas == Deltas::Accumulate;
        self.reset_hint = match is_delta && !self.is_adding_up {
            true => ResetHint::Gauge,
            false => ResetHint::Unknown,
        };
        let mut point = Point::default();
        let mut points = data.points();
        let outcome = points.try_for_each(|message| {
            point.read(data.kind, message?)?;
            self.interval = Interval {
                point: self.interval.point + 1,
                start: point.start,
                end: point.time,
            };
            self.point(&family, data.kind, &point, origin, span)
        });
        self.is_adding_up = false;
        outcome
    }

    fn declare(
        &mut self,
        kind: MetricKind,
        name: &str,
        metric: &Metric<'_>,
    ) -> Result<(), ApiError> {
        if self.families.contains(name) {
            return Ok(());
        }
        if self.families.len() < FAMILIES_MAX {
            self.families.insert(name.to_owned());
        }
        let unit = self.options.strategy.unit_name(metric.unit);
        let texts = [name, metric.description, &unit].map(str::as_bytes);
        (self.grow)(self.out.capacity_bytes())?;
        self.out.request.push_metadata(kind, texts, self.limits);
        Ok(())
    }

    /// Whether points of this kind become native histograms.
    fn is_native(&self, kind: DataKind) -> bool {
        match kind {
            DataKind::Exponential => true,
            DataKind::Histogram => self.options.converts_histograms,
            _ => false,
        }
    }

    fn point(
        &mut self,
        family: &Family<'_>,
        kind: DataKind,
        point: &Point<'a>,
        origin: &Origin,
        span: &mut Span,
    ) -> Result<(), ApiError> {
        let reject = |rejections: &mut Rejections, reason: &dyn Fn() -> String| {
            let metric = Shown(family.metric);
            rejections.add(1, || format!("metric {metric} {}", reason()));
        };
        let value = point.value.or(point.is_stale().then_some(0.0));
        // Whatever a few bytes can say is looked at before labels are put together.
        let (value, labels) = match (kind, value) {
            (DataKind::Gauge | DataKind::Sum, Some(value)) => (value, 1),
            (DataKind::Gauge | DataKind::Sum, None) => {
                reject(&mut self.rejections, &|| {
                    "has a data point without a value".to_owned()
                });
                return Ok(());
            }
            _ if self.is_native(kind) => (0.0, 1),
            // The name, and the bound or quantile.
            _ => (0.0, 2),
        };
        if point.has_too_many_parts {
            reject(&mut self.rejections, &|| {
                format!("has a data point of more than {PARTS_MAX} buckets or quantiles")
            });
            return Ok(());
        }
        if self.is_adding_up && !self.is_native(kind) && falls(kind, point, value) {
            reject(&mut self.rejections, &|| NEGATIVE_DELTA.to_owned());
            return Ok(());
        }
        if let Some((flaw, key)) =
            self.label(&point.attributes, &[], origin, labels, family.informs)?
        {
            reject(&mut self.rejections, &|| flaw.describe(key));
            return Ok(());
        }
        let (refused, rejected) = (self.out.refused(), self.rejections.points);
        match kind {
            DataKind::Gauge | DataKind::Sum => self.series(&family.name, None, point, value)?,
            DataKind::Histogram if !self.is_native(kind) => self.histogram(family, point)?,
            DataKind::Summary => self.summary(family, point)?,
            DataKind::Histogram | DataKind::Exponential => {
                self.native(family, kind, point)?;
            }
        }
        if self.rejections.points > rejected {
            return Ok(());
        }
        self.exemplars(family, kind, point)?;
        self.rejections.points += u64::from(self.out.refused() > refused);
        if self.accepted.contains(&millis(point.time)) {
            span.include(millis(point.time));
        }
        Ok(())
    }

    fn histogram(&mut self, family: &Family<'_>, point: &Point<'a>) -> Result<(), ApiError> {
        if let Some(sum) = point.sum {
            self.series(&family.sum, None, point, sum)?;
        }
        self.series(&family.count, None, point, point.count as f64)?;
        let mut below = 0u64;
        for (bound, count) in point.bounds.iter().zip(&point.counts) {
            below = below.saturating_add(*count);
            let bound = plain_digits(*bound);
            self.series(&family.bucket, Some(("le", &bound)), point, below as f64)?;
        }
        let all = point.count as f64;
        self.series(&family.bucket, Some(("le", "+Inf")), point, all)
    }

    fn native(
        &mut self,
        family: &Family<'_>,
        kind: DataKind,
        point: &Point<'a>,
    ) -> Result<(), ApiError> {
        if point.is_stale() {
            return self.series(&family.name, None, point, 0.0);
        }
        let sum = point.sum.unwrap_or(0.0);
        let native = match kind {
            DataKind::Exponential => point.exponential.to_native(point.count, sum),
            _ => custom::to_native(point.count, sum, &point.counts, &point.bounds),
        };
        match native {
            Ok(mut histogram) => {
                histogram.reset_hint = self.reset_hint;
                let sample = Sample {
                    time: millis(point.time),
                    start: millis(point.start),
                    value: SampleValue::Histogram(Arc::new(histogram)),
                };
                self.push(&family.name, None, [sample])
            }
            Err(reason) => {
                let metric = Shown(family.metric);
                self.rejections
                    .add(1, || format!("metric {metric} {reason}"));
                Ok(())
            }
        }
    }

    fn summary(&mut self, family: &Family<'_>, point: &Point<'a>) -> Result<(), ApiError> {
        self.series(&family.sum, None, point, point.sum.unwrap_or(0.0))?;
        self.series(&family.count, None, point, point.count as f64)?;
        for (quantile, value) in &point.quantiles {
            let quantile = plain_digits(*quantile);
            self.series(&family.name, Some(("quantile", &quantile)), point, *value)?;
        }
        Ok(())
    }

    /// Puts the labels of attributes together, but for those that are `ignored`; `others` are added to them. `informs`: of
    /// a series that may have more of them. What is wrong with them, if anything is: nothing of others was copied then.
    fn label(
        &mut self,
        attributes: &[KeyValue<'a>],
        ignored: &[&str],
        origin: &Origin,
        others: usize,
        informs: bool,
    ) -> Result<Option<FlawAt<'a>>, ApiError> {
        let (limits, strategy) = (self.limits, self.options.strategy);
        let Scratch {
            sorted,
            name,
            value,
            labels,
            ..
        } = &mut self.scratch;
        sorted.clear();
        let kept = attributes.iter().filter(|a| !ignored.contains(&a.key));
        sorted.extend(kept);
        // So that names that become the same are joined in the same order always.
        sorted.sort_by_key(|attribute| attribute.key);
        labels.clear();
        for attribute in sorted.iter() {
            let key = attribute.key;
            value.clear();
            if !attribute.value.write(value, limits.label_value_bytes_max)? {
                return Ok(Some((Flaw::Value(limits.label_value_bytes_max), key)));
            }
            let joined = match Flaw::check_key(key, limits) {
                Ok(()) if !strategy.label_name(key, name) => Err(Flaw::Nameless),
                Ok(()) => labels.join(name, value, limits),
                Err(flaw) => Err(flaw),
            };
            match joined {
                Ok(()) => {}
                Err(Flaw::InfoLabels(_)) => {
                    return Ok(Some((Flaw::too_many(limits, informs), "")));
                }
                Err(flaw) => return Ok(Some((flaw, key))),
            }
        }
        if origin.count_with(labels) + others > limits.label_names_max_of(informs) {
            return Ok(Some((Flaw::too_many(limits, informs), "")));
        }
        let added = origin.add_to(labels, limits);
        Ok(added.err().map(|flaw| (flaw, "")))
    }

    /// Adds a sample of a series with the labels that were put together.
    fn series(
        &mut self,
        metric: &str,
        extra: Option<(&str, &str)>,
        point: &Point<'_>,
        value: f64,
    ) -> Result<(), ApiError> {
        let value = match point.is_stale() {
            true => f64::from_bits(STALE_MARKER_BITS),
            false => value,
        };
        let sample = Sample {
            time: millis(point.time),
            start: millis(point.start),
            value: SampleValue::Float(value),
        };
        self.push(metric, extra, [sample])
    }

    /// Keeps a point's exemplars with the series that counted them; of a histogram, that is the one of their bucket.
    fn exemplars(
        &mut self,
        family: &Family<'_>,
        kind: DataKind,
        point: &Point<'a>,
    ) -> Result<(), ApiError> {
        self.out.request.skip_exemplars(point.exemplars_beyond);
        for message in &point.exemplars {
            let Some(found) = exemplar::read(*message)? else {
                self.out.request.skip_exemplars(1);
                continue;
            };
            let value = found.value;
            let mut bounds = point.bounds.iter().zip(&point.counts);
            let bound = bounds.find(|(bound, _)| value <= **bound);
            let bound = bound.map_or(f64::INFINITY, |(bound, _)| *bound);
            let bound = plain_digits(bound);
            let (metric, extra) = match kind {
                DataKind::Histogram if !self.is_native(kind) => {
                    (&family.bucket, Some(("le", bound.as_str())))
                }
                _ => (&family.name, None),
            };
            let limits = self.limits;
            self.with_labels(metric, extra, |out, pairs| {
                out.request.push_exemplar(pairs, Some(found), limits)
            })?;
        }
        Ok(())
    }

    fn push(
        &mut self,
        metric: &str,
        extra: Option<(&str, &str)>,
        samples: impl IntoIterator<Item = Sample>,
    ) -> Result<(), ApiError> {
        let (limits, is_adding_up, interval) = (self.limits, self.is_adding_up, self.interval);
        self.with_labels(metric, extra, |out, pairs| {
            if !is_adding_up {
                return out.request.push_samples(pairs, samples, limits);
            }
            out.deltas.push_samples(pairs, samples, limits)?;
            // Unless it was refused.
            out.intervals.resize(out.deltas.sample_count(), interval);
            Ok(())
        })
    }

    /// Adds something of the series with the labels that were put together.
    fn with_labels(
        &mut self,
        metric: &str,
        extra: Option<(&str, &str)>,
        add: impl FnOnce(&mut Imported, &mut [(&str, &str)]) -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        let mut pairs = recycle(std::mem::take(&mut self.scratch.pairs));
        let extra_name = extra.map_or("", |(name, _)| name);
        pairs.push((LABEL_NAME_METRIC, metric));
        let labels = self.scratch.labels.iter();
        pairs.extend(labels.filter(|(name, _)| *name != LABEL_NAME_METRIC && *name != extra_name));
        pairs.extend(extra);
        // A histogram of one point may have more labels than the body has bytes.
        (self.grow)(self.out.capacity_bytes())?;
        let outcome = add(self.out, &mut pairs);
        self.scratch.pairs = recycle(pairs);
        outcome
    }

    /// Says what a resource is, at all times of its points.
    fn target_info(
        &mut self,
        resource: &Resource<'a>,
        origin: &Origin,
        span: &Span,
    ) -> Result<(), ApiError> {
        const IDENTIFYING: [&str; 3] = [SERVICE_NAMESPACE, SERVICE_NAME, SERVICE_INSTANCE];
        let Some((first, last)) = span.0 else {
            return Ok(());
        };
        let mut others = resource.attributes.iter();
        let tells = others.any(|attribute| !IDENTIFYING.contains(&attribute.key));
        let Some((label, name)) = origin.name().filter(|_| tells) else {
            return Ok(());
        };
        let ignored = match self.options.keeps_identifying_attributes {
            true => &[][..],
            false => &IDENTIFYING,
        };
        let identity = origin.identity();
        if let Some((flaw, key)) = self.label(&resource.attributes, ignored, &identity, 1, true)? {
            let flaw = flaw.describe(key);
            let reason = || {
                format!(
                    "{TARGET_INFO} of the resource {label} {} {flaw}",
                    Shown(name)
                )
            };
            self.rejections.add(1, reason);
            return Ok(());
        }
        if self.families.insert(TARGET_INFO.to_owned()) {
            let texts = [TARGET_INFO, "Target metadata", ""].map(str::as_bytes);
            self.out
                .request
                .push_metadata(MetricKind::Gauge, texts, self.limits);
        }
        let first = first.max(last.saturating_sub(TARGET_INFO_STEP * TARGET_INFO_SAMPLES_MAX));
        let times = (first..last).step_by(TARGET_INFO_STEP as usize);
        self.push(
            TARGET_INFO,
            None,
            times.chain([last]).map(|at| Sample::float(at, 1.0)),
        )
    }
}

impl Span {
    fn include(&mut self, time: Millis) {
        let (first, last) = self.0.unwrap_or((time, time));
        self.0 = Some((first.min(time), last.max(time)));
    }
}

fn millis(nanos: u64) -> Millis {
    (nanos / NANOS) as Millis
}

/// How a metric's kind is named, and declared.
fn kinds(data: &Data<'_>) -> (NamedKind, MetricKind) {
    match data.kind {
        DataKind::Gauge => (NamedKind::Gauge, MetricKind::Gauge),
        DataKind::Sum if data.is_monotonic => (NamedKind::Counter, MetricKind::Counter),
        DataKind::Sum => (NamedKind::Other, MetricKind::Gauge),
        DataKind::Histogram | DataKind::Exponential => (NamedKind::Other, MetricKind::Histogram),
        DataKind::Summary => (NamedKind::Other, MetricKind::Summary),
    }
}

/// Why no point of the metric can be kept.
fn unfit(data: &Data<'_>, deltas: Deltas) -> Option<&'static str> {
    if !data.has_temporality() {
        return None;
    }
    match (data.kind, data.temporality) {
        (_, Temporality::Delta) if deltas == Deltas::Refuse => Some(
            "has delta temporality; only cumulative temporality is accepted \
                 unless otlp.deltas is accumulate or store",
        ),
        // Once somebody has to begin anew, nobody knows its value.
        (DataKind::Sum, Temporality::Delta)
            if deltas == Deltas::Accumulate && !data.is_monotonic =>
        {
            Some("has deltas of a sum that may fall; its total cannot be known")
        }
        (_, Temporality::Unspecified) => Some("does not say its temporality"),
        _ => None,
    }
}

/// Whether a series made of deltas would fall by this one, which reads as a new beginning. The sum of an exponential histogram
/// may: it is part of its value, and its count decides.
fn falls(kind: DataKind, point: &Point<'_>, value: f64) -> bool {
    match kind {
        DataKind::Sum => value < 0.0,
        DataKind::Histogram => point.sum.is_some_and(|sum| sum < 0.0),
        _ => false,
    }
}

/// A bound or quantile in the fewest digits, without an exponent.
fn plain_digits(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    format!("{value}")
}
