//! The manifests: as they are kept, as overlays change them, and as the schemas of Kubernetes want them.

use crate::{documents, in_order, kustomize, manifests_text, output, project, read};
use anyhow::{Context, ensure};
use serde_json::Value;
use std::{env, fs, process::Command};
use trefoil_tests::{Peer, peer_program};

/// Newest and oldest version whose schemas must accept the manifests.
const VERSIONS: [&str; 2] = ["1.37.0", "1.31.0"];

/// Every combination that prints something of its own.
pub(crate) const FORMS: [&[&str]; 4] = [
    &[],
    &[
        "--replicas",
        "1",
        "--without-cluster-key",
        "--without-network-policy",
    ],
    &[
        "--zones",
        "a,b,c",
        "--allow-namespaces",
        "m,n",
        "--storage-class",
        "fast",
        "--namespace",
        "x",
    ],
    &[
        "--replicas",
        "7",
        "--ingress-host",
        "t.example.org",
        "--ingress-class",
        "nginx",
        "--service-monitor",
    ],
];

#[test]
fn the_kept_base_is_what_the_program_prints() -> anyhow::Result<()> {
    let printed = manifests_text(&[])?;
    let kept = read("deploy/kubernetes/base/trefoil.yaml")?;
    ensure!(
        printed == kept,
        "deploy/kubernetes/base/trefoil.yaml is not what `trefoil k8s manifests` prints: write it anew"
    );
    Ok(())
}

/// Each overlay says in its second line which arguments print the same.
#[test]
fn overlays_are_what_the_program_prints_with_their_arguments() -> anyhow::Result<()> {
    // Never demanded: the one of Debian 12 is too old for overlays like these.
    let folders = env::var_os("PATH").unwrap_or_default();
    let mut candidates = env::split_paths(&folders).map(|folder| folder.join("kubectl"));
    let kubectl = candidates.find(|path| path.is_file());
    if kubectl.is_none() {
        eprintln!("kubectl is not installed; the overlays are only built by this test itself");
    }
    for name in ["dev", "three-zones"] {
        let folder = format!("deploy/kubernetes/overlays/{name}");
        let text = read(&format!("{folder}/kustomization.yaml"))?;
        let command = text
            .lines()
            .find_map(|line| line.strip_prefix("# The same as: trefoil k8s manifests "));
        let arguments: Vec<&str> = command
            .context("the line with its arguments")?
            .split(' ')
            .collect();
        let printed = documents(&manifests_text(&arguments)?)?;
        let said = || format!("{folder} and {arguments:?}");
        compare(&in_order(kustomize::build(&folder)?), &printed).with_context(said)?;
        if let Some(kubectl) = &kubectl {
            let build = ["kustomize".into(), project(&folder)];
            let built = output(Command::new(kubectl).args(build), "")?;
            compare(&documents(&built)?, &printed).with_context(said)?;
        }
    }
    Ok(())
}

/// Resources of our own kind have no schema there.
#[test]
fn the_schemas_of_kubernetes_accept_the_manifests() -> anyhow::Result<()> {
    let Peer::Found(validate) = peer_program("kubernetes-validate")? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let mut files = Vec::new();
    for (form, arguments) in FORMS.iter().enumerate() {
        for (number, object) in documents(&manifests_text(arguments)?)?.iter().enumerate() {
            if object["kind"] != "ServiceMonitor" {
                let file = folder.path().join(format!("{form}-{number}.yaml"));
                fs::write(&file, object.to_string())?;
                files.push(file);
            }
        }
    }
    for version in VERSIONS {
        let check = ["--strict", "-k", version];
        output(Command::new(&validate).args(check).args(&files), "")?;
    }
    // Whoever accepts everything checks nothing.
    let wrong = folder.path().join("wrong.yaml");
    let text = fs::read_to_string(&files[files.len() - 1])?;
    fs::write(&wrong, text.replace("\"spec\"", "\"specs\""))?;
    let accepted = output(Command::new(&validate).arg("--strict").arg(&wrong), "");
    ensure!(accepted.is_err(), "a misspelt field was accepted");
    Ok(())
}

/// Fails with the first difference.
pub(crate) fn compare(one: &[Value], other: &[Value]) -> anyhow::Result<()> {
    let names = |objects: &[Value]| -> Vec<String> {
        let name = |o: &Value| format!("{} {}", o["kind"], o["metadata"]["name"]);
        objects.iter().map(name).collect()
    };
    ensure!(
        names(one) == names(other),
        "{:?}, {:?}",
        names(one),
        names(other)
    );
    for (one, other) in one.iter().zip(other) {
        same(one, other, &format!("{}", one["kind"]))?;
    }
    Ok(())
}

fn same(one: &Value, other: &Value, place: &str) -> anyhow::Result<()> {
    if let (Value::Object(a), Value::Object(b)) = (one, other) {
        for key in a.keys().chain(b.keys()) {
            same(&one[key], &other[key], &format!("{place}.{key}"))?;
        }
        return Ok(());
    }
    if let (Value::Array(a), Value::Array(b)) = (one, other)
        && a.len() == b.len()
    {
        for (index, (a, b)) in a.iter().zip(b).enumerate() {
            same(a, b, &format!("{place}[{index}]"))?;
        }
        return Ok(());
    }
    ensure!(one == other, "{place}: {one} and {other}");
    Ok(())
}
