//! The scripts for operators in `jepsen/scripts/`, run for real: veth namespaces on a bridge that the test
//! makes, and stand-ins for `ssh` and `kubectl` that lead into them.
//!
//! Needs root and nft; what is only parsed and refused is tested everywhere.

use super::namespace::{inside, namespaces_missing};
use crate::wait_until;
use anyhow::ensure;
use std::{
    net::{Ipv4Addr, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

const DEADLINE: Duration = Duration::from_secs(20);
const PORT: u16 = 7100;
/// All scripts that are commands.
const COMMANDS: [&str; 5] = ["partition.sh", "clog.sh", "lossy.sh", "slow.sh", "heal.sh"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts")
}

fn script(name: &str, arguments: &[&str]) -> Output {
    let script = folder().join(name);
    Command::new(script).args(arguments).output().unwrap()
}

/// What a script said, and whether it was content.
fn said(output: &Output) -> (bool, String) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.success(), text)
}

/// Namespaces on a bridge; the bridge has a namespace of its own, the first.
struct Hosts {
    names: Vec<String>,
}

impl Hosts {
    /// `None` where it is impossible and nobody demanded it.
    fn start(count: u8) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let nft = Command::new("nft").arg("--version").output();
        let missing = namespaces_missing().or(nft.is_err().then_some("nft is not installed"));
        if let Some(why) = missing {
            let demanded = std::env::var_os("TREFOIL_REQUIRE_NAMESPACES").is_some();
            assert!(!demanded, "the scripts cannot be tried: {why}");
            eprintln!("not run: needs root, network namespaces and nft ({why})");
            return None;
        }
        let run = NEXT.fetch_add(1, Ordering::Relaxed);
        let run = format!("tsc-{}-{run}", std::process::id());
        let mut hosts = Self {
            names: vec![format!("{run}-hub")],
        };
        let hub = hosts.names[0].clone();
        ip(&format!("netns add {hub}"));
        ip(&format!("-n {hub} link add bridge type bridge"));
        ip(&format!("-n {hub} link set bridge up"));
        for host in 0..count {
            let name = format!("{run}-{host}");
            ip(&format!("netns add {name}"));
            hosts.names.push(name.clone());
            let pair = format!("link add p{host} type veth peer name wire netns {name}");
            ip(&format!("-n {hub} {pair}"));
            ip(&format!("-n {hub} link set p{host} master bridge up"));
            ip(&format!(
                "-n {name} address add {}/24 dev wire",
                address(host.into())
            ));
            ip(&format!("-n {name} link set wire up"));
        }
        Some(hosts)
    }

    fn names(&self) -> Vec<&str> {
        self.names[1..].iter().map(String::as_str).collect()
    }

    /// Runs a script against all hosts, which must succeed.
    fn run(&self, name: &str, arguments: &[&str]) -> String {
        let all = [&["--target", "netns"], arguments, &self.names()[..]].concat();
        let (is_content, text) = said(&script(name, &all));
        assert!(is_content, "{name} {all:?}: {text}");
        text
    }

    fn socket(&self, host: usize) -> UdpSocket {
        let namespace = Path::new("/run/netns").join(self.names()[host]);
        let bind = || Ok(UdpSocket::bind((address(host), PORT))?);
        let socket = inside(&namespace, bind).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }

    /// Who hears whom, found out with a datagram over every link.
    async fn heard(&self) -> Vec<Vec<usize>> {
        let count = self.names().len();
        let sockets: Vec<UdpSocket> = (0..count).map(|host| self.socket(host)).collect();
        let mut heard = Vec::new();
        for (to, receiver) in sockets.iter().enumerate() {
            let dropped = self.dropped(to);
            for (from, sender) in sockets.iter().enumerate().filter(|(from, _)| *from != to) {
                let byte = [u8::try_from(from).unwrap()];
                sender.send_to(&byte, (address(to), PORT)).unwrap();
            }
            let mut from = Vec::new();
            let complete = |from: &mut Vec<usize>| {
                let mut byte = [0];
                while receiver.recv(&mut byte).is_ok() {
                    from.push(byte[0].into());
                }
                let gone = (self.dropped(to) - dropped) as usize;
                from.len() + gone == count - 1
            };
            let deadline = std::time::Instant::now() + DEADLINE;
            while !complete(&mut from) {
                assert!(
                    std::time::Instant::now() < deadline,
                    "{to} has heard {from:?}"
                );
                tokio::task::yield_now().await;
            }
            from.sort_unstable();
            heard.push(from);
        }
        heard
    }

    /// How many packets the rules of the scripts have dropped at a host.
    fn dropped(&self, host: usize) -> u64 {
        let rules = self.rules(host);
        let counters = rules.split("counter packets ").skip(1);
        let numbers = counters.filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok());
        numbers.sum()
    }

    fn rules(&self, host: usize) -> String {
        ip(&format!(
            "netns exec {} nft list ruleset",
            self.names()[host]
        ))
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.names {
            let mut delete = Command::new("ip");
            delete.args(["netns", "delete", name]).output().ok();
        }
    }
}

