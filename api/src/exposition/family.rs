//! What OpenMetrics demands of the lines of a family together.
//!
//! A family's lines stand together: its metadata, each at most once, then its samples. The samples of
//! one group (the same labels, without `le` and the like) stand together too, in order of time. What a
//! sample may be called, labelled and worth follows from the type.
//!
//! Source: the OpenMetrics 1.0 specification and the behaviour of its reference parser.

use super::{Place, SampleLine, line::Wrong};
use crate::remote_write::MetricKind;
use std::collections::HashSet;

/// The family whose lines are read.
#[derive(Default)]
pub(super) struct Family {
    name: String,
    kind: Option<MetricKind>,
    unit: Option<String>,
    has_help: bool,
    has_samples: bool,
    /// The labels of the present group, as [`write_group`] writes them.
    group: Option<Vec<u8>>,
    group_seconds: Option<f64>,
    groups: HashSet<Box<[u8]>>,
    histogram: Option<Buckets>,
    scratch: Vec<u8>,
}

/// All families of a text.
#[derive(Default)]
pub(super) struct Families {
    present: Option<Family>,
    names: HashSet<String>,
}

/// What a histogram's lines have said up to now, for one group and time.
#[derive(Default)]
struct Buckets {
    last_bound: Option<f64>,
    last_value: f64,
    count: Option<f64>,
    has_sum: bool,
    has_negative_sum: bool,
    has_negative_bounds: bool,
}

/// What the names of a type's samples may end with.
fn suffixes(kind: MetricKind) -> &'static [&'static str] {
    match kind {
        MetricKind::Counter => &["_total", "_created"],
        MetricKind::Summary => &["", "_count", "_sum", "_created"],
        MetricKind::Histogram => &["_bucket", "_count", "_sum", "_created"],
        MetricKind::GaugeHistogram => &["_bucket", "_gcount", "_gsum"],
        MetricKind::Info => &["_info"],
        MetricKind::Gauge | MetricKind::StateSet | MetricKind::Unknown => &[""],
    }
}

fn refuse<T>(reason: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong {
        at: 0,
        reason: reason.into(),
    })
}

impl Families {
    /// The family that a line of metadata is about, which ends the one before it.
    fn declared(&mut self, name: &str) -> Result<&mut Family, Wrong> {
        let is_present = self.present.as_ref().is_some_and(|f| f.name == name);
        if !is_present {
            self.finish()?;
        }
        let family = self.present.get_or_insert_with(|| Family {
            name: name.to_owned(),
            ..Family::default()
        });
        if family.has_samples {
            return refuse(format!("metadata of {name:?} behind its samples"));
        }
        Ok(family)
    }

    pub(super) fn help(&mut self, name: &str) -> Result<(), Wrong> {
        let family = self.declared(name)?;
        if std::mem::replace(&mut family.has_help, true) {
            return refuse(format!("a second HELP of {name:?}"));
        }
        Ok(())
    }

    pub(super) fn kind(&mut self, name: &str, kind: MetricKind) -> Result<(), Wrong> {
        let family = self.declared(name)?;
        if family.kind.replace(kind).is_some() {
            return refuse(format!("a second TYPE of {name:?}"));
        }
        Ok(())
    }

    pub(super) fn unit(&mut self, name: &str, unit: &str) -> Result<(), Wrong> {
        let family = self.declared(name)?;
        if family.unit.replace(unit.to_owned()).is_some() {
            return refuse(format!("a second UNIT of {name:?}"));
        }
        Ok(())
    }

    /// Takes a sample; it begins a family of its own when the present one has none of its name.
    pub(super) fn sample(&mut self, sample: &SampleLine<'_>) -> Result<Place, Wrong> {
        let belongs = self.present.as_ref().is_some_and(|f| f.has(&sample.metric));
        if !belongs {
            self.finish()?;
        }
        let family = self.present.get_or_insert_with(|| Family {
            name: sample.metric.clone().into_owned(),
            kind: Some(MetricKind::Unknown),
            ..Family::default()
        });
        family.sample(sample)
    }

