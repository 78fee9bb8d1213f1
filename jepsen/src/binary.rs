//! Finds the `trefoil` program that the tests start.

use anyhow::{Context, bail};
use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The program to test: `TREFOIL_BIN` where it is set, else the release build of this tree, which is
/// brought up to date once per test program. Cargo decides what is fresh, so a stale program is never
/// tested.
///
/// # Errors
/// When `TREFOIL_BIN` names nothing, or the build fails.
pub fn trefoil_binary() -> anyhow::Result<PathBuf> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = BINARY.get_or_init(|| find_or_build().map_err(|error| format!("{error:#}")));
    found.clone().map_err(anyhow::Error::msg)
}

fn find_or_build() -> anyhow::Result<PathBuf> {
    if let Ok(named) = env::var("TREFOIL_BIN") {
        let path = PathBuf::from(named);
        if !path.is_file() {
            bail!("TREFOIL_BIN names {}, which is no file", path.display());
        }
        return Ok(path);
    }
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = target_folder()?;
    // What `cargo test --workspace` has built already, the programs included: tests of their own packages start them too.
    // A build of the programs alone would leave out what only tests want of libraries, and build almost all again.
    let status = Command::new(cargo)
        .args(["test", "--release", "--workspace", "--no-run", "--quiet"])
        .arg("--target-dir")
        .arg(&target)
        .current_dir(own.parent().unwrap_or(own))
        .status()
        .context("start cargo")?;
    if !status.success() {
        bail!("cargo test --release --workspace --no-run failed: {status}");
    }
    Ok(target.join("release").join("trefoil"))
}

/// The target folder in which this test was built: three levels above it
/// (`target/release/deps/cluster-0123`).
fn target_folder() -> anyhow::Result<PathBuf> {
    let test = env::current_exe().context("find this test program")?;
    let folder = test.ancestors().nth(3).context("find the target folder")?;
    Ok(folder.to_owned())
}
