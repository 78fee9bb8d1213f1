//! How long the metrics of single tenants are kept, and the series of single selectors of theirs.
//!
//! One value of the metadata plane for each tenant that has any of it. A tenant's own time takes the place of the cluster's,
//! shorter or longer. A selector only shortens: of all that fit a series, and the tenant's, the shortest time counts, so their
//! order means nothing. What counts for data are the cut-offs that follow from the times: they only advance, so that what
//! a rule has hidden stays gone when the rule goes.

use super::{
    Cluster,
    admin::refused,
    known_deletions::compile,
    retention::{HOURS_MAX, Retention},
};
use crate::formats;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};
use trefoil_api::{ApiError, TenantName, admin};
use trefoil_model::LABEL_NAME_METRIC;
use trefoil_query_promql::{MatchOp, Matcher, normal_selector, parse_selector};
use trefoil_raft::{Change, Command, Condition, State, Tenant, state::limits::CUT_OFFS_MAX};

/// What the keys in the metadata plane begin with; the tenant's name follows. The value is [`TenantRetention`] as JSON.
const PREFIX: &str = "retention/metrics/";

/// What a tenant's metrics are kept by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TenantRetention {
    /// Hours, 0 for ever; none: as the cluster.
    hours: Option<u64>,
    /// Hours by selector; at least 1.
    selectors: BTreeMap<String, u64>,
}

impl TenantRetention {
    /// What is set for a tenant.
    fn of(state: &State, tenant: &str) -> Self {
        let found = state.value(&format!("{PREFIX}{tenant}"));
        found.map_or_else(Self::default, |value| Self::decode(&value.bytes))
    }

