//! Other products that tests compare with, from Debian's packages, started by the test itself.

use anyhow::bail;
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use trefoil_jepsen::{FreePort, HttpClient, Process, wait_until};

/// How long a peer may take to start.
const START_WAIT_MAX: Duration = Duration::from_secs(30);

/// What makes Prometheus take native histograms.
const NATIVE: [&str; 1] = ["--enable-feature=native-histograms"];

/// A program that a test wants.
pub enum Peer {
    /// The program's file.
    Found(PathBuf),
    /// It is not installed, and nobody demanded it: the test says so and does nothing.
    Absent,
}

/// Looks for a program in `PATH`.
///
/// # Errors
/// When it is absent and `TREFOIL_REQUIRE_PEERS` is set, as it is in `.ci/run`.
pub fn peer_program(name: &str) -> anyhow::Result<Peer> {
    let folders = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&folders)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    match found {
        Some(path) => Ok(Peer::Found(path)),
        None if env::var_os("TREFOIL_REQUIRE_PEERS").is_some() => {
            bail!("{name} is not installed: apt-get install {name}")
        }
        None => {
            eprintln!("{name} is not installed; this test did not run");
            Ok(Peer::Absent)
        }
    }
}

/// A running node exporter.
pub struct Exporter {
    /// `host:port` of its metrics.
    pub address: String,
    _process: Process,
}

impl Exporter {
    /// Starts the exporter and waits for its first answer.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(program: &Path, folder: &Path) -> anyhow::Result<Self> {
        let address = FreePort::find()?.to_string();
        let mut command = Command::new(program);
        command.arg(format!("--web.listen-address={address}"));
        let process = Process::start(&mut command, &folder.join("exporter.log"), None)?;
        wait_for_page(&format!("http://{address}/metrics")).await?;
        Ok(Self {
            address,
            _process: process,
        })
    }
}

/// A running Prometheus that scrapes and, where it is told to, remote-writes.
pub struct Prometheus {
    /// Base URL.
    pub url: String,
    _process: Process,
}

impl Prometheus {
    /// Starts a Prometheus that scrapes itself and `targets` each second, and sends all to
    /// `write_url`.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(
        program: &Path,
        folder: &Path,
        targets: &[&str],
        write_url: &str,
    ) -> anyhow::Result<Self> {
        let address = FreePort::find()?.to_string();
        let configuration = configuration(&address, targets, write_url);
        Self::start_with(program, folder, &address, &configuration, &[]).await
    }

    /// Starts a Prometheus that takes remote writes and does nothing else.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_receiver(program: &Path, folder: &Path) -> anyhow::Result<Self> {
        let address = FreePort::find()?.to_string();
        Self::start_with(program, folder, &address, "", &[]).await
    }

    /// Starts a Prometheus that has nothing but what it reads remotely.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_reading(
        program: &Path,
        folder: &Path,
        read_url: &str,
    ) -> anyhow::Result<Self> {
        let address = FreePort::find()?.to_string();
        let configuration = format!("remote_read:\n- {{url: \"{read_url}\", read_recent: true}}\n");
        Self::start_with(program, folder, &address, &configuration, &[]).await
    }

    /// Starts a Prometheus that scrapes the federation of `target` (`host:port`) each second, and asks for protobuf, which
    /// has native histograms.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_federating(
        program: &Path,
        folder: &Path,
        target: &str,
        selector: &str,
    ) -> anyhow::Result<Self> {
        let address = FreePort::find()?.to_string();
        let configuration = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
             scrape_configs:\n\
             - {{job_name: federate, honor_labels: true, metrics_path: /federate,\n  \
               params: {{'match[]': ['{selector}']}}, static_configs: [{{targets: [\"{target}\"]}}]}}\n"
        );
        Self::start_with(program, folder, &address, &configuration, &NATIVE).await
    }

    async fn start_with(
        program: &Path,
        folder: &Path,
        address: &str,
        configuration: &str,
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        let config = folder.join("prometheus.yml");
        fs::write(&config, configuration)?;
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.join("prometheus").display()
            ))
            .arg("--web.enable-remote-write-receiver")
            .args(flags)
            .arg(format!("--web.listen-address={address}"));
        let process = Process::start(&mut command, &folder.join("prometheus.log"), None)?;
        let url = format!("http://{address}");
        wait_for_page(&format!("{url}/-/ready")).await?;
        Ok(Self {
            url,
            _process: process,
        })
    }
}

fn configuration(own: &str, targets: &[&str], write_url: &str) -> String {
    let nodes: Vec<String> = targets
        .iter()
        .map(|target| format!("\"{target}\""))
        .collect();
    format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
         scrape_configs:\n\
         - {{job_name: prometheus, static_configs: [{{targets: [\"{own}\"]}}]}}\n\
         - {{job_name: node, static_configs: [{{targets: [{}]}}]}}\n\
         remote_write:\n\
         - {{url: \"{write_url}\", queue_config: {{batch_send_deadline: 200ms}}}}\n",
        nodes.join(", ")
    )
}

async fn wait_for_page(url: &str) -> anyhow::Result<()> {
    let client = HttpClient::new(Duration::from_secs(5));
    let page = wait_until(url, START_WAIT_MAX, || async {
        let answer = client.get(url).await?;
        if !answer.is_success() {
            bail!("{}: {}", answer.status, answer.text());
        }
        Ok(())
    });
    page.await.map(|_| ())
}
