//! The systemd unit.

use crate::{check_variables, flags_and_variables, output, project, read};
use anyhow::{Context, ensure};
use std::{fs, process::Command};
use trefoil_jepsen::trefoil_binary;
use trefoil_tests::{Peer, peer_program};

const UNIT: &str = "deploy/systemd/trefoil.service";
/// The exposure that `systemd-analyze security` may find, in tenths: below 2 it says "OK".
const EXPOSURE_TENTHS_MAX: &str = "15";

#[test]
fn the_unit_starts_commands_that_there_are_with_variables_that_there_are() -> anyhow::Result<()> {
    let text = read(UNIT)?;
    check_variables(UNIT, &text, 6)?;
    for key in ["ExecStart=", "ExecStop=-"] {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .context(key)?;
        let words: Vec<&str> = line.split(' ').skip(1).collect();
        let commands: Vec<&str> = words
            .iter()
            .copied()
            .take_while(|w| !w.starts_with("--"))
            .collect();
        let (flags, _) = flags_and_variables(&commands)?;
        for flag in words.iter().filter(|word| word.starts_with("--")) {
            ensure!(flags.contains(*flag), "{key}: {commands:?} has no {flag}");
        }
    }
    Ok(())
}

#[test]
fn systemd_reads_the_unit_and_finds_it_closed() -> anyhow::Result<()> {
    let Peer::Found(analyze) = peer_program("systemd-analyze")? else {
        return Ok(());
    };
    // The program is not installed where it would be.
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("trefoil.service");
    let binary = trefoil_binary()?.display().to_string();
    fs::write(&file, read(UNIT)?.replace("/usr/bin/trefoil", &binary))?;
    let verified = Command::new(&analyze)
        .args(["verify", "--man=no"])
        .arg(&file)
        .output()?;
    // Lines that are not understood are told and no failure; those about units of the machine are not ours.
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    ensure!(
        verified.status.success() && !said.contains("trefoil.service"),
        "{said}"
    );
    let mut security = Command::new(&analyze);
    let threshold = format!("--threshold={EXPOSURE_TENTHS_MAX}");
    security
        .args(["security", "--offline=true", &threshold])
        .arg(project(UNIT));
    output(&mut security, "").map(drop)
}
