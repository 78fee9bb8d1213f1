//! Which faults come in which order, for how long, and whom they strike.

use super::Kind;
use anyhow::{Context, ensure};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde::{Deserialize, Serialize};
use std::{fs, path::Path, time::Duration};

/// How long a fault lasts.
const LASTS_MS: std::ops::Range<u64> = 4_000..8_000;
/// How long the nodes are left alone between two faults, once all are ready again.
const REST_MS: std::ops::Range<u64> = 1_000..3_000;
/// Rounds over all kinds that a schedule has. A run ends by its time, not by its schedule.
const ROUNDS: usize = 200;

/// One fault to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Which kind.
    pub kind: Kind,
    /// Decides whom it strikes and how.
    pub choice: u64,
    /// How long it lasts, milliseconds.
    pub lasts_ms: u64,
    /// How long nothing happens afterwards, milliseconds.
    pub rest_ms: u64,
}

impl Step {
    /// How long it lasts.
    #[must_use]
    pub fn lasts(&self) -> Duration {
        Duration::from_millis(self.lasts_ms)
    }

    /// The dice of its choice: the same at each replay.
    #[must_use]
    pub fn dice(&self) -> StdRng {
        StdRng::seed_from_u64(self.choice)
    }
}

/// All faults of a run, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// What it was made from; also the seed of the clients.
    pub seed: u64,
    /// Nodes at the begin.
    pub nodes: usize,
    /// The faults. After the last one nothing disturbs any more.
    pub steps: Vec<Step>,
}

impl Schedule {
    /// All kinds in rounds, each round in an order of its own.
    #[must_use]
    pub fn random(seed: u64, nodes: usize, kinds: &[Kind]) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let mut steps = Vec::new();
        for _ in 0..ROUNDS {
            let mut round = kinds.to_vec();
            round.shuffle(&mut dice);
            steps.extend(round.into_iter().map(|kind| Step {
                kind,
                choice: dice.random(),
                lasts_ms: dice.random_range(LASTS_MS),
                rest_ms: dice.random_range(REST_MS),
            }));
        }
        Self { seed, nodes, steps }
    }

    /// Reads what [`Schedule::write`] wrote.
    ///
    /// # Errors
    /// When it cannot be read, or has less than one node.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let schedule: Self = serde_json::from_slice(&text)
            .with_context(|| format!("{} is no schedule", path.display()))?;
        ensure!(schedule.nodes > 0, "{} has no nodes", path.display());
        Ok(schedule)
    }

    /// Writes the first `done` steps: what a run came to do.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path, done: usize) -> anyhow::Result<()> {
        let schedule = Self {
            steps: self.steps[..done.min(self.steps.len())].to_vec(),
            ..self.clone()
        };
        let text = serde_json::to_vec_pretty(&schedule)?;
        fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }

    /// The kinds that it has, each once, in the order of [`Kind::ALL`].
    #[must_use]
    pub fn kinds(&self) -> Vec<Kind> {
        let has = |kind: &&Kind| self.steps.iter().any(|step| step.kind == **kind);
        Kind::ALL.iter().filter(has).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_one_schedule_and_a_file_keeps_it() {
        let kinds = [Kind::Pause, Kind::KillOne];
        let schedule = Schedule::random(5, 3, &kinds);
        assert_eq!(schedule, Schedule::random(5, 3, &kinds));
        assert_ne!(schedule, Schedule::random(6, 3, &kinds));
        for round in schedule.steps.chunks(2) {
            assert!(round[0].kind != round[1].kind);
        }
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("schedule.json");
        schedule.write(&path, 3).expect("written");
        let read = Schedule::read(&path).expect("read");
        assert_eq!(read.steps, schedule.steps[..3]);
        assert_eq!(read.kinds(), [Kind::KillOne, Kind::Pause]);
        std::fs::write(&path, "{}").expect("written");
        assert!(Schedule::read(&path).is_err());
    }
}
