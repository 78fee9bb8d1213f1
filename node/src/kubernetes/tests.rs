//! What the manifests say is what the program understands.

use super::{KubernetesCommand, ManifestsArgs, Options, objects, workload::checksum, yaml};
use crate::{
    cli::{Cli, Command},
    config::{self, ServeArgs, Settings},
    serve::STOP_SECONDS_MAX,
};
use clap::Parser;
use serde_json::{Value, json};

/// The objects that these arguments give.
fn rendered(args: &[&str]) -> Vec<Value> {
    objects(&Options::of(parsed(args)).unwrap())
}

fn parsed(args: &[&str]) -> ManifestsArgs {
    let cli = Cli::try_parse_from([&["trefoil", "k8s", "manifests"], args].concat());
    match cli.map(|cli| cli.command) {
        Ok(Command::K8s(KubernetesCommand::Manifests(args))) => *args,
        other => panic!("{other:?}"),
    }
}

fn refusal(args: &[&str]) -> String {
    Options::of(parsed(args)).err().unwrap().to_string()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    objects
        .iter()
        .find(|object| object["kind"] == kind)
        .unwrap()
}

fn container(objects: &[Value]) -> Value {
    of_kind(objects, "StatefulSet")["spec"]["template"]["spec"]["containers"][0].clone()
}

fn words(value: &Value) -> Vec<String> {
    let words = value.as_array().unwrap().iter();
    words
        .map(|word| word.as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_container_runs_commands_that_there_are() {
    let container = container(&rendered(&[]));
    let serve = [vec!["trefoil".to_owned()], words(&container["args"])].concat();
    assert!(matches!(
        Cli::try_parse_from(serve).unwrap().command,
        Command::Serve(_)
    ));
    let stop = words(&container["lifecycle"]["preStop"]["exec"]["command"]);
    assert!(matches!(
        Cli::try_parse_from(stop).unwrap().command,
        Command::Node(_)
    ));
}

#[test]
fn the_variables_are_those_of_serve() {
    for args in [
        &["--replicas", "5"][..],
        &["--replicas", "1", "--without-cluster-key"],
    ] {
        let container = container(&rendered(args));
        let names = container["env"].as_array().unwrap().iter();
        let names = names.map(|variable| variable["name"].as_str().unwrap().to_owned());
        assert_eq!(config::unknown_variables(names), Vec::<String>::new());
    }
}

#[test]
fn nodes_with_these_seeds_would_start() {
    for replicas in 1..=12 {
        let objects = rendered(&["--replicas", &replicas.to_string()]);
        let container = container(&objects);
        let variables = container["env"].as_array().unwrap();
        let value = |name: String| {
            let variable = variables.iter().find(|variable| variable["name"] == name)?;
            Some(variable["value"].as_str()?.to_owned())
        };
        let args = ServeArgs {
            seeds: value(config::variable_of!(seeds)).map(|seed| vec![seed]),
            bootstrap_expect: value(config::variable_of!(bootstrap_expect))
                .map(|n| n.parse().unwrap()),
            ..ServeArgs::default()
        };
        let settings = Settings::load(&args).unwrap();
        assert_eq!(settings.seeds.is_empty(), replicas == 1);
        assert!(settings.bootstrap_expect <= replicas);
        assert!(settings.bootstrap_expect * 2 > replicas, "{replicas}");
        assert!(settings.bootstrap_expect >= replicas.min(3), "{replicas}");
    }
}

#[test]
fn the_grace_period_covers_the_hook_and_the_stop() {
    let objects = rendered(&[]);
    let pod = &of_kind(&objects, "StatefulSet")["spec"]["template"]["spec"];
    let hook = words(&pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]);
    let wait: u64 = hook.last().unwrap().parse().unwrap();
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(grace >= wait + STOP_SECONDS_MAX);
}

#[test]
fn probes_and_services_name_ports_of_the_container() {
    let objects = rendered(&["--ingress-host", "t.example", "--service-monitor"]);
    let container = container(&objects);
    let ports: Vec<&Value> = container["ports"].as_array().unwrap().iter().collect();
    let has = |name: &Value| ports.iter().any(|port| port["name"] == *name);
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert!(has(&container[probe]["httpGet"]["port"]), "{probe}");
    }
    for service in objects.iter().filter(|object| object["kind"] == "Service") {
        for port in service["spec"]["ports"].as_array().unwrap() {
            assert!(has(&port["targetPort"]), "{port}");
        }
    }
}

