//! Drives the agreement of [`crate::formation`]: asks the peers, makes promises durable, begins or
//! joins.

use super::{MetadataPlane, stopped};
use crate::formation::{Agreement, BootstrapSettings, Founding, Report, Standing, Step, promise};
use crate::state::{Command, MemberDescription, Refusal};
use crate::transport::RpcKind;
use crate::{MetadataError, TransportError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::{sync::watch, task::JoinSet, time::Instant};
use trefoil_model::{ClusterId, NodeId};

/// Time between two rounds of questions.
const ROUND: Duration = Duration::from_millis(100);
/// How long a peer may take to answer one.
const ANSWER_DEADLINE: Duration = Duration::from_millis(800);
/// What a node expects that must not found a cluster: no founding has so few founders.
const FOUNDS_NOTHING: usize = 0;

/// Reasons that are remembered as told; one that comes while there are more is told anew.
const REASONS_MAX: usize = 64;
/// A reason that holds on is told again after this time.
const REASON_INTERVAL: Duration = Duration::from_secs(60);

/// Why the node is not part of a cluster yet, and what was said of that.
#[derive(Default)]
pub(super) struct Reasons {
    present: Option<String>,
    /// When each was told last. Members can give different ones in turn, ten times a second.
    told: BTreeMap<String, Instant>,
}

impl Reasons {
    /// Notes a reason; whether it should be told now.
    fn is_news(&mut self, reason: &str) -> bool {
        if self.present.as_deref() != Some(reason) {
            self.present = Some(reason.to_owned());
        }
        let now = Instant::now();
        let told = self.told.get(reason);
        if told.is_some_and(|told| now.duration_since(*told) < REASON_INTERVAL) {
            return false;
        }
        if self.told.len() >= REASONS_MAX {
            self.told.clear();
        }
        self.told.insert(reason.to_owned(), now);
        true
    }
}

impl MetadataPlane {
    /// Makes this node part of a cluster: goes on with the one it belongs to, joins one of which a
    /// peer is a member, or founds one with the others. Ends when the node is a member and has told
    /// the others what it says of itself; without enough peers it goes on trying, and
    /// [`MetadataPlane::forming_reason`] says why.
    ///
    /// Settings under which two clusters could begin keep it from founding one, and from nothing else:
    /// behind a name with all addresses of the cluster, a cluster that has grown looks like that to
    /// its own members. They are judged in every round as they are then: what the seeds lead to changes.
    ///
    /// # Errors
    /// [`MetadataError::Refused`] when the node was removed or is too old; [`MetadataError::Disk`] and
    /// [`MetadataError::Stopped`]. Nothing of this passes by trying again.
    pub async fn form(
        &self,
        settings: watch::Receiver<BootstrapSettings>,
        description: MemberDescription,
    ) -> Result<ClusterId, MetadataError> {
        let mut rounds = tokio::time::interval(ROUND);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut joined = false;
        loop {
            rounds.tick().await;
            self.check_running()?;
            if self.is_initialized().await? && self.announce(&description).await? {
                return self.cluster().ok_or_else(|| MetadataError::OtherCluster {
                    reason: "the node has a Raft log but no cluster".to_owned(),
                });
            }
            let (founders, unsound) = founders_expected(*settings.borrow());
            self.inner.agreement.lock().await.expect_founders(founders);
            self.ask_peers().await;
            let (step, standing) = {
                let agreement = self.inner.agreement.lock().await;
                (agreement.step(), agreement.standing())
            };
            match (&step, standing, &unsound) {
                (Step::Wait(_), Standing::Blank, Some(error)) => self.note_reason(format!(
                    "{error}; this node founds no cluster and joins the one that it finds"
                )),
                _ => self.take_step(step, &description, &mut joined).await?,
            }
        }
    }

    /// Why the node is not part of a cluster yet; none when it is, or nothing was tried.
    #[must_use]
    pub fn forming_reason(&self) -> Option<String> {
        self.inner.forming_reason.lock().present.clone()
    }

    async fn is_initialized(&self) -> Result<bool, MetadataError> {
        let initialized = self.inner.raft.is_initialized().await;
        Ok(initialized.map_err(|error| stopped(&error))? && self.cluster().is_some())
    }

    /// Tells the members what this node says of itself. Says whether it is done.
    async fn announce(&self, description: &MemberDescription) -> Result<bool, MetadataError> {
        let command = Command::AddMember {
            node: self.inner.node,
            description: description.clone(),
        };
        match self.propose(command).await {
            Ok(_) => {
                // A founder's identity names the cluster only now that it has certainly begun.
                if let Some(cluster) = self.cluster() {
                    self.belong_to(cluster).await?;
                }
                *self.inner.forming_reason.lock() = Reasons::default();
                Ok(true)
            }
            Err(MetadataError::Refused(Refusal::StaleSerial { .. })) => Ok(false),
            Err(MetadataError::NoLeader { reason }) => {
                self.note_reason(format!(
                    "no leader has taken this node's description: {reason}"
                ));
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn note_reason(&self, reason: String) {
        if self.inner.forming_reason.lock().is_news(&reason) {
            tracing::info!(%reason, "the node is not part of a cluster yet");
        }
    }

    /// A member has answered that it does not take this node: an operator may have to do something.
    fn note_refusal(&self, cluster: ClusterId, reason: &str) {
        let reason = format!("{cluster} does not take this node: {reason}");
        let mut reasons = self.inner.forming_reason.lock();
        // At first it may only be that the cluster has no leader for a moment.
        let stays = reasons.told.contains_key(&reason);
        match (reasons.is_news(&reason), stays) {
            (true, true) => tracing::warn!(%reason, "the node is not part of a cluster yet"),
            (true, false) => tracing::info!(%reason, "the node is not part of a cluster yet"),
            (false, _) => {}
        }
    }

    /// One round of questions to everybody who was seen.
    async fn ask_peers(&self) {
        let seen = self.inner.peer_view.borrow().seen.clone();
        let mut questions = JoinSet::new();
        for peer in seen.into_iter().filter(|peer| *peer != self.inner.node) {
            let peers = self.inner.peers.clone();
            questions.spawn(async move {
                let answer: Result<Report, TransportError> =
                    peers.call(peer, RpcKind::Hello, &(), ANSWER_DEADLINE).await;
                (peer, answer)
            });
        }
        while let Some(answered) = questions.join_next().await {
            let Ok((peer, answer)) = answered else {
                continue;
            };
            let mut agreement = self.inner.agreement.lock().await;
            match answer {
                Ok(report) => agreement.hear(peer, report),
                Err(_) => agreement.miss(peer),
            }
        }
    }

    /// `joined` says whether a member has committed this node's membership in this run.
    async fn take_step(
        &self,
        step: Step,
        description: &MemberDescription,
        joined: &mut bool,
    ) -> Result<(), MetadataError> {
        match step {
            Step::Wait(reason) | Step::Stuck(reason) => self.note_reason(reason),
            Step::Propose(founders) => {
                let founding = Founding {
                    cluster: ClusterId(rand::random()),
                    founders,
                };
                self.promise(founding).await?;
            }
            Step::Promise(founding) => {
                self.promise(founding).await?;
            }
            Step::Ask(founding, missing) => {
                for peer in missing {
                    self.ask_promise(peer, &founding).await;
                }
            }
            Step::Begin(founding) => {
                self.initialize(founding.cluster, &founding.founders)
                    .await?;
            }
            Step::Join(cluster, _) if *joined => {
                self.note_reason(format!(
                    "the leader of {cluster} has not sent its state yet"
                ));
            }
            Step::Join(cluster, via) => {
                for member in via {
                    match self.join(member, description.clone()).await {
                        Ok(_) => {
                            *joined = true;
                            break;
                        }
                        Err(MetadataError::NotAdmitted { reason }) => {
                            self.note_refusal(cluster, &reason);
                        }
                        Err(error) => self.note_reason(format!("joining {cluster}: {error}")),
                    }
                }
            }
        }
        Ok(())
    }

    async fn ask_promise(&self, peer: NodeId, founding: &Founding) {
        let answer: Result<Report, TransportError> = self
            .inner
            .peers
            .call(peer, RpcKind::Promise, founding, ANSWER_DEADLINE)
            .await;
        match answer {
            Ok(report) => self.inner.agreement.lock().await.hear(peer, report),
            Err(error) => self.note_reason(format!("node {peer} has not promised: {error}")),
        }
    }

    /// What this node says about clusters.
    pub(super) async fn report(&self) -> Report {
        self.inner.agreement.lock().await.report()
    }

    /// Promises a founding if that is possible, and reports what this node is committed to.
    pub(super) async fn promise(&self, founding: Founding) -> Result<Report, MetadataError> {
        let mut agreement = self.inner.agreement.lock().await;
        if let Err(reason) = agreement.may_promise(&founding) {
            tracing::info!(%reason, "a promise was asked for and not given");
            return Ok(agreement.report());
        }
        if agreement.standing() == Standing::Blank {
            let disk = Arc::clone(&self.inner.disk);
            let directory = self.inner.options.directory.clone();
            let written = founding.clone();
            let lost = self.inner.options.faults.promise_not_written;
            let work = move || match lost {
                true => Ok(()),
                false => promise::write(&*disk, &directory, &written),
            };
            self.inner.options.disk_work.run(work).await??;
            *self.inner.cluster.lock() = Some(founding.cluster);
            agreement.promised(founding);
        }
        Ok(agreement.report())
    }
}

/// How many founders a cluster of this node has, and why it founds none if it must not.
fn founders_expected(settings: BootstrapSettings) -> (usize, Option<MetadataError>) {
    match settings.check() {
        Ok(()) => (settings.expect, None),
        Err(error) => (FOUNDS_NOTHING, Some(error)),
    }
}

/// The agreement of a node as its directory has it.
pub(super) fn agreement(
    node: NodeId,
    promise: Option<Founding>,
    cluster: Option<ClusterId>,
) -> Agreement {
    // How many founders are expected is known when forming begins; until then nothing is promised.
    Agreement::new(node, usize::MAX, promise, cluster)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reason_that_holds_on_is_told_once_a_minute() {
        let mut reasons = Reasons::default();
        let mut told = 0;
        // Two members give different reasons in turn, each ten times a second, for three minutes.
        for _ in 0..1800 {
            for reason in ["the name is taken", "there is no leader"] {
                told += u32::from(reasons.is_news(reason));
            }
            tokio::time::advance(ROUND).await;
        }
        assert_eq!(told, 6);
        assert_eq!(reasons.present.as_deref(), Some("there is no leader"));
        for number in 0..2 * REASONS_MAX {
            assert!(reasons.is_news(&number.to_string()));
        }
        assert!(reasons.told.len() <= REASONS_MAX);
    }
}
