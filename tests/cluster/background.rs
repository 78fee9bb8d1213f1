//! A mass of samples beside the numbered ones: `trefoil bench metrics` at a fifth of what the cluster
//! was just measured to take.

use anyhow::Context;
use serde_json::Value;
use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};
use trefoil_tests::{Cluster, trefoil_binary};

/// The measurement before a scenario: short, since only its magnitude is needed.
const SERIES: u64 = 10_000;
const MEASURED_SAMPLES: u64 = 10;
/// The share of the capacity that a scenario's load takes.
const SHARE: f64 = 0.2;
/// Bounds of the load in samples per second, so that a strange measurement makes no strange test.
const RATE_MIN: f64 = 1_000.0;
const RATE_MAX: f64 = 30_000.0;

/// A background load against one node, ended with [`Background::finish`] or when dropped.
pub(crate) struct Background {
    child: Child,
}

impl Background {
    /// Measures the cluster through `node`, then loads that node with a fifth of it for `duration`.
    pub(crate) fn start(
        cluster: &Cluster,
        node: usize,
        duration: Duration,
    ) -> anyhow::Result<Self> {
        let measured = bench(cluster, node)?
            .args(["--samples", &MEASURED_SAMPLES.to_string(), "--seed", "1"])
            .output()
            .context("run the load generator")?;
        let report: Value = serde_json::from_slice(&measured.stdout).with_context(|| {
            format!(
                "read its report: {}",
                String::from_utf8_lossy(&measured.stderr)
            )
        })?;
        let capacity = report["samples_per_second"]
            .as_f64()
            .context("samples_per_second")?;
        let rate = (capacity * SHARE).clamp(RATE_MIN, RATE_MAX) as u64;
        eprintln!("capacity {capacity:.0} samples/s, background load {rate} samples/s");
        let samples = (rate * duration.as_secs()).div_ceil(SERIES).max(1);
        let child = bench(cluster, node)?
            .args(["--samples", &samples.to_string(), "--seed", "2"])
            .args(["--rate", &rate.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .context("start the load generator")?;
        Ok(Self { child })
    }

    /// Waits for the load's end. Every sample must have been acknowledged, retries included.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        let mut text = String::new();
        if let Some(mut out) = self.child.stdout.take() {
            std::io::Read::read_to_string(&mut out, &mut text)?;
        }
        let status = self.child.wait()?;
        anyhow::ensure!(status.success(), "the background load failed: {text}");
        Ok(())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // It has usually ended; there is nobody to tell.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn bench(cluster: &Cluster, node: usize) -> anyhow::Result<Command> {
    let mut command = Command::new(trefoil_binary()?);
    command
        .args(["bench", "metrics", "--output", "json"])
        .args(["--url", &cluster.url(node)])
        .args(["--series", &SERIES.to_string(), "--concurrency", "2"])
        .stderr(Stdio::inherit());
    Ok(command)
}
