//! Pending deletions as the store applies them. Each selector is compiled once and kept until its deletion is forgotten:
//! they are asked for whenever anything changes in the metadata plane.
//!
//! A deletion that this program cannot read ends what it knows of the tenant. It claims none from there on and stamps none
//! on writes, so that they stay acceptable to owners that cannot read it either.

use super::Cluster;
use crate::query::storage::engine_matchers;
use std::{collections::BTreeMap, sync::Arc};
use trefoil_model::{DeletionVersion, Signal, TenantId};
use trefoil_query_promql::{QueryError, parse_selector};
use trefoil_raft::{Deletion as Fact, State, state::limits::SELECTOR_BYTES_MAX};
use trefoil_store_metrics::{Deletion, Matcher};

/// By tenant: the newest deletion up to which this program can apply all, and those that are not forgotten.
pub(crate) type Known = Vec<(TenantId, DeletionVersion, Vec<Deletion>)>;

/// What deletions that came after an item was taken from its client say of it.
pub(crate) enum Since {
    /// Stamped with this version, what these do not erase may be stored.
    Known(DeletionVersion, Vec<Deletion>),
    /// One is forgotten already, so nobody can tell what it erases.
    Forgotten,
}

impl Cluster {
    /// The deletions of a tenant behind a version that this node knows.
    pub(crate) fn deletions_since(&self, tenant: TenantId, version: DeletionVersion) -> Since {
        // The state is as new as what the store knows, or newer: what is forgotten in between is told by it.
        let newest = self.newest_deletion(tenant);
        let state = self.metadata.state();
        let forgotten = state.tenant(tenant).map(|fact| fact.deletions_forgotten);
        let facts = state.deletions(tenant);
        since(version, newest, forgotten.unwrap_or_default(), facts)
    }
}

fn since<'a>(
    version: DeletionVersion,
    newest: DeletionVersion,
    forgotten: DeletionVersion,
    facts: impl Iterator<Item = &'a Arc<Fact>>,
) -> Since {
    if newest <= version {
        return Since::Known(version, Vec::new());
    }
    if forgotten > version {
        return Since::Forgotten;
    }
    let mut erasing = Vec::new();
    let behind = |fact: &&Arc<Fact>| fact.version > version && fact.version <= newest;
    for fact in facts.filter(behind) {
        // The newest one is known to the store, so all can be read.
        let Some(matchers) = compile_fact(&fact.selector) else {
            return Since::Forgotten;
        };
        erasing.push(Deletion {
            version: fact.version,
            matchers,
            range: fact.range,
        });
    }
    Since::Known(newest, erasing)
}

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
    fn what_erases_an_item_that_waited_is_known_or_forgotten() {
        let facts = facts(&["a", "b", "{a="]);
        let since = |version, newest, forgotten| {
            let [version, newest, forgotten] = [version, newest, forgotten].map(DeletionVersion);
            match since(version, newest, forgotten, facts.iter()) {
                Since::Known(stamp, erasing) => {
                    Some((stamp.0, erasing.iter().map(|one| one.version.0).collect()))
                }
                Since::Forgotten => None,
            }
        };
        assert_eq!(since(0, 2, 0), Some((2, vec![1, 2])));
        assert_eq!(since(1, 2, 1), Some((2, vec![2])));
        assert_eq!(since(2, 2, 2), Some((2, vec![])));
        assert_eq!(since(0, 2, 1), None);
        assert_eq!(since(1, 3, 0), None, "one cannot be read");
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
