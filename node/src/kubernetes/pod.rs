//! The pod: one container that runs a node, as nobody in particular and on a file system that it cannot change.

use super::options::Options;
use crate::{
    cli::node::PREPARE_STOP_WAIT_SECONDS,
    config::{HTTP_PORT, OTLP_GRPC_PORT, OTLP_HTTP_PORT, PEER_PORT, variable_of},
    serve::STOP_SECONDS_MAX,
};
use serde_json::{Value, json};
use trefoil_api::{HEALTHY_PATH, READY_PATH};

/// The program in the image.
const PROGRAM: &str = "/trefoil";
/// Where the volume is mounted.
const DATA_DIR: &str = "/data";
/// Where the ConfigMap is mounted.
const SETTINGS_DIR: &str = "/etc/trefoil";
/// The ConfigMap's entry.
pub(super) const SETTINGS_FILE: &str = "trefoil.yaml";
/// Where the Secret is mounted.
const KEY_DIR: &str = "/etc/trefoil-key";
/// The Secret's entry.
pub(super) const KEY_FILE: &str = "key";
/// The user of distroless images that is nobody: not root, and with no other rights.
const USER: u32 = 65532;
/// Kubernetes copies this label from the machine to the pod when it binds it (1.35 and later).
pub(super) const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// Names of the container's ports, as probes and services use them.
pub(super) const HTTP: &str = "http";
pub(super) const PEER: &str = "peer";
pub(super) const GOSSIP: &str = "gossip";
pub(super) const OTLP_GRPC: &str = "otlp-grpc";
pub(super) const OTLP_HTTP: &str = "otlp-http";

/// The pod's specification.
pub(super) fn specification(options: &Options) -> Value {
    let mut pod = json!({
        "automountServiceAccountToken": false,
        // Kubernetes would set TREFOIL_PORT_... variables for a service of that name.
        "enableServiceLinks": false,
        // prepare-stop in the hook, then what SIGTERM takes, and as much again for a slow disk.
        "terminationGracePeriodSeconds": PREPARE_STOP_WAIT_SECONDS + 2 * STOP_SECONDS_MAX,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": spread(options),
        "containers": [container(options)],
        "volumes": volumes(options),
    });
    if !options.zones.is_empty() {
        let term = json!({"key": ZONE_LABEL, "operator": "In", "values": options.zones});
        pod["affinity"] = json!({"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [term]}],
            },
        }});
    }
    pod
}

/// One node per machine and as many in each zone, as far as there are machines and zones. A pod whose place is
/// gone waits for it instead of joining another one: its volume is there, and two nodes that die together are
/// worse than one that is late. Zones bind only when they are named, because a machine without the label
/// would get no pod at all.
fn spread(options: &Options) -> Value {
    let over = |key: &str, otherwise: &str| {
        json!({
            "topologyKey": key,
            "maxSkew": 1,
            "whenUnsatisfiable": otherwise,
            "labelSelector": {"matchLabels": super::workload::labels(options)},
        })
    };
    let zones = match options.zones.len() {
        0 => over(ZONE_LABEL, "ScheduleAnyway"),
        count => {
            let mut zones = over(ZONE_LABEL, "DoNotSchedule");
            zones["minDomains"] = json!(count);
            zones
        }
    };
    json!([zones, over("kubernetes.io/hostname", "DoNotSchedule")])
}

fn container(options: &Options) -> Value {
    let wait = PREPARE_STOP_WAIT_SECONDS.to_string();
    let prepare_stop = json!([PROGRAM, "node", "prepare-stop", "--wait", wait]);
    let get = |path: &str| json!({"path": path, "port": HTTP});
    json!({
        "name": "trefoil",
        "image": options.image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["serve"],
        "env": variables(options),
        "ports": [
            {"name": HTTP, "containerPort": HTTP_PORT, "protocol": "TCP"},
            {"name": PEER, "containerPort": PEER_PORT, "protocol": "TCP"},
            {"name": GOSSIP, "containerPort": PEER_PORT, "protocol": "UDP"},
            {"name": OTLP_GRPC, "containerPort": OTLP_GRPC_PORT, "protocol": "TCP"},
            {"name": OTLP_HTTP, "containerPort": OTLP_HTTP_PORT, "protocol": "TCP"},
        ],
        // A node answers as soon as it has bound its ports, long before it has read its journal.
        "startupProbe": {
            "httpGet": get(HEALTHY_PATH),
            "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 30,
        },
        "livenessProbe": {
            "httpGet": get(HEALTHY_PATH),
            "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6,
        },
        "readinessProbe": {
            "httpGet": get(READY_PATH),
            "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 2,
        },
        "lifecycle": {"preStop": {"exec": {"command": prepare_stop}}},
        "resources": {
            "requests": {"cpu": options.cpu, "memory": options.memory},
            "limits": {"memory": options.memory},
        },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts(options),
    })
}

fn variables(options: &Options) -> Value {
    let plain = |name: String, value: String| json!({"name": name, "value": value});
    let of_pod = |name: String, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}});
    let zone = format!("metadata.labels['{ZONE_LABEL}']");
    let mut variables = vec![
        plain(
            variable_of!(config),
            format!("{SETTINGS_DIR}/{SETTINGS_FILE}"),
        ),
        plain(variable_of!(data_dir), DATA_DIR.to_owned()),
        of_pod(variable_of!(node_name), "metadata.name"),
        of_pod(variable_of!(zone), &zone),
        // An address and not the pod's name, which may not resolve yet when the node starts.
        of_pod(variable_of!(advertise), "status.podIP"),
    ];
    if let Some(seeds) = options.seeds() {
        let expect = options.bootstrap_expect.to_string();
        variables.push(plain(variable_of!(seeds), seeds));
        variables.push(plain(variable_of!(bootstrap_expect), expect));
    }
    if options.key.is_some() {
        let file = format!("{KEY_DIR}/{KEY_FILE}");
        variables.push(plain(variable_of!(cluster_key_file), file));
    }
    Value::Array(variables)
}

fn mounts(options: &Options) -> Value {
    let mut mounts = vec![
        json!({"name": "data", "mountPath": DATA_DIR}),
        json!({"name": "settings", "mountPath": SETTINGS_DIR, "readOnly": true}),
    ];
    if options.key.is_some() {
        mounts.push(json!({"name": "cluster-key", "mountPath": KEY_DIR, "readOnly": true}));
    }
    Value::Array(mounts)
}

fn volumes(options: &Options) -> Value {
    let mut volumes = vec![json!({"name": "settings", "configMap": {"name": options.name}})];
    if let Some(key) = &options.key {
        // Read by the group that the pod runs in; 288 is 0440.
        let secret = json!({"secretName": key.secret, "defaultMode": 288});
        volumes.push(json!({"name": "cluster-key", "secret": secret}));
    }
    Value::Array(volumes)
}
