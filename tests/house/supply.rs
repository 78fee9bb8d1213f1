//! What `deny.toml` says about licences and banned crates, held against the crates that this machine
//! builds. `cargo deny check` does the same and more (advisories), where it is installed.

use crate::{
    Finding,
    tree::{Tree, root},
};
use std::process::Command;

/// Findings for built crates that `deny.toml` bans or whose licence it does not allow.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let Some(policy) = tree.file("deny.toml") else {
        return vec![Finding::new(
            "deny.toml",
            "is missing: it says what may enter the build.",
        )];
    };
    breaches(&policy.text, &built_crates())
}

/// Name and licence expression of every crate of the build.
fn built_crates() -> Vec<(String, String)> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args([
            "tree",
            "--workspace",
            "--offline",
            "--edges",
            "all",
            "--prefix",
            "none",
        ])
        .args(["--format", "{p}|{l}"])
        .current_dir(root())
        .output()
        .expect("start cargo tree");
    assert!(
        output.status.success(),
        "cargo tree failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .filter_map(|line| {
            let (package, licence) = line.trim_end_matches(" (*)").split_once('|')?;
            let name = package.split(' ').next()?;
            Some((name.to_owned(), licence.to_owned()))
        })
        .collect()
}

fn breaches(policy: &str, crates: &[(String, String)]) -> Vec<Finding> {
    let banned = values_in(policy, "[bans]", "crate = \"");
    let allowed = values_in(policy, "allow = [", "    \"");
    let exceptions: Vec<&str> = section(policy, "exceptions = [")
        .lines()
        .filter(|line| line.contains("crate = \""))
        .collect();
    let mut findings = Vec::new();
    for (name, licence) in crates {
        // "MPL-2.0+" is met by MPL-2.0.
        let licence = licence.trim_end_matches('+');
        if banned.contains(&name.as_str()) {
            let instead = format!("{name} is banned in deny.toml, where the reason stands.");
            findings.push(Finding::new("Cargo.lock", instead));
        }
        let excepted = exceptions
            .iter()
            .any(|line| line.contains(&format!("\"{name}\"")) && line.contains(licence));
        if !excepted && !is_allowed(licence, &allowed) {
            let instead = format!(
                "{name} has the licence \"{licence}\", which deny.toml does not allow: choose another \
                 crate, or add an exception with its reason."
            );
            findings.push(Finding::new("Cargo.lock", instead));
        }
    }
    findings
}

/// The part of the policy from the line that is `head` to the line that closes it.
fn section<'a>(policy: &'a str, head: &str) -> &'a str {
    let Some(start) = policy.find(&format!("\n{head}\n")) else {
        return "";
    };
    let rest = &policy[start + head.len() + 2..];
    let end = if head.starts_with('[') { "\n[" } else { "\n]" };
    &rest[..rest.find(end).unwrap_or(rest.len())]
}

/// What stands in quotes behind `before` in the lines of a section.
fn values_in<'a>(policy: &'a str, head: &str, before: &str) -> Vec<&'a str> {
    section(policy, head)
        .lines()
        .filter_map(|line| line.split_once(before)?.1.split('"').next())
        .collect()
}

/// Whether an SPDX expression can be met with the allowed licences: OR of ANDs, with brackets. The
/// slash of old manifests is OR.
fn is_allowed(expression: &str, allowed: &[&str]) -> bool {
    let expression = expression.replace('/', " OR ");
    let choices = split_outside(&expression, " OR ");
    choices.iter().any(|choice| {
        split_outside(choice, " AND ").iter().all(|part| {
            let part = part.trim();
            match part.strip_prefix('(').and_then(|p| p.strip_suffix(')')) {
                Some(inner) => is_allowed(inner, allowed),
                None => allowed.contains(&part),
            }
        })
    })
}

/// Splits at `word` outside of brackets.
fn split_outside<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    let mut parts = Vec::new();
    let (mut start, mut depth) = (0, 0usize);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ if depth == 0 && at >= start && text[at..].starts_with(word) => {
                parts.push(&text[start..at]);
                start = at + word.len();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[test]
fn a_banned_crate_and_an_unknown_licence_are_found() {
    let policy = "\n[licenses]\nallow = [\n    \"MIT\",\n    \"Zlib\",\n]\nexceptions = [\n    { crate = \
                  \"foca\", allow = [\"MPL-2.0\"] },\n]\n[bans]\ndeny = [\n    { crate = \"openssl\" },\n]\n";
    let built = |name: &str, licence: &str| vec![(name.to_owned(), licence.to_owned())];
    assert_eq!(breaches(policy, &built("a", "MIT")), vec![]);
    assert_eq!(breaches(policy, &built("foca", "MPL-2.0")), vec![]);
    assert_eq!(breaches(policy, &built("other", "MPL-2.0")).len(), 1);
    assert_eq!(breaches(policy, &built("openssl", "MIT")).len(), 1);
    assert_eq!(breaches(policy, &built("nameless", "")).len(), 1);
}

#[test]
fn licence_expressions_are_understood() {
    let allowed = ["MIT", "Unicode-3.0"];
    assert!(is_allowed("GPL-3.0 OR MIT", &allowed));
    assert!(is_allowed("MIT/Apache-2.0", &allowed));
    assert!(is_allowed("(MIT OR Apache-2.0) AND Unicode-3.0", &allowed));
    assert!(!is_allowed("MIT AND BSD-3-Clause", &allowed));
    assert!(!is_allowed("(GPL-3.0 OR Apache-2.0) AND MIT", &allowed));
}
