//! What the parts of the node count themselves, read at each scrape.

use crate::cluster::Cluster;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};
use std::{
    fmt::{self, Error},
    sync::Arc,
};
use trefoil_store_metrics::MetricsStatistics;

/// Reads journal, store, replication, metadata plane and gossip.
pub(crate) struct NodeCollector {
    cluster: Arc<Cluster>,
}

impl NodeCollector {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }
}

impl fmt::Debug for NodeCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeCollector")
    }
}

struct Writer<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Writer<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: f64) -> Result<(), Error> {
        let metric = ConstGauge::new(value);
        let encoder: MetricEncoder<'_> =
            self.encoder
                .encode_descriptor(name, help, None, metric.metric_type())?;
        metric.encode(encoder)
    }

    fn counter(&mut self, name: &str, help: &str, value: f64) -> Result<(), Error> {
        let metric = ConstCounter::new(value);
        let encoder = self
            .encoder
            .encode_descriptor(name, help, None, metric.metric_type())?;
        metric.encode(encoder)
    }
}

impl Collector for NodeCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut writer = Writer { encoder };
        self.journal(&mut writer)?;
        self.store(&mut writer)?;
        self.replication(&mut writer)?;
        self.evaluator(&mut writer)?;
        self.membership(&mut writer)
    }
}

impl NodeCollector {
    fn journal(&self, writer: &mut Writer<'_>) -> Result<(), Error> {
        let journal = self.cluster.plane.journal().statistics();
        let count = |value: u64| value as f64;
        writer.counter(
            "trefoil_journal_records",
            "Records made durable",
            count(journal.records),
        )?;
        writer.counter(
            "trefoil_journal_fsyncs",
            "Group commits",
            count(journal.groups),
        )?;
        writer.counter(
            "trefoil_journal_commit_seconds",
            "Time spent writing and syncing groups of records",
            journal.commit_time.as_secs_f64(),
        )?;
        writer.counter(
            "trefoil_journal_written_bytes",
            "Bytes written, page headers and padding included",
            count(journal.written_bytes),
        )?;
        writer.counter(
            "trefoil_journal_damages",
            "Places of the journal that could not be read, at the start or since",
            count(self.cluster.plane.journal_damages()),
        )?;
        let refuses = self.cluster.plane.refuses_items().is_some();
        writer.gauge(
            "trefoil_refuses_writes",
            "Whether this owner takes no items because its disk is full or too slow",
            f64::from(u8::from(refuses)),
        )?;
        let size = count(journal.bytes_on_disk);
        writer.gauge("trefoil_journal_size_bytes", "Bytes of all segments", size)
    }

    fn store(&self, writer: &mut Writer<'_>) -> Result<(), Error> {
        let stats = self.cluster.plane.engine().statistics();
        let series = stats.series_active.values().sum::<u64>() as f64;
        writer.gauge("trefoil_head_series", "Series in the head", series)?;
        let samples = stats.head_samples as f64;
        writer.gauge(
            "trefoil_head_samples",
            "Samples that are not in blocks yet",
            samples,
        )?;
        writer.counter(
            "trefoil_dropped_declarations",
            "Declarations of metrics for which their tenant had no room, each time that they came or blocks were merged",
            stats.declarations_dropped as f64,
        )?;
        let exemplars = stats.exemplars as f64;
        writer.gauge("trefoil_exemplars", "Exemplars in memory", exemplars)?;
        writer.gauge("trefoil_blocks", "Blocks", stats.blocks as f64)?;
        writer.gauge(
            "trefoil_blocks_size_bytes",
            "Bytes of all blocks",
            stats.block_bytes as f64,
        )?;
        writer.gauge(
            "trefoil_blocks_samples",
            "Samples in all blocks",
            stats.block_samples as f64,
        )?;
        let bytes = stats.head_bytes as f64;
        writer.gauge("trefoil_head_size_bytes", "Memory of the head", bytes)?;
        writer.gauge(
            "trefoil_blocks_kept_bytes",
            "Memory of pieces of blocks that queries have read lately",
            stats.kept_bytes as f64,
        )?;
        let damaged = self.cluster.plane.blocks_damaged() as f64;
        writer.counter(
            "trefoil_blocks_damaged",
            "Blocks found unreadable since the start",
            damaged,
        )?;
        let repaired = self.cluster.plane.blocks_repaired() as f64;
        writer.counter(
            "trefoil_blocks_repaired",
            "Damaged blocks whose items are here again since the start",
            repaired,
        )?;
        Self::aggregates(writer, &stats)
    }

    fn aggregates(writer: &mut Writer<'_>, stats: &MetricsStatistics) -> Result<(), Error> {
        writer.gauge(
            "trefoil_aggregates_size_bytes",
            "Bytes of all files of aggregates; part of those of blocks",
            stats.aggregates_bytes as f64,
        )?;
        writer.counter(
            "trefoil_aggregates_selectors",
            "Selectors for which aggregates of a block were read instead of its samples",
            stats.aggregates_selectors as f64,
        )?;
        writer.counter(
            "trefoil_aggregates_damaged",
            "Files of aggregates found unreadable since the start",
            stats.aggregates_damaged as f64,
        )?;
        writer.counter(
            "trefoil_aggregates_repaired",
            "Unreadable files of aggregates in whose place others have come since the start",
            stats.aggregates_repaired as f64,
        )?;
        writer.counter(
            "trefoil_aggregates_made_blocks",
            "Blocks rewritten for their aggregates alone since the start",
            stats.aggregates_made as f64,
        )?;
        let backlog = stats.aggregates_backlog;
        writer.gauge(
            "trefoil_aggregates_lacking_blocks",
            "Blocks of closed windows that wait for aggregates",
            backlog.blocks as f64,
        )?;
        writer.gauge(
            "trefoil_aggregates_lacking_size_bytes",
            "Bytes of the blocks that wait for aggregates",
            backlog.bytes as f64,
        )
    }

