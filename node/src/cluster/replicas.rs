//! Pairs of senders that measure the same: which of them counts.
//!
//! Two Prometheus servers that scrape the same targets send every sample twice, with other times, so both cannot be
//! kept. Their series have a label that names the pair and one that names the sender. One sender of a pair is
//! *elected*: what it sends is stored without the sender's label, what the other sends is held back with success
//! (`held.rs`). When nothing came from the elected one for a while, the next sender that comes is elected.
//!
//! ```text
//! key    ha//TENANT//PAIR
//! value  version (1 byte, 1) | when it was heard (8 bytes, little-endian, milliseconds) | name of the sender
//!        version (1 byte, 2) | when it was heard (8) | when it was elected (8)
//!                            | until when others were accepted (8) | name of the sender
//! ```
//! Version 2 is written from format level 6 on, of a sender that took the place of another one, where requests are held. A record of
//! the same sender that loses it says that what the sender sends from before its election is stored as it comes.
//!
//! All nodes must agree, so the elected sender is a value in the metadata plane, written under the condition that it is
//! as it was read. Hearing from it is recorded at most once per interval and pair, behind the answer, so elections cost
//! the plane nothing that depends on the load.
//!
//! Without the plane a node accepts what the elected sender sends until half of the time between the interval and the
//! time at which other nodes may elect another one: a node that the plane does not hear must not store one sender while the
//! rest of the cluster stores the other, and what both sent is told apart by that time. From then on it is 503, and the sender
//! sends it again. Nothing is recorded nor elected twice at once, and for a second after a failure the plane is not asked.
//!
//! Source: the tracker of pairs in Mimir, by its documentation.

mod turns;

use super::Cluster;
use crate::{config::PairSettings, formats};
use std::time::{Duration, Instant};
use trefoil_api::ApiError;
use trefoil_model::{Millis, TenantId};
use trefoil_raft::{
    Change, Command, Condition, MetadataError, MetadataPlane, Refusal, Reply, State,
};
pub(crate) use turns::Turns;
use turns::{Turn, Wanted};

/// The version of the value of a sender of which it is not known how it came to count.
const VERSION: u8 = 1;
/// The version of one of which it is.
const VERSION_SUCCEEDED: u8 = 2;
/// Times that an election is tried anew because another node wrote in between.
const TRIES_MAX: usize = 4;
/// A pair that nothing was heard of for so long makes room for a new one when there are too many.
const FORGOTTEN_AFTER: Millis = 30 * 60 * 1000;
/// How long a request waits for another one's election, which takes some milliseconds; 503 behind that. So at most one
/// request of a pair waits as long as the metadata plane may take.
const ELECTION_WAIT_MAX: Duration = Duration::from_secs(2);
const NO_ANSWER: &str = "the metadata plane does not answer";
/// How far the cluster's time may differ between two nodes.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(1);
/// Longest name of a pair or a sender, bytes: each is kept by all nodes.
const NAME_BYTES_MAX: usize = 256;

/// Who is elected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Elected {
    pub(crate) replica: String,
    /// When something came from it, by the cluster's clock.
    pub(crate) heard: Millis,
    /// How it took the place of another sender; nothing when there was none, or that was not recorded.
    pub(crate) succession: Option<Succession>,
}

/// The change from one sender of a pair to another one. Times are the cluster's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Succession {
    /// When the sender that counts now was elected.
    pub(crate) at: Millis,
    /// Nothing of another sender was accepted behind this time.
    pub(crate) others_until: Millis,
}

/// What becomes of samples of a sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// They are stored, but for those at or before this time: there may be samples of the sender that counted before, so they
    /// are held back until that is known.
    Stored(Millis),
    /// Another sender counts: they are held back in case that it falls silent.
    Held,
    /// They cannot be stored, because of this.
    Refused(String),
}

/// What to do with samples of a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Accept,
    /// Accept them, and record that they came.
    AcceptAndRecord,
    /// Accept them if that can be recorded first: another node may elect another sender.
    Elect,
    /// Another sender counts.
    Hold,
}

