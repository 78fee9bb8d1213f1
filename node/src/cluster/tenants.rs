//! What operators set for tenants: their limits, in the metadata plane.

use super::Cluster;
use crate::limits::{DEFAULTS_KEY, Stored, read};
use trefoil_api::{
    ApiError, LimitValues, TENANT_DEFAULT, TenantLimits, TenantName,
    admin::{Accepted, Limits},
};
use trefoil_raft::{Change, Command, Reply};

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

    /// Replaces what was set for a tenant, which is made when it is new, or for all of them.
    ///
    /// # Errors
    /// [`ApiError::BadData`] for what is no limit, [`ApiError::Unavailable`] when it cannot be recorded now.
    pub(crate) async fn set_limits(
        &self,
        tenant: Option<&TenantName>,
        values: LimitValues,
    ) -> Result<Accepted, ApiError> {
        TenantLimits::resolve([&values]).map_err(ApiError::BadData)?;
        let text = serde_json::Value::Object(values.clone()).to_string();
        let is_empty = values.is_empty();
        let (command, whose) = match tenant {
            Some(name) => {
                let created = self.command(Command::CreateTenant {
                    name: name.as_str().to_owned(),
                });
                let Reply::Tenant(tenant) = created.await? else {
                    return Err(ApiError::Internal("a tenant was not made".to_owned()));
                };
                let limits = (!is_empty).then_some(text);
                let command = Command::SetLimits { tenant, limits };
                (command, format!("tenant {}", name.as_str()))
            }
            None => {
                let key = DEFAULTS_KEY.to_owned();
                let change = match is_empty {
                    true => Change::Delete { key },
                    false => Change::Put {
                        key,
                        value: text.into_bytes(),
                    },
                };
                let command = Command::Write {
                    conditions: Vec::new(),
                    changes: vec![change],
                };
                (command, "the defaults of all tenants".to_owned())
            }
        };
        self.command(command).await?;
        let message = match values.len() {
            0 => format!("{whose}: no limits of their own from now on"),
            count => format!("{whose}: {count} limits are set from now on"),
        };
        Ok(Accepted { message })
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
