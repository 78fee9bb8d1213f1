//! Deltas as totals: what OpenTelemetry's points of delta temporality become.
//!
//! ```text
//! any node --deltas--> holder of the lease --> totals it remembers, or reads back --> samples, written as any others
//! ```
//! One node adds, because additions need an order; which one, the metadata plane decides by a lease. What it remembers is a
//! cache of what is stored: it may be lost at any time, at a crash too, and the next holder goes on from the stored totals.
//! A total is stored before its delta is acknowledged and before the next one is made of it, and a repeated delta makes the same
//! total again. What a former holder wrote may come to light at any time later: it is the same sample, lies in front of the begin
//! of a new counter, or is covered (`counter.rs`); `simulation.rs` tries.
//!
//! Why it is so: docs/decisions/deltas-continue-stored-totals.md.

pub(crate) mod counter;
pub(crate) mod message;
pub(crate) mod read_back;
#[cfg(test)]
mod simulation;
pub(crate) mod totals;
pub(crate) mod turns;
