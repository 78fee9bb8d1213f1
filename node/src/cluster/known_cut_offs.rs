//! The cut-offs of selectors as the store applies them. Each selector is compiled once and kept while it has a cut-off.
//!
//! One that this program cannot read hides nothing here. Replicas of which one reads it and the other does not differ, so it
//! is part of what makes their states comparable.

use super::known_deletions::compile;
use std::{collections::BTreeMap, sync::Arc};
use trefoil_model::{Signal, TenantId};
use trefoil_raft::State;
use trefoil_store_metrics::{Matcher, SelectedCutOff};

/// The compiled selectors of cut-offs; as many as the metadata plane has. None: it cannot be read.
#[derive(Default)]
pub(crate) struct KnownCutOffs(BTreeMap<Arc<str>, Option<Vec<Matcher>>>);

/// By tenant, the cut-offs of its selectors.
#[derive(Default)]
pub(crate) struct Selected {
    /// All tenants: where a selector's cut-off is forgotten, the store forgets it, too.
    pub(crate) by_tenant: Vec<(TenantId, Vec<SelectedCutOff>)>,
    /// How many cannot be read.
    pub(crate) unreadable: usize,
}

impl KnownCutOffs {
    /// What a state says.
    pub(crate) fn of(&mut self, state: &State) -> Selected {
        let before = std::mem::take(&mut self.0);
        let mut selected = Selected::default();
        for tenant in state.tenants() {
            let cut_offs = tenant.cut_offs.iter();
            let cut_offs =
                cut_offs.filter(|c| c.signal == Signal::Metrics && !c.selector.is_empty());
            let mut readable = Vec::new();
            for cut_off in cut_offs {
                let selector: Arc<str> = cut_off.selector.as_str().into();
                let known = before.get(&selector).or_else(|| self.0.get(&selector));
                let compiled = known.cloned().unwrap_or_else(|| compile_rule(&selector));
                self.0.insert(Arc::clone(&selector), compiled.clone());
                match compiled {
                    Some(matchers) => readable.push(SelectedCutOff {
                        selector,
                        matchers,
                        before: cut_off.before,
                    }),
                    None => selected.unreadable += 1,
                }
            }
            selected.by_tenant.push((tenant.id, readable));
        }
        selected
    }
}

fn compile_rule(selector: &str) -> Option<Vec<Matcher>> {
    // It was compiled before it was recorded, so another program has written it.
    let report = |error: &trefoil_query_promql::QueryError| {
        tracing::error!(%error, selector, "a selector with a retention of its own cannot be read by this version");
    };
    compile(selector).inspect_err(report).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_counted_and_looked_at_once() {
        let mut known = KnownCutOffs::default();
        for selector in ["{a=\"b\"}", "{a="] {
            known.0.insert(selector.into(), compile_rule(selector));
        }
        let readable = known.0.values().filter(|compiled| compiled.is_some());
        assert_eq!((readable.count(), known.0.len()), (1, 2));
        // A state without cut-offs forgets all of them.
        let selected = known.of(&State::default());
        assert_eq!((selected.by_tenant.len(), selected.unreadable), (0, 0));
        assert!(known.0.is_empty());
    }
}
