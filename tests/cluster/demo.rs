//! `trefoil demo` at a terminal: its keys, its printed commands, and that nothing stays behind.

use anyhow::{Context, bail, ensure};
use std::{
    io::{Read, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use trefoil_jepsen::{Exclusive, HttpClient, trefoil_binary, wait_until};

/// How long anything of the demo may take.
const STEP_WAIT_MAX: Duration = Duration::from_secs(30);
/// What a terminal sends for Ctrl-C.
const INTERRUPT: &str = "\x03";
/// The end of what the demo says before it waits for keys.
const GUIDE_END: &str = "q quit";

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_obeys_its_keys_and_leaves_nothing_behind() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let folder = tempfile::tempdir()?;
    let mut terminal = Terminal::start(folder.path(), "demo")?;
    terminal.wait_for(GUIDE_END).await?;
    let urls = terminal.urls()?;
    ensure!(urls.len() == 3, "printed {urls:?}");
    terminal.try_printed_commands(folder.path())?;
    shop_is_answered(&urls).await?;

    terminal.press("k")?;
    terminal
        .wait_for("Killed node-3. Press r to restart it.")
        .await?;
    shop_is_answered(&urls[..2]).await?;
    terminal.press("r")?;
    terminal.wait_for("Restarted node-3.").await?;
    shop_is_answered(&urls).await?;
    terminal.press("r")?;
    terminal.wait_for("All nodes are running.").await?;
    terminal.press("a")?;
    terminal.wait_for("Added node-4: ").await?;
    let urls = terminal.urls()?;
    ensure!(urls.len() == 4, "printed {urls:?}");
    shop_is_answered(&urls).await?;
    terminal.press("?")?;
    terminal.wait_for("Keys: k kill").await?;
    terminal.press("q")?;
    terminal.check_ended().await?;
    check_nothing_left(folder.path(), &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_ends_at_once_while_it_starts() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let folder = tempfile::tempdir()?;
    for key in [INTERRUPT, "q"] {
        let mut terminal = Terminal::start(folder.path(), "demo")?;
        terminal.wait_for("Starting 3 nodes").await?;
        terminal.press(key)?;
        terminal.check_ended().await?;
        ensure!(
            !terminal.text().contains("Wrote"),
            "it went on:\n{}",
            terminal.text()
        );
        check_nothing_left(folder.path(), &[])?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_keeps_its_data_when_asked() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let folder = tempfile::tempdir()?;
    let mut terminal = Terminal::start(folder.path(), "demo --keep --data-dir kept")?;
    terminal.wait_for(GUIDE_END).await?;
    terminal.press(INTERRUPT)?;
    terminal.wait_for("The data is kept in kept.").await?;
    terminal.check_ended().await?;
    check_nothing_left(folder.path(), &["kept"])?;
    for node in ["node-1", "node-2", "node-3"] {
        let log = std::fs::read_to_string(folder.path().join(format!("kept/{node}.log")))?;
        let last = log.lines().last().unwrap_or_default();
        ensure!(last.contains("stopped"), "{node} was cut off: {last}");
    }

    // With what was kept, without a terminal's keys, and with an end of its own.
    let mut again = Terminal::start(
        folder.path(),
        "demo --keep --data-dir kept --no-input --exit-after 8",
    )?;
    again.wait_for("Grafana").await?;
    shop_is_answered(&again.urls()?).await?;
    again.check_ended().await?;
    ensure!(!again.text().contains(GUIDE_END), "it offered keys");
    check_nothing_left(folder.path(), &["kept"])
}

/// The product's command line at a terminal of `script`, which belongs to every Debian.
struct Terminal {
    script: Child,
    keys: ChildStdin,
    text: Arc<Mutex<String>>,
    /// Up to where the text was waited for.
    seen: usize,
}

impl Terminal {
    /// Starts `trefoil` with these arguments in a folder, which also gets its temporary files.
    fn start(folder: &Path, arguments: &str) -> anyhow::Result<Self> {
        let line = format!("exec '{}' {arguments}", trefoil_binary()?.display());
        let mut script = Command::new("script")
            .args([
                "--quiet",
                "--return",
                "--flush",
                "--command",
                &line,
                "/dev/null",
            ])
            .current_dir(folder)
            .env("TMPDIR", folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start script")?;
        let keys = script.stdin.take().context("the terminal's keys")?;
        let mut screen = script.stdout.take().context("the terminal's screen")?;
        let text = Arc::new(Mutex::new(String::new()));
        let shown = Arc::clone(&text);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
                shown.push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Ok(Self {
            script,
            keys,
            text,
            seen: 0,
        })
    }

    fn press(&mut self, key: &str) -> anyhow::Result<()> {
        self.keys.write_all(key.as_bytes())?;
        self.keys.flush().context("press a key")
    }

    /// All that was printed.
    fn text(&self) -> String {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        text.replace('\r', "")
    }

    /// Waits until the text comes behind what was waited for before.
    async fn wait_for(&mut self, expected: &str) -> anyhow::Result<()> {
        let found = wait_until(expected, STEP_WAIT_MAX, || async {
            let text = self.text();
            let place = text[self.seen..].find(expected);
            place.with_context(|| format!("the terminal shows:\n{text}"))
        });
        let (place, _) = found.await?;
        self.seen += place + expected.len();
        Ok(())
    }

    /// The nodes' URLs, in the order in which they were printed.
    fn urls(&self) -> anyhow::Result<Vec<String>> {
        let text = self.text();
        let lines = text.lines().map(str::trim_start);
        let nodes =
            lines.filter(|line| line.starts_with("node-") || line.starts_with("Added node-"));
        nodes
            .map(|line| {
                let url = line
                    .split_whitespace()
                    .find(|word| word.starts_with("http://"));
                Ok(url.context("a URL in a node's line")?.to_owned())
            })
            .collect()
    }

    /// Runs every command that was printed, as it stands there.
    fn try_printed_commands(&self, folder: &Path) -> anyhow::Result<()> {
        let text = self.text();
        let commands: Vec<&str> = text
            .lines()
            .map(str::trim_start)
            .filter(|line| line.starts_with("trefoil ") || line.starts_with("curl "))
            .collect();
        ensure!(commands.len() >= 3, "printed {commands:?}");
        // Under the name that the commands have.
        let link = folder.join("trefoil");
        std::os::unix::fs::symlink(trefoil_binary()?, &link)?;
        let path = format!("{}:{}", folder.display(), std::env::var("PATH")?);
        for command in commands {
            let output = Command::new("sh")
                .args(["-c", command])
                .env("PATH", &path)
                .output()?;
            let answer = String::from_utf8_lossy(&output.stdout).into_owned();
            let told = ["node-1", "checkout", "\"success\""];
            if !output.status.success() || !told.iter().any(|word| answer.contains(word)) {
                bail!(
                    "{command}: {}: {answer}{}",
                    output.status,
                    String::from_utf8_lossy(&output.stderr)
                );
            }
            ensure!(!answer.contains('\x1b'), "{command}: control characters");
        }
        std::fs::remove_file(link).context("remove the link")
    }

    /// Waits until the demo has ended by itself, with success.
    async fn check_ended(&mut self) -> anyhow::Result<()> {
        let ended = wait_until("the demo ends", STEP_WAIT_MAX, || {
            let status = self.script.try_wait();
            async move { status?.context("it still runs") }
        });
        let (status, _) = ended.await.with_context(|| self.text())?;
        ensure!(status.success(), "{status}:\n{}", self.text());
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The terminal goes away with it, which ends the demo; it may have ended already.
        let _ended = self.script.kill();
        let _ended = self.script.wait();
    }
}

/// Waits until every one of the nodes answers about the shop, which has four services at least.
async fn shop_is_answered(urls: &[String]) -> anyhow::Result<()> {
    let client = HttpClient::new(STEP_WAIT_MAX);
    for url in urls {
        let answered = wait_until("the shop is answered", STEP_WAIT_MAX, || async {
            let query = "count(sum by (service) (rate(shop_http_requests_total[5m])))";
            let page = format!("{url}/api/v1/query");
            let data = client.query(&page, &[("query", query)]).await?;
            let services = data["result"][0]["value"][1].as_str();
            let services: u32 = services.context("a number")?.parse()?;
            ensure!(services >= 3, "{services} services");
            Ok(())
        });
        answered.await.with_context(|| url.clone())?;
    }
    Ok(())
}

/// Fails when a process is left that was started in the folder, or a file that was not meant to stay.
fn check_nothing_left(folder: &Path, kept: &[&str]) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        ensure!(kept.contains(&name.as_str()), "{name} stayed behind");
    }
    for process in std::fs::read_dir("/proc")? {
        // Processes come and go meanwhile; those of others cannot be read.
        let place = std::fs::read_link(process?.path().join("cwd"));
        ensure!(
            !place.is_ok_and(|place| place.starts_with(folder)),
            "a process stayed behind"
        );
    }
    Ok(())
}
