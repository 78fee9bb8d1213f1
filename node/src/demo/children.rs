//! The demo's nodes: child processes of this same binary on free loopback ports.

use crate::http_client::HttpClient;
use anyhow::Context;
use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::process::{Child, Command};

/// How long a child may take to stop after SIGTERM before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// One node of the demo, running or not.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) http: SocketAddr,
    peer: SocketAddr,
    data_dir: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

/// What the node with a number, from 1, and its directory are called.
pub(super) fn name(number: usize) -> String {
    format!("node-{number}")
}

impl Node {
    /// A node that was not started yet, with ports that are free now.
    pub(crate) fn prepare(number: usize, directory: &Path) -> anyhow::Result<Self> {
        let name = name(number);
        let (http, peer) = (free_port()?, free_port()?);
        let data_dir = directory.join(&name);
        let log = directory.join(format!("{name}.log"));
        Ok(Self {
            name,
            http,
            peer,
            data_dir,
            log,
            child: None,
        })
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    pub(crate) fn is_running(&mut self) -> bool {
        match self.child.as_mut().map(Child::try_wait) {
            Some(Ok(None)) => true,
            Some(_) => {
                self.child = None;
                false
            }
            None => false,
        }
    }

    /// Starts the process; the log is appended to its file.
    pub(crate) fn start(&mut self, seeds: &[SocketAddr]) -> anyhow::Result<()> {
        let program = std::env::current_exe().context("find this program's own file")?;
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.log)?;
        let seeds: Vec<String> = seeds.iter().map(SocketAddr::to_string).collect();
        let child = Command::new(program)
            .arg("serve")
            .args(["--node-name", &self.name, "--seeds", &seeds.join(",")])
            .args([
                "--http",
                &self.http.to_string(),
                "--peer",
                &self.peer.to_string(),
            ])
            .args(["--bootstrap-expect", "3", "--data-dir"])
            .arg(&self.data_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .kill_on_drop(true)
            // Ctrl-C is for the demo, which then stops its nodes; a second signal would end them at once.
            .process_group(0)
            .spawn()
            .context("start a node")?;
        self.child = Some(child);
        Ok(())
    }

    /// Ends the process at once, as a power cut of the process would.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await.context("kill a node")?;
        }
        Ok(())
    }

    /// Asks the process to stop and waits; kills it when it takes too long.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        if let Some(pid) = child.id() {
            terminate(pid);
        }
        if tokio::time::timeout(STOP_TIMEOUT, child.wait())
            .await
            .is_err()
        {
            child
                .kill()
                .await
                .context("kill a node that did not stop")?;
        }
        Ok(())
    }

    /// Whether the node says that its replicas serve.
    pub(crate) async fn is_ready(&self, client: &HttpClient) -> bool {
        let answer = client.get(&format!("http://{}/-/ready", self.http)).await;
        answer.is_ok_and(|answer| answer.status.is_success())
    }
}

fn terminate(pid: u32) {
    // SAFETY: kill takes no pointers; the pid is that of a child which was not waited for yet, so it
    // cannot have been reused.
    unsafe {
        libc::kill(pid as libc::pid_t, libc::SIGTERM);
    }
}

/// A port that is free for TCP and UDP now. Another program could take it before it is used.
fn free_port() -> anyhow::Result<SocketAddr> {
    for _ in 0..100 {
        let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
        let address = listener.local_addr()?;
        if UdpSocket::bind(address).is_ok() {
            return Ok(address);
        }
    }
    anyhow::bail!("no loopback port is free for both TCP and UDP")
}
