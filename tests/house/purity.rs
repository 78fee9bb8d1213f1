//! Protocol decisions get time, randomness and messages as values and return what should happen.
//! Only then can a simulation run thousands of their fault schedules per second under a seed.
//!
//! The places below may not name a clock, a socket, a task, the environment or unseeded randomness.
//! Addresses (`std::net::SocketAddr`) and durations are plain values and are fine.

use crate::{
    Finding, rust_text,
    tree::{Package, SourceFile, Tree},
};

/// Files and folders whose code is pure. A folder ends with `/`.
const PURE_PLACES: [&str; 7] = [
    "gossip/src/",
    "model/src/",
    "node/src/held.rs",
    "node/src/held/",
    "query/promql/src/",
    "shard/src/",
    "store/metrics/src/",
];

/// Crates of which no line is impure, so that their dependencies are checked too.
const PURE_CRATES: [&str; 5] = [
    "trefoil-gossip",
    "trefoil-model",
    "trefoil-query-promql",
    "trefoil-shard",
    "trefoil-store-metrics",
];

/// Crates that bring sockets, tasks or a runtime.
const IMPURE_DEPENDENCIES: [&str; 9] = [
    "async-std",
    "axum",
    "hyper",
    "hyper-util",
    "mio",
    "socket2",
    "tokio",
    "tokio-stream",
    "tonic",
];

/// What the code may not say, and what to do instead.
const FORBIDDEN: [(&str, &str); 17] = [
    (
        "Instant::now",
        "take the time as an argument (Millis or a Duration since start)",
    ),
    ("SystemTime", "take the time as an argument (Millis)"),
    ("UNIX_EPOCH", "take the time as an argument (Millis)"),
    (".elapsed()", "take the time as an argument and subtract"),
    (
        "thread::sleep",
        "return an action that says when to be called again",
    ),
    ("thread::spawn", "return an action; node runs tasks"),
    ("TcpStream", "return the bytes to send; node owns sockets"),
    (
        "TcpListener",
        "take received bytes as an event; node owns sockets",
    ),
    ("UdpSocket", "return the bytes to send; node owns sockets"),
    ("ToSocketAddrs", "take resolved addresses as an event"),
    ("tokio::", "return an action; node owns the runtime"),
    ("std::env", "take the setting as an argument"),
    ("rand::rng(", "take a seeded generator as an argument"),
    ("thread_rng", "take a seeded generator as an argument"),
    ("rand::random", "take a seeded generator as an argument"),
    ("from_os_rng", "take a seeded generator as an argument"),
    ("OsRng", "take a seeded generator as an argument"),
];

/// Findings for words of clocks, sockets, tasks and chance in pure places.
pub(crate) fn check_sources(tree: &Tree) -> Vec<Finding> {
    let pure = |file: &&SourceFile| {
        !file.is_test() && PURE_PLACES.iter().any(|place| file.path.starts_with(place))
    };
    let mut findings: Vec<Finding> = tree.rust().filter(pure).flat_map(impure_words).collect();
    for place in PURE_PLACES {
        if !tree.rust().any(|file| file.path.starts_with(place)) {
            let instead =
                "has no Rust file any more: correct PURE_PLACES in tests/house/purity.rs.";
            findings.push(Finding::new(place, instead));
        }
    }
    findings
}

fn impure_words(file: &SourceFile) -> Vec<Finding> {
    let code = rust_text::product_code(&file.text);
    let mut findings = Vec::new();
    for (number, line) in code.lines().enumerate() {
        for (word, instead) in FORBIDDEN {
            if line.contains(word) {
                let place = format!("{}:{}", file.path, number + 1);
                findings.push(Finding::new(place, format!("`{word}`: {instead}.")));
            }
        }
    }
    findings
}

/// Findings for dependencies of pure crates that bring sockets, tasks or a runtime. Development
/// dependencies may: a test harness can have a runtime.
pub(crate) fn check_dependencies(packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        if !PURE_CRATES.contains(&package.name.as_str()) {
            continue;
        }
        for (dependency, kind) in &package.dependencies {
            if kind.is_none() && IMPURE_DEPENDENCIES.contains(&dependency.as_str()) {
                let instead =
                    format!("must not depend on {dependency}: its driver belongs to node.");
                findings.push(Finding::new(&package.name, instead));
            }
        }
    }
    findings
}

#[test]
fn a_clock_in_a_decision_is_found_but_not_in_its_tests_or_prose() {
    let file = |text: &str| SourceFile {
        path: "shard/src/barrier.rs".to_owned(),
        text: text.to_owned(),
    };
    assert_eq!(impure_words(&file("let now = Instant::now();")).len(), 1);
    assert_eq!(
        impure_words(&file("// Instant::now() is not for us")),
        vec![]
    );
    let test = "#[cfg(test)]\nmod tests { fn now() { Instant::now(); } }";
    assert_eq!(impure_words(&file(test)), vec![]);
    assert_eq!(impure_words(&file("use std::net::SocketAddr;")), vec![]);
}

#[test]
fn a_runtime_below_a_decision_is_found() {
    let package = |kind: Option<&str>| Package {
        name: "trefoil-shard".to_owned(),
        folder: String::new(),
        dependencies: vec![("tokio".to_owned(), kind.map(str::to_owned))],
        features: Vec::new(),
    };
    assert_eq!(check_dependencies(&[package(None)]).len(), 1);
    assert_eq!(check_dependencies(&[package(Some("dev"))]), vec![]);
}