impl Cluster {
    /// What becomes of samples of this sender of a pair.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] when an election is due and the metadata plane does not answer: nothing is known then.
    pub(crate) async fn verdict(
        &self,
        tenant: TenantId,
        pair: &str,
        replica: &str,
    ) -> Result<Verdict, ApiError> {
        if pair.len() > NAME_BYTES_MAX || replica.len() > NAME_BYTES_MAX {
            return Ok(Verdict::Refused(format!(
                "the name of a pair of senders or of a sender has more than {NAME_BYTES_MAX} bytes"
            )));
        }
        let settings = &self.settings.pairs;
        let key = key_of(tenant, pair);
        for _ in 0..TRIES_MAX {
            let state = self.metadata.state();
            let (present, version) = read(&state, &key);
            let now = self.now();
            let decision = decide(present.as_ref(), replica, now, settings);
            match decision {
                Decision::Accept => return Ok(stored(present.as_ref())),
                Decision::Hold => return Ok(Verdict::Held),
                Decision::AcceptAndRecord | Decision::Elect => {}
            }
            let forgotten = match version {
                Some(_) => None,
                None => match make_room(&state, tenant, now, settings.clusters_max) {
                    Ok(forgotten) => forgotten,
                    Err(reason) => return Ok(Verdict::Refused(reason)),
                },
            };
            let mut new = Elected::follow(present.as_ref(), replica, now, settings);
            // Only what is held back is compared by it, and an older program does not read it.
            if !settings.holds() || !formats::records_successions(&state) {
                new.succession = None;
            }
            let command = write(&key, version, &new, forgotten);
            match (self.pair_turns.want(&key, Instant::now()), decision) {
                (Wanted::Mine(turn), Decision::AcceptAndRecord) => {
                    tokio::spawn(record_behind(self.metadata.clone(), command, turn));
                    return Ok(stored(present.as_ref()));
                }
                (_, Decision::AcceptAndRecord) => return Ok(stored(present.as_ref())),
                (Wanted::Mine(turn), _) => {
                    if record(&self.metadata, command, turn).await? {
                        return Ok(stored(Some(&new)));
                    }
                }
                (Wanted::Taken(mut end), _) => {
                    // It ends by closing, which is an error of the channel.
                    let ended = tokio::time::timeout(ELECTION_WAIT_MAX, end.changed()).await;
                    if ended.is_err() || self.pair_turns.is_paused(&key, Instant::now()) {
                        return Err(unavailable(NO_ANSWER.to_owned()));
                    }
                }
                (Wanted::Paused, _) => return Err(unavailable(NO_ANSWER.to_owned())),
            }
            // Somebody wrote in between; the answer may be another one now.
            let caught_up = self.metadata.read_linearizable().await;
            caught_up.map_err(|error| unavailable(error.to_string()))?;
        }
        Err(unavailable(format!(
            "the sender of the pair {pair:?} that counts changes too fast"
        )))
    }

    /// Records that what a sender that counts sends from before its election is stored as it comes from now on, and compared by nobody.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] when the metadata plane does not answer: it may be recorded or not.
    pub(crate) async fn forgo_comparison(
        &self,
        tenant: TenantId,
        pair: &str,
        replica: &str,
    ) -> Result<(), ApiError> {
        let key = key_of(tenant, pair);
        for _ in 0..TRIES_MAX {
            let (present, version) = read(&self.metadata.state(), &key);
            let Some(new) = present.and_then(|present| present.forgoing(replica)) else {
                return Ok(());
            };
            match self.pair_turns.want(&key, Instant::now()) {
                Wanted::Mine(turn) => {
                    let command = write(&key, version, &new, None);
                    if record(&self.metadata, command, turn).await? {
                        tracing::warn!(
                            pair,
                            "no room, or no time, to compare what the new sender of a pair sends from before its election: it is \
                             stored as it comes until another one is elected"
                        );
                        return Ok(());
                    }
                }
                Wanted::Taken(mut end) => {
                    let ended = tokio::time::timeout(ELECTION_WAIT_MAX, end.changed()).await;
                    if ended.is_err() {
                        return Err(unavailable(NO_ANSWER.to_owned()));
                    }
                }
                Wanted::Paused => return Err(unavailable(NO_ANSWER.to_owned())),
            }
            let caught_up = self.metadata.read_linearizable().await;
            caught_up.map_err(|error| unavailable(error.to_string()))?;
        }
        Err(unavailable(format!(
            "what is recorded of the pair {pair:?} changes too fast"
        )))
    }

