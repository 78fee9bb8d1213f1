//! What the controller needs to know, out of the manifests that `trefoil k8s manifests` prints: nothing about how a
//! node is started, probed and stopped stands in the rehearsal itself.

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::{collections::BTreeMap, fs, net::IpAddr, path::Path, process::Command, time::Duration};
use trefoil_jepsen::trefoil_binary;

/// The key of the rehearsal's cluster: 64 hexadecimal digits, of no other use.
const CLUSTER_KEY: &str = "5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed";

/// A probe of the kubelet.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    pub(crate) path: String,
    pub(crate) period: Duration,
    pub(crate) timeout: Duration,
    /// So many in a row make a failure.
    pub(crate) failures: u64,
}

/// A stateful set with its services, config map and secret.
#[derive(Clone, Debug)]
pub(crate) struct StatefulSet {
    pub(crate) name: String,
    /// The headless service.
    pub(crate) service: String,
    pub(crate) replicas: usize,
    pub(crate) min_ready: Duration,
    pub(crate) startup: Probe,
    pub(crate) readiness: Probe,
    pub(crate) liveness: Probe,
    /// What the preStop hook runs, without the program.
    pub(crate) pre_stop: Vec<String>,
    /// From the deletion of a pod to SIGKILL, hook included.
    pub(crate) grace: Duration,
    pub(crate) http_port: u16,
    args: Vec<String>,
    variables: Vec<Value>,
    mounts: Vec<(String, String)>,
    settings: BTreeMap<String, String>,
}

/// What only the cluster knows of a pod.
pub(crate) struct PodFacts<'a> {
    pub(crate) name: &'a str,
    pub(crate) address: IpAddr,
    pub(crate) zone: &'a str,
    /// Where its volumes are, each in a folder of its own name.
    pub(crate) volumes: &'a Path,
    /// Where its claim `data` is.
    pub(crate) data: &'a Path,
}