    /// Ends the present family.
    pub(super) fn finish(&mut self) -> Result<(), Wrong> {
        let Some(family) = self.present.take() else {
            return Ok(());
        };
        let kind = family.kind.unwrap_or_default();
        if let Some(buckets) = &family.histogram {
            buckets.finish(&family.name, kind)?;
        }
        family.check_unit(kind)?;
        let own = suffixes(kind).iter().filter(|suffix| !suffix.is_empty());
        let names = own.map(|suffix| format!("{}{suffix}", family.name));
        for name in names.chain([family.name.clone()]) {
            if let Some(name) = self.names.replace(name) {
                return refuse(format!("the name {name:?} was used before"));
            }
        }
        Ok(())
    }
}

impl Family {
    fn has(&self, metric: &str) -> bool {
        let suffix = metric.strip_prefix(self.name.as_str());
        suffix.is_some_and(|suffix| suffixes(self.kind.unwrap_or_default()).contains(&suffix))
    }

    fn check_unit(&self, kind: MetricKind) -> Result<(), Wrong> {
        let Some(unit) = self.unit.as_ref().filter(|unit| !unit.is_empty()) else {
            return Ok(());
        };
        let name = &self.name;
        let before = name.strip_suffix(unit.as_str());
        if !before.is_some_and(|before| before.ends_with('_')) {
            return refuse(format!(
                "the name {name:?} does not end with its unit {unit:?}"
            ));
        }
        if matches!(kind, MetricKind::Info | MetricKind::StateSet) {
            return refuse(format!(
                "{:?} has a unit, which a {} cannot",
                name,
                kind.as_str()
            ));
        }
        Ok(())
    }

    fn sample(&mut self, sample: &SampleLine<'_>) -> Result<Place, Wrong> {
        let kind = self.kind.unwrap_or_default();
        let suffix = &sample.metric[self.name.len()..];
        self.has_samples = true;
        let bound = check_labels(&self.name, kind, suffix, sample)?;
        check_value(kind, suffix, sample)?;
        let takes_exemplars = match kind {
            MetricKind::Histogram | MetricKind::GaugeHistogram => suffix == "_bucket",
            MetricKind::Counter => suffix == "_total",
            _ => false,
        };
        if sample.exemplar.is_some() && !takes_exemplars {
            return refuse("an exemplar, which only buckets and totals of counters have");
        }
        let is_new = self.group(kind, suffix, sample)?;
        if matches!(kind, MetricKind::Histogram | MetricKind::GaugeHistogram) {
            if is_new && let Some(buckets) = self.histogram.take() {
                buckets.finish(&self.name, kind)?;
            }
            let buckets = self.histogram.get_or_insert_default();
            buckets.add(suffix, bound, sample)?;
        }
        Ok(Place {
            begins_point: is_new,
            is_created: suffix == "_created",
        })
    }

    /// Checks that groups stand together and in order of time. Whether another group or time begins.
    fn group(
        &mut self,
        kind: MetricKind,
        suffix: &str,
        sample: &SampleLine<'_>,
    ) -> Result<bool, Wrong> {
        let without = match kind {
            MetricKind::Summary if suffix.is_empty() => "quantile",
            MetricKind::StateSet => self.name.as_str(),
            MetricKind::Histogram | MetricKind::GaugeHistogram if suffix == "_bucket" => "le",
            _ => "",
        };
        self.scratch.clear();
        if kind != MetricKind::Info {
            write_group(&mut self.scratch, sample, without);
        }
        let seconds = std::mem::replace(&mut self.group_seconds, sample.seconds);
        if self.group.as_ref() == Some(&self.scratch) {
            if sample.seconds.is_none() != seconds.is_none() {
                return refuse("some samples of the group have a timestamp and some have none");
            }
            if sample.seconds < seconds && kind != MetricKind::Info {
                return refuse("the time goes backwards inside the group");
            }
            return Ok(sample.seconds != seconds);
        }
        if !self.groups.insert(self.scratch.as_slice().into()) {
            return refuse("samples of the same labels do not stand together");
        }
        let group = self.group.get_or_insert_default();
        std::mem::swap(group, &mut self.scratch);
        Ok(true)
    }
}

/// Appends the sorted labels but one, each text behind its length.
fn write_group(out: &mut Vec<u8>, sample: &SampleLine<'_>, without: &str) {
    let labels = sample.labels.iter().filter(|(name, _)| name != without);
    let mut pairs: Vec<_> = labels.map(|(n, v)| (n.as_ref(), v.as_ref())).collect();
    pairs.sort_unstable();
    for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
        out.extend_from_slice(&(text.len() as u64).to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    }
}