    /// Who is elected of a pair, as far as this node knows.
    pub(crate) fn elected(&self, tenant: TenantId, pair: &str) -> Option<Elected> {
        read(&self.metadata.state(), &key_of(tenant, pair)).0
    }
}

/// The verdict about samples of the sender that counts.
fn stored(elected: Option<&Elected>) -> Verdict {
    Verdict::Stored(elected.map_or(Millis::MIN, Elected::others_until))
}

/// Records that the elected sender was heard, when its samples are accepted already.
async fn record_behind(metadata: MetadataPlane, command: Command, turn: Turn) {
    if let Err(error) = record(&metadata, command, turn).await {
        tracing::warn!(%error, "cannot record that the elected sender of a pair was heard");
    }
}

/// Writes who is elected. `false`: somebody else wrote in between.
async fn record(metadata: &MetadataPlane, command: Command, turn: Turn) -> Result<bool, ApiError> {
    let outcome = written(metadata.propose(command).await);
    if outcome.is_err() {
        turn.fail(Instant::now());
    }
    outcome
}

fn written(answer: Result<Reply, MetadataError>) -> Result<bool, ApiError> {
    match answer {
        Ok(Reply::Written { .. }) => Ok(true),
        Err(MetadataError::Refused(Refusal::ConditionFailed { .. })) => Ok(false),
        Ok(other) => Err(unavailable(format!(
            "the metadata plane answered a write with {other:?}"
        ))),
        Err(error) => Err(unavailable(error.to_string())),
    }
}

/// Whatever the plane says, the samples may be stored a moment later.
fn unavailable(reason: String) -> ApiError {
    ApiError::Unavailable {
        message: format!("which sender of a pair counts cannot be recorded now: {reason}"),
        retry_after: Duration::from_secs(1),
    }
}

/// The key of a forgotten pair, when the tenant has as many as it may; why there is no room. `max` 0: no limit.
fn make_room(
    state: &State,
    tenant: TenantId,
    now: Millis,
    max: usize,
) -> Result<Option<(String, u64)>, String> {
    let prefix = key_of(tenant, "");
    if max == 0 || state.values_with_prefix(&prefix).take(max).count() < max {
        return Ok(None);
    }
    let forgotten = state.values_with_prefix(&prefix).find(|(_, value)| {
        let heard = Elected::decode(&value.bytes).map_or(Millis::MIN, |elected| elected.heard);
        now.saturating_sub(heard) >= FORGOTTEN_AFTER
    });
    match forgotten {
        Some((key, value)) => Ok(Some((key.to_owned(), value.version))),
        None => Err(format!(
            "the tenant has {max} pairs of senders already (ha_max_clusters)"
        )),
    }
}

fn key_of(tenant: TenantId, pair: &str) -> String {
    format!("ha//{tenant}//{pair}")
}

/// Who is elected, and the value's version.
fn read(state: &State, key: &str) -> (Option<Elected>, Option<u64>) {
    let value = state.value(key);
    let elected = value.and_then(|value| Elected::decode(&value.bytes));
    (elected, value.map(|value| value.version))
}

fn write(
    key: &str,
    version: Option<u64>,
    new: &Elected,
    forgotten: Option<(String, u64)>,
) -> Command {
    let key = key.to_owned();
    let mut conditions = vec![match version {
        None => Condition::Absent { key: key.clone() },
        Some(version) => Condition::Version {
            key: key.clone(),
            version,
        },
    }];
    let value = new.encode();
    let mut changes = vec![Change::Put { key, value }];
    if let Some((key, version)) = forgotten {
        changes.push(Change::Delete { key: key.clone() });
        conditions.push(Condition::Version { key, version });
    }
    Command::Write {
        conditions,
        changes,
    }
}

