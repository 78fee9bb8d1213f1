//! Snapshots: what the nodes of a cluster hold at one moment, kept in folders that can be read without the cluster.
//!
//! ```text
//! DATA/snapshots/NAME.part/    being made; removed at a start
//! DATA/snapshots/NAME/         whole
//!     about                    what is needed to read it, see `about`
//!     manifest, BLOCK-FILE     blocks under a second name, see docs/formats/manifest.md
//! ```
//! A node makes its part under the temporary name, durably, and renames it when the coordinator says so; a crash leaves no
//! half one. Nothing removes a whole one but people.

pub(crate) mod about;
pub(crate) mod folder;
pub(crate) mod reading;

use trefoil_api::format_rfc3339;
use trefoil_model::Millis;

/// A name that no other snapshot has.
pub(crate) fn new_name(now: Millis) -> String {
    let second = format_rfc3339(now - now.rem_euclid(1000)).replace(['-', ':'], "");
    format!("{second}-{:016x}", rand::random::<u64>())
}

/// Whether a peer's or a folder's name is one that [`new_name`] could have made: it becomes part of a path.
pub(crate) fn is_name(name: &str) -> bool {
    let Some((second, number)) = name.split_once('-') else {
        return false;
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_second = second.len() == 16
        && second.ends_with('Z')
        && second.as_bytes()[8] == b'T'
        && second.is_ascii()
        && digits(&second[..8])
        && digits(&second[9..15]);
    let is_number = number.len() == 16
        && (number.bytes()).all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_second && is_number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_paths() {
        let name = new_name(1_795_324_500_123);
        assert!(name.starts_with("20261122T051500Z-"), "{name}");
        assert!(is_name(&name), "{name}");
        for other in [
            "",
            "..",
            "20261122T051500Z",
            "20261122T051500Z-0123456789abcde",
            "20261122T051500Z-0123456789ABCDEF",
            "20261122T051500Z-../../../../etcc",
            "2026112é041500Z-0123456789abcdef",
            "20261122T051500Z-0123456789abcdef.part",
        ] {
            assert!(!is_name(other), "{other}");
        }
    }
}
