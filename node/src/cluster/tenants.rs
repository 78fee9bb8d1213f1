//! What operators set for tenants: their limits, in the metadata plane.

use super::Cluster;
use crate::{
    formats,
    limits::{DEFAULTS_KEY, Stored, read},
};
use trefoil_api::{
    ApiError, LimitValues, TENANT_DEFAULT, TenantLimits, TenantName,
    admin::{Accepted, Limits},
};
use trefoil_raft::{Change, Command, Condition, Reply};

impl Cluster {
    /// What was set for a tenant, or for all of them, and what is in effect: everything that was acknowledged before
    /// this call.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] when no leader answers.
    pub(crate) async fn limits_set(&self, tenant: Option<&TenantName>) -> Result<Limits, ApiError> {
        let state = self.metadata.read_linearizable().await;
        let state = state.map_err(super::admin::refused)?;
        let mut stored = Stored::of(&state, tenant.map_or(TENANT_DEFAULT, TenantName::as_str));
        let set = match tenant {
            Some(_) => read(stored.own.as_deref()),
            None => {
                stored.own = None;
                read(stored.defaults.as_deref())
            }
        };
        let effective = serde_json::to_value(stored.resolve());
        let effective = effective.map_err(|error| ApiError::Internal(error.to_string()))?;
        Ok(Limits {
            tenant: tenant.map(|tenant| tenant.as_str().to_owned()),
            set,
            effective: effective.as_object().cloned().unwrap_or_default(),
        })
    }

    /// Replaces what was set for a tenant, which is made when it is new, or for all of them; with `expected`, only when
    /// that is what is set, whoever else changes it meanwhile.
    ///
    /// # Errors
    /// [`ApiError::BadData`] for what is no limit, [`ApiError::Unavailable`] when it cannot be recorded now,
    /// [`ApiError::PreconditionFailed`] when something else is set: nothing changed.
    pub(crate) async fn set_limits(
        &self,
        tenant: Option<&TenantName>,
        values: LimitValues,
        expected: Option<LimitValues>,
    ) -> Result<Accepted, ApiError> {
        let values = TenantLimits::with_present_names(values).map_err(ApiError::BadData)?;
        TenantLimits::resolve([&values]).map_err(ApiError::BadData)?;
        let count = values.len();
        let text = (count > 0).then(|| serde_json::Value::Object(values).to_string());
        let whose = match tenant {
            Some(name) => {
                self.set_own_limits(name, text, expected).await?;
                format!("tenant {}", name.as_str())
            }
            None => {
                self.set_default_limits(text, expected).await?;
                "the defaults of all tenants".to_owned()
            }
        };
        let message = match count {
            0 => format!("{whose}: no limits of their own from now on"),
            count => format!("{whose}: {count} limits are set from now on"),
        };
        Ok(Accepted { message })
    }

    async fn set_own_limits(
        &self,
        name: &TenantName,
        limits: Option<String>,
        expected: Option<LimitValues>,
    ) -> Result<(), ApiError> {
        let mut present = None;
        let mut is_conditional = false;
        if let Some(expected) = &expected {
            let state = self.metadata.read_linearizable().await;
            let state = state.map_err(super::admin::refused)?;
            let tenant = state.tenant_id(name.as_str());
            let tenant = tenant.and_then(|tenant| state.tenant(tenant));
            present = tenant.and_then(|tenant| tenant.limits.clone());
            check_expected(present.as_deref(), expected)?;
            // While a member runs an older program, whoever comes in between is not noticed.
            is_conditional = formats::changes_limits(&state);
        }
        let created = self.command(Command::CreateTenant {
            name: name.as_str().to_owned(),
        });
        let Reply::Tenant(tenant) = created.await? else {
            return Err(ApiError::Internal("a tenant was not made".to_owned()));
        };
        let command = match is_conditional {
            true => Command::ChangeLimits {
                tenant,
                expected: present,
                limits,
            },
            false => Command::SetLimits { tenant, limits },
        };
        let changed = self.command(command).await;
        changed.map(|_| ()).map_err(|error| match error {
            ApiError::PreconditionFailed(_) => changed_meanwhile(),
            error => error,
        })
    }

    async fn set_default_limits(
        &self,
        limits: Option<String>,
        expected: Option<LimitValues>,
    ) -> Result<(), ApiError> {
        let key = DEFAULTS_KEY.to_owned();
        let mut conditions = Vec::new();
        if let Some(expected) = expected {
            let state = self.metadata.read_linearizable().await;
            let state = state.map_err(super::admin::refused)?;
            let present = state.value(DEFAULTS_KEY);
            let text = present.map(|value| String::from_utf8_lossy(&value.bytes));
            check_expected(text.as_deref(), &expected)?;
            let key = key.clone();
            conditions.push(match present {
                Some(value) => Condition::Version {
                    key,
                    version: value.version,
                },
                None => Condition::Absent { key },
            });
        }
        let change = match limits {
            None => Change::Delete { key },
            Some(text) => Change::Put {
                key,
                value: text.into_bytes(),
            },
        };
        let command = Command::Write {
            conditions,
            changes: vec![change],
        };
        self.command(command).await.map(|_| ())
    }

    /// Among how many nodes a tenant's rate is divided: those that are alive, this one included.
    pub(crate) fn nodes_that_write(&self) -> usize {
        let state = self.metadata.state();
        let others = state
            .members()
            .filter(|member| member.node != self.identity.node);
        let alive = others.filter(|member| {
            let whereabouts = self.directory.get(member.node);
            whereabouts.is_some_and(|w| w.alive)
        });
        1 + alive.count()
    }
}

/// # Errors
/// [`ApiError::PreconditionFailed`] when something else is set.
fn check_expected(present: Option<&str>, expected: &LimitValues) -> Result<(), ApiError> {
    if read(present) == *expected {
        return Ok(());
    }
    Err(changed_meanwhile())
}

fn changed_meanwhile() -> ApiError {
    let what = "nothing was changed: somebody else has changed the limits; look at them again";
    ApiError::PreconditionFailed(what.to_owned())
}
