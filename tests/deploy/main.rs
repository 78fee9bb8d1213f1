//! What is in `deploy/` is what the program is: manifests, chart, image, unit and compose file are compared with
//! the binary's own flags, variables, ports and answers, and with each other.
//!
//! No cluster of Kubernetes is needed. Other programs check what they know: `kubernetes-validate` the schemas,
//! `kubectl` the overlays (which are built here as well), Go's templates the chart, `systemd-analyze` the unit, `buildah` the image. One that is
//! absent is told and skipped, or fails the test where `TREFOIL_REQUIRE_PEERS` is set.

mod chart;
mod compose;
mod image;
mod kustomize;
mod manifests;
mod probes;
mod unit;

use anyhow::{Context, ensure};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use trefoil_jepsen::trefoil_binary;

/// A file or folder of the project.
fn project(path: &str) -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).join(path)
}

fn read(path: &str) -> anyhow::Result<String> {
    fs::read_to_string(project(path)).with_context(|| format!("read {path}"))
}

/// Runs a program to its end; what it printed.
///
/// # Errors
/// When it fails, with what it said.
fn output(command: &mut Command, input: &str) -> anyhow::Result<String> {
    let program = command.get_program().to_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {program:?}"))?;
    child
        .stdin
        .take()
        .context("its input")?
        .write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(
        output.status.success(),
        "{program:?}: {}\n{out}{err}",
        output.status
    );
    Ok(out)
}

/// What `trefoil` prints for these arguments.
fn trefoil(arguments: &[&str]) -> anyhow::Result<String> {
    output(Command::new(trefoil_binary()?).args(arguments), "")
}

/// The manifests for these arguments, as text.
fn manifests_text(arguments: &[&str]) -> anyhow::Result<String> {
    trefoil(&[&["k8s", "manifests"], arguments].concat())
}

/// The documents of a YAML text, in an order and with lists in an order that do not depend on who printed them.
fn documents(text: &str) -> anyhow::Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)?;
    let documents = documents.into_iter().filter(|d| !d.is_null()).collect();
    Ok(in_order(documents))
}

/// Documents in the order that does not depend on who printed them.
fn in_order(mut documents: Vec<Value>) -> Vec<Value> {
    documents.iter_mut().for_each(sort_named);
    documents.sort_by_key(|d| format!("{}/{}", d["kind"], d["metadata"]["name"]));
    documents
}

/// Sorts lists whose elements are known by a name: their order means nothing to Kubernetes.
fn sort_named(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(sort_named),
        Value::Array(items) => {
            items.iter_mut().for_each(sort_named);
            for key in ["name", "mountPath", "topologyKey"] {
                if items.iter().all(|item| item[key].is_string()) {
                    items.sort_by_key(|item| format!("{}{}", item[key], item["mountPath"]));
                    return;
                }
            }
        }
        _ => {}
    }
}

/// The flags of a subcommand and the variables beside them, from its own help.
fn flags_and_variables(
    subcommand: &[&str],
) -> anyhow::Result<(BTreeSet<String>, BTreeSet<String>)> {
    let help = trefoil(&[subcommand, &["--help"]].concat())?;
    let words = |begin: &str, end: &[char]| -> BTreeSet<String> {
        let pieces = help.split(begin).skip(1);
        pieces
            .filter_map(|piece| piece.split(end).next())
            .map(|word| format!("{begin}{word}"))
            .collect()
    };
    let variables = words("TREFOIL_", &['=', ']', ' ', '\n', '*']);
    Ok((words("--", &[' ', '\n', ',', '=']), variables))
}

/// The `TREFOIL_*` words in a text.
fn variables_in(text: &str) -> BTreeSet<String> {
    let is_inside = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    text.split(|c: char| !is_inside(c))
        .filter(|word| word.starts_with("TREFOIL_"))
        .map(str::to_owned)
        .collect()
}

/// Fails when a text sets a variable that no flag of `serve` has.
fn check_variables(place: &str, text: &str, expected: usize) -> anyhow::Result<()> {
    let (_, known) = flags_and_variables(&["serve"])?;
    let used = variables_in(text);
    let unknown: Vec<&String> = used.difference(&known).collect();
    ensure!(unknown.is_empty(), "{place}: serve knows no {unknown:?}");
    ensure!(used.len() >= expected, "{place} uses only {used:?}");
    Ok(())
}
