//! Documents that must keep step with the code: dependencies, formats, and links between pages.

use crate::{
    Finding,
    tree::{Tree, root},
    versions::declared_dependencies,
};
use std::{collections::BTreeSet, path::Path};

const DEPENDENCIES: &str = "docs/dependencies.md";
const FORMATS: &str = "docs/formats/";

/// Findings for dependencies without a line, lines without a dependency, and lines out of order.
pub(crate) fn check_dependencies(tree: &Tree) -> Vec<Finding> {
    let manifest = tree.file("Cargo.toml").map_or("", |file| &file.text);
    let page = tree.file(DEPENDENCIES).map_or("", |file| &file.text);
    compare_dependencies(manifest, page)
}

fn compare_dependencies(manifest: &str, page: &str) -> Vec<Finding> {
    let outside = |name: &&str| !name.starts_with("trefoil-");
    let declared: BTreeSet<&str> = declared_dependencies(manifest)
        .into_iter()
        .filter(outside)
        .collect();
    let explained: Vec<&str> = page.lines().filter_map(explained_dependency).collect();
    let known: BTreeSet<&str> = explained.iter().copied().collect();
    let mut findings = Vec::new();
    for name in declared.difference(&known) {
        let instead = format!("add \"- `{name}`: what it is for\", or remove the dependency.");
        findings.push(Finding::new(DEPENDENCIES, instead));
    }
    for name in known.difference(&declared) {
        let instead = format!("`{name}` is not in the root manifest: remove its line.");
        findings.push(Finding::new(DEPENDENCIES, instead));
    }
    for pair in explained.windows(2) {
        if pair[0] >= pair[1] {
            let instead = format!("`{}` stands before `{}`: sort by name.", pair[0], pair[1]);
            findings.push(Finding::new(DEPENDENCIES, instead));
        }
    }
    findings
}

/// The name that a line "- `name`: sentence" explains.
fn explained_dependency(line: &str) -> Option<&str> {
    let (name, sentence) = line.strip_prefix("- `")?.split_once("`: ")?;
    (sentence.len() >= 10).then_some(name)
}

/// Findings for format pages that no golden test names.
pub(crate) fn check_formats(tree: &Tree) -> Vec<Finding> {
    let pages = tree
        .files
        .iter()
        .filter(|f| f.path.starts_with(FORMATS) && f.path.ends_with(".md"));
    pages
        .filter(|page| !page.path.ends_with("/README.md"))
        .filter(|page| {
            let pinned = |text: &str| text.contains(&page.path) && has_golden_test(text);
            !tree.rust().any(|file| pinned(&file.text))
        })
        .map(|page| {
            let instead = format!(
                "no golden test names it: add a test with `golden` in its name that compares exact \
                 bytes, and name {} in the same file.",
                page.path
            );
            Finding::new(&page.path, instead)
        })
        .collect()
}

/// Whether a file holds or names golden bytes: a test with that word in its name, or a file of them.
fn has_golden_test(text: &str) -> bool {
    text.lines()
        .map(str::trim_start)
        .filter(|line| !line.starts_with("//"))
        .any(|line| line.contains("golden"))
}

/// Findings for relative links in documents that lead nowhere.
pub(crate) fn check_links(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for page in tree.files.iter().filter(|f| f.path.ends_with(".md")) {
        let folder = root().join(&page.path);
        let folder = folder.parent().unwrap_or(Path::new(""));
        for target in relative_links(&page.text) {
            if !folder.join(target).exists() {
                let instead = format!("links to {target}, which does not exist: correct the link.");
                findings.push(Finding::new(&page.path, instead));
            }
        }
    }
    findings
}

/// The targets of `[text](target)` that are paths, without their `#` parts.
fn relative_links(text: &str) -> Vec<&str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
        .map(|target| target.split('#').next().unwrap_or_default())
        .filter(|target| !target.is_empty() && !target.contains(':') && !target.contains(' '))
        .collect()
}

#[test]
fn a_dependency_without_a_line_is_found() {
    let manifest = "[workspace.dependencies]\ntrefoil-api = { path = \"api\" }\nsnap = \"1.1\"\n\
                    zstd = \"0.13\"\n[profile.dev]\nsled = 1\n";
    let page = "- `snap`: snappy for remote write.\n- `zstd`: compression of blocks.\n";
    assert_eq!(compare_dependencies(manifest, page), vec![]);
    assert_eq!(
        compare_dependencies(manifest, "- `snap`: snappy for it.\n").len(),
        1
    );
    let extra = "- `sled`: rebuildable state.\n- `snap`: snappy for it.\n- `zstd`: compression.\n";
    assert_eq!(compare_dependencies(manifest, extra).len(), 1);
    let unsorted = "- `zstd`: compression of blocks.\n- `snap`: snappy for remote write.\n";
    assert_eq!(compare_dependencies(manifest, unsorted).len(), 1);
}

#[test]
fn links_are_read_from_text() {
    let text = "[a](b.md#c) and [d](https://example.org) and [e](#f) and [g](../h.md)";
    assert_eq!(relative_links(text), vec!["b.md", "../h.md"]);
}

#[test]
fn a_golden_test_is_known_by_its_name() {
    assert!(has_golden_test("    fn golden_page() {"));
    assert!(!has_golden_test("// the golden page"));
}
