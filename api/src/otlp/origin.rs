//! Where data points come from: the labels of their resource and scope.
//!
//! They are checked once for all points, because points are many and may have a few bytes each: what is here fits into
//! a series, and it is counted before it is copied, so that a point never costs more than the series that it becomes.

use super::{
    OtlpOptions, Promotion,
    flaw::Flaw,
    labels::LabelSet,
    message::{KeyValue, Resource, Scope},
};
use crate::{ApiError, WriteLimits};
use trefoil_model::LABEL_NAME_METRIC;

/// The attributes of a resource that `job` and `instance` are made of.
pub(super) const SERVICE_NAMESPACE: &str = "service.namespace";
pub(super) const SERVICE_NAME: &str = "service.name";
pub(super) const SERVICE_INSTANCE: &str = "service.instance.id";

/// What is wrong with labels, and the key of the attribute at which it was found.
pub(super) type FlawAt<'a> = (Flaw, &'a str);

/// What the labels of all points of a scope have in common.
#[derive(Default)]
pub(super) struct Origin {
    /// Labels of the resource that points replace.
    promoted: LabelSet,
    /// `job` and `instance`.
    identity: LabelSet,
    /// Labels of the scope.
    scope: LabelSet,
    resource_unfit: Option<String>,
    scope_unfit: Option<String>,
    /// Memory that is used again.
    name: String,
    value: String,
}

impl Origin {
    /// Takes the labels of a resource; what there was is gone.
    ///
    /// # Errors
    /// When an attribute cannot be read. One that is no label makes the points unfit.
    pub(super) fn begin_resource(
        &mut self,
        resource: &Resource<'_>,
        options: &OtlpOptions,
        limits: &WriteLimits,
    ) -> Result<(), ApiError> {
        self.promoted.clear();
        self.identity.clear();
        self.scope.clear();
        self.scope_unfit = None;
        let flaw = match self.identify(resource, limits)? {
            None => self.promote(resource, options, limits)?,
            flaw => flaw,
        };
        let unfit = |(flaw, key): FlawAt<'_>| format!("has a resource that {}", flaw.describe(key));
        self.resource_unfit = flaw.map(unfit);
        Ok(())
    }

    /// Takes the labels of a scope in place of the one before.
    ///
    /// # Errors
    /// As [`Origin::begin_resource`].
    pub(super) fn begin_scope(
        &mut self,
        scope: &Scope<'_>,
        schema_url: &str,
        options: &OtlpOptions,
        limits: &WriteLimits,
    ) -> Result<(), ApiError> {
        self.scope.clear();
        self.scope_unfit = None;
        if options.promotes_scope && !scope.name.is_empty() {
            let flaw = self.describe_scope(scope, schema_url, options, limits)?;
            let unfit =
                |(flaw, key): FlawAt<'_>| format!("has a scope that {}", flaw.describe(key));
            self.scope_unfit = flaw.map(unfit);
        }
        Ok(())
    }

    /// The same with `job` and `instance` alone.
    pub(super) fn identity(&self) -> Self {
        Self {
            identity: self.identity.clone(),
            ..Self::default()
        }
    }

    /// The first of these, as people call the resource. `None`: it has neither.
    pub(super) fn name(&self) -> Option<(&str, &str)> {
        self.identity.iter().next()
    }

    /// Why no point can be kept.
    pub(super) fn unfit(&self) -> Option<&str> {
        let reason = self.resource_unfit.as_ref().or(self.scope_unfit.as_ref());
        reason.map(String::as_str)
    }

    /// How many labels there will be with those of a point.
    pub(super) fn count_with(&self, own: &LabelSet) -> usize {
        let is_fixed = |name: &str| self.fixed().any(|(fixed, _)| fixed == name);
        let is_own = |name: &str| name != LABEL_NAME_METRIC && !is_fixed(name);
        let is_missing = |name: &str| !own.has(name) && !is_fixed(name);
        let own_count = own.iter().filter(|(name, _)| is_own(name)).count();
        let promoted = self.promoted.iter().filter(|(name, _)| is_missing(name));
        let fixed = self.fixed().filter(|(_, value)| !value.is_empty());
        own_count + promoted.count() + fixed.count()
    }

    /// Adds the labels to those of a point.
    ///
    /// # Errors
    /// [`Flaw::InfoLabels`]; not when [`Origin::count_with`] is within the limit.
    pub(super) fn add_to(&self, own: &mut LabelSet, limits: &WriteLimits) -> Result<(), Flaw> {
        for (name, value) in self.promoted.iter() {
            if !own.has(name) {
                own.set(name, value, limits)?;
            }
        }
        for (name, value) in self.fixed() {
            own.set(name, value, limits)?;
        }
        Ok(())
    }