/// How long the elected sender is accepted though that is not recorded, since it was heard. Clocks differ.
fn accepted_for(settings: &PairSettings) -> Duration {
    let apart = settings.apart();
    settings.failover_timeout - apart - CLOCKS_APART_MAX.min(apart / 2)
}

/// What to do with samples of a sender, by who is elected.
pub(crate) fn decide(
    present: Option<&Elected>,
    replica: &str,
    now: Millis,
    settings: &PairSettings,
) -> Decision {
    let Some(present) = present else {
        return Decision::Elect;
    };
    let silent = Duration::from_millis(now.saturating_sub(present.heard).max(0) as u64);
    match present.replica == replica {
        true if silent < settings.update_interval => Decision::Accept,
        true if silent < accepted_for(settings) => Decision::AcceptAndRecord,
        false if silent < settings.failover_timeout => Decision::Hold,
        _ => Decision::Elect,
    }
}

impl Elected {
    /// What is recorded of a sender that is heard now, behind what was recorded before.
    pub(crate) fn follow(
        present: Option<&Self>,
        replica: &str,
        now: Millis,
        settings: &PairSettings,
    ) -> Self {
        let succession = present.and_then(|present| match present.replica == replica {
            true => present.succession,
            // It is accepted without a record for a shorter time, so that clocks may differ.
            false => Some(Succession {
                at: now,
                others_until: present.heard
                    + (settings.failover_timeout - settings.apart()).as_millis() as Millis,
            }),
        });
        Self {
            replica: replica.to_owned(),
            heard: now,
            succession,
        }
    }

    /// The same election without what is compared by it, if it is of this sender and has that.
    pub(crate) fn forgoing(self, replica: &str) -> Option<Self> {
        let is_compared = self.replica == replica && self.succession.is_some();
        is_compared.then_some(Self {
            succession: None,
            ..self
        })
    }

    /// When it took the place of another sender; it tells elections of the same sender apart. Nothing when that was not recorded.
    pub(crate) fn at(&self) -> Option<Millis> {
        self.succession.map(|succession| succession.at)
    }

    /// Until when samples may be another sender's. Before all times when no other one is known.
    pub(crate) fn others_until(&self) -> Millis {
        self.succession
            .map_or(Millis::MIN, |succession| succession.others_until)
    }

    fn encode(&self) -> Vec<u8> {
        let version = match self.succession {
            None => VERSION,
            Some(_) => VERSION_SUCCEEDED,
        };
        let mut out = vec![version];
        out.extend_from_slice(&self.heard.to_le_bytes());
        if let Some(succession) = self.succession {
            out.extend_from_slice(&succession.at.to_le_bytes());
            out.extend_from_slice(&succession.others_until.to_le_bytes());
        }
        out.extend_from_slice(self.replica.as_bytes());
        out
    }

    /// A value that a newer program wrote in another form elects nobody.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, mut rest) = bytes.split_first()?;
        let heard = take_time(&mut rest)?;
        let succession = match *version {
            VERSION => None,
            VERSION_SUCCEEDED => Some(Succession {
                at: take_time(&mut rest)?,
                others_until: take_time(&mut rest)?,
            }),
            _ => return None,
        };
        let replica = std::str::from_utf8(rest).ok()?.to_owned();
        Some(Self {
            replica,
            heard,
            succession,
        })
    }
}

