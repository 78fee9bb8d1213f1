//! The shape of a file: its length, its first lines, its characters, and what it may not contain.

use crate::{
    Finding, rust_text,
    tree::{SourceFile, Tree},
};

/// Lines that a Rust file has at most, tests included.
const LINES_MAX: usize = 800;

/// Files that were longer when the rule came, with the length they had. The list may only shrink:
/// a shorter file must lower its number or leave.
const LONG_FILES: [(&str, usize); 0] = [];

/// Findings for files over the limit, and for exceptions that are no longer needed.
pub(crate) fn check_length(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let lines = file.text.lines().count();
        let exception = LONG_FILES.iter().find(|(path, _)| *path == file.path);
        let limit = exception.map_or(LINES_MAX, |(_, length)| *length);
        if lines > limit {
            let instead = format!(
                "{lines} lines, more than {limit}: split it by noun or by step; tests of more than \
                 200 lines move to a tests.rs of their own."
            );
            findings.push(Finding::new(&file.path, instead));
        } else if exception.is_some() && lines < limit {
            let instead = format!("now has {lines} lines: lower or remove it in LONG_FILES.");
            findings.push(Finding::new(&file.path, instead));
        }
    }
    for (path, _) in LONG_FILES {
        if tree.file(path).is_none() {
            findings.push(Finding::new(path, "is gone: remove it from LONG_FILES."));
        }
    }
    findings
}

/// Findings for Rust files that do not begin with an inner doc comment.
pub(crate) fn check_head(tree: &Tree) -> Vec<Finding> {
    tree.rust()
        .filter(|file| !file.text.starts_with("//!"))
        .map(|file| {
            let instead = "open the file with //!: its purpose, its invariants, what happens at a \
                           crash, what it does not do.";
            Finding::new(&file.path, instead)
        })
        .collect()
}

/// Findings for tests that are switched off.
pub(crate) fn check_ignored(tree: &Tree) -> Vec<Finding> {
    let marker = concat!("#[ign", "ore");
    lines_where(tree.rust(), |line| line.contains(marker))
        .map(|place| {
            let instead = "a test that does not run proves nothing: assert what happens today and say \
                           why, shorten it, or delete it.";
            Finding::new(place, instead)
        })
        .collect()
}

/// Places (`path:line`) of the code lines, literals blanked, for which `matches` holds.
fn lines_where<'a>(
    files: impl Iterator<Item = &'a SourceFile>,
    matches: impl Fn(&str) -> bool,
) -> impl Iterator<Item = String> {
    let mut places = Vec::new();
    for file in files {
        for (number, line) in rust_text::code_only(&file.text).lines().enumerate() {
            if matches(line) {
                places.push(format!("{}:{}", file.path, number + 1));
            }
        }
    }
    places.into_iter()
}

/// Findings for characters that an editor or a terminal may show wrongly or alike: outside ASCII
/// only arrows and drawing characters are allowed in code, comments and documents. String
/// literals may hold anything, because data does.
pub(crate) fn check_characters(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        let rust = file.path.ends_with(".rs");
        if !rust && !file.path.ends_with(".md") {
            continue;
        }
        for (number, line) in file.text.lines().enumerate() {
            if let Some(odd) = line.chars().find(|c| !is_plain(*c))
                && !(rust && quoted(line, odd))
            {
                let instead = format!("`{odd}` (U+{:04X}): write it in ASCII.", u32::from(odd));
                findings.push(Finding::new(
                    format!("{}:{}", file.path, number + 1),
                    instead,
                ));
            }
        }
    }
    findings
}

/// ASCII, arrows, box drawing and block elements.
fn is_plain(c: char) -> bool {
    c.is_ascii() || matches!(c, '\u{2190}'..='\u{21ff}' | '\u{2500}'..='\u{259f}')
}

/// Whether every appearance of `c` in the line stands behind a quotation mark and not in a comment.
fn quoted(line: &str, c: char) -> bool {
    let before = line.split(c).next().unwrap_or_default();
    let comment = line.trim_start().starts_with("//");
    !comment && (before.contains('"') || before.contains('\'') || line.trim_end().ends_with('\\'))
}

/// Findings for paths that exist on one machine only.
pub(crate) fn check_machine_paths(tree: &Tree) -> Vec<Finding> {
    // Cut in two, so that this file does not find itself.
    let paths = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("/Use", "rs/"),
    ];
    let mut findings = Vec::new();
    for file in &tree.files {
        for (number, line) in file.text.lines().enumerate() {
            if let Some(path) = paths.iter().find(|path| names_path(line, path)) {
                let instead = format!(
                    "names {path}, which only one machine has: use a relative path, \
                                       a setting or a temporary directory."
                );
                findings.push(Finding::new(
                    format!("{}:{}", file.path, number + 1),
                    instead,
                ));
            }
        }
    }
    findings
}

/// Whether the line holds `path` as the beginning of an absolute path.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_ascii_alphanumeric() || "._-}>".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(path: &str, text: &str) -> Tree {
        Tree {
            files: vec![SourceFile {
                path: path.to_owned(),
                text: text.to_owned(),
            }],
        }
    }

    #[test]
    fn a_long_file_is_found() {
        assert_eq!(
            check_length(&tree("a.rs", &"x\n".repeat(LINES_MAX))),
            vec![]
        );
        assert_eq!(
            check_length(&tree("a.rs", &"x\n".repeat(LINES_MAX + 1))).len(),
            1
        );
    }

    #[test]
    fn a_file_without_a_head_is_found() {
        assert_eq!(check_head(&tree("a.rs", "//! Why.\n")), vec![]);
        assert_eq!(check_head(&tree("a.rs", "use std::fs;\n")).len(), 1);
    }

    #[test]
    fn an_ignored_test_is_found() {
        let text = concat!("#[ign", "ore = \"slow\"]\nfn a() {}\n");
        assert_eq!(check_ignored(&tree("a.rs", text)).len(), 1);
        assert_eq!(check_ignored(&tree("a.rs", "// #[never]\n")), vec![]);
    }

    #[test]
    fn an_odd_character_is_found() {
        assert_eq!(
            check_characters(&tree("a.md", "a \u{2192} b \u{2502}\n")),
            vec![]
        );
        assert_eq!(check_characters(&tree("a.md", "a \u{2014} b\n")).len(), 1);
        assert_eq!(check_characters(&tree("a.rs", "// a \u{00a0}b\n")).len(), 1);
        assert_eq!(
            check_characters(&tree("a.rs", "let a = \"\u{00e9}\";\n")),
            vec![]
        );
    }

    #[test]
    fn a_machine_path_is_found() {
        let absolute = concat!("cd /wo", "rk/project");
        let inside = concat!("docs/wo", "rk/project");
        assert_eq!(check_machine_paths(&tree("a.sh", absolute)).len(), 1);
        assert_eq!(check_machine_paths(&tree("a.sh", inside)), vec![]);
    }
}