    /// Labels that points do not replace.
    fn fixed(&self) -> impl Iterator<Item = (&str, &str)> {
        self.scope.iter().chain(self.identity.iter())
    }

    fn identify(
        &mut self,
        resource: &Resource<'_>,
        limits: &WriteLimits,
    ) -> Result<Option<FlawAt<'static>>, ApiError> {
        let bytes_max = limits.label_value_bytes_max;
        let too_long = |key| Ok(Some((Flaw::Value(bytes_max), key)));
        let text = &mut self.value;
        text.clear();
        if let Some(name) = resource.get(SERVICE_NAME) {
            if let Some(namespace) = resource.get(SERVICE_NAMESPACE) {
                if !namespace.value.write(text, bytes_max)? {
                    return too_long(SERVICE_NAMESPACE);
                }
                text.push('/');
            }
            if !name.value.write(text, bytes_max)? {
                return too_long(SERVICE_NAME);
            }
            if let Err(flaw) = self.identity.set("job", text, limits) {
                return Ok(Some((flaw, SERVICE_NAME)));
            }
        }
        text.clear();
        if let Some(instance) = resource.get(SERVICE_INSTANCE) {
            if !instance.value.write(text, bytes_max)? {
                return too_long(SERVICE_INSTANCE);
            }
            if let Err(flaw) = self.identity.set("instance", text, limits) {
                return Ok(Some((flaw, SERVICE_INSTANCE)));
            }
        }
        Ok(None)
    }

    fn promote<'a>(
        &mut self,
        resource: &Resource<'a>,
        options: &OtlpOptions,
        limits: &WriteLimits,
    ) -> Result<Option<FlawAt<'a>>, ApiError> {
        let (name, value) = (&mut self.name, &mut self.value);
        for attribute in promoted(resource, &options.promoted) {
            let key = attribute.key;
            if let Err(flaw) = Flaw::check_key(key, limits) {
                return Ok(Some((flaw, key)));
            }
            value.clear();
            if !attribute.value.write(value, limits.label_value_bytes_max)? {
                return Ok(Some((Flaw::Value(limits.label_value_bytes_max), key)));
            }
            let is_label = options.strategy.label_name(key, name) && !value.is_empty();
            let is_new = is_label && !self.promoted.has(name);
            if is_new && let Err(flaw) = self.promoted.set(name, value, limits) {
                return Ok(Some((flaw, key)));
            }
        }
        Ok(None)
    }

    fn describe_scope<'a>(
        &mut self,
        scope: &Scope<'a>,
        schema_url: &str,
        options: &OtlpOptions,
        limits: &WriteLimits,
    ) -> Result<Option<FlawAt<'a>>, ApiError> {
        let (name, value) = (&mut self.name, &mut self.value);
        for attribute in &scope.attributes {
            let key = attribute.key;
            value.clear();
            if !attribute.value.write(value, limits.label_value_bytes_max)? {
                return Ok(Some((Flaw::Value(limits.label_value_bytes_max), key)));
            }
            if let Err(flaw) = Flaw::check_key(key, limits) {
                return Ok(Some((flaw, key)));
            }
            let key_of_scope = format!("otel_scope_{key}");
            let is_label = options.strategy.label_name(&key_of_scope, name) && !value.is_empty();
            if is_label && let Err(flaw) = self.scope.set(name, value, limits) {
                return Ok(Some((flaw, key)));
            }
        }
        for (label, value) in [
            ("otel_scope_name", scope.name),
            ("otel_scope_version", scope.version),
            ("otel_scope_schema_url", schema_url),
        ] {
            if let Err(flaw) = self.scope.set(label, value, limits) {
                return Ok(Some((flaw, label)));
            }
        }
        Ok(None)
    }
}

/// The attributes that become labels. Where names become the same the first one counts: of a list by its order, of all by
/// their keys, so that the order in which a client sends them does not matter.
fn promoted<'a>(resource: &Resource<'a>, promotion: &Promotion) -> Vec<KeyValue<'a>> {
    match promotion {
        Promotion::Only(keys) => keys.iter().filter_map(|key| resource.get(key)).collect(),
        Promotion::AllBut(ignored) => {
            let is_ignored = |key: &str| ignored.iter().any(|ignored| ignored == key);
            let all = resource.attributes.iter().copied();
            let mut all: Vec<_> = all.filter(|one| !is_ignored(one.key)).collect();
            all.sort_by_key(|attribute| attribute.key);
            all
        }
    }
}
