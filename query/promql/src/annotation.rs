//! Warnings and infos that accompany an answer, with Prometheus' texts and positions.

use crate::ast::Span;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// How serious an annotation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// The answer may be wrong or incomplete.
    Warning,
    /// The query is probably not what was meant.
    Info,
}

/// One remark about an answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Annotation {
    /// How serious it is.
    pub severity: Severity,
    /// Text without prefix and position.
    pub text: String,
    /// Where in the query it applies, if anywhere.
    pub span: Option<Span>,
}

/// A set of annotations, ordered by severity and text, so that merging in any order gives the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotations(BTreeSet<Annotation>);

impl Annotations {
    /// Most distinct annotations kept, warnings first, in the order of their texts.
    pub const COUNT_MAX: usize = 1_000;

    /// Adds a warning about the expression at `span`.
    pub fn warn(&mut self, span: Span, text: impl Into<String>) {
        self.add(Severity::Warning, Some(span), text.into());
    }

    /// Adds an info about the expression at `span`.
    pub fn info(&mut self, span: Span, text: impl Into<String>) {
        self.add(Severity::Info, Some(span), text.into());
    }

    /// Adds a warning that has nothing to do with the text, such as a partial answer.
    pub fn warn_about_answer(&mut self, text: impl Into<String>) {
        self.add(Severity::Warning, None, text.into());
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: Annotations) {
        for annotation in other.0 {
            self.insert(annotation);
        }
    }

    /// Whether all of `other` are among them.
    #[must_use]
    pub(crate) fn has_all(&self, other: &Annotations) -> bool {
        other.0.is_subset(&self.0)
    }

    /// The memory that they take, about.
    pub(crate) fn bytes(&self) -> usize {
        let texts = self.0.iter().map(|annotation| annotation.text.len());
        texts.sum::<usize>() + self.0.len() * size_of::<Annotation>()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The annotations, warnings first.
    pub fn iter(&self) -> impl Iterator<Item = &Annotation> {
        self.0.iter()
    }

    /// The texts of one severity as Prometheus' API shows them for the query `text`.
    #[must_use]
    pub fn texts(&self, severity: Severity, text: &str) -> Vec<String> {
        let of_severity = self.0.iter().filter(|a| a.severity == severity);
        of_severity.map(|a| a.shown(text)).collect()
    }

    fn add(&mut self, severity: Severity, span: Option<Span>, text: String) {
        self.insert(Annotation {
            severity,
            text,
            span,
        });
    }

    fn insert(&mut self, annotation: Annotation) {
        self.0.insert(annotation);
        // The last one goes, so that what stays does not depend on the order in which they came.
        if self.0.len() > Self::COUNT_MAX {
            self.0.pop_last();
        }
    }
}

impl Annotation {
    fn shown(&self, query: &str) -> String {
        let Some(span) = self.span else {
            return self.text.clone();
        };
        let kind = match self.severity {
            Severity::Warning => "warning",
            Severity::Info => "info",
        };
        format!("PromQL {kind}: {} ({})", self.text, span.position(query))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_positions() {
        let mut annotations = Annotations::default();
        annotations.warn(Span::new(4, 5), "odd");
        annotations.warn(Span::new(4, 5), "odd");
        annotations.warn_about_answer("shard 3 is missing");
        let shown = annotations.texts(Severity::Warning, "sum\nx");
        assert_eq!(shown, ["PromQL warning: odd (2:1)", "shard 3 is missing"]);
        assert!(annotations.texts(Severity::Info, "").is_empty());
    }
}
