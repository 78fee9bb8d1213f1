//! A panic where nothing may stop unnoticed ends the process.
//!
//! The runtime survives the panic of a thread or a task. A node whose core, applier or flusher is gone would go on
//! answering its peers with less and less; a restart replays what is durable.

/// Ends the process when it is dropped by a panic that began while it was there. The panic's own message stands
/// before.
pub(super) struct EndsWithProcess {
    what: &'static str,
    /// It was made while something else was failing already, by a drop of that.
    in_another: bool,
}

impl EndsWithProcess {
    pub(super) fn new(what: &'static str) -> Self {
        Self {
            what,
            in_another: std::thread::panicking(),
        }
    }
}

impl Drop for EndsWithProcess {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.in_another {
            tracing::error!("{} has failed by a bug; this process ends", self.what);
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::flusher;
    use std::process::Command;

    /// Tells the copy of this program that it is to fail.
    const FAIL: &str = "TREFOIL_TEST_FAILS_IN_A_THREAD";

    /// In the copy only: a thread of the node panics, and everything ends with it.
    #[test]
    fn fails_if_it_is_told_to() {
        if std::env::var_os(FAIL).is_some() {
            let (never, waits) = std::sync::mpsc::channel::<()>();
            flusher::spawn("flusher", || panic!("a bug"));
            // Ends by a time-out, and well, when the process goes on.
            let deadline = std::time::Duration::from_secs(10);
            waits.recv_timeout(deadline).ok();
            drop(never);
        }
    }

    #[test]
    fn what_begins_inside_another_panic_ends_nothing() {
        struct Fed;
        impl Drop for Fed {
            fn drop(&mut self) {
                let _ends = super::EndsWithProcess::new("the replication core");
            }
        }
        let failed = std::panic::catch_unwind(|| {
            let _fed = Fed;
            panic!("a bug elsewhere");
        });
        assert!(failed.is_err());
    }

    #[test]
    fn a_panic_of_a_thread_ends_the_process() {
        let program = std::env::current_exe().expect("this program");
        let mut copy = Command::new(program);
        copy.args([
            "data_plane::panics::tests::fails_if_it_is_told_to",
            "--exact",
        ]);
        let output = copy.env(FAIL, "1").output().expect("a copy runs");
        assert!(!output.status.success(), "it went on: {output:?}");
        assert_eq!(output.status.code(), None, "a signal ended it: {output:?}");
    }
}
