//! The content of shards as parcel bodies, for copying it to another owner.

use super::{SeriesCursor, View};
use crate::MetricsError;
use crate::body::BodyWriter;
use crate::order::write_label_key;
use std::collections::BTreeSet;
use trefoil_model::{DeletionVersion, ShardSet, TenantId, TimeRange};

/// Where an export goes on: behind everything that it has given so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportCursor {
    tenant: TenantId,
    /// Canonical labels of the last series that was given whole.
    behind: Vec<u8>,
}

/// A part of an export.
pub struct ExportedBody {
    /// The tenant whose series the body has.
    pub tenant: TenantId,
    /// All deletions up to this version have been applied.
    pub deletion_version: DeletionVersion,
    /// To be read by [`crate::BodyReader`].
    pub body: Vec<u8>,
    /// How many samples the body has.
    pub samples: usize,
    /// Resumes behind this body. A series that the body had to cut is given again from its beginning.
    pub cursor: Option<ExportCursor>,
}

/// Gives the content of shards in bodies of bounded size. Holds its view.
pub struct Export<'v> {
    view: &'v View,
    shards: ShardSet,
    range: TimeRange,
    samples_max: usize,
    tenants: Vec<TenantId>,
    cursor: Option<(TenantId, SeriesCursor)>,
    /// A series that did not fit: its tenant is the cursor's, `done` of its samples were given.
    rest: Option<Rest>,
    behind: Option<ExportCursor>,
    writer: BodyWriter,
}

struct Rest {
    canonical: Vec<u8>,
    shard: trefoil_model::ShardId,
    samples: Vec<(trefoil_model::Millis, f64)>,
    done: usize,
}

impl View {
    /// Exports the content of `shards` in `range`, at most `samples_max` samples per body, behind `after`.
    ///
    /// # Errors
    /// [`MetricsError::Compression`] when memory is short.
    pub fn export(
        &self,
        shards: &ShardSet,
        range: TimeRange,
        samples_max: usize,
        after: Option<&ExportCursor>,
    ) -> Result<Export<'_>, MetricsError> {
        let first = after.map(|cursor| cursor.tenant);
        let tenants = self.tenants();
        let tenants = tenants
            .into_iter()
            .filter(|t| first.is_none_or(|first| *t >= first));
        Ok(Export {
            view: self,
            shards: shards.clone(),
            range,
            samples_max: samples_max.max(1),
            tenants: tenants.rev().collect(),
            cursor: None,
            rest: None,
            behind: after.cloned(),
            writer: BodyWriter::new()?,
        })
    }
}

impl Export<'_> {
    /// The next body, or `None` behind the last.
    ///
    /// # Errors
    /// [`MetricsError::DamagedBlock`]; the export must not be used further.
    pub fn next_body(&mut self) -> Result<Option<ExportedBody>, MetricsError> {
        loop {
            let Some((tenant, mut cursor)) = self.cursor.take() else {
                if !self.begin_tenant()? {
                    return Ok(None);
                }
                continue;
            };
            self.fill(tenant, &mut cursor)?;
            let samples = self.writer.samples();
            if self.writer.is_empty() {
                continue;
            }
            self.cursor = Some((tenant, cursor));
            return Ok(Some(ExportedBody {
                tenant,
                deletion_version: self.view.policy.deletion_version(tenant),
                body: self.writer.finish()?,
                samples,
                cursor: self.behind.clone(),
            }));
        }
    }

    fn begin_tenant(&mut self) -> Result<bool, MetricsError> {
        let Some(tenant) = self.tenants.pop() else {
            return Ok(false);
        };
        let mut cursor = self
            .view
            .cursor_with_shards(tenant, self.range, &self.shards)?;
        match &self.behind {
            Some(behind) if behind.tenant == tenant => {
                let key = key_of(&behind.behind);
                cursor.skip_to_behind(&|canonical| key_of(canonical) > key);
            }
            _ => {
                let entries: BTreeSet<_> =
                    self.view
                        .metadata_with_shards(tenant, self.range, &self.shards)?;
                for (shard, entry) in &entries {
                    self.writer.add_metadata(*shard, entry)?;
                }
            }
        }
        self.cursor = Some((tenant, cursor));
        Ok(true)
    }

    fn fill(&mut self, tenant: TenantId, cursor: &mut SeriesCursor) -> Result<(), MetricsError> {
        while self.writer.samples() < self.samples_max {
            let mut rest = match self.rest.take() {
                Some(rest) => rest,
                None => {
                    let Some(series) = cursor.next_series()? else {
                        return Ok(());
                    };
                    let values = series.values.iter().copied();
                    Rest {
                        canonical: series.canonical.to_vec(),
                        shard: series.shard,
                        samples: series.timestamps.iter().copied().zip(values).collect(),
                        done: 0,
                    }
                }
            };
            let room = self.samples_max - self.writer.samples();
            let end = rest.samples.len().min(rest.done + room);
            let samples = rest.samples[rest.done..end].iter().copied();
            match self.writer.add_series(rest.shard, &rest.canonical, samples) {
                Ok(()) => rest.done = end,
                // The body is full of label bytes: the series opens the next one.
                Err(MetricsError::BodyTooLarge { .. }) if !self.writer.is_empty() => {
                    self.rest = Some(rest);
                    return Ok(());
                }
                Err(other) => return Err(other),
            }
            if rest.done == rest.samples.len() {
                self.behind = Some(ExportCursor {
                    tenant,
                    behind: rest.canonical,
                });
            } else {
                self.rest = Some(rest);
            }
        }
        Ok(())
    }
}

fn key_of(canonical: &[u8]) -> Vec<u8> {
    let mut key = Vec::new();
    write_label_key(canonical, &mut key);
    key
}