    fn replication(&self, writer: &mut Writer<'_>) -> Result<(), Error> {
        let status = self.cluster.plane.status();
        let serving = status.serving.len() as f64;
        writer.gauge(
            "trefoil_replicas_serving",
            "Own replicas that are trusted",
            serving,
        )?;
        let filling = status.filling.len() as f64;
        writer.gauge(
            "trefoil_replicas_filling",
            "Own replicas being filled",
            filling,
        )?;
        let lag: u64 = status.lag_bytes.values().sum();
        writer.gauge(
            "trefoil_replication_lag_bytes",
            "Bytes of the peers' journals that were not covered at the last barrier",
            lag as f64,
        )?;
        let open = status.open_writes as f64;
        writer.gauge(
            "trefoil_writes_open",
            "Writes that wait for a majority",
            open,
        )?;
        writer.counter(
            "trefoil_parcels_fetched",
            "Parcels that had to be fetched from peers",
            status.fetched_parcels as f64,
        )?;
        writer.counter(
            "trefoil_messages_misdirected",
            "Messages that were meant for another node or run",
            status.misdirected as f64,
        )?;
        let dropped = self.cluster.plane.messages_dropped() as f64;
        let help = "Messages dropped because a peer's queue was full";
        writer.counter("trefoil_messages_dropped", help, dropped)
    }

    fn evaluator(&self, writer: &mut Writer<'_>) -> Result<(), Error> {
        let parts = self.cluster.evaluator.statistics();
        let help = "Parts of peers' queries being evaluated";
        writer.gauge("trefoil_peer_parts_in_work", help, parts.in_work as f64)?;
        let help = "Parts of peers' queries that wait for their turn";
        writer.gauge("trefoil_peer_parts_waiting", help, parts.waiting as f64)?;
        let help = "Views kept for the further parts of peers' queries";
        writer.gauge("trefoil_peer_views", help, parts.views as f64)?;
        let help = "Parts of peers' queries refused because too many were in work";
        writer.counter("trefoil_peer_parts_refused", help, parts.refused as f64)?;
        let kept = self.cluster.evaluator.reuse.statistics();
        let help = "Parts of queries that were answered with the help of earlier answers";
        writer.counter("trefoil_kept_answers_hits", help, kept.hits as f64)?;
        let help = "Parts of queries that might have been, and were worked out";
        writer.counter("trefoil_kept_answers_misses", help, kept.misses as f64)?;
        let help = "Pieces of earlier answers that are kept";
        writer.gauge("trefoil_kept_answers_pieces", help, kept.pieces as f64)?;
        let help = "Memory of the pieces of earlier answers";
        writer.gauge("trefoil_kept_answers_bytes", help, kept.bytes as f64)
    }

    fn membership(&self, writer: &mut Writer<'_>) -> Result<(), Error> {
        if let Some(offset) = self.cluster.clock.offset() {
            writer.gauge(
                "trefoil_clock_offset_seconds",
                "By how much the median of the cluster's clocks is ahead of this node's",
                offset as f64 / 1000.0,
            )?;
        }
        let status = self.cluster.metadata.status();
        let leads = status.leader == Some(status.node);
        writer.gauge(
            "trefoil_raft_is_leader",
            "Whether this node leads the metadata plane and reaches a majority of its voters",
            f64::from(u8::from(leads)),
        )?;
        writer.gauge(
            "trefoil_raft_term",
            "Term of the metadata plane",
            status.term as f64,
        )?;
        writer.gauge(
            "trefoil_format_level",
            "Level of formats that the cluster uses, as this node knows it",
            f64::from(self.cluster.metadata.state().format_level()),
        )?;
        let applied = status.last_applied.index as f64;
        writer.gauge(
            "trefoil_raft_applied_index",
            "Last applied command",
            applied,
        )?;
        let view = self.cluster.gossip.view();
        let counters = self.cluster.gossip.counters();
        let of_the_key = counters.refused_protection + counters.refused_key;
        let refused = (of_the_key + counters.refused_malformed) as f64;
        let help = "Gossip datagrams that were refused";
        writer.counter("trefoil_gossip_refused_datagrams", help, refused)?;
        writer.counter(
            "trefoil_gossip_wrong_key_datagrams",
            "Gossip datagrams that were refused because of the cluster key",
            of_the_key as f64,
        )?;
        writer.counter(
            "trefoil_peer_wrong_key_calls",
            "Calls of peers that were refused because of the cluster key",
            self.cluster.connections.refused_calls() as f64,
        )?;
        writer.counter(
            "trefoil_gossip_foreign_nodes",
            "Nodes of other clusters that were met",
            counters.foreign as f64,
        )?;
        let alive = view
            .members
            .iter()
            .filter(|member| member.state.is_active())
            .count()
            + 1;
        writer.gauge(
            "trefoil_gossip_members",
            "Nodes that answer, this one included",
            alive as f64,
        )?;
        let ready = if self.cluster.readiness().is_ok() {
            1.0
        } else {
            0.0
        };
        writer.gauge("trefoil_ready", "Whether this node's replicas serve", ready)
    }
}
