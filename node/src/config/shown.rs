//! The settings in effect, as a configuration file that would give them: what `status/config` answers. The cluster's key
//! is left out, and `global` stands in front because Prometheus' file begins with it.

use super::{Listen, LogFormat, Settings, ZoneMode};
use std::time::Duration;
use trefoil_api::otlp::Promotion;

impl Settings {
    /// The settings as YAML. JSON strings are YAML, so texts are quoted like them.
    pub(crate) fn to_yaml(&self) -> String {
        let mut yaml = Yaml("global: {}\n".to_owned());
        yaml.text("data_dir", &self.data_dir.to_string_lossy());
        yaml.text("node_name", &self.node_name);
        yaml.text("zone", &self.zone);
        yaml.text("http", &self.http.to_string());
        yaml.text("peer", &self.peer.to_string());
        if let Some(advertise) = &self.advertise {
            yaml.text("advertise", advertise);
        }
        yaml.texts("seeds", &self.seeds);
        yaml.texts("enable_feature", &self.features);
        yaml.line("enable_admin_api", &self.enable_admin_api.to_string());
        yaml.number("bootstrap_expect", self.bootstrap_expect as u64);
        yaml.number("shards", self.shards.into());
        let mode = match self.zone_mode {
            ZoneMode::Strict => "strict",
            ZoneMode::Spread => "spread",
        };
        yaml.text("zone_mode", mode);
        yaml.seconds("replace_after_seconds", self.replace_after);
        yaml.section("log");
        let format = match self.log_format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        yaml.text("  format", format);
        yaml.text("  level", &self.log_level);
        self.add_storage(&mut yaml);
        self.add_limits(&mut yaml);
        self.add_otlp(&mut yaml);
        yaml.0
    }

    fn add_storage(&self, yaml: &mut Yaml) {
        yaml.section("storage");
        yaml.seconds("  flush_interval_seconds", self.flush_interval);
        yaml.number("  flush_samples", self.flush_samples);
        yaml.number("  journal_bytes_max", self.journal_bytes_max);
        yaml.number(
            "  movement_bytes_per_second",
            self.movement_bytes_per_second,
        );
        yaml.hours("  retention_hours", self.retention);
        yaml.line("  down_sampling", &self.down_sampling.to_string());
    }

    fn add_limits(&self, yaml: &mut Yaml) {
        yaml.section("limits");
        yaml.seconds("  write_timeout_seconds", self.write_timeout);
        yaml.seconds("  query_timeout_seconds", self.query_timeout);
        yaml.number("  query_concurrency", self.query_concurrency as u64);
        yaml.number("  query_samples", self.query_samples);
        yaml.number("  query_bytes", self.query_bytes);
        yaml.number("  part_concurrency", self.part_concurrency as u64);
        yaml.number("  answers_kept_bytes", self.answers_kept_bytes);
        yaml.hours("  out_of_order_window_hours", self.out_of_order_window);
        let pairs = &self.pairs;
        yaml.line("  accept_ha_samples", &pairs.accepted.to_string());
        yaml.text("  ha_cluster_label", &pairs.cluster_label);
        yaml.text("  ha_replica_label", &pairs.replica_label);
        yaml.number("  ha_max_clusters", pairs.clusters_max as u64);
        yaml.seconds("  ha_tracker_update_timeout_seconds", pairs.update_interval);
        let failover = pairs.failover_timeout;
        yaml.seconds("  ha_tracker_failover_timeout_seconds", failover);
        yaml.number("  ha_held_bytes_max", pairs.held_bytes_max as u64);
        yaml.line("  ha_held_late_samples", &pairs.holds_late.to_string());
    }

    fn add_otlp(&self, yaml: &mut Yaml) {
        yaml.section("otlp");
        yaml.listen("grpc", self.otlp_grpc);
        yaml.listen("http", self.otlp_http);
        let otlp = &self.otlp;
        yaml.text("  deltas", otlp.deltas.as_str());
        yaml.number("  delta_series_max", self.delta_series_max as u64);
        yaml.text("  translation_strategy", otlp.strategy.as_str());
        let (all, listed, ignored) = match &otlp.promoted {
            Promotion::Only(listed) => (false, &listed[..], &[][..]),
            Promotion::AllBut(ignored) => (true, &[][..], &ignored[..]),
        };
        yaml.texts("  promote_resource_attributes", listed);
        yaml.line("  promote_all_resource_attributes", &all.to_string());
        yaml.texts("  ignore_resource_attributes", ignored);
        let keeps = otlp.keeps_identifying_attributes.to_string();
        yaml.line("  keep_identifying_resource_attributes", &keeps);
        let converts = otlp.converts_histograms.to_string();
        yaml.line("  convert_histograms_to_nhcb", &converts);
        yaml.line("  promote_scope_metadata", &otlp.promotes_scope.to_string());
    }
}

/// Lines of keys and values; the keys of a section are indented.
struct Yaml(String);

impl Yaml {
    fn line(&mut self, key: &str, value: &str) {
        self.0.push_str(&format!("{key}: {value}\n"));
    }

    fn section(&mut self, key: &str) {
        self.0.push_str(&format!("{key}:\n"));
    }

    fn text(&mut self, key: &str, value: &str) {
        self.line(key, &serde_json::Value::from(value).to_string());
    }

    fn texts(&mut self, key: &str, values: &[String]) {
        self.line(key, &serde_json::Value::from(values).to_string());
    }

    /// An address that nobody chose is a remark: as a setting it would be one that must be free.
    fn listen(&mut self, key: &str, at: Listen) {
        match at {
            Listen::Off => self.text(&format!("  {key}"), "off"),
            Listen::At(address) => self.text(&format!("  {key}"), &address.to_string()),
            Listen::IfFree(address) => self.line(&format!("  # {key}"), &address.to_string()),
        }
    }

    fn number(&mut self, key: &str, value: u64) {
        self.line(key, &value.to_string());
    }

    fn seconds(&mut self, key: &str, value: Duration) {
        self.number(key, value.as_secs());
    }

    /// Whole hours; 0 for none.
    fn hours(&mut self, key: &str, value: Option<Duration>) {
        self.number(key, value.unwrap_or_default().as_secs() / 3600);
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{ServeArgs, merge, parse};

    #[test]
    fn what_is_shown_gives_the_same_settings() {
        let file = "node_name: \"a: b\"\nseeds: [a:1, b:2]\nzone_mode: strict\nadvertise: c\n\
                    storage: {retention_hours: 0, down_sampling: true}\nenable_admin_api: true\nenable_feature: [promql-binop-fill-modifiers]\nlog: {format: json}\n\
                    limits: {out_of_order_window_hours: 3, accept_ha_samples: true}\n\
                    otlp: {grpc: off, promote_resource_attributes: [x.y]}\n";
        let all = "node_name: a\notlp: {promote_all_resource_attributes: true, ignore_resource_attributes: [x.y], \
                   convert_histograms_to_nhcb: true}\n";
        for text in ["node_name: a\n", file, all] {
            let path = std::path::Path::new("t.yaml");
            let read = |text: &str| {
                let file = parse(path, text).expect("a file");
                merge(&ServeArgs::default(), file).expect("possible settings")
            };
            let settings = read(text);
            let shown = settings.to_yaml();
            for key in super::super::nested_keys() {
                let (_, key) = key.split_once('.').expect("a section");
                assert!(shown.contains(&format!("{key}: ")), "{key} is not shown");
            }
            let rest = shown.strip_prefix("global: {}\n").expect("in front");
            assert_eq!(format!("{:?}", read(rest)), format!("{settings:?}"));
        }
    }
}
