//! Network namespaces as threads see them. Making and removing them is the business of who needs them.
//!
//! A namespace belongs to a thread, not to a process: a thread that has entered one stays there until it
//! ends, and threads and processes that it starts are born there.

use anyhow::Context;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::{fs::File, os::fd::AsFd, path::Path, process::Command, sync::OnceLock, thread};

/// Moves the calling thread into a network namespace, given as a file below `/run/netns`. Sockets that it
/// has open stay where they were made; all that it makes from now on, threads and processes included, is
/// inside. For an asynchronous runtime, call it in `on_thread_start` and on the thread that blocks on it.
///
/// # Errors
/// When there is no such namespace or the process lacks the right (`CAP_SYS_ADMIN`); nothing has changed
/// then.
pub fn enter_namespace(namespace: &Path) -> anyhow::Result<()> {
    let file = File::open(namespace)
        .with_context(|| format!("open the network namespace {}", namespace.display()))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("enter the network namespace {}", namespace.display()))
}

/// Runs something on a thread of its own inside a namespace; the caller stays where it is.
///
/// # Errors
/// As [`enter_namespace`], and what the work itself says.
pub(crate) fn inside<T: Send>(
    namespace: &Path,
    work: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            enter_namespace(namespace)?;
            work()
        });
        match worker.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Why network namespaces cannot be used here, or `None` when they can. Tried once per process, with a
/// namespace that is removed at once.
#[must_use]
pub fn namespaces_missing() -> Option<&'static str> {
    static TRIED: OnceLock<Option<String>> = OnceLock::new();
    TRIED.get_or_init(try_namespace).as_deref()
}

fn try_namespace() -> Option<String> {
    let name = format!("trefoil-try-{}", std::process::id());
    let ip = |verb: &str| match Command::new("ip").args(["netns", verb, &name]).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("run ip (package iproute2): {error}")),
    };
    let entered = ip("add").and_then(|()| {
        let entered = inside(&Path::new("/run/netns").join(&name), || {
            File::open("/dev/net/tun").context("open /dev/net/tun")
        });
        ip("delete")?;
        entered.map_err(|error| format!("{error:#}"))
    });
    entered.err()
}
