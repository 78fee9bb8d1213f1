//! What copies are tested with: several windows in blocks and in the head, tenants with and without metadata and
//! samples, series that are far longer than small chunks, and what a store holds in the end.

use std::collections::BTreeSet;
use trefoil_model::{Labels, Millis, ShardId, ShardSet, TenantId, TimeRange, WINDOW_MILLIS};
use trefoil_store_metrics::{
    BodyWriter, Digest, DigestKey, MetricMetadata, MetricType, MetricsEngine,
};

pub(in crate::data_plane) const SHARDS: u16 = 4;
/// The beginning of a window.
const START: Millis = 1_700_006_400_000;
/// Far more samples than the smallest chunks have.
const LONG: i64 = 500;

/// A tenant that declares metrics and never sends a sample, before all others.
const DECLARING_FIRST: TenantId = TenantId(0);
/// Tenants with samples and declarations.
const BUSY: [TenantId; 2] = [TenantId(1), TenantId(3)];
/// A tenant that declares metrics and never sends a sample, between others.
const DECLARING: TenantId = TenantId(2);
/// A tenant with samples only.
const QUIET: TenantId = TenantId(4);

/// What happens to a store.
pub(in crate::data_plane) enum Step {
    /// It gets this body.
    Write(TenantId, Vec<u8>),
    /// All of it goes to blocks.
    Flush,
}

/// Long series come first, in between, and last.
pub(in crate::data_plane) fn history() -> Vec<Step> {
    let mut steps = Vec::new();
    for window in 0..3 {
        let from = START + window * WINDOW_MILLIS;
        for tenant in BUSY {
            steps.push(write(tenant, 5, &[0, 7], from, LONG));
            let many: Vec<u16> = (1..20).collect();
            steps.push(write(tenant, 0, &many, from, 3));
        }
        steps.push(write(QUIET, 0, &[3, 99], from, LONG / (window + 1)));
        steps.push(Step::Flush);
    }
    for tenant in [DECLARING_FIRST, DECLARING] {
        steps.push(write(tenant, 9, &[], START, 0));
    }
    steps.push(Step::Flush);
    for tenant in [DECLARING_FIRST, DECLARING] {
        steps.push(write(tenant, 11, &[], START, 0));
    }
    let last = START + 2 * WINDOW_MILLIS;
    steps.push(write(BUSY[0], 7, &[0, 5, 19], last, LONG));
    steps.push(write(BUSY[1], 0, &[2], last + WINDOW_MILLIS, LONG));
    steps
}

/// Declares metrics, and gives each of these series so many samples from a time on.
fn write(tenant: TenantId, metrics: u16, series: &[u16], from: Millis, samples: i64) -> Step {
    let mut body = BodyWriter::new().expect("a writer");
    for number in 0..metrics {
        let entry = MetricMetadata {
            metric: format!("m{number}"),
            metric_type: MetricType::Gauge,
            help: format!("What m{number} of tenant {} is.", tenant.0),
            unit: String::new(),
        };
        let shard = ShardId(number % SHARDS);
        body.add_metadata(shard, &entry).expect("it fits");
    }
    for number in series {
        let labels = Labels::from_pairs([("__name__", format!("m{number:03}").as_str())]);
        let times = (0..samples).map(|at| (from + at * 1000, f64::from(*number) + at as f64));
        body.add_series(ShardId(number % SHARDS), labels.canonical(), times)
            .expect("it fits");
    }
    Step::Write(tenant, body.finish().expect("a body"))
}

/// What a copy must have: every item, by its sum, and every declaration.
pub(in crate::data_plane) type Content = (
    Vec<(DigestKey, Digest)>,
    Vec<(TenantId, Vec<MetricMetadata>)>,
);

pub(in crate::data_plane) fn content(engine: &MetricsEngine, shards: &ShardSet) -> Content {
    let all_time = TimeRange {
        start: Millis::MIN,
        end: Millis::MAX,
    };
    let view = engine.view();
    let digests = view.digests(None, all_time, shards, 1, 0);
    let declared = view.tenants().into_iter().map(|tenant| {
        let entries: BTreeSet<_> = view.metadata(tenant, shards).expect("metadata");
        (tenant, entries.into_iter().collect())
    });
    let declared: Vec<(TenantId, Vec<_>)> = declared.collect();
    let declared = declared.into_iter().filter(|(_, all)| !all.is_empty());
    (
        digests.expect("digests").into_iter().collect(),
        declared.collect(),
    )
}
