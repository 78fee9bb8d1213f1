//! The image, built out of the program that is tested and run from: nobody's user, a root that cannot be changed.

use crate::{check_variables, output, project, trefoil};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use trefoil_jepsen::{FreePort, HttpClient, Process, trefoil_binary, wait_until};
use trefoil_tests::{Peer, peer_program};

const USER: &str = "65532";
/// How long a node alone may take to be ready.
const READY_WAIT_MAX: Duration = Duration::from_secs(20);

/// An image and a container of it; both are removed with this value.
struct Image {
    buildah: PathBuf,
    tag: String,
    container: String,
}

impl Image {
    fn pack(buildah: PathBuf) -> anyhow::Result<Self> {
        let tag = format!("localhost/trefoil-test-{}", std::process::id());
        let mut pack = Command::new(project("deploy/container/pack"));
        output(pack.arg(trefoil_binary()?).arg(&tag), "")?;
        let container = output(Command::new(&buildah).args(["from", &tag]), "")?;
        Ok(Self {
            container: container.trim().to_owned(),
            buildah,
            tag,
        })
    }

    fn ask(&self, arguments: &[&str]) -> anyhow::Result<String> {
        output(Command::new(&self.buildah).args(arguments), "")
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        for arguments in [["rm", &self.container], ["rmi", &self.tag]] {
            if let Err(error) = self.ask(&arguments) {
                eprintln!("{arguments:?}: {error:#}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_serves_as_nobody_on_a_root_that_it_cannot_change() -> anyhow::Result<()> {
    let Peer::Found(buildah) = peer_program("buildah")? else {
        return Ok(());
    };
    if fs::metadata("/proc/self")?.uid() != 0 {
        eprintln!("images are built and mounted as root; this test did not run");
        return Ok(());
    }
    if !may_mount() {
        eprintln!("mounts are not allowed here; this test did not run");
        return Ok(());
    }
    let image = Image::pack(buildah)?;
    check_config(&image)?;
    let run = [
        "run",
        "--isolation",
        "chroot",
        &image.container,
        "--",
        "/trefoil",
        "--version",
    ];
    ensure!(
        image.ask(&run)? == trefoil(&["--version"])?,
        "another version"
    );
    serve(&image).await
}

/// Whether a process may make mounts of its own: root in a container mostly may not.
fn may_mount() -> bool {
    let probe = Command::new("unshare").args(["--mount", "true"]).output();
    probe.is_ok_and(|probe| probe.status.success())
}

fn check_config(image: &Image) -> anyhow::Result<()> {
    let described: Value =
        serde_json::from_str(&image.ask(&["inspect", "--type", "image", &image.tag])?)?;
    let config = &described["OCIv1"]["config"];
    ensure!(config["User"] == format!("{USER}:{USER}"), "{config}");
    ensure!(config["Entrypoint"] == json!(["/trefoil"]), "{config}");
    ensure!(config["Cmd"] == json!(["serve"]), "{config}");
    for port in ["9190/tcp", "9191/tcp", "9191/udp", "4317/tcp", "4318/tcp"] {
        ensure!(config["ExposedPorts"][port].is_object(), "{port}: {config}");
    }
    check_variables("the image", &config["Env"].to_string(), 1)
}

/// A node alone, started from the image's files as Kubernetes would: root read-only, only `/data` writable.
async fn serve(image: &Image) -> anyhow::Result<()> {
    let root = image.ask(&["mount", &image.container])?;
    let folder = tempfile::tempdir()?;
    let (http, peer) = (FreePort::find()?, FreePort::find()?);
    let script = format!(
        "set -e; root={root}; mount --bind $root $root; mkdir -p $root/proc; mount -t proc proc $root/proc; \
         mount -t tmpfs -o uid={USER},gid={USER},mode=700 data $root/data; mount -o remount,bind,ro $root; \
         exec chroot --userspec={USER}:{USER} $root /trefoil serve --data-dir /data --node-name packed \
         --http {http} --peer {peer}",
        root = root.trim(),
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
    let mut process = Process::start(&mut command, &folder.path().join("log"), None)?;
    let client = HttpClient::new(Duration::from_secs(5));
    let ready = wait_until("the packed node is ready", READY_WAIT_MAX, || async {
        let answer = client.get(&format!("http://{http}/-/ready")).await?;
        ensure!(answer.status == 200, "{}", answer.text());
        Ok(())
    });
    ready.await?;
    check_process(process.id())?;
    let status = process.stop()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

fn check_process(id: u32) -> anyhow::Result<()> {
    let folder = Path::new("/proc").join(id.to_string());
    let status = fs::read_to_string(folder.join("status"))?;
    let line = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.map(str::trim).context("a line of status")
    };
    ensure!(
        line("Uid:")?.split_whitespace().all(|id| id == USER),
        "{status}"
    );
    ensure!(
        line("CapEff:")?.chars().all(|digit| digit == '0'),
        "{status}"
    );
    let mounts = fs::read_to_string(folder.join("mountinfo"))?;
    let root = mounts
        .lines()
        .find(|line| line.split(' ').nth(4) == Some("/"));
    let options = root
        .and_then(|line| line.split(' ').nth(5))
        .context("the root's mount")?;
    ensure!(options.split(',').any(|option| option == "ro"), "{options}");
    Ok(())
}
