//! Versions stand in the root manifest, features nowhere, and the lock file names one registry.

use crate::{
    Finding,
    tree::{Package, Tree},
};

/// Findings for members that give a dependency a version or a source of their own.
pub(crate) fn check_members(tree: &Tree) -> Vec<Finding> {
    let manifests = tree
        .files
        .iter()
        .filter(|file| file.path.ends_with("/Cargo.toml"));
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
        dependencies: Vec::new(),
        features: vec!["simulation".to_owned()],
    };
    assert_eq!(check_features(&[package]).len(), 1);
}