fn take_time(bytes: &mut &[u8]) -> Option<Millis> {
    let (time, rest) = bytes.split_first_chunk::<8>()?;
    *bytes = rest;
    Some(Millis::from_le_bytes(*time))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(replica: &str, now: Millis, expected: Decision) {
        let settings = PairSettings {
            update_interval: Duration::from_secs(15),
            failover_timeout: Duration::from_secs(30),
            ..PairSettings::default()
        };
        let present = Elected {
            replica: "a".to_owned(),
            heard: 1_000_000,
            succession: None,
        };
        let decision = decide(Some(&present), replica, now, &settings);
        assert_eq!(decision, expected, "{replica} at {now}");
        assert_eq!(decide(None, replica, now, &settings), Decision::Elect);
    }

    #[test]
    fn the_elected_sender_counts_until_it_is_silent() {
        check("a", 1_000_000, Decision::Accept);
        check("a", 1_014_999, Decision::Accept);
        check("a", 1_015_000, Decision::AcceptAndRecord);
        check("a", 1_021_499, Decision::AcceptAndRecord);
        // From here on nothing that is not recorded may be accepted: another node may elect the other one.
        check("a", 1_021_500, Decision::Elect);
        check("a", 1_030_000, Decision::Elect);
        check("a", 9_000_000, Decision::Elect);
        // The cluster's clock may have gone back.
        check("a", 900_000, Decision::Accept);
        check("b", 900_000, Decision::Hold);
        check("b", 1_029_999, Decision::Hold);
        check("b", 1_030_000, Decision::Elect);
    }

    #[test]
    fn pairs_without_a_limit_always_have_room() {
        let state = State::default();
        assert_eq!(make_room(&state, TenantId(0), 0, 0), Ok(None));
        assert_eq!(make_room(&state, TenantId(0), 0, 1), Ok(None));
    }

    #[test]
    fn whatever_the_plane_refuses_may_be_sent_again() {
        let (serial, newest) = (1, 2);
        let refused = MetadataError::Refused(Refusal::StaleSerial { serial, newest });
        assert_eq!(written(Err(refused)).unwrap_err().status(), 503);
        assert_eq!(
            written(Ok(Reply::Tenant(TenantId(1))))
                .unwrap_err()
                .status(),
            503
        );
        let (position, present) = (0, Some(1));
        let failed = Refusal::ConditionFailed { position, present };
        assert_eq!(written(Err(MetadataError::Refused(failed))), Ok(false));
    }

    #[test]
    fn the_value_in_the_plane() {
        let mut elected = Elected {
            replica: "a".to_owned(),
            heard: 258,
            succession: None,
        };
        let bytes = b"\x01\x02\x01\0\0\0\0\0\0a";
        assert_eq!(elected.encode(), bytes);
        assert_eq!(Elected::decode(bytes), Some(elected.clone()));
        elected.succession = Some(Succession {
            at: 3,
            others_until: -1,
        });
        let bytes = b"\x02\x02\x01\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xffa";
        assert_eq!(elected.encode(), bytes);
        assert_eq!(Elected::decode(bytes), Some(elected));
        assert_eq!(Elected::decode(&bytes[..24]), None);
        assert_eq!(Elected::decode(b"\x03\x02\x01\0\0\0\0\0\0a"), None);
        assert_eq!(Elected::decode(b"\x01"), None);
    }

    #[test]
    fn a_record_says_until_when_others_were_accepted() {
        let settings = PairSettings::default();
        let first = Elected::follow(None, "a", 1_000_000, &settings);
        assert_eq!((first.heard, first.succession), (1_000_000, None));
        assert_eq!(first.others_until(), Millis::MIN);
        let second = Elected::follow(Some(&first), "b", 1_090_000, &settings);
        let succession = Succession {
            at: 1_090_000,
            others_until: 1_022_500,
        };
        assert_eq!(second.succession, Some(succession));
        let heard_again = Elected::follow(Some(&second), "b", 1_105_000, &settings);
        assert_eq!(heard_again.succession, Some(succession));
        assert_eq!(heard_again.heard, 1_105_000);
        // Forgone it is the same election, once.
        let forgone = second.clone().forgoing("b").expect("it is compared");
        assert_eq!((forgone.heard, forgone.at()), (second.heard, None));
        assert_eq!(forgone.replica, "b");
        assert_eq!(forgone.clone().forgoing("b"), None);
        assert_eq!(second.clone().forgoing("a"), None);
        let heard_again = Elected::follow(Some(&forgone), "b", 1_105_000, &settings);
        assert_eq!(heard_again.succession, None);
        // All that was accepted of the first one without a record is before that.
        let last = first.heard + accepted_for(&settings).as_millis() as Millis;
        assert!(last + 1000 <= succession.others_until);
    }
}