#[test]
fn everything_is_optional_that_not_everybody_has() {
    let kinds = |args: &[&str]| -> Vec<String> {
        let objects = rendered(args);
        objects
            .iter()
            .map(|object| object["kind"].as_str().unwrap().to_owned())
            .collect()
    };
    let least = [
        "ConfigMap",
        "Service",
        "Service",
        "StatefulSet",
        "PodDisruptionBudget",
    ];
    assert_eq!(
        kinds(&["--without-network-policy", "--without-cluster-key"]),
        least
    );
    let most = kinds(&["--service-monitor", "--ingress-host", "t.example"]);
    assert_eq!(most[5..], ["NetworkPolicy", "ServiceMonitor", "Ingress"]);
    let namespaced = rendered(&["--namespace", "n", "--ingress-host", "t.example"]);
    assert!(
        namespaced
            .iter()
            .all(|object| object["metadata"]["namespace"] == "n")
    );
    assert!(
        rendered(&[])
            .iter()
            .all(|object| object["metadata"]["namespace"].is_null())
    );
}

#[test]
fn arguments_that_cannot_work_are_refused() {
    assert!(
        refusal(&["--replicas", "6", "--bootstrap-expect", "3"]).contains("must exceed half of 6")
    );
    assert!(refusal(&["--bootstrap-expect", "4"]).contains("only 3 replicas"));
    assert!(refusal(&["--config", "/nonexistent"]).contains("read /nonexistent"));
    let folder = std::env::temp_dir().join(format!("trefoil-k8s-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("t.yaml");
    std::fs::write(&file, "storage:\n  retention_hour: 3\n").unwrap();
    let error = refusal(&["--config", file.to_str().unwrap()]);
    assert!(
        error.contains("did you mean \"retention_hours\""),
        "{error}"
    );
    std::fs::write(&file, "0".repeat(63)).unwrap();
    let error = refusal(&["--cluster-key-file", file.to_str().unwrap()]);
    assert!(error.contains("64 hexadecimal digits"), "{error}");
    std::fs::write(&file, "0".repeat(64)).unwrap();
    let objects = rendered(&["--cluster-key-file", file.to_str().unwrap()]);
    assert_eq!(
        of_kind(&objects, "Secret")["stringData"]["key"],
        "0".repeat(64)
    );
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn zones_and_sizes_reach_the_objects() {
    let objects = rendered(&[
        "--zones",
        "a,b,c",
        "--storage-class",
        "fast",
        "--storage-size",
        "9Gi",
        "--memory",
        "1Gi",
    ]);
    let set = &of_kind(&objects, "StatefulSet")["spec"];
    let pod = &set["template"]["spec"];
    assert_eq!(pod["topologySpreadConstraints"][0]["minDomains"], 3);
    let affinity =
        &pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let zones = &affinity["nodeSelectorTerms"][0]["matchExpressions"][0]["values"];
    assert_eq!(*zones, json!(["a", "b", "c"]));
    assert_eq!(
        set["volumeClaimTemplates"][0]["spec"]["storageClassName"],
        "fast"
    );
    assert_eq!(pod["containers"][0]["resources"]["limits"]["memory"], "1Gi");
}

#[test]
fn the_text_is_what_the_objects_are() {
    let objects = rendered(&["--zones", "a,b", "--namespace", "n", "--service-monitor"]);
    let text = yaml::documents(&objects);
    let read: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    assert_eq!(read, objects);
}

#[test]
fn the_checksum_is_adler_32() {
    assert_eq!(checksum("Wikipedia"), "300286872");
    assert_eq!(checksum(""), "1");
}
