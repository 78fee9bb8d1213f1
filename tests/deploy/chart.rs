//! The chart: for the same choices it renders the objects that the program prints, and its schema knows what can
//! be chosen.

use crate::{documents, manifests::compare, manifests_text, output, project, read};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::{path::Path, process::Command};
use trefoil_tests::{Peer, peer_program};

const CHART: &str = "deploy/helm/trefoil";

/// Values that differ from the defaults, and the arguments that say the same.
fn pairs() -> Vec<(Value, Vec<&'static str>)> {
    let key = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    vec![
        (json!({}), vec![]),
        (
            json!({"replicas": 1, "clusterKey": {"enabled": false}, "networkPolicy": {"enabled": false}}),
            vec![
                "--replicas",
                "1",
                "--without-cluster-key",
                "--without-network-policy",
            ],
        ),
        (
            json!({
                "replicas": 6, "zones": ["a", "b", "c"], "storage": {"size": "9Gi", "className": "fast"},
                "cpu": "250m", "memory": "512Mi", "networkPolicy": {"allowNamespaces": ["m", "n"]},
            }),
            vec![
                "--replicas",
                "6",
                "--zones",
                "a,b,c",
                "--storage-size",
                "9Gi",
                "--storage-class",
                "fast",
                "--cpu",
                "250m",
                "--memory",
                "512Mi",
                "--allow-namespaces",
                "m,n",
            ],
        ),
        (
            json!({
                "replicas": 9, "bootstrapExpect": 5, "serviceMonitor": {"enabled": true},
                "ingress": {"host": "t.example.org", "className": "nginx"}, "clusterKey": {"secret": "s"},
                "image": {"repository": "r/t", "tag": "1"},
            }),
            vec![
                "--replicas",
                "9",
                "--bootstrap-expect",
                "5",
                "--service-monitor",
                "--ingress-host",
                "t.example.org",
                "--ingress-class",
                "nginx",
                "--cluster-key-secret",
                "s",
                "--image",
                "r/t:1",
            ],
        ),
        (
            json!({"clusterKey": {"value": key}, "config": "log:\n  level: debug\n"}),
            vec!["--cluster-key-file", "KEY", "--config", "CONFIG"],
        ),
    ]
}

#[test]
fn the_chart_renders_what_the_program_prints() -> anyhow::Result<()> {
    let Peer::Found(go) = peer_program("go")? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let renderer = folder.path().join("render");
    build(&go, &renderer)?;
    for (values, arguments) in pairs() {
        let files = [
            (
                "KEY",
                folder.path().join("key"),
                values["clusterKey"]["value"].as_str(),
            ),
            (
                "CONFIG",
                folder.path().join("config"),
                values["config"].as_str(),
            ),
        ];
        let mut all = vec![
            "--namespace".to_owned(),
            "ns".to_owned(),
            "--name".to_owned(),
            "rel".to_owned(),
        ];
        for argument in &arguments {
            let file = files.iter().find(|(name, _, _)| name == argument);
            match file {
                Some((_, path, text)) => {
                    std::fs::write(path, text.context("a value for the file")?)?;
                    all.push(path.display().to_string());
                }
                None => all.push((*argument).to_owned()),
            }
        }
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let rendered = render(&renderer, &values)?;
        compare(&documents(&rendered)?, &documents(&manifests_text(&all)?)?)
            .with_context(|| format!("{values} and {arguments:?}"))?;
    }
    for (replicas, expect) in [(6, 3), (3, 4)] {
        let refused = render(
            &renderer,
            &json!({"replicas": replicas, "bootstrapExpect": expect}),
        );
        ensure!(refused.is_err(), "{expect} of {replicas} was accepted");
    }
    Ok(())
}

/// Go keeps what it compiled in a cache below the folder, so that nothing is left behind.
fn build(go: &Path, renderer: &Path) -> anyhow::Result<()> {
    let cache = renderer.with_extension("cache");
    let mut command = Command::new(go);
    command
        .args(["build", "-o"])
        .arg(renderer)
        .arg(project("tests/deploy/render/main.go"))
        .env("GOCACHE", &cache)
        .env("GOFLAGS", "-mod=mod")
        .env("GO111MODULE", "off");
    output(&mut command, "").map(drop)
}

fn render(renderer: &Path, values: &Value) -> anyhow::Result<String> {
    let mut all = defaults()?;
    merge(&mut all, values);
    let chart: Value = serde_saphyr::from_str(&read(&format!("{CHART}/Chart.yaml"))?)?;
    let request = json!({
        "release": "rel", "namespace": "ns", "appVersion": chart["appVersion"], "values": all,
    });
    output(
        Command::new(renderer).arg(project(CHART)),
        &request.to_string(),
    )
}

fn defaults() -> anyhow::Result<Value> {
    Ok(serde_saphyr::from_str(&read(&format!(
        "{CHART}/values.yaml"
    ))?)?)
}

/// Values over defaults, as Helm lays them: maps into each other, everything else replaced.
fn merge(into: &mut Value, values: &Value) {
    match (into.as_object_mut(), values.as_object()) {
        (Some(fields), Some(values)) => {
            for (key, value) in values {
                merge(fields.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        _ => into.clone_from(values),
    }
}

#[test]
fn the_chart_has_the_version_of_the_program() -> anyhow::Result<()> {
    let chart: Value = serde_saphyr::from_str(&read(&format!("{CHART}/Chart.yaml"))?)?;
    let version = env!("CARGO_PKG_VERSION");
    ensure!(
        chart["appVersion"] == version,
        "appVersion is {}",
        chart["appVersion"]
    );
    ensure!(
        chart["version"] == version,
        "version is {}",
        chart["version"]
    );
    Ok(())
}

/// `jsonschema` comes with `kubernetes-validate`.
#[test]
fn the_schema_takes_good_values_and_refuses_bad_ones() -> anyhow::Result<()> {
    let Peer::Found(program) = peer_program("jsonschema")? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("values.json");
    let check = |values: &Value| -> anyhow::Result<()> {
        let mut all = defaults()?;
        merge(&mut all, values);
        std::fs::write(&file, all.to_string())?;
        let schema = project(&format!("{CHART}/values.schema.json"));
        output(Command::new(&program).arg("-i").arg(&file).arg(schema), "").map(drop)
    };
    for (values, _) in pairs() {
        check(&values)?;
    }
    for values in [
        json!({"replicas": 0}),
        json!({"replica": 3}),
        json!({"memory": "4 GB"}),
        json!({"clusterKey": {"value": "secret"}}),
        json!({"zones": "a,b"}),
        json!({"image": {"pullPolicy": "Always"}}),
    ] {
        ensure!(check(&values).is_err(), "{values} was accepted");
    }
    Ok(())
}
