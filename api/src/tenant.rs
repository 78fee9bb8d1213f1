//! Who asks: the tenant's name out of `X-Scope-OrgID`.

use crate::ApiError;
use std::fmt;

/// The tenant of requests that name none.
pub const TENANT_DEFAULT: &str = "anonymous";

/// Longest tenant name, as in Mimir and Loki.
const TENANT_BYTES_MAX: usize = 150;

/// A valid tenant name: 1 to 150 of ASCII letters, digits and `!-_.*'()`, neither `.` nor `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantName(String);

impl TenantName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`ApiError::BadData`] that says what is wrong with it.
    pub fn new(name: &str) -> Result<Self, ApiError> {
        let refuse = |reason: String| Err(ApiError::BadData(reason));
        if name.is_empty() || name.len() > TENANT_BYTES_MAX {
            return refuse(format!(
                "tenant ID has {} bytes; it must have 1 to {TENANT_BYTES_MAX}",
                name.len()
            ));
        }
        if name == "." || name == ".." {
            return refuse("tenant ID is '.' or '..'".to_owned());
        }
        let is_allowed = |c: &char| c.is_ascii_alphanumeric() || "!-_.*'()".contains(*c);
        if let Some(odd) = name.chars().find(|c| !is_allowed(c)) {
            return refuse(format!(
                "tenant ID {name:?} contains the unsupported character {odd:?}"
            ));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TenantName {
    fn default() -> Self {
        Self(TENANT_DEFAULT.to_owned())
    }
}

impl fmt::Display for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["anonymous", "team-a", "a.b*c'(d)!_", &"x".repeat(150)] {
            assert_eq!(TenantName::new(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "a|b",
            "\u{e9}",
            &"x".repeat(151),
        ] {
            let error = TenantName::new(bad).unwrap_err();
            assert_eq!(error.status(), 400, "{bad}");
            assert!(error.to_string().starts_with("tenant ID"), "{error}");
        }
    }
}
