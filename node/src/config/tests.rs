//! What files, flags and variables come to, and what is said about wrong ones.

use super::*;

fn check_error(yaml: &str, expected: &str) {
    let path = std::path::Path::new("t.yaml");
    let error = read(&ServeArgs::default(), path, yaml).expect_err(yaml);
    assert_eq!(error.to_string(), expected, "{yaml}");
}

#[test]
fn errors_name_the_place_and_suggest() {
    check_error(
        "node_name: a\nstorage:\n  flush_intervall_seconds: 3\n",
        "t.yaml:3:3: unknown key \"flush_intervall_seconds\"; did you mean \
         \"flush_interval_seconds\"?",
    );
    check_error(
        "wombat: 1\n",
        "t.yaml:1:1: unknown key \"wombat\"; known here: data_dir, node_name, zone, http, peer, \
         advertise, seeds, bootstrap_expect, cluster_key_file, enable_admin_api, \
         enable_feature, shards, zone_mode, replace_after_seconds, log, storage, limits, otlp",
    );
    check_error(
        "node_name: a\nflush_intervall: 3\n",
        "t.yaml:2:1: unknown key \"flush_intervall\"; did you mean \
         \"storage.flush_interval_seconds\"?",
    );
    check_error(
        "storage:\n  retention_hours: 3\n  query_samples: 3\n",
        "t.yaml:3:3: unknown key \"query_samples\"; did you mean \"limits.query_samples\"?",
    );
    check_error(
        "storage:\n  flush_interval_seconds: fast\n",
        "t.yaml:2:27: expected a whole number of 0 or more",
    );
    check_error(
        "shards: 70000\n",
        "t.yaml:1:9: expected a whole number from 0 to 65535",
    );
    check_error(
        "zone: a\nzone: b\n",
        "t.yaml:2:1: the key \"zone\" is there twice",
    );
    check_error("storage: 3\n", "t.yaml:1:10: expected a section of keys");
    check_error(
        "seeds: a:9191\n",
        "t.yaml:1:8: expected a list, like [a, b]",
    );
    check_error(
        "http: 9190\n",
        "t.yaml:1:7: expected an IP address and a port, like 0.0.0.0:9190",
    );
    check_error(
        "log:\n  format: xml\n",
        "t.yaml:2:11: unknown variant `xml`, expected one of text, json",
    );
    check_error(
        "node_name: a\nlimits: {query_concurrency: 0}\n",
        "t.yaml:2:10: limits.query_concurrency: is 0; it must be at least 1",
    );
    check_error(
        "shards: 100\nnode_name: a\n",
        "t.yaml:1:1: shards: 100 is not a power of two up to 4096",
    );
    check_error(
        "node_name: a\nseeds: [localhost]\n",
        "t.yaml:2:1: seeds: \"localhost\" has no port; write host:9191",
    );
    check_error(
        "node_name: a\n---\nnode_name: b\n",
        "t.yaml:3:1: one document is expected: remove \"---\" and what follows it",
    );
}

#[test]
fn impossible_values_have_a_place() {
    for (yaml, expected) in [
        ("bootstrap_expect: 0\n", "1:1: bootstrap_expect: 0 nodes"),
        ("zone: a\nenable_feature: [x]\n", "2:1: enable_feature: "),
        ("log: {level: foo=bar=baz}\n", "1:7: log.level: "),
        (
            "storage:\n  # none\n\n  flush_samples: 0\n",
            "4:3: storage.flush_samples: is 0",
        ),
        (
            "limits: {query_timeout_seconds: 0}\n",
            "1:10: limits.query_timeout_seconds: is 0",
        ),
        (
            "otlp: {ignore_resource_attributes: [a]}\n",
            "1:8: otlp.ignore_resource_attributes: needs",
        ),
        (
            "limits: {ha_cluster_label: x, ha_replica_label: x}\n",
            "1:31: limits.ha_replica_label: is the same",
        ),
        (
            "limits: {ha_cluster_label: \"\"}\n",
            "1:10: limits.ha_cluster_label: is empty",
        ),
        (
            "limits: {ha_replica_label: \"\"}\n",
            "1:10: limits.ha_replica_label: is empty",
        ),
        (
            "replace_after_seconds: 0\n",
            "1:1: replace_after_seconds: is 0",
        ),
    ] {
        let path = std::path::Path::new("t.yaml");
        let error = read(&ServeArgs::default(), path, yaml)
            .expect_err(yaml)
            .to_string();
        assert!(error.starts_with(&format!("t.yaml:{expected}")), "{error}");
    }
    // What a flag says has no place in the file.
    let args = ServeArgs {
        bootstrap_expect: Some(0),
        ..ServeArgs::default()
    };
    let file = "bootstrap_expect: 3\nseeds: [a:1]\n";
    let error = read(&args, std::path::Path::new("t.yaml"), file).expect_err("0");
    assert!(
        error.to_string().starts_with("bootstrap_expect: 0 nodes"),
        "{error}"
    );
}

#[test]
fn unknown_variables_are_named() {
    let names = [
        "TREFOIL_SEED",
        "TREFOIL_SEEDS",
        "TREFOIL_PORT_9190",
        "TREFOIL_FOO",
        "PATH",
        "TREFOIL_URL",
    ];
    assert_eq!(
        unknown_variables(names.into_iter().map(str::to_owned)),
        [
            "TREFOIL_SEED does nothing; did you mean TREFOIL_SEEDS?",
            "TREFOIL_PORT_9190 does nothing",
            "TREFOIL_FOO does nothing"
        ]
    );
}

#[test]
fn flags_override_the_file() {
    let file = parse(std::path::Path::new("t.yaml"), "node_name: file\nzone: z\n").unwrap();
    let args = ServeArgs {
        node_name: Some("flag".into()),
        ..ServeArgs::default()
    };
    let settings = merge(&args, file).unwrap();
    assert_eq!(
        (settings.node_name.as_str(), settings.zone.as_str()),
        ("flag", "z")
    );
    assert_eq!(settings.bootstrap_expect, 1);
}