fn address(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 178, 0, host as u8 + 1)
}

fn ip(arguments: &str) -> String {
    let mut command = Command::new("ip");
    let output = command.args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn each_partition_cuts_what_it_says() {
    let Some(hosts) = Hosts::start(3) else { return };
    let everybody = vec![vec![1, 2], vec![0, 2], vec![0, 1]];
    assert_eq!(hosts.heard().await, everybody);
    let cases: [(&str, [&[usize]; 3]); 6] = [
        ("isolate", [&[], &[2], &[1]]),
        ("split", [&[], &[2], &[1]]),
        ("ring", [&[2], &[0], &[1]]),
        ("bridge", [&[1, 2], &[0], &[0]]),
        ("one-way", [&[1, 2], &[2], &[1]]),
        ("deaf", [&[], &[0, 2], &[0, 1]]),
    ];
    for (shape, expected) in cases {
        // Each replaces the one before it, and may be repeated.
        hosts.run("partition.sh", &[shape]);
        hosts.run("partition.sh", &[shape]);
        assert_eq!(hosts.heard().await, expected, "{shape}");
    }
    let names = hosts.names();
    let pair = format!("{},{}", names[0], names[2]);
    let groups = ["--target", "netns", "groups", &pair, names[1]];
    assert!(said(&script("partition.sh", &groups)).0);
    assert_eq!(hosts.heard().await, [&[2][..], &[], &[0]]);
    hosts.run("heal.sh", &[]);
    hosts.run("heal.sh", &[]);
    assert_eq!(hosts.heard().await, everybody);
    assert!((0..3).all(|host| hosts.rules(host).is_empty()));
}

#[tokio::test]
async fn five_hosts_in_a_ring_each_see_a_majority() {
    let Some(hosts) = Hosts::start(5) else { return };
    hosts.run("partition.sh", &["ring"]);
    let heard = hosts.heard().await;
    let neighbours = [[1, 4], [0, 2], [1, 3], [2, 4], [0, 3]];
    assert_eq!(heard, neighbours);
}

#[tokio::test]
async fn the_wanted_part_is_lost() {
    let Some(hosts) = Hosts::start(2) else { return };
    hosts.run("lossy.sh", &["loss", "30"]);
    let (sender, receiver) = (hosts.socket(0), hosts.socket(1));
    let (mut arrived, sent) = (0, 2000);
    let settled = async |sent: u64, arrived: u64| {
        let settled = async || {
            let gone = hosts.dropped(1);
            let mut more = 0;
            while receiver.recv(&mut [0]).is_ok() {
                more += 1;
            }
            ensure!(arrived + more + gone == sent, "{gone} of {sent} are lost");
            Ok(more)
        };
        wait_until("a lot has gone its way", DEADLINE, settled).await
    };
    for lot in 1..=20 {
        for _ in 0..100 {
            sender.send_to(&[1], (address(1), PORT)).unwrap();
        }
        arrived += settled(lot * 100, arrived).await.unwrap().0;
    }
    let lost = sent - arrived;
    assert!(lost.abs_diff(600) < 100, "{lost} of {sent} are lost");
    hosts.run("heal.sh", &[]);
    assert!(hosts.rules(1).is_empty());
}

#[tokio::test]
async fn a_clog_leaves_all_links_open() {
    let Some(hosts) = Hosts::start(3) else { return };
    let text = hosts.run("clog.sh", &["--seconds", "1", "--seed", "7"]);
    let again = hosts.run("clog.sh", &["--seconds", "0", "--seed", "7"]);
    assert_eq!(text, again, "the same seed does the same");
    assert_eq!(text.matches("add cut").count(), 3, "{text}");
    assert_eq!(text.matches("delete cut").count(), 3, "{text}");
    assert!((0..3).all(|host| hosts.rules(host).is_empty()));
}

#[test]
fn a_slow_device_is_ours_alone() {
    let Some(hosts) = Hosts::start(2) else { return };
    let name = hosts.names()[0];
    let disciplines = || ip(&format!("netns exec {name} tc qdisc show dev wire"));
    let untouched = disciplines();
    for rate in ["1000", "2000"] {
        hosts.run("slow.sh", &["rate", rate]);
        assert!(disciplines().contains("tbf 7e0f:"), "{}", disciplines());
    }
    assert!(disciplines().contains("rate 2Mbit"), "{}", disciplines());
    hosts.run("heal.sh", &[]);
    assert_eq!(disciplines(), untouched);

    let foreign = "root handle 1: tbf rate 1mbit burst 32kb latency 200ms";
    ip(&format!(
        "netns exec {name} tc qdisc add dev wire {foreign}"
    ));
    let arguments = ["--target", "netns", "rate", "1000", name, hosts.names()[1]];
    let (is_content, text) = said(&script("slow.sh", &arguments));
    assert!(!is_content && text.contains("already"), "{text}");
    hosts.run("heal.sh", &[]);
    assert!(disciplines().contains("tbf 1:"), "{}", disciplines());
}

#[tokio::test]
async fn hosts_and_pods_get_the_same_rules() {
    let Some(hosts) = Hosts::start(3) else { return };
    let programs = tempfile::tempdir().unwrap();
    // ssh joins its words and a shell splits them again; kubectl hands them on as they are.
    let ssh = "#!/bin/sh\nwhile [ \"$1\" != -- ]; do host=$1; shift; done; shift\n\
               exec ip netns exec \"$host\" sh -c \"$*\"\n";
    let kubectl = "#!/bin/sh\ncase \"$*\" in *' get pod '*) \
                   ip -n \"$5\" -4 -oneline address show dev wire | sed 's,.*inet \\([^/]*\\).*,\\1,'; exit ;; esac\n\
                   pod=${4#pod/}\nwhile [ \"$1\" != -- ]; do shift; done; shift\n\
                   exec ip netns exec \"$pod\" \"$@\"\n";
    for (name, text) in [("ssh", ssh), ("kubectl", kubectl)] {
        let path = programs.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let path = format!(
        "{}:{}",
        programs.path().display(),
        std::env::var("PATH").unwrap()
    );
    for (target, has_addresses) in [("host", true), ("pod", false)] {
        let named = hosts.names().into_iter().enumerate();
        let named = named.map(|(host, name)| match has_addresses {
            true => format!("{name}={}", address(host)),
            false => name.to_owned(),
        });
        let named: Vec<String> = named.collect();
        let run = |name: &str, arguments: &[&str]| {
            let mut command = Command::new(folder().join(name));
            command.env("PATH", &path).args(["--target", target]);
            let output = command.args(arguments).args(&named).output().unwrap();
            assert!(
                output.status.success(),
                "{name} {target}: {}",
                said(&output).1
            );
        };
        run("partition.sh", &["isolate"]);
        assert_eq!(hosts.heard().await, [&[][..], &[2], &[1]], "{target}");
        run("slow.sh", &["rate", "1000"]);
        run("heal.sh", &[]);
        assert!((0..3).all(|host| hosts.rules(host).is_empty()));
    }
}

#[test]
fn nonsense_is_refused_before_anything_is_done() {
    let two = ["a=10.0.0.1", "b=10.0.0.2"];
    let refused = |name: &str, arguments: &[&str], why: &str| {
        let (is_content, text) = said(&script(name, arguments));
        assert!(
            !is_content && text.contains(why),
            "{name} {arguments:?}: {text}"
        );
    };
    let on = |arguments: &[&'static str]| [&["--target", "host"], arguments, &two[..]].concat();
    refused("partition.sh", &["isolate", "a", "b"], "--target");
    refused("partition.sh", &["--target", "moon", "isolate"], "moon");
    refused("partition.sh", &on(&["split"]), "3 hosts");
    refused("partition.sh", &on(&["triangle"]), "triangle");
    refused("partition.sh", &on(&["isolate", "a=10.0.0.3"]), "twice");
    refused("partition.sh", &on(&["isolate", "c=10.0.0.1"]), "10.0.0.1");
    refused("partition.sh", &on(&["isolate", "c=10.0.0.256"]), "256");
    refused(
        "partition.sh",
        &on(&["isolate", "c;reboot=10.0.0.3"]),
        "reboot",
    );
    refused("partition.sh", &on(&["isolate", "--sudo"]), "--sudo");
    refused("lossy.sh", &on(&["loss", "0"]), "percent");
    refused("lossy.sh", &on(&["loss", "101"]), "percent");
    refused("lossy.sh", &on(&["melt", "10"]), "melt");
    refused("slow.sh", &on(&["rate", "-1"]), "-1");
    refused("slow.sh", &on(&["stop", "1"]), "stop");
    refused("clog.sh", &on(&["--seconds", "soon"]), "--seconds");
    refused("heal.sh", &["--target", "netns"], "name a host");
    refused(
        "heal.sh",
        &["--target", "netns", "no-such-host"],
        "no-such-host",
    );
}

#[test]
fn every_script_explains_itself_and_can_be_tried_dry() {
    for name in COMMANDS {
        let (is_content, text) = said(&script(name, &["--help"]));
        assert!(
            is_content && text.starts_with(&format!("usage: {name} ")),
            "{text}"
        );
    }
    let arguments = [
        "--target",
        "host",
        "--dry-run",
        "one-way",
        "a=10.0.0.1",
        "b=10.0.0.2",
    ];
    let (is_content, text) = said(&script("partition.sh", &arguments));
    assert!(is_content && text.contains("on b: nft"), "{text}");
    assert!(text.contains("elements = { 10.0.0.1 }"), "{text}");
}

#[test]
fn the_shell_check_has_nothing_to_say() {
    let files = std::fs::read_dir(folder())
        .unwrap()
        .map(|file| file.unwrap().path());
    let scripts: Vec<PathBuf> = files
        .filter(|path| path.extension() == Some("sh".as_ref()))
        .collect();
    assert_eq!(scripts.len(), COMMANDS.len() + 1);
    match Command::new("shellcheck")
        .arg("--external-sources")
        .args(&scripts)
        .output()
    {
        Ok(output) => assert!(output.status.success(), "{}", said(&output).1),
        Err(error) => {
            let demanded = std::env::var_os("TREFOIL_REQUIRE_PEERS").is_some();
            assert!(!demanded, "shellcheck: {error}");
            eprintln!("not run: shellcheck is not installed");
        }
    }
}
