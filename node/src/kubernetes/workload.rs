//! The StatefulSet, what it reads, and how many of its pods may be away.

use super::{
    options::Options,
    pod::{self, KEY_FILE, SETTINGS_FILE},
};
use serde_json::{Value, json};

/// How long a pod is ready before the next one is replaced: time for clients to notice that it is back.
const MIN_READY_SECONDS: u32 = 10;

/// The labels that all objects carry and selectors look for.
pub(super) fn labels(options: &Options) -> Value {
    json!({
        "app.kubernetes.io/name": "trefoil",
        "app.kubernetes.io/instance": options.name,
    })
}

/// An object's metadata.
pub(super) fn metadata(options: &Options, name: &str) -> Value {
    let mut metadata = json!({"name": name, "labels": labels(options)});
    if let Some(namespace) = &options.namespace {
        metadata["namespace"] = json!(namespace);
    }
    metadata
}

/// The ConfigMap with the configuration file.
pub(super) fn settings(options: &Options) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(options, &options.name),
        "data": {SETTINGS_FILE: options.settings},
    })
}

/// The Secret with the cluster's key, when its text is known.
pub(super) fn key(options: &Options) -> Option<Value> {
    let key = options.key.as_ref()?;
    let text = key.text.as_ref()?;
    Some(json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(options, &key.secret),
        "type": "Opaque",
        "stringData": {KEY_FILE: text},
    }))
}

/// The StatefulSet.
pub(super) fn stateful_set(options: &Options) -> Value {
    let mut claim = json!({
        "accessModes": ["ReadWriteOncePod"],
        "resources": {"requests": {"storage": options.storage_size}},
    });
    if let Some(class) = &options.storage_class {
        claim["storageClassName"] = json!(class);
    }
    json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(options, &options.name),
        "spec": {
            "serviceName": options.peers_service(),
            "replicas": options.replicas,
            // A cluster begins when enough nodes are there, so none can wait for the one before it.
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "RollingUpdate"},
            "minReadySeconds": MIN_READY_SECONDS,
            // A volume may hold the last copy of something: only people delete it.
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
            "selector": {"matchLabels": labels(options)},
            "template": {
                "metadata": {
                    "labels": labels(options),
                    "annotations": {"checksum/settings": checksum(&options.settings)},
                },
                "spec": pod::specification(options),
            },
            "volumeClaimTemplates": [{
                "metadata": {"name": "data", "labels": labels(options)},
                "spec": claim,
            }],
        },
    })
}

/// One pod at a time may be evicted; one that is not ready only while all others are.
pub(super) fn disruption_budget(options: &Options) -> Value {
    json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(options, &options.name),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "IfHealthyBudget",
            "selector": {"matchLabels": labels(options)},
        },
    })
}

/// Adler-32 in decimal digits, as `adler32sum` of Helm: changed settings restart the nodes, one by one.
pub(super) fn checksum(text: &str) -> String {
    const MODULUS: u32 = 65521;
    let (mut a, mut b) = (1, 0);
    for byte in text.bytes() {
        a = (a + u32::from(byte)) % MODULUS;
        b = (b + a) % MODULUS;
    }
    (b << 16 | a).to_string()
}
