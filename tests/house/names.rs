//! A crate or module is named for what it holds. Some names hold whatever nobody could place.

use crate::{
    Finding,
    tree::{Package, Tree},
};

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 11] = [
    "base", "common", "commons", "core", "helper", "helpers", "manager", "misc", "shared", "util",
    "utils",
];

const INSTEAD: &str = "says nothing about what is inside: name the noun or the step of the protocol \
                       that it holds, or move its parts to where they are used.";

/// Findings for files and folders of Rust code with an empty name.
pub(crate) fn check_modules(tree: &Tree) -> Vec<Finding> {
    tree.rust()
        .filter(|file| file.path.split('/').any(is_empty_name))
        .map(|file| Finding::new(&file.path, INSTEAD))
        .collect()
}

/// Findings for crates with an empty name.
pub(crate) fn check_crates(packages: &[Package]) -> Vec<Finding> {
    packages
        .iter()
        .filter(|package| package.name.split('-').any(is_empty_name))
        .map(|package| Finding::new(&package.name, INSTEAD))
        .collect()
}

/// `common`, `common.rs`, `disk_helpers.rs` and `manager_state` are empty; `commonality` is not.
fn is_empty_name(part: &str) -> bool {
    let stem = part.strip_suffix(".rs").unwrap_or(part);
    stem.split('_').any(|word| EMPTY_NAMES.contains(&word))
}

#[test]
fn empty_names_are_found() {
    for bad in [
        "util.rs",
        "core",
        "test_helpers.rs",
        "block_manager",
        "misc",
    ] {
        assert!(is_empty_name(bad), "{bad}");
    }
    for good in [
        "model",
        "barrier.rs",
        "database.rs",
        "score.rs",
        "commonality",
    ] {
        assert!(!is_empty_name(good), "{good}");
    }
}
