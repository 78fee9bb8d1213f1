//! Versions stand in the root manifest, features nowhere, and the lock file names one registry.

use crate::{
    Finding,
    tree::{Package, Tree},
};
use std::collections::BTreeSet;

/// Findings for members that give a dependency a version or a source of their own. A manifest with a workspace of its own
/// is no member.
pub(crate) fn check_members(tree: &Tree) -> Vec<Finding> {
    let is_member = |text: &str| !text.lines().any(|line| line.trim() == "[workspace]");
    let manifests = tree
        .files
        .iter()
        .filter(|file| file.path.ends_with("/Cargo.toml") && is_member(&file.text));
    let mut findings = Vec::new();
    for manifest in manifests {
        for (number, line) in dependency_lines(&manifest.text) {
            if !line.contains("workspace = true") {
                let place = format!("{}:{number}", manifest.path);
                let instead = "write `name.workspace = true` and put version and features into the \
                               root manifest.";
                findings.push(Finding::new(place, instead));
            }
        }
    }
    findings
}

/// The lines of the dependency tables of a manifest, with their numbers from 1.
fn dependency_lines(manifest: &str) -> Vec<(usize, &str)> {
    let mut inside = false;
    let mut lines = Vec::new();
    for (number, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            inside = line.trim_end_matches(']').ends_with("dependencies");
        } else if inside && !line.is_empty() && !line.starts_with('#') {
            lines.push((number + 1, line));
        }
    }
    lines
}

/// Findings for sources in the lock file other than the public registry.
pub(crate) fn check_lock(tree: &Tree) -> Vec<Finding> {
    let Some(lock) = tree.file("Cargo.lock") else {
        return vec![Finding::new(
            "Cargo.lock",
            "is missing: commit it, the binary is built from it.",
        )];
    };
    let public = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    lock.text
        .lines()
        .filter(|line| line.starts_with("source = ") && *line != public)
        .map(|line| {
            let instead = format!("{line}: take crates from the public registry only.");
            Finding::new("Cargo.lock", instead)
        })
        .collect()
}

/// Findings for cargo features that our crates declare.
pub(crate) fn check_features(packages: &[Package]) -> Vec<Finding> {
    packages
        .iter()
        .filter(|package| !package.features.is_empty())
        .map(|package| {
            let instead = format!(
                "declares {:?}: choose variants by an argument of the constructor.",
                package.features
            );
            Finding::new(&package.name, instead)
        })
        .collect()
}

/// Findings for dependencies that no Rust file of their package names, and for lines of the root
/// manifest that no package takes.
pub(crate) fn check_unused(tree: &Tree, packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        let own: Vec<&str> = tree
            .rust()
            .filter(|file| file.path.starts_with(&package.folder))
            .map(|file| file.text.as_str())
            .collect();
        for (dependency, _) in &package.dependencies {
            let word = dependency.replace('-', "_");
            if !own.iter().any(|text| text.contains(&word)) {
                let instead =
                    format!("depends on {dependency} and never names it: remove the line.");
                findings.push(Finding::new(
                    format!("{}Cargo.toml", package.folder),
                    instead,
                ));
            }
        }
    }
    let taken = |name: &str| {
        packages
            .iter()
            .any(|p| p.dependencies.iter().any(|(d, _)| d == name))
    };
    let manifest = tree.file("Cargo.toml").map_or("", |file| &file.text);
    for name in declared_dependencies(manifest) {
        if !taken(name) {
            let instead = format!("declares {name}, which no crate takes: remove the line.");
            findings.push(Finding::new("Cargo.toml", instead));
        }
    }
    findings
}

/// The names in `[workspace.dependencies]`.
pub(crate) fn declared_dependencies(manifest: &str) -> BTreeSet<&str> {
    manifest
        .lines()
        .skip_while(|line| line.trim() != "[workspace.dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once('=').map(|(name, _)| name.trim()))
        .filter(|name| !name.starts_with('#'))
        .collect()
}

#[test]
fn a_version_in_a_member_is_found() {
    let file = |text: &str| Tree {
        files: vec![crate::tree::SourceFile {
            path: "raft/Cargo.toml".to_owned(),
            text: text.to_owned(),
        }],
    };
    let good = "[package]\nversion.workspace = true\n[dependencies]\nserde.workspace = true\n";
    assert_eq!(check_members(&file(good)), vec![]);
    let bad = "[dev-dependencies]\nserde = \"1\"\n[lints]\nworkspace = true\n";
    assert_eq!(check_members(&file(bad)).len(), 1);
    assert_eq!(check_lock(&file("")).len(), 1);
}

#[test]
fn a_feature_is_found() {
    let package = Package {
        name: "trefoil-raft".to_owned(),
        folder: String::new(),
        dependencies: Vec::new(),
        features: vec!["simulation".to_owned()],
    };
    assert_eq!(check_features(&[package]).len(), 1);
}

#[test]
fn an_unused_dependency_is_found() {
    let file = |path: &str, text: &str| crate::tree::SourceFile {
        path: path.to_owned(),
        text: text.to_owned(),
    };
    let manifest = "[workspace.dependencies]\nserde = \"1\"\nsnap = \"1\"\n";
    let tree = Tree {
        files: vec![
            file("Cargo.toml", manifest),
            file("raft/src/lib.rs", "use serde::Serialize;"),
        ],
    };
    let package = |dependency: &str| Package {
        name: "trefoil-raft".to_owned(),
        folder: "raft/".to_owned(),
        dependencies: vec![("serde".to_owned(), None), (dependency.to_owned(), None)],
        features: Vec::new(),
    };
    assert_eq!(check_unused(&tree, &[package("serde")]).len(), 1);
    assert_eq!(check_unused(&tree, &[package("snap")]).len(), 1);
}