/// Checks the label that the type demands; returns the bound of a bucket.
fn check_labels(
    name: &str,
    kind: MetricKind,
    suffix: &str,
    sample: &SampleLine<'_>,
) -> Result<f64, Wrong> {
    let label = |wanted: &str| {
        let found = sample.labels.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_ref())
    };
    // Infinity has just one spelling; other numbers have many.
    let number = |text: &str| {
        let number: f64 = text.parse().ok()?;
        (number != f64::INFINITY || text == "+Inf").then_some(number)
    };
    match (kind, suffix) {
        (MetricKind::StateSet, _) if label(name).is_none() => {
            refuse(format!("a state set's sample needs the label {name:?}"))
        }
        (MetricKind::Summary, "") => {
            let quantile = label("quantile").and_then(number);
            match quantile.filter(|q| (0.0..=1.0).contains(q)) {
                Some(_) => Ok(0.0),
                None => refuse("a quantile needs the label \"quantile\" with a number from 0 to 1"),
            }
        }
        (MetricKind::Histogram | MetricKind::GaugeHistogram, "_bucket") => {
            match label("le").and_then(number).filter(|le| !le.is_nan()) {
                Some(bound) => Ok(bound),
                None => refuse("a bucket needs the label \"le\" with a number (infinity is +Inf)"),
            }
        }
        _ => Ok(0.0),
    }
}

fn check_value(kind: MetricKind, suffix: &str, sample: &SampleLine<'_>) -> Result<(), Wrong> {
    let value = sample.value;
    let reason = match (kind, suffix) {
        (MetricKind::StateSet, _) if value != 0.0 && value != 1.0 => {
            "the value of a state must be 0 or 1"
        }
        (MetricKind::Info, _) if value != 1.0 => "the value of an info must be 1",
        (MetricKind::Summary, "") if value < 0.0 => "the value of a quantile cannot be negative",
        (_, "_bucket" | "_count" | "_gcount") if value.fract() != 0.0 => {
            "the value of a count must be a whole number"
        }
        (_, "_total" | "_sum" | "_gsum") if value.is_nan() => "the value of a total cannot be NaN",
        (_, "_total" | "_sum" | "_count" | "_bucket" | "_gcount") if value < 0.0 => {
            "the value of a total cannot be negative"
        }
        _ => return Ok(()),
    };
    Err(Wrong {
        at: sample.value_at,
        reason: reason.to_owned(),
    })
}

impl Buckets {
    fn add(&mut self, suffix: &str, bound: f64, sample: &SampleLine<'_>) -> Result<(), Wrong> {
        match suffix {
            "_bucket" => {
                if self.last_bound.is_some_and(|last| bound <= last) {
                    return refuse("the buckets do not ascend");
                }
                if sample.value < self.last_value {
                    return Err(Wrong {
                        at: sample.value_at,
                        reason: "a bucket is smaller than the one before it".to_owned(),
                    });
                }
                self.has_negative_bounds |= bound < 0.0;
                (self.last_bound, self.last_value) = (Some(bound), sample.value);
            }
            "_count" | "_gcount" => self.count = Some(sample.value),
            "_sum" | "_gsum" => {
                self.has_sum = true;
                self.has_negative_sum |= sample.value < 0.0;
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&self, name: &str, kind: MetricKind) -> Result<(), Wrong> {
        let is_gauge = kind == MetricKind::GaugeHistogram;
        let reason = if self.last_bound != Some(f64::INFINITY) {
            "has no bucket +Inf"
        } else if self.count.is_some_and(|count| count != self.last_value) {
            "has a count that differs from its bucket +Inf"
        } else if self.has_sum != self.count.is_some() {
            "has only one of count and sum"
        } else if !is_gauge && self.has_negative_bounds && self.has_sum {
            "has a sum beside negative buckets"
        } else if is_gauge && self.has_negative_sum && !self.has_negative_bounds {
            "has a negative sum without negative buckets"
        } else {
            return Ok(());
        };
        refuse(format!("the histogram {name:?} before this line {reason}"))
    }
}
