//! Each primitive with small programs, and that nothing stays behind however the owner ends.

use super::*;
use crate::net::inside;
use anyhow::bail;
use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long a state may take that comes by itself.
const STATE_MAX: Duration = Duration::from_secs(20);
/// Tells the test program that it is the owner of a site that will not be dropped, and how it shall end.
const OWNER: &str = "TREFOIL_TEST_SITE_OWNER";

/// Whether namespaces can be made. Where they must be, their lack is a failure.
fn namespaces_work() -> anyhow::Result<bool> {
    let Err(reason) = Site::possible(SiteKind::Namespaces) else {
        return Ok(true);
    };
    ensure!(
        std::env::var_os("TREFOIL_REQUIRE_NAMESPACES").is_none(),
        "namespaces are required, but: {reason}"
    );
    println!("not run: {reason}");
    Ok(false)
}

/// A site of so many small hosts, in a folder; `None` where namespaces are not allowed.
fn site(hosts: usize) -> anyhow::Result<Option<(Site, TempDir)>> {
    if !namespaces_work()? {
        return Ok(None);
    }
    let folder = tempfile::tempdir()?;
    let site = small_site(hosts, folder.path())?;
    Ok(Some((site, folder)))
}

fn small_site(hosts: usize, folder: &Path) -> anyhow::Result<Site> {
    let mut plan = SitePlan::new(SiteKind::Namespaces, hosts, folder);
    plan.disk_bytes = 32 << 20;
    plan.cores_per_host = Some(0.5);
    plan.memory_bytes = Some(64 << 20);
    Site::create(&plan)
}

/// A site without rights, to which the faults that need none can be done.
fn loopback() -> anyhow::Result<(Site, TempDir)> {
    let folder = tempfile::tempdir()?;
    let site = Site::create(&SitePlan::new(SiteKind::Loopback, 1, folder.path()))?;
    Ok((site, folder))
}

