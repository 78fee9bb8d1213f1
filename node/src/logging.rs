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

/// Which events are logged, for a level of the settings.
///
/// # Errors
/// When it cannot be read; the text says which directive is wrong.
pub(crate) fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(format!(
        "{level},openraft=warn,h2=warn,hyper=warn,tonic=warn"
    ))
    .with_context(|| format!("read the log level {level:?}"))
}
