//! Whether all replicas agreed once everything was over (D3): within [`AGREEMENT_MAX`] of the moment at which the
//! last fault had ended and the last write was answered.

use super::{Seconds, Violations};
use crate::history::{Action, Digests, History, Micros, Numbered};

/// How long replicas may take to become equal at rest, from the issue and from D3 (10 s plus backlog; the loads of
/// these runs leave none worth a second). Longer is a violation.
pub const AGREEMENT_MAX: Micros = 10_000_000;

/// Looks at every comparison, and for a last one after everything else. Runs that wrote no telemetry have nothing to
/// compare.
#[must_use]
pub fn check(history: &History) -> Violations {
    let mut violations = Violations::none("digests");
    let wrote = history.run.workloads.iter().any(|name| name == "set");
    for digests in &history.digests {
        if let Err(reason) = check_one(history, digests) {
            violations.push(Some(digests.rest_since), || {
                format!("line {}: {reason}", digests.line)
            });
        }
    }
    let over = over(history);
    let last = history.digests.iter().map(|digests| digests.rest_since);
    match last.max() {
        _ if !wrote => {}
        None => violations.push(None, || "the replicas were never compared"),
        Some(rest) if rest < over => violations.push(Some(over), || {
            format!(
                "the replicas were not compared after the last fault and write, which were over at {}",
                Seconds(over)
            )
        }),
        Some(_) => {}
    }
    violations
}

fn check_one(history: &History, digests: &Numbered<Digests>) -> Result<(), String> {
    if digests.compared == 0 {
        return Err("the comparison compared nothing".to_owned());
    }
    let Some(equal_at) = digests.equal_at else {
        return Err(format!(
            "the replicas did not become equal after {}: {}",
            Seconds(digests.rest_since),
            digests.unequal.join("; ")
        ));
    };
    let Some(took) = equal_at.checked_sub(digests.rest_since) else {
        return Err("the replicas were found equal before there was rest".to_owned());
    };
    if took > AGREEMENT_MAX {
        return Err(format!(
            "the replicas became equal only {} after the last fault and write",
            Seconds(took)
        ));
    }
    let disturbed = history
        .faults
        .iter()
        .find(|fault| fault.begun < equal_at && fault.ended > digests.rest_since);
    if let Some(fault) = disturbed {
        return Err(format!(
            "the comparison ran during the fault of line {}",
            fault.line
        ));
    }
    Ok(())
}

/// When the last fault had ended and the last add was answered or given up.
fn over(history: &History) -> Micros {
    let writes = history
        .operations
        .iter()
        .filter(|operation| matches!(operation.action, Action::Add { .. }))
        .map(|add| add.completed.unwrap_or(add.invoked));
    let faults = history.faults.iter().map(|fault| fault.ended);
    writes.chain(faults).max().unwrap_or(0)
}
