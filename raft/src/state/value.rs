//! A small key/value table with conditional writes, for facts that have no table of their own:
//! silences, notification records, rule groups, dashboards, versions of objects.

use super::limits::{KEY_BYTES_MAX, VALUES_MAX};
use super::refusal::check_text;
use super::{Change, Condition, Refusal, Reply, State};
use serde::{Deserialize, Serialize};
use std::ops::Bound;
use std::sync::Arc;

/// A value and the version that the write which put it had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// Rises with every write in the cluster and is never used again, so a version seen once names
    /// one write, also when the key was deleted and put again in between.
    pub version: u64,
    /// The writer's bytes.
    pub bytes: Vec<u8>,
}

impl State {
    /// The value of a key.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&Arc<Value>> {
        self.values.get(key)
    }

    /// The keys that begin with `prefix` and their values, in order of their bytes.
    pub fn values_with_prefix<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Arc<Value>)> {
        let from: (Bound<&str>, Bound<&str>) = (Bound::Included(prefix), Bound::Unbounded);
        self.values
            .range::<_, str>(from)
            .map(|(key, value)| (key.as_str(), value))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }

    pub(super) fn write(
        &mut self,
        conditions: &[Condition],
        changes: &[Change],
    ) -> Result<Reply, Refusal> {
        for (position, condition) in conditions.iter().enumerate() {
            self.check_condition(position, condition)?;
        }
        for change in changes {
            let (Change::Put { key, .. } | Change::Delete { key }) = change;
            check_text("key", key, KEY_BYTES_MAX)?;
        }
        if self.values.len() + changes.len() > VALUES_MAX {
            return Err(Refusal::limit("number of keys", VALUES_MAX));
        }
        let version = self.cluster.sequence;
        for change in changes {
            match change {
                Change::Put { key, value } => {
                    let value = Value {
                        version,
                        bytes: value.clone(),
                    };
                    self.values.insert(key.clone(), Arc::new(value));
                }
                Change::Delete { key } => {
                    self.values.remove(key);
                }
            }
        }
        Ok(Reply::Written { version })
    }

    fn check_condition(&self, position: usize, condition: &Condition) -> Result<(), Refusal> {
        let (holds, present) = match condition {
            Condition::Absent { key } => {
                let present = self.value(key).map(|value| value.version);
                (present.is_none(), present)
            }
            Condition::Version { key, version } => {
                let present = self.value(key).map(|value| value.version);
                (present == Some(*version), present)
            }
            Condition::Lease { name, fencing } => (self.lease_is_held(name, *fencing), None),
        };
        match holds {
            true => Ok(()),
            false => Err(Refusal::ConditionFailed { position, present }),
        }
    }
}
