//! One HTML file about a run: the verdict, a picture of operations and faults over time per node, the table, every
//! violation, and how to do it again.
//!
//! The file needs nothing from outside: style, picture (SVG) and a little script for hovering are in it. It works in
//! light and dark, and without the script everything but the hovering is there. What it costs does not grow with
//! the operations: they are counted in [`bins`], of which a picture has at most [`bins::BINS_MAX`] per lane.

mod bins;
mod page;
mod picture;

use crate::{checker::Verdict, history::History};
use anyhow::Context;
use std::path::Path;

/// Writes the report of a history and its verdict.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, history: &History, verdict: &Verdict) -> anyhow::Result<()> {
    let page = render(history, verdict);
    std::fs::write(path, page).with_context(|| format!("write {}", path.display()))
}

/// The whole page.
#[must_use]
pub fn render(history: &History, verdict: &Verdict) -> String {
    page::render(history, verdict)
}

/// Text as HTML shows it, in elements and in quoted attributes.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests;
