//! The house rules: what a reader may rely on everywhere in this tree, checked rather than asked for.
//!
//! Every rule reads the tree (and `cargo metadata`) and returns findings: a place, and what to do
//! instead. A rule is a function from text to findings, so that each has a test that must fail on a
//! bad example; a rule that cannot fail protects nothing.
//!
//! What is not checked here: behaviour. That is the business of the other tests.

mod documents;
mod layers;
mod names;
mod purity;
mod rust_text;
mod shape;
mod supply;
mod tree;
mod versions;

use std::fmt::Write as _;
use tree::Tree;

/// One breach of a rule: where, and what to do instead.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// Path inside the project, with `:line` where there is one.
    pub(crate) place: String,
    /// What was found and what to do instead, as one sentence or two.
    pub(crate) instead: String,
}

impl Finding {
    pub(crate) fn new(place: impl Into<String>, instead: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            instead: instead.into(),
        }
    }
}

/// Fails with every finding, sorted, when there is one.
#[track_caller]
fn check(rule: &str, mut findings: Vec<Finding>) {
    findings.sort();
    findings.dedup();
    let mut report = String::new();
    for finding in &findings {
        let _infallible = writeln!(report, "  {}: {}", finding.place, finding.instead);
    }
    assert!(
        findings.is_empty(),
        "{} breaches of the rule \"{rule}\":\n{report}",
        findings.len()
    );
}

#[test]
fn crates_import_only_what_lies_below_them() {
    check("imports point downward", layers::check(&tree::packages()));
}

#[test]
fn decisions_know_no_clock_socket_or_task() {
    let tree = Tree::read();
    let mut findings = purity::check_sources(&tree);
    findings.extend(purity::check_dependencies(&tree::packages()));
    check("decisions are pure", findings);
}

#[test]
fn names_say_what_a_thing_is() {
    let mut findings = names::check_modules(&Tree::read());
    findings.extend(names::check_crates(&tree::packages()));
    check("no crate or module without a meaning of its own", findings);
}

#[test]
fn files_fit_in_a_reader() {
    check(
        "a file has at most 800 lines",
        shape::check_length(&Tree::read()),
    );
}

#[test]
fn files_open_with_their_purpose() {
    check("a file opens with //!", shape::check_head(&Tree::read()));
}

#[test]
fn tests_always_run() {
    check("no test is ignored", shape::check_ignored(&Tree::read()));
}

#[test]
fn text_is_plain() {
    check(
        "ASCII and drawing characters",
        shape::check_characters(&Tree::read()),
    );
}

#[test]
fn the_tree_knows_no_machine() {
    check(
        "no paths of one machine",
        shape::check_machine_paths(&Tree::read()),
    );
}

#[test]
fn versions_stand_in_the_root_manifest() {
    let mut findings = versions::check_members(&Tree::read());
    findings.extend(versions::check_lock(&Tree::read()));
    check("versions stand in the root manifest", findings);
}

#[test]
fn dependencies_are_used() {
    let findings = versions::check_unused(&Tree::read(), &tree::packages());
    check("no unused dependency", findings);
}

#[test]
fn crates_have_no_features() {
    check(
        "no cargo features",
        versions::check_features(&tree::packages()),
    );
}

#[test]
fn outside_crates_are_ones_that_may_enter() {
    check(
        "licences and bans of deny.toml",
        supply::check(&Tree::read()),
    );
}

#[test]
fn every_dependency_is_explained() {
    check(
        "every dependency has its line",
        documents::check_dependencies(&Tree::read()),
    );
}

#[test]
fn every_format_is_pinned() {
    check(
        "every format has a golden test",
        documents::check_formats(&Tree::read()),
    );
}

#[test]
fn links_between_documents_lead_somewhere() {
    check(
        "relative links lead to files",
        documents::check_links(&Tree::read()),
    );
}
