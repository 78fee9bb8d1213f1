//! A small linearizable key/value table for operators and their tools, in the metadata plane.
//!
//! Keys of the product's own facts have prefixes of their own, which this one cannot reach.

use super::Cluster;
use trefoil_api::{
    ApiError,
    admin::{KeyValue, PutValue, WrittenValue},
};
use trefoil_raft::{Change, Command, Condition, Reply, State};

/// What the keys of operators begin with.
const PREFIX: &str = "operator//";
/// Longest key, bytes.
const KEY_BYTES_MAX: usize = 256;
/// Longest value, bytes.
const VALUE_BYTES_MAX: usize = 32 << 10;
/// Keys beyond which no new one is taken: every node keeps all of them in memory.
const KEYS_MAX: usize = 4096;

impl Cluster {
    /// What a key holds: everything that was acknowledged before this call.
    ///
    /// # Errors
    /// [`ApiError::BadData`] for a key that cannot be, [`ApiError::Unavailable`] when no leader answers.
    pub(crate) async fn value(&self, key: &str) -> Result<KeyValue, ApiError> {
        let inner = inner_key(key)?;
        let state = self.metadata.read_linearizable().await;
        let state = state.map_err(super::admin::refused)?;
        let found = state.value(&inner);
        let value = found.map(|value| String::from_utf8_lossy(&value.bytes).into_owned());
        Ok(KeyValue {
            key: key.to_owned(),
            version: found.map_or(0, |value| value.version),
            value,
        })
    }

    /// Puts or deletes a value if the condition holds.
    ///
    /// # Errors
    /// As `Backend::put_value`.
    pub(crate) async fn put_value(&self, put: PutValue) -> Result<WrittenValue, ApiError> {
        let key = inner_key(&put.key)?;
        let bytes = put.value.as_ref().map_or(0, String::len);
        if bytes > VALUE_BYTES_MAX {
            return Err(ApiError::BadData(format!(
                "a value of {bytes} bytes is too long, the most is {VALUE_BYTES_MAX}"
            )));
        }
        if put.value.is_some() && is_full(&self.metadata.state(), &key) {
            return Err(ApiError::Conflict(format!(
                "there are {KEYS_MAX} keys already; delete some"
            )));
        }
        let condition = put.expected_version.map(|version| match version {
            0 => Condition::Absent { key: key.clone() },
            version => Condition::Version {
                key: key.clone(),
                version,
            },
        });
        let change = match put.value {
            Some(value) => Change::Put {
                key,
                value: value.into_bytes(),
            },
            None => Change::Delete { key },
        };
        let command = Command::Write {
            conditions: condition.into_iter().collect(),
            changes: vec![change],
        };
        match self.command(command).await? {
            Reply::Written { version } => Ok(WrittenValue { version }),
            other => Err(ApiError::Internal(format!(
                "the metadata plane answered a write with {other:?}"
            ))),
        }
    }
}

fn inner_key(key: &str) -> Result<String, ApiError> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        let length = key.len();
        return Err(ApiError::BadData(format!(
            "a key has 1 to {KEY_BYTES_MAX} bytes, this one {length}"
        )));
    }
    Ok(format!("{PREFIX}{key}"))
}

/// Whether a new key would be one too many; nodes that put at the same time may pass it by a few.
fn is_full(state: &State, key: &str) -> bool {
    state.value(key).is_none() && state.values_with_prefix(PREFIX).count() >= KEYS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_bounds_and_a_place_of_their_own() {
        assert_eq!(inner_key("a").ok().as_deref(), Some("operator//a"));
        assert!(inner_key("").is_err());
        assert!(inner_key(&"k".repeat(KEY_BYTES_MAX + 1)).is_err());
    }
}
