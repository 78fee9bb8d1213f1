//! Log lines of the node on standard error, as text or JSON.

use crate::config::LogFormat;
use anyhow::Context;
use std::io::IsTerminal;
use tracing_subscriber::{EnvFilter, fmt};

/// Starts logging for the process.
///
/// # Errors
/// When the filter cannot be read; the text says which directive is wrong.
pub(crate) fn start(format: LogFormat, level: &str) -> anyhow::Result<()> {
    let filter = filter(level)?;
    let builder = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    started
        .map_err(|error| anyhow::anyhow!(error))
        .context("start logging")
}

/// Which events are logged, for a level of the settings. What is named in it wins over what is said here of libraries. The
/// library under the metadata plane says nothing by default: it repeats each failed message, many times a second, by ids that
/// nobody knows; what matters of it is logged by name elsewhere.
///
/// # Errors
/// When it cannot be read; the text says which directive is wrong.
pub(crate) fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(format!(
        "openraft=off,h2=warn,hyper=warn,tonic=warn,{level}"
    ))
    .with_context(|| format!("read the log level {level:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    /// Whether an error of the library under the metadata plane would be logged, and one of ours.
    fn logged(level: &str) -> (bool, bool) {
        let filter = filter(level).expect("a level");
        let subscriber = tracing_subscriber::registry().with(filter);
        tracing::subscriber::with_default(subscriber, || {
            let library = tracing::enabled!(target: "openraft::core", tracing::Level::ERROR);
            (library, tracing::enabled!(tracing::Level::ERROR))
        })
    }

    #[test]
    fn the_raft_library_is_heard_only_when_it_is_named() {
        assert_eq!(logged("info"), (false, true));
        assert_eq!(logged("debug"), (false, true));
        assert_eq!(logged("info,openraft=warn"), (true, true));
        assert_eq!(logged("openraft::core=debug,info"), (true, true));
        assert_eq!(logged("off"), (false, false));
    }
}
