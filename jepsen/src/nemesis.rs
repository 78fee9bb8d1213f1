//! Who disturbs: the kinds of faults, and which of them a run does when.
//!
//! A schedule is made from a seed before anything runs, and written beside the history, so that the same faults can be
//! done again. What a fault strikes is its choice too; only the leader of the moment is looked up.

mod disks;
mod fleet;
mod links;
mod membership;
mod metadata;
mod processes;
mod schedule;
mod strike;

pub use fleet::{Fleet, check_owner};
pub use schedule::{Schedule, Step};
pub use strike::strike;

use crate::site::{HostFault, Site};
use anyhow::bail;
use serde::{Deserialize, Serialize};

macro_rules! kinds {
    ($($kind:ident $name:literal $text:literal,)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Kind {
            $(#[doc = $text] $kind,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// Its name on the command line and in histories.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// What it does, in one line.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Self::$kind => $text,)* }
            }
        }
    };
}

kinds! {
    IsolateOne "isolate-one" "One node and the others do not hear each other.",
    Split "split" "A majority and a minority that do not hear each other.",
    MajoritiesRing "majorities-ring" "Every node hears a majority, no two the same one.",
    Bridge "bridge" "Two halves that hear each other only through one node.",
    OneWay "one-way" "What one node sends to the others is lost; it hears them.",
    LeaderOnly "leader-only" "The leader of the metadata plane is alone.",
    Zone "zone" "A whole zone is alone.",
    Clog "clog" "Links are cut one after the other, and healed in another order.",
    Slow "slow" "Links have a long delay with jitter.",
    Lossy "lossy" "Links lose packets.",
    Duplicating "duplicating" "Links deliver packets twice.",
    Reordering "reordering" "Links let later packets pass earlier ones.",
    Narrow "narrow" "Links pass few bytes per second.",
    KillOne "kill-one" "SIGKILL of a node, started again afterwards.",
    KillAll "kill-all" "SIGKILL of all nodes at once.",
    Pause "pause" "SIGSTOP of a node, SIGCONT afterwards.",
    RestartLoop "restart-loop" "A node is killed again as soon as it has come up.",
    RollingRestart "rolling-restart" "Every node ends by SIGTERM and starts again, one by one.",
    ClockJump "clock-jump" "The wall clock of a node is minutes off.",
    ClockDrift "clock-drift" "The wall clock of a node is too fast.",
    PowerCutOne "power-cut-one" "A node loses power: everything unsynced is gone.",
    PowerCutAll "power-cut-all" "All nodes lose power at once.",
    DiskFull "disk-full" "A node's disk has no space left.",
    DiskReadOnly "disk-read-only" "A node's disk becomes read-only under it.",
    SlowSync "slow-sync" "A node's fsync takes half a second.",
    FailingSync "failing-sync" "A node's fsync fails with EIO.",
    TornTail "torn-tail" "A killed node finds half a write at the end of a file.",
    FlippedJournal "flipped-journal" "A killed node finds flipped bits in its journal.",
    FlippedBlocks "flipped-blocks" "A stopped node finds flipped bits in its blocks.",
    DeletedData "deleted-data" "A killed node finds its data directory gone.",
    Join "join" "A new node joins while another one is killed and comes back.",
    Drain "drain" "A node is drained while another one is paused.",
    Replace "replace" "A node dies for good and is replaced by a new one.",
    AddressChange "address-change" "A node is killed and comes back at another address.",
    LeaderStorm "leader-storm" "Whoever leads the metadata plane is paused, again and again.",
    SnapshotStorm "snapshot-storm" "So many commands that a paused node needs a snapshot.",
}

impl Kind {
    /// The kinds of a comma-separated list; `all` means all.
    ///
    /// # Errors
    /// For a name that there is not.
    pub fn parse_list(list: &str) -> anyhow::Result<Vec<Self>> {
        if list == "all" {
            return Ok(Self::ALL.to_vec());
        }
        let mut found = Vec::new();
        for name in list.split(',') {
            match Self::ALL.iter().find(|kind| kind.name() == name) {
                Some(kind) if !found.contains(kind) => found.push(*kind),
                Some(_) => {}
                None => bail!("there is no nemesis {name:?}; see: trefoil-jepsen list"),
            }
        }
        Ok(found)
    }

    /// Whether the hosts of a site can suffer it.
    ///
    /// # Errors
    /// With what is missing.
    pub fn check_possible(self, site: &Site) -> Result<(), String> {
        let needed = match self {
            Self::ClockJump | Self::ClockDrift => HostFault::WrongClock,
            Self::PowerCutOne | Self::PowerCutAll => HostFault::PowerCut,
            Self::DiskFull => HostFault::FullDisk,
            Self::DiskReadOnly => HostFault::ReadOnlyDisk,
            Self::SlowSync => HostFault::SlowSyncs,
            Self::FailingSync => HostFault::FailingSyncs,
            Self::AddressChange => return Ok(()),
            _ if self.needs_network() && site.network().is_none() => {
                return Err("needs a network that the harness controls".to_owned());
            }
            _ => return Ok(()),
        };
        site.host(0).supports(needed)
    }

    fn needs_network(self) -> bool {
        self <= Self::Narrow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_name_kinds() {
        assert_eq!(Kind::parse_list("all").ok().as_deref(), Some(Kind::ALL));
        let two = Kind::parse_list("pause,kill-one,pause").ok();
        assert_eq!(two, Some(vec![Kind::Pause, Kind::KillOne]));
        assert!(Kind::parse_list("pause,nothing").is_err());
        for kind in Kind::ALL {
            let text = serde_json::to_string(kind).ok();
            assert_eq!(text, Some(format!("\"{}\"", kind.name())));
        }
    }
}