    /// What a newer program wrote in another form shortens nothing.
    fn decode(bytes: &[u8]) -> Self {
        Self::read(bytes).unwrap_or(Self {
            hours: Some(0),
            selectors: BTreeMap::new(),
        })
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// What is set for a tenant, to be changed, with the version of the value; 0: nothing is.
    ///
    /// # Errors
    /// [`ApiError::Conflict`] when a newer program wrote it in another form: to replace it would lose what it says.
    fn to_change(state: &State, tenant: &str) -> Result<(u64, Self), ApiError> {
        let Some(value) = state.value(&format!("{PREFIX}{tenant}")) else {
            return Ok((0, Self::default()));
        };
        let read = Self::read(&value.bytes);
        let read = read.map(|present| (value.version, present));
        read.ok_or_else(|| {
            ApiError::Conflict(format!(
                "another version of the program has set what tenant {tenant} keeps, which this one cannot read"
            ))
        })
    }

    fn describe(&self, tenant: &str) -> admin::TenantRetention {
        let selectors = self.selectors.iter();
        let selectors = selectors.map(|(selector, hours)| admin::SelectorRetention {
            selector: selector.clone(),
            hours: *hours,
        });
        admin::TenantRetention {
            tenant: tenant.to_owned(),
            hours: self.hours,
            selectors: selectors.collect(),
        }
    }

    /// The text by which a selector is known, or will be: that of a rule with the same matchers, else of a cut-off of a former
    /// one, else the selector in its normal form where that can be read.
    fn text_of(&self, selector: &str, tenant: Option<&Tenant>) -> String {
        let cut_offs = tenant.map_or(&[][..], |tenant| &tenant.cut_offs);
        let former = cut_offs.iter().map(|cut_off| &cut_off.selector);
        let former: Vec<&String> = former.filter(|text| !text.is_empty()).collect();
        for known in [self.selectors.keys().collect(), former] {
            if known.iter().any(|text| *text == selector) {
                return selector.to_owned();
            }
            let mut known = known.into_iter();
            if let Some(text) = known.find(|text| is_same_selector(text, selector)) {
                return text.clone();
            }
        }
        // The normal form may have an escape that a selector cannot have.
        let normal = normal_selector(selector).ok();
        let normal = normal.filter(|normal| parses_alike(normal, selector));
        normal.unwrap_or_else(|| selector.to_owned())
    }

    /// Changes one time; says what holds then.
    fn set(&mut self, selector: Option<&str>, hours: Option<u64>) -> Result<String, ApiError> {
        match (selector, hours) {
            (None, hours) => {
                self.hours = hours;
                Ok(match hours {
                    None => "all metrics: as long as the cluster says".to_owned(),
                    Some(0) => "all metrics: for ever".to_owned(),
                    Some(hours) => format!("all metrics: {hours} hours"),
                })
            }
            (Some(selector), None) => match self.selectors.remove(selector) {
                Some(_) => Ok(format!("{selector}: as all metrics of the tenant")),
                None => Err(ApiError::NotFound(format!(
                    "{selector} has no time of its own"
                ))),
            },
            (Some(_), Some(0)) => Err(ApiError::BadData(
                "a selector only shortens how long metrics are kept: give it at least 1 hour, or no hours to remove it"
                    .to_owned(),
            )),
            (Some(selector), Some(hours)) => {
                check_selector(selector)?;
                self.selectors.insert(selector.to_owned(), hours);
                Ok(format!("{selector}: {hours} hours"))
            }
        }
    }
}

/// Whether two selectors have the same matchers; texts that are no selectors are compared as they are.
pub(crate) fn is_same_selector(one: &str, other: &str) -> bool {
    match (normal_selector(one), normal_selector(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

/// Whether a selector can be read in its normal form, as the same matchers.
fn parses_alike(normal: &str, selector: &str) -> bool {
    let (Ok(normal), Ok(matchers)) = (parse_selector(normal), parse_selector(selector)) else {
        return false;
    };
    let has_all = |of: &[Matcher], all: &[Matcher]| of.iter().all(|one| all.contains(one));
    has_all(&normal, &matchers) && has_all(&matchers, &normal)
}

/// Whether a selector can have a time of its own.
///
/// # Errors
/// When it cannot be read, or selects everything.
pub(crate) fn check_selector(selector: &str) -> Result<(), ApiError> {
    let bad = |why: String| ApiError::BadData(format!("the selector {selector:?}: {why}"));
    compile(selector).map_err(|error| bad(error.to_string()))?;
    let matchers = parse_selector(selector).map_err(|error| bad(error.to_string()))?;
    match matchers.iter().all(fits_all) {
        true => Err(bad(
            "it selects everything; give the tenant this time".to_owned()
        )),
        false => Ok(()),
    }
}

/// Whether every series fits a matcher, as far as its text tells.
fn fits_all(matcher: &Matcher) -> bool {
    let is_name = matcher.name() == LABEL_NAME_METRIC;
    match (matcher.op(), matcher.value()) {
        (MatchOp::Regex, ".*") => true,
        (MatchOp::Regex, ".+") | (MatchOp::NotEqual, "") => is_name,
        _ => false,
    }
}

/// How long a tenant's metrics are kept at all; none before the first leader has recorded the cluster's time.
pub(super) fn of_tenant(state: &State, tenant: &str) -> Option<Retention> {
    let own = TenantRetention::of(state, tenant).hours.map(of_hours);
    own.or_else(|| Retention::of(state))
}

/// How long the series of a tenant's selectors are kept, by selector.
pub(super) fn of_selectors(state: &State, tenant: &str) -> Vec<(String, Retention)> {
    let own = TenantRetention::of(state, tenant).selectors.into_iter();
    own.map(|(selector, hours)| (selector, of_hours(hours)))
        .collect()
}

fn of_hours(hours: u64) -> Retention {
    Retention((hours > 0).then(|| Duration::from_secs(hours.min(HOURS_MAX) * 3600)))
}

/// Refuses a selector for which the tenant could have no cut-off: those of selectors that were removed stay until the
/// tenant's own has passed them.
fn check_room(tenant: Option<&Tenant>, wanted: &TenantRetention) -> Result<(), ApiError> {
    let present = tenant.map_or(&[][..], |tenant| &tenant.cut_offs);
    let others = present
        .iter()
        .filter(|cut_off| !wanted.selectors.contains_key(&cut_off.selector));
    match others.count() + wanted.selectors.len() < CUT_OFFS_MAX {
        true => Ok(()),
        false => Err(ApiError::Conflict(format!(
            "the tenant would have {CUT_OFFS_MAX} selectors with times of their own, former ones included"
        ))),
    }
}

impl Cluster {
    /// How long metrics are kept: everything that was acknowledged before this call.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] when no leader answers.
    pub(crate) async fn retention(&self) -> Result<admin::Retention, ApiError> {
        let state = self.metadata.read_linearizable().await.map_err(refused)?;
        let tenants = state.values_with_prefix(PREFIX);
        let tenants = tenants.map(|(key, value)| {
            let tenant = key.strip_prefix(PREFIX).unwrap_or(key);
            TenantRetention::decode(&value.bytes).describe(tenant)
        });
        Ok(admin::Retention {
            hours: Retention::of(&state).map(Retention::hours),
            tenants: tenants.collect(),
        })
    }

    /// Changes how long a tenant's metrics are kept, or those that a selector selects.
    ///
    /// # Errors
    /// [`ApiError::BadData`] for what cannot be a selector or a time, [`ApiError::NotFound`] when there is nothing to remove,
    /// [`ApiError::Conflict`] when another change came between, [`ApiError::Unavailable`] when it cannot be recorded now.
    pub(super) async fn set_tenant_retention(
        &self,
        tenant: &str,
        selector: Option<&str>,
        hours: Option<u64>,
    ) -> Result<admin::Accepted, ApiError> {
        let tenant = TenantName::new(tenant)?;
        let name = tenant.as_str();
        let state = self.metadata.read_linearizable().await.map_err(refused)?;
        if let Some(message) = formats::own_retention_refusal(&state) {
            let retry_after = Duration::from_secs(1);
            return Err(ApiError::Unavailable {
                message,
                retry_after,
            });
        }
        let (version, present) = TenantRetention::to_change(&state, name)?;
        let known = state.tenant_id(name).and_then(|id| state.tenant(id));
        let text = selector.map(|text| present.text_of(text, known.map(AsRef::as_ref)));
        let selector = text.as_deref();
        let mut wanted = present.clone();
        let holds = wanted.set(selector, hours)?;
        // What is there already can always be changed and removed.
        if hours.is_some() && selector.is_some_and(|one| !present.selectors.contains_key(one)) {
            check_room(known.map(AsRef::as_ref), &wanted)?;
        }
        let key = format!("{PREFIX}{name}");
        let condition = match version {
            0 => Condition::Absent { key: key.clone() },
            version => Condition::Version {
                key: key.clone(),
                version,
            },
        };
        let change = match wanted == TenantRetention::default() {
            true => Change::Delete { key },
            false => Change::Put {
                key,
                value: serde_json::to_vec(&wanted)
                    .map_err(|error| ApiError::Internal(error.to_string()))?,
            },
        };
        let command = Command::Write {
            conditions: vec![condition],
            changes: vec![change],
        };
        self.command(command).await?;
        Ok(admin::Accepted {
            message: format!(
                "tenant {name} keeps {holds}, from now on; older ones are removed for good"
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_model::{Signal, TenantId};

    #[test]
    fn times_are_set_and_removed() {
        let mut wanted = TenantRetention::default();
        let debug = "{job=\"debug\"}";
        assert!(wanted.set(Some(debug), Some(24)).is_ok());
        assert!(wanted.set(None, Some(100)).is_ok());
        let stored = serde_json::to_vec(&wanted).unwrap();
        assert_eq!(
            stored,
            br#"{"hours":100,"selectors":{"{job=\"debug\"}":24}}"#
        );
        assert_eq!(TenantRetention::decode(&stored), wanted);
        assert!(wanted.set(Some(debug), None).is_ok());
        assert!(wanted.set(None, None).is_ok());
        assert_eq!(wanted, TenantRetention::default());
        for (selector, hours, status) in [
            (debug, None, 404),
            (debug, Some(0), 400),
            ("{job=", Some(1), 400),
            ("{}", Some(1), 400),
            ("{job=~\".*\"}", Some(1), 400),
            ("{__name__=~\".+\",job=~\".*\"}", Some(1), 400),
        ] {
            let refused = wanted.set(Some(selector), hours);
            assert_eq!(refused.map_err(|e| e.status()), Err(status), "{selector}");
        }
    }

    #[test]
    fn selectors_are_known_by_their_matchers() {
        let mut present = TenantRetention::default();
        let text = |present: &TenantRetention, selector: &str| present.text_of(selector, None);
        for (selector, expected) in [
            ("up", r#"{__name__="up"}"#),
            (r#"{ b!="c", a=~'x|y', b!="c" }"#, r#"{a=~"x|y",b!="c"}"#),
            (r#"{"a.b"="\u00e9"}"#, r#"{"a.b"="é"}"#),
            // Its normal form would have an escape of another language.
            (r#"{a="\x7f"}"#, r#"{a="\x7f"}"#),
            ("{a=", "{a="),
        ] {
            assert_eq!(text(&present, selector), expected);
        }
        // A rule that was made before texts had a normal form keeps its own.
        present.selectors.insert("up".to_owned(), 24);
        for selector in ["up", "up{}", r#"{ __name__ = "up" }"#] {
            assert_eq!(text(&present, selector), "up", "{selector}");
        }
        // A former rule's text counts where there is no rule: its cut-off goes on, and is no second one.
        let cut_off = |selector: &str| trefoil_raft::CutOff {
            number: 1,
            signal: Signal::Metrics,
            selector: selector.to_owned(),
            before: 1,
        };
        let tenant = Tenant {
            id: TenantId(1),
            name: "a".to_owned(),
            limits: None,
            retention_number: 0,
            cut_offs: vec![cut_off(""), cut_off("up{}"), cut_off("down")],
            deletions_newest: trefoil_model::DeletionVersion(0),
            deletions_forgotten: trefoil_model::DeletionVersion(0),
        };
        for (selector, expected) in [("up{}", "up"), ("{__name__=\"down\"}", "down")] {
            assert_eq!(present.text_of(selector, Some(&tenant)), expected);
        }
        assert_eq!(text(&present, "{__name__=~\"up\"}"), "{__name__=~\"up\"}");
    }

    #[test]
    fn what_cannot_be_read_shortens_nothing() {
        assert_eq!(TenantRetention::read(b"[1]"), None);
        assert_eq!(
            TenantRetention::read(br#"{"hours":1,"selectors":{},"kept":[]}"#),
            None
        );
        let unknown = TenantRetention::decode(b"[1]");
        assert_eq!((unknown.hours, unknown.selectors.len()), (Some(0), 0));
        assert_eq!(of_hours(0), Retention(None));
        assert_eq!(of_hours(2).hours(), 2);
    }

    #[test]
    fn selectors_of_former_rules_take_room() {
        let cut_off = |number: u64| trefoil_raft::CutOff {
            number,
            signal: Signal::Metrics,
            selector: format!("{{a=\"{number}\"}}"),
            before: 1,
        };
        let mut tenant = Tenant {
            id: TenantId(1),
            name: "a".to_owned(),
            limits: None,
            retention_number: 0,
            cut_offs: (0..CUT_OFFS_MAX as u64 - 2).map(cut_off).collect(),
            deletions_newest: trefoil_model::DeletionVersion(0),
            deletions_forgotten: trefoil_model::DeletionVersion(0),
        };
        let wanted = TenantRetention {
            hours: None,
            selectors: [("{a=\"0\"}".to_owned(), 1), ("{b=\"1\"}".to_owned(), 1)].into(),
        };
        assert!(check_room(Some(&tenant), &wanted).is_ok());
        tenant.cut_offs.push(cut_off(CUT_OFFS_MAX as u64));
        assert!(check_room(Some(&tenant), &wanted).is_err());
    }
}