impl StatefulSet {
    /// Reads what the program prints for three replicas in three zones.
    ///
    /// # Errors
    /// When it does not print what is played here.
    pub(crate) fn print() -> anyhow::Result<Self> {
        let mut command = Command::new(trefoil_binary()?);
        command.args(["k8s", "manifests", "--replicas", "3", "--zones", "a,b,c"]);
        let output = command.output().context("run trefoil")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "trefoil k8s manifests: {said}");
        Self::read(&serde_saphyr::from_multiple(&String::from_utf8(
            output.stdout,
        )?)?)
    }

    fn read(documents: &[Value]) -> anyhow::Result<Self> {
        let of_kind = |kind: &str| {
            let mut all = documents.iter().filter(|d| d["kind"] == kind);
            all.next().with_context(|| format!("no {kind}"))
        };
        let set = of_kind("StatefulSet")?;
        let spec = &set["spec"];
        ensure!(
            spec["podManagementPolicy"] == "Parallel",
            "pods start in order"
        );
        ensure!(
            spec["updateStrategy"]["type"] == "RollingUpdate",
            "{}",
            spec["updateStrategy"]
        );
        let service = text(&spec["serviceName"])?;
        let headless = documents
            .iter()
            .find(|d| d["kind"] == "Service" && d["metadata"]["name"] == service.as_str());
        let headless = &headless.context("no headless service")?["spec"];
        ensure!(
            headless["publishNotReadyAddresses"] == true,
            "unready pods have no name"
        );
        let pod = &spec["template"]["spec"];
        let container = &pod["containers"][0];
        let hook = strings(&container["lifecycle"]["preStop"]["exec"]["command"])?;
        let settings = of_kind("ConfigMap")?["data"].as_object().context("data")?;
        let settings = settings
            .iter()
            .map(|(name, content)| Ok((name.clone(), text(content)?)));
        let mounts = list(&container["volumeMounts"])?.iter();
        let mounts = mounts.map(|m| Ok((text(&m["name"])?, text(&m["mountPath"])?)));
        let ports = list(&container["ports"])?;
        let http = ports
            .iter()
            .find(|port| port["name"] == "http")
            .context("no port http")?;
        Ok(Self {
            name: text(&set["metadata"]["name"])?,
            service,
            replicas: usize::try_from(number(&spec["replicas"])?)?,
            min_ready: Duration::from_secs(number(&spec["minReadySeconds"])?),
            startup: probe(&container["startupProbe"])?,
            readiness: probe(&container["readinessProbe"])?,
            liveness: probe(&container["livenessProbe"])?,
            pre_stop: hook.get(1..).unwrap_or_default().to_vec(),
            grace: Duration::from_secs(number(&pod["terminationGracePeriodSeconds"])?),
            http_port: u16::try_from(number(&http["containerPort"])?)?,
            args: strings(&container["args"])?,
            variables: list(&container["env"])?.clone(),
            mounts: mounts.collect::<anyhow::Result<_>>()?,
            settings: settings.collect::<anyhow::Result<_>>()?,
        })
    }

    /// The words that start a pod's container: variables as `NAME=VALUE`, the program, its arguments. They are for
    /// `env`.
    ///
    /// # Errors
    /// When a variable has a source that is not played here.
    pub(crate) fn words(&self, pod: &PodFacts<'_>) -> anyhow::Result<Vec<String>> {
        let mut words = Vec::new();
        for variable in &self.variables {
            let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
                None => self.inside(pod, &text(&variable["value"])?),
                Some("metadata.name") => pod.name.to_owned(),
                Some("status.podIP") => pod.address.to_string(),
                Some("metadata.labels['topology.kubernetes.io/zone']") => pod.zone.to_owned(),
                Some(other) => bail!("a variable from {other}"),
            };
            words.push(format!("{}={value}", text(&variable["name"])?));
        }
        words.push(trefoil_binary()?.display().to_string());
        words.extend(self.args.iter().cloned());
        Ok(words)
    }

    /// A path inside the pod's volumes as it is outside; any other text stays as it is.
    fn inside(&self, pod: &PodFacts<'_>, value: &str) -> String {
        for (volume, mounted) in &self.mounts {
            let Some(rest) = value.strip_prefix(mounted.as_str()) else {
                continue;
            };
            let folder = match volume.as_str() {
                "data" => pod.data.to_owned(),
                _ => pod.volumes.join(volume),
            };
            if rest.is_empty() || rest.starts_with('/') {
                return format!("{}{rest}", folder.display());
            }
        }
        value.to_owned()
    }

    /// Writes what is in the volumes that are not claimed: settings and key.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(crate) fn write_volumes(&self, folder: &Path) -> anyhow::Result<()> {
        let settings = folder.join("settings");
        fs::create_dir_all(&settings)?;
        for (name, content) in &self.settings {
            fs::write(settings.join(name), content)?;
        }
        let key = folder.join("cluster-key");
        fs::create_dir_all(&key)?;
        fs::write(key.join("key"), CLUSTER_KEY).context("write a key")
    }
}

fn probe(value: &Value) -> anyhow::Result<Probe> {
    let seconds = |key: &str| number(&value[key]).map(Duration::from_secs);
    Ok(Probe {
        path: text(&value["httpGet"]["path"])?,
        period: seconds("periodSeconds")?,
        timeout: seconds("timeoutSeconds")?,
        failures: number(&value["failureThreshold"])?,
    })
}

fn text(value: &Value) -> anyhow::Result<String> {
    let text = value.as_str().map(str::to_owned);
    text.with_context(|| format!("{value} is no text"))
}

fn number(value: &Value) -> anyhow::Result<u64> {
    value
        .as_u64()
        .with_context(|| format!("{value} is no number"))
}

fn list(value: &Value) -> anyhow::Result<&Vec<Value>> {
    value
        .as_array()
        .with_context(|| format!("{value} is no list"))
}

fn strings(value: &Value) -> anyhow::Result<Vec<String>> {
    list(value)?.iter().map(text).collect()
}