/// Runs a shell script in the folder of a host's disk; what it printed. It must succeed.
fn shell(host: &Host, script: &str) -> anyhow::Result<String> {
    let script = format!("cd {} && {script}", host.disk().display());
    let output = host.output("sh", &["-c", &script])?;
    ensure!(
        output.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !holds() {
        ensure!(begun.elapsed() < STATE_MAX, "{what}: not in {STATE_MAX:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

#[test]
fn a_power_cut_loses_what_was_not_synced_and_nothing_else() -> anyhow::Result<()> {
    let Some((mut site, _folder)) = site(2)? else {
        return Ok(());
    };
    for host in site.hosts() {
        let write = "seq 9999 >kept && sync kept . && seq 9999 >>kept && seq 9 >lost";
        shell(host, write)?;
        assert!(host.disk().join("lost").exists());
    }
    let busy = ["-c", "while :; do :; done"].map(str::to_owned);
    site.host_mut(0).start_program(Path::new("sh"), &busy)?;
    assert!(site.host_mut(0).is_running());
    site.power_cut(&[0, 1])?;
    assert!(!site.host_mut(0).is_running());
    for host in site.hosts() {
        let kept = fs::read_to_string(host.disk().join("kept"))?;
        assert_eq!(kept.lines().count(), 9999);
        assert!(!host.disk().join("lost").exists());
        // It is a disk again.
        shell(host, "seq 9 >new && sync new")?;
    }
    Ok(())
}

#[test]
fn a_full_disk_has_no_space_until_it_is_freed() -> anyhow::Result<()> {
    let Some((site, _folder)) = site(1)? else {
        return Ok(());
    };
    let host = site.host(0);
    shell(host, "echo before >file")?;
    host.fill_disk(0)?;
    let full = shell(host, "head -c 100000 /dev/zero >large");
    let said = full.err().context("a write to a full disk succeeds")?;
    assert!(said.to_string().contains("No space left"), "{said}");
    host.free_disk()?;
    shell(host, "head -c 100000 /dev/zero >large")?;
    host.fill_disk(1 << 20)?;
    shell(host, "head -c 500000 /dev/zero >small")?;
    assert!(shell(host, "head -c 2000000 /dev/zero >large").is_err());
    host.free_disk()
}

#[test]
fn a_disk_becomes_read_only_under_its_writer_and_writable_again() -> anyhow::Result<()> {
    let Some((mut site, _folder)) = site(1)? else {
        return Ok(());
    };
    let host = site.host_mut(0);
    shell(host, "echo kept >file && sync file .")?;
    let writer = "cd \"$0\" && exec 8>>file && while echo more >&8; do :; done; exec sleep 1000";
    let writer = [
        "-c".to_owned(),
        writer.to_owned(),
        host.disk().display().to_string(),
    ];
    host.start_program(Path::new("sh"), &writer)?;
    let file = host.disk().join("file");
    wait_for("the writer writes", || {
        fs::metadata(&file).is_ok_and(|file| file.len() > 5)
    })?;
    host.make_read_only()?;
    let refused = shell(host, "echo new >other");
    let said = refused.err().context("a read-only disk takes a file")?;
    assert!(said.to_string().contains("Read-only"), "{said}");
    assert!(fs::read_to_string(&file)?.starts_with("kept"));
    assert!(host.is_running());
    host.make_writable()?;
    assert!(!host.is_running());
    assert!(fs::read_to_string(&file)?.starts_with("kept"));
    shell(host, "echo new >other").map(drop)
}

#[test]
fn syncs_fail_and_are_slow_while_it_is_wanted() -> anyhow::Result<()> {
    let (site, _folder) = loopback()?;
    let host = site.host(0);
    if let Err(reason) = host.supports(HostFault::FailingSyncs) {
        println!("not run: {reason}");
        return Ok(());
    }
    shell(host, "echo text >file && sync file && sync --data file")?;
    host.fail_syncs(true)?;
    for script in ["sync file", "sync --data file"] {
        let failed = shell(host, script);
        let said = failed.err().context("a sync succeeds")?;
        assert!(said.to_string().contains("Input/output error"), "{said}");
    }
    host.fail_syncs(false)?;
    shell(host, "sync file")?;
    host.slow_syncs(Duration::from_millis(300))?;
    let begun = Instant::now();
    shell(host, "sync file && sync --data file")?;
    assert!(begun.elapsed() >= Duration::from_millis(600));
    host.slow_syncs(Duration::ZERO)?;
    shell(host, "sync file")?;
    let counts = host.fault_counts()?;
    assert_eq!((counts.syncs_failed, counts.syncs_delayed), (2, 2));
    Ok(())
}

/// Seconds by the wall clock of a host, ahead of the machine's.
fn ahead(host: &Host) -> anyhow::Result<f64> {
    let theirs: f64 = shell(host, "date +%s.%N")?.parse()?;
    let ours = crate::Clock::now_millis() as f64 / 1000.0;
    Ok(theirs - ours)
}

#[test]
fn a_wall_clock_is_wrong_and_monotonic_time_is_not() -> anyhow::Result<()> {
    let (mut site, _folder) = loopback()?;
    let host = site.host_mut(0);
    if let Err(reason) = host.supports(HostFault::WrongClock) {
        println!("not run: {reason}");
        return Ok(());
    }
    assert!(ahead(host)?.abs() < 2.0);
    for seconds in [3600, -7] {
        host.set_clock_offset(seconds * 1_000_000_000)?;
        let wrong = ahead(host)?;
        assert!((wrong - seconds as f64).abs() < 2.0, "{wrong}");
    }
    // A thousand times too fast: what passes within the test shows.
    host.set_clock_offset(0)?;
    host.set_clock_rate(999_000_000_000)?;
    let begun = Instant::now();
    let drifts = || ahead(host).is_ok_and(|ahead| ahead > 50.0);
    wait_for("the clock drifts", drifts)?;
    assert!(begun.elapsed() >= Duration::from_millis(40));
    // `sleep` waits on monotonic time: it would be over at once, or never.
    let begun = Instant::now();
    shell(host, "sleep 0.2")?;
    assert!(begun.elapsed() >= Duration::from_millis(200));
    host.set_clock_rate(0)?;
    let (first, second) = (ahead(host)?, ahead(host)?);
    assert!((second - first).abs() < 2.0, "{first} {second}");
    assert!(host.fault_counts()?.clock_readings > 0);
    Ok(())
}

#[test]
fn a_program_that_does_not_load_the_faults_is_noticed() -> anyhow::Result<()> {
    let (mut site, folder) = loopback()?;
    if site.host(0).supports(HostFault::FailingSyncs).is_err() {
        println!("not run: there is no cc");
        return Ok(());
    }
    let (source, program) = (folder.path().join("rest.c"), folder.path().join("rest"));
    fs::write(
        &source,
        "#include <unistd.h>\nint main(void) { return pause(); }\n",
    )?;
    let compile = |linking: &[&str]| {
        let (source, program) = (source.to_str(), program.to_str());
        let files = [
            "-o",
            program.unwrap_or_default(),
            source.unwrap_or_default(),
        ];
        run("cc", &[linking, &files].concat())
    };
    compile(&[])?;
    site.host_mut(0).start_program(&program, &[])?;
    assert_eq!(site.host(0).supports(HostFault::FailingSyncs), Ok(()));
    site.host_mut(0).kill()?;
    compile(&["-static"])?;
    site.host_mut(0).start_program(&program, &[])?;
    let supported = site.host(0).supports(HostFault::FailingSyncs);
    let reason = supported
        .err()
        .context("the faults are loaded by a static program")?;
    assert!(reason.contains("does not load the faults"), "{reason}");
    assert!(site.host(0).fail_syncs(true).is_err());
    site.host_mut(0).kill()
}

/// Whether the clients reach what listens at a host's HTTP address.
fn reached(site: &Site, number: usize) -> anyhow::Result<()> {
    let host = site.host(number);
    let namespace = host.namespace().context("a namespace")?;
    let bind = || TcpListener::bind(host.http).context("listen on a host");
    let listener = inside(namespace, bind)?;
    let connect = || {
        site.enter()?;
        let stream = TcpStream::connect_timeout(&host.http, STATE_MAX);
        stream.context("connect to a host").map(drop)
    };
    let connected = std::thread::scope(|scope| scope.spawn(connect).join());
    match connected {
        Ok(connected) => connected?,
        Err(_) => bail!("the client panicked"),
    }
    drop(listener);
    Ok(())
}

#[test]
fn clients_reach_hosts_also_at_a_new_address() -> anyhow::Result<()> {
    let Some((mut site, _folder)) = site(2)? else {
        return Ok(());
    };
    assert!(site.network().is_some());
    reached(&site, 0)?;
    let old = site.host(1).http;
    site.readdress(1)?;
    assert_ne!(old, site.host(1).http);
    reached(&site, 1)?;
    // Nobody else is there: the machine's own addresses are not.
    let out = shell(site.host(0), "cat /proc/net/route")?;
    assert_eq!(out.lines().count(), 2, "a route leads out: {out}");
    Ok(())
}

#[test]
fn damage_is_done_where_it_is_said() -> anyhow::Result<()> {
    let (mut site, _folder) = loopback()?;
    let host = site.host_mut(0);
    assert_eq!(host.flip_bits(DamagePlace::Blocks, 1).ok(), Some(None));
    let blocks = host.data().join("blocks");
    fs::create_dir_all(&blocks)?;
    let file = blocks.join("7-data");
    let text = vec![7; 10_000];
    fs::write(&file, &text)?;
    host.copy_data()?;
    let done = host.flip_bits(DamagePlace::Blocks, 1)?;
    let done = done.context("nothing was flipped")?;
    assert!(done.contains("7-data"), "{done}");
    let wrong = fs::read(&file)?;
    let bits = |a: &[u8], b: &[u8]| -> u32 {
        let pairs = a.iter().zip(b);
        pairs.map(|(a, b)| (a ^ b).count_ones()).sum()
    };
    assert!((1..=8).contains(&bits(&text, &wrong)));
    host.restore_data()?;
    assert_eq!(fs::read(&file)?, text);
    // The same choice does the same.
    assert_eq!(host.flip_bits(DamagePlace::Blocks, 1)?, Some(done));
    assert_eq!(fs::read(&file)?, wrong);
    host.delete_data()?;
    assert!(!host.data().exists());
    Ok(())
}

/// What a site's name and folder can be found in: nothing is there when it is gone.
fn traces(name: &str, folder: &str) -> anyhow::Result<Vec<String>> {
    let lists = [
        ("namespaces", "ip netns", name),
        ("mounts", "cat /proc/mounts", folder),
        (
            "loop devices",
            "losetup --list --noheadings --output NAME,BACK-FILE",
            folder,
        ),
        (
            "groups",
            "find /sys/fs/cgroup -maxdepth 2 -name 'trefoil-*'",
            name,
        ),
        ("records", "ls /run/trefoil-jepsen", name),
        (
            "processes",
            "for each in /proc/[0-9]*; do tr '\\0' ' ' <$each/cmdline; echo; done 2>/dev/null",
            folder,
        ),
        ("files", "find /tmp -maxdepth 3 -path '*/site'", folder),
    ];
    let mut found = Vec::new();
    for (what, list, needle) in lists {
        let text = run("sh", &["-c", list])?;
        let lines: Vec<&str> = text.lines().filter(|line| line.contains(needle)).collect();
        if !lines.is_empty() {
            found.push(format!("{what}: {lines:?}"));
        }
    }
    Ok(found)
}

/// Not a test of its own: the owner of a site, in a process of its own, that ends as its parent wants.
#[test]
fn owner_of_a_site_that_is_not_dropped() -> anyhow::Result<()> {
    let Ok(folder) = std::env::var(OWNER) else {
        return Ok(());
    };
    let mut site = small_site(2, Path::new(&folder))?;
    for number in 0..2 {
        // Its argument is found among the machine's processes.
        let program = ["-c", "sleep 1000", folder.as_str()].map(str::to_owned);
        site.host_mut(number)
            .start_program(Path::new("sh"), &program)?;
    }
    site.host_mut(0).pause()?;
    site.enter()?;
    println!("site {} {}", site.record.name(), site.record.reaper_id());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    assert_ne!(line, "panic\n", "as it was told");
    if line == "drop\n" {
        drop(site);
    }
    std::process::exit(0)
}

/// An owner in a process of its own, the name of its site, and the id of its reaper.
fn start_owner(folder: &Path) -> anyhow::Result<(Child, String, String)> {
    let name = "site::tests::owner_of_a_site_that_is_not_dropped";
    let mut owner = Command::new(std::env::current_exe()?)
        // On its only thread, as which the system sees the whole process among the clients.
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(OWNER, folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let out = owner.stdout.take().context("no output")?;
    for line in BufReader::new(out).lines() {
        let line = line?;
        if let Some((_, site)) = line.split_once("site trefoil") {
            let (name, reaper) = site.split_once(' ').context("a name and an id")?;
            return Ok((owner, format!("trefoil{name}"), reaper.to_owned()));
        }
    }
    bail!("the owner of a site has ended")
}

#[test]
fn nothing_stays_however_the_owner_ends() -> anyhow::Result<()> {
    if !namespaces_work()? {
        return Ok(());
    }
    for end in ["drop", "panic", "exit", "INT", "TERM", "KILL"] {
        let folder = tempfile::tempdir()?;
        let path = folder.path().to_string_lossy().into_owned();
        let (mut owner, name, _) = start_owner(folder.path())?;
        let before = traces(&name, &path)?;
        assert_eq!(before.len(), 7, "{before:?}");
        match end {
            "drop" | "panic" | "exit" => {
                let mut stdin = owner.stdin.take().context("no input")?;
                stdin.write_all(format!("{end}\n").as_bytes())?;
            }
            signal => {
                run("kill", &[&format!("-{signal}"), &owner.id().to_string()])?;
            }
        }
        let status = owner.wait()?;
        if end == "drop" {
            assert!(status.success(), "{status}");
        }
        let gone = || traces(&name, &path).is_ok_and(|traces| traces.is_empty());
        wait_for(&format!("all is removed after {end}"), gone)?;
    }
    Ok(())
}

#[test]
fn the_next_site_removes_what_a_killed_reaper_left() -> anyhow::Result<()> {
    if !namespaces_work()? {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().to_string_lossy().into_owned();
    let (mut owner, name, reaper) = start_owner(folder.path())?;
    run("kill", &["-KILL", &reaper])?;
    owner.kill()?;
    owner.wait()?;
    assert_eq!(traces(&name, &path)?.len(), 7);
    let (next, _folder) = loopback()?;
    assert_eq!(traces(&name, &path)?, Vec::<String>::new());
    drop(next);
    Ok(())
}
