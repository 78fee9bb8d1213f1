//! What one writer or querier has seen: every attempt, and why some failed.

use crate::Attempt;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// Reasons of failures that are kept for a message.
const REASONS_KEPT_MAX: usize = 20;

/// Shared by the task that sees and the test that asks.
#[derive(Clone, Default)]
pub(super) struct Seen(Arc<Mutex<Record>>);

/// Attempts in their order, the first reasons of failures, and answers that were wrong or incomplete.
#[derive(Default)]
pub(super) struct Record {
    pub(super) attempts: Vec<Attempt>,
    pub(super) reasons: Vec<String>,
    pub(super) wrong: Vec<String>,
}

impl Seen {
    pub(super) fn record(&self, begun: Instant, outcome: Result<(), String>) {
        let mut record = self.get();
        record.attempts.push(Attempt {
            begun,
            ended: Instant::now(),
            success: outcome.is_ok(),
        });
        if let Err(reason) = outcome
            && record.reasons.len() < REASONS_KEPT_MAX
        {
            record.reasons.push(reason);
        }
    }

    pub(super) fn get(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
