//! Pending deletions as the store applies them. Each selector is compiled once and kept until its deletion is forgotten:
//! they are asked for whenever anything changes in the metadata plane.
//!
//! A deletion that this program cannot read ends what it knows of the tenant. It claims none from there on and stamps none
//! on writes, so that they stay acceptable to owners that cannot read it either.

use crate::query::storage::engine_matchers;
use std::{collections::BTreeMap, sync::Arc};
use trefoil_model::{DeletionVersion, Signal, TenantId};
use trefoil_query_promql::{QueryError, parse_selector};
use trefoil_raft::{Deletion as Fact, State, state::limits::SELECTOR_BYTES_MAX};
use trefoil_store_metrics::{Deletion, Matcher};

/// By tenant: the newest deletion up to which this program can apply all, and those that are not forgotten.
pub(crate) type Known = Vec<(TenantId, DeletionVersion, Vec<Deletion>)>;

/// The compiled selectors of pending deletions; as many as the metadata plane has. None: it cannot be read.
#[derive(Default)]
pub(crate) struct KnownDeletions(BTreeMap<(TenantId, DeletionVersion), Option<Vec<Matcher>>>);

impl KnownDeletions {
    /// What a state says, for each of its tenants.
    pub(crate) fn of(&mut self, state: &State) -> Known {
        let mut before = std::mem::take(&mut self.0);
        let tenants = state.tenants().map(|tenant| {
            let facts = state.deletions(tenant.id);
            let newest = tenant.deletions_newest;
            let (newest, pending) = self.of_tenant(&mut before, newest, facts);
            (tenant.id, newest, pending)
        });
        tenants.collect()
    }

    fn of_tenant<'a>(
        &mut self,
        before: &mut BTreeMap<(TenantId, DeletionVersion), Option<Vec<Matcher>>>,
        newest: DeletionVersion,
        facts: impl Iterator<Item = &'a Arc<Fact>>,
    ) -> (DeletionVersion, Vec<Deletion>) {
        let mut readable = Vec::new();
        for fact in facts.filter(|fact| fact.signal == Signal::Metrics) {
            let key = (fact.tenant, fact.version);
            let compiled = before.remove(&key);
            let compiled = compiled.unwrap_or_else(|| compile_fact(&fact.selector));
            self.0.insert(key, compiled.clone());
            let Some(matchers) = compiled else {
                return (DeletionVersion(fact.version.0.saturating_sub(1)), readable);
            };
            readable.push(Deletion {
                version: fact.version,
                matchers,
                range: fact.range,
            });
        }
        (newest, readable)
    }
}

fn compile_fact(selector: &str) -> Option<Vec<Matcher>> {
    let compiled = compile(selector);
    // It was compiled before it was proposed, so another program has written it.
    let report = |error: &QueryError| {
        tracing::error!(%error, selector, "a deletion cannot be read by this version");
    };
    compiled.inspect_err(report).ok()
}

/// The selector of a deletion, as the store applies it.
///
/// # Errors
/// [`QueryError::BadData`] and the parser's, when it is malformed, too long for the metadata plane, or too expensive for the
/// store.
pub(crate) fn compile(selector: &str) -> Result<Vec<Matcher>, QueryError> {
    if selector.len() > SELECTOR_BYTES_MAX {
        return Err(QueryError::BadData(format!(
            "the selector of a deletion has {} bytes, more than {SELECTOR_BYTES_MAX}",
            selector.len()
        )));
    }
    engine_matchers(&parse_selector(selector)?)
}

/// A selector that the parser takes and the store does not: compiled, it is larger than what one of them allows.
#[cfg(test)]
pub(super) fn expensive() -> String {
    let of_length = |times: u32| format!("{{a=~\"\\\\pL{{{times}}}\"}}");
    let mut all = (1..=20).map(|hundreds| of_length(100 * hundreds));
    let found = all.find(|selector| compile(selector).is_err());
    let found = found.filter(|selector| parse_selector(selector).is_ok());
    found.expect("the parser takes more than the store")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use trefoil_model::TimeRange;

    fn facts(selectors: &[&str]) -> Vec<Arc<Fact>> {
        let fact = |(index, selector): (usize, &&str)| {
            Arc::new(Fact {
                tenant: TenantId(1),
                version: DeletionVersion(index as u64 + 1),
                signal: Signal::Metrics,
                selector: (*selector).to_owned(),
                range: TimeRange { start: 0, end: 9 },
                confirmed: BTreeSet::new(),
            })
        };
        selectors.iter().enumerate().map(fact).collect()
    }

    #[test]
    fn a_deletion_that_cannot_be_read_ends_what_is_known() {
        for unreadable in [expensive().as_str(), "{a="] {
            let facts = facts(&["a", unreadable, "b"]);
            let mut known = KnownDeletions::default();
            for _ in 0..2 {
                let mut before = std::mem::take(&mut known.0);
                let newest = DeletionVersion(3);
                let (newest, pending) = known.of_tenant(&mut before, newest, facts.iter());
                assert_eq!((newest, pending.len()), (DeletionVersion(1), 1));
            }
        }
    }

    #[test]
    fn selectors_are_compiled_once_and_dropped_with_their_deletion() {
        let mut known = KnownDeletions::default();
        let newest = DeletionVersion(2);
        let first = facts(&["a", "b"]);
        let mut before = BTreeMap::new();
        known.of_tenant(&mut before, newest, first.iter());
        // The selector is not looked at again.
        let changed = facts(&["{a=", "{a="]);
        let mut before = std::mem::take(&mut known.0);
        let (newest, pending) = known.of_tenant(&mut before, newest, changed[1..].iter());
        assert_eq!((newest, pending.len()), (DeletionVersion(2), 1));
        assert_eq!(known.0.len(), 1);
    }

    #[test]
    fn what_no_store_can_apply_is_refused() {
        let long = format!("{{a=\"{}\"}}", "x".repeat(SELECTOR_BYTES_MAX));
        for selector in ["{a=", "", &long] {
            assert!(compile(selector).is_err(), "{} bytes", selector.len());
        }
        assert_eq!(compile("a{b=~\"c.*\"}").map(|m| m.len()).ok(), Some(2));
    }
}
