//! How nodes find one another, how clients find them, and who else may reach them.

use super::{
    options::{Access, Options},
    pod::{GOSSIP, HTTP, OTLP_GRPC, OTLP_HTTP, PEER},
    workload::{labels, metadata},
};
use crate::config::{HTTP_PORT, OTLP_GRPC_PORT, OTLP_HTTP_PORT, PEER_PORT};
use serde_json::{Value, json};
use trefoil_api::METRICS_PATH;

/// Tells the two services apart, for the ServiceMonitor.
const COMPONENT: &str = "app.kubernetes.io/component";
const DNS_PORT: u16 = 53;

/// The headless service: a name with the addresses of all nodes, ready or not, because nodes must find one
/// another before they can be ready. It is the seed list, and every node's name in DNS.
pub(super) fn peers_service(options: &Options) -> Value {
    let mut service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(options, &options.peers_service()),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": true,
            "selector": labels(options),
            "ports": [
                {"name": HTTP, "port": HTTP_PORT, "targetPort": HTTP, "protocol": "TCP", "appProtocol": "http"},
                {"name": PEER, "port": PEER_PORT, "targetPort": PEER, "protocol": "TCP", "appProtocol": "grpc"},
                {"name": GOSSIP, "port": PEER_PORT, "targetPort": GOSSIP, "protocol": "UDP"},
            ],
        },
    });
    service["metadata"]["labels"][COMPONENT] = json!("peers");
    service
}

/// The service for clients: any ready node.
pub(super) fn client_service(options: &Options) -> Value {
    let mut service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(options, &options.name),
        "spec": {
            "type": "ClusterIP",
            "selector": labels(options),
            "ports": [
                {"name": HTTP, "port": HTTP_PORT, "targetPort": HTTP, "protocol": "TCP", "appProtocol": "http"},
                {
                    "name": OTLP_GRPC, "port": OTLP_GRPC_PORT, "targetPort": OTLP_GRPC, "protocol": "TCP",
                    "appProtocol": "grpc",
                },
                {
                    "name": OTLP_HTTP, "port": OTLP_HTTP_PORT, "targetPort": OTLP_HTTP, "protocol": "TCP",
                    "appProtocol": "http",
                },
            ],
        },
    });
    service["metadata"]["labels"][COMPONENT] = json!("clients");
    service
}

/// Peers talk to peers only; what is for clients, which checks no key, is for the own namespace and those that are named.
pub(super) fn policy(options: &Options) -> Option<Value> {
    let Access { namespaces } = options.access.as_ref()?;
    let nodes = json!([{"podSelector": {"matchLabels": labels(options)}}]);
    let peer_ports = json!([
        {"port": PEER_PORT, "protocol": "TCP"},
        {"port": PEER_PORT, "protocol": "UDP"},
    ]);
    let client_ports = [HTTP_PORT, OTLP_GRPC_PORT, OTLP_HTTP_PORT];
    let client_ports = client_ports.map(|port| json!({"port": port, "protocol": "TCP"}));
    let mut clients = vec![json!({"podSelector": {}})];
    if !namespaces.is_empty() {
        let named = json!({
            "key": "kubernetes.io/metadata.name", "operator": "In", "values": namespaces,
        });
        clients.push(json!({"namespaceSelector": {"matchExpressions": [named]}}));
    }
    Some(json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(options, &options.name),
        "spec": {
            "podSelector": {"matchLabels": labels(options)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {"from": nodes, "ports": peer_ports},
                {"from": clients, "ports": client_ports},
            ],
            "egress": [
                {"to": nodes, "ports": peer_ports},
                {"ports": [
                    {"port": DNS_PORT, "protocol": "UDP"},
                    {"port": DNS_PORT, "protocol": "TCP"},
                ]},
            ],
        },
    }))
}

/// Scrapes every node, also those that are not ready.
pub(super) fn service_monitor(options: &Options) -> Option<Value> {
    let mut selected = labels(options);
    selected[COMPONENT] = json!("peers");
    options.service_monitor.then(|| {
        json!({
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "ServiceMonitor",
            "metadata": metadata(options, &options.name),
            "spec": {
                "selector": {"matchLabels": selected},
                "endpoints": [{"port": HTTP, "path": METRICS_PATH, "interval": "15s"}],
            },
        })
    })
}

/// Leads a host name to the service for clients.
pub(super) fn ingress(options: &Options) -> Option<Value> {
    let entrance = options.entrance.as_ref()?;
    let backend = json!({"service": {"name": options.name, "port": {"name": HTTP}}});
    let mut ingress = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": metadata(options, &options.name),
        "spec": {
            "rules": [{
                "host": entrance.host,
                "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]},
            }],
        },
    });
    if let Some(class) = &entrance.class {
        ingress["spec"]["ingressClassName"] = json!(class);
    }
    Some(ingress)
}
