//! Which crate may import which: the arrows of ARCHITECTURE.md, one line per crate.
//!
//! An arrow that is not in the table is a breach even when it points downward, because an arrow is
//! a decision. A crate that is not in the table is a breach too.

use crate::{Finding, tree::Package};

/// Crate, and the crates of ours that it may import, without the `trefoil-` of their names.
/// Development dependencies count as well. Ordered from the bottom to the top: a crate may name
/// only crates above its own line.
const ARROWS: [(&str, &[&str]); 15] = [
    ("model", &[]),
    ("store-pages", &[]),
    ("store-journal", &["model", "store-pages"]),
    ("store-blocks", &["model", "store-pages"]),
    ("store-metrics", &["model", "store-pages", "store-blocks"]),
    ("gossip", &["model"]),
    ("raft", &["model", "store-pages"]),
    ("query-promql", &["model"]),
    ("shard", &["model", "query-promql"]),
    ("alert", &["model", "query-promql"]),
    ("api", &["model", "query-promql"]),
    (
        "node",
        &[
            "model",
            "store-pages",
            "store-journal",
            "store-blocks",
            "store-metrics",
            "gossip",
            "raft",
            "query-promql",
            "shard",
            "alert",
            "api",
        ],
    ),
    // Its simulation of whole nodes puts the real parts together, below the binary.
    (
        "jepsen",
        &[
            "model",
            "store-pages",
            "store-journal",
            "store-blocks",
            "store-metrics",
            "gossip",
            "raft",
            "query-promql",
            "shard",
            "api",
        ],
    ),
    ("tests", &["model", "query-promql", "api", "jepsen"]),
    // Whatever decodes bytes from outside.
    (
        "fuzz",
        &[
            "model",
            "store-pages",
            "store-blocks",
            "store-metrics",
            "gossip",
            "query-promql",
            "shard",
            "api",
        ],
    ),
];

/// Findings for every arrow between our crates that the table does not have.
pub(crate) fn check(packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        let Some(own) = package.name.strip_prefix("trefoil-") else {
            let instead = "call the crate trefoil-<path with dashes>.";
            findings.push(Finding::new(&package.name, instead));
            continue;
        };
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == own) else {
            let instead = "add the crate to ARROWS in tests/house/layers.rs and to ARCHITECTURE.md, \
                           with what it must not know.";
            findings.push(Finding::new(&package.name, instead));
            continue;
        };
        for (dependency, _) in &package.dependencies {
            let Some(below) = dependency.strip_prefix("trefoil-") else {
                continue;
            };
            if !allowed.contains(&below) {
                let instead = format!(
                    "must not import {dependency}: pass a value, a closure or a trait of model down \
                     from the crate that knows both (usually node), or move the noun into model."
                );
                findings.push(Finding::new(&package.name, instead));
            }
        }
    }
    findings
}

#[test]
fn the_table_points_downward() {
    for (row, (name, allowed)) in ARROWS.iter().enumerate() {
        for below in *allowed {
            assert!(
                ARROWS[..row].iter().any(|(lower, _)| lower == below),
                "{name} -> {below} points upward or sideways"
            );
        }
    }
}

#[test]
fn a_sideways_import_is_found() {
    let package = |name: &str, dependency: &str| Package {
        name: name.to_owned(),
        folder: String::new(),
        dependencies: vec![(dependency.to_owned(), None)],
        features: Vec::new(),
    };
    assert_eq!(check(&[package("trefoil-raft", "trefoil-gossip")]).len(), 1);
    assert_eq!(check(&[package("trefoil-raft", "trefoil-model")]), vec![]);
    assert_eq!(check(&[package("trefoil-raft", "serde")]), vec![]);
    assert_eq!(check(&[package("trefoil-toolbox", "serde")]).len(), 1);
}
