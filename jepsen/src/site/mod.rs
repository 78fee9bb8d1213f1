//! The made environment of a run: hosts for real node processes, their network, their disks, their clocks.
//!
//! In namespaces (root) every host is a machine as far as its process can tell: a network namespace on a
//! [`Switch`], a loop-mounted disk, control groups. On loopback, where nothing needs a right, hosts
//! are folders and ports; faults that need more say so ([`Host::supports`]). The harness' own clients live on the
//! same network, as nobody's neighbour: [`Site::enter`].
//!
//! Everything is removed when the site is dropped, and by a reaper process when its owner ends in any other way; see
//! [`record`]. Only logs stay in the run's folder. No route leads out of the namespaces, so nothing there
//! can reach an address that the site did not make.

mod commands;
mod damage;
mod disk;
mod faults;
mod group;
mod host;
mod record;
#[cfg(test)]
mod tests;

pub use damage::{DamagePlace, Tear};
pub use faults::FaultCounts;
pub use host::{Host, HostFault};

use crate::{
    FreePort,
    net::{Network, Proxy, ProxyHost, Switch, SwitchPort, enter_namespace, namespaces_missing},
};
use anyhow::{Context, ensure};
use commands::run;
use disk::Disk;
use faults::Faults;
use group::Groups;
use host::{Environment, Place};
use record::{Made, Record};
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

/// How many hosts a site has at most: a quarter of what the switch has ports for.
const HOSTS_MAX: usize = 16;
/// Where nodes in namespaces listen: the product's own ports.
const HTTP_PORT: u16 = 9190;
const PEER_PORT: u16 = 9191;
/// The network of the namespaces: host `i` is 10.77.0.(i + 1) at first, 10.77.1.(i + 1) after it got a new
/// address, and so on; the clients are at 10.77.255.1.
const PREFIX: u8 = 16;
const CLIENTS: Ipv4Addr = Ipv4Addr::new(10, 77, 255, 1);
/// The programs that namespaces and disks are made with, and the Debian packages that have them.
const PROGRAMS: [(&str, &str); 6] = [
    ("ip", "iproute2"),
    ("mount", "mount"),
    ("losetup", "mount"),
    ("flock", "util-linux"),
    ("mkfs.ext4", "e2fsprogs"),
    ("e2fsck", "e2fsprogs"),
];

/// What hosts are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SiteKind {
    /// Network namespaces, loop-mounted disks and control groups. Needs root.
    Namespaces,
    /// Folders and loopback addresses, with a relay between the nodes. Needs nothing.
    Loopback,
}

/// What to make.
#[derive(Clone, Debug)]
pub struct SitePlan {
    /// What hosts are made of.
    pub kind: SiteKind,
    /// All hosts that may ever run, later joiners included; at most 16.
    pub hosts: usize,
    /// The size of each host's disk; it takes only the space that is written. At least 16 MiB. Not on loopback.
    pub disk_bytes: u64,
    /// How many processors each host may use, where it is limited. Not on loopback.
    pub cores_per_host: Option<f64>,
    /// How much memory each host may use, its page cache included, where it is limited. Not on loopback.
    pub memory_bytes: Option<u64>,
    /// Failure zones; host `i` is in zone `i` modulo their number. None: hosts have no zone.
    pub zones: Vec<String>,
    /// Decides whatever is left to chance.
    pub seed: u64,
    /// Where everything is made. Logs stay there: `node-1.log` and so on.
    pub folder: PathBuf,
}

impl SitePlan {
    /// So many hosts with disks of 2 GiB, without limits and zones. On a disk with less than 512 MiB free a node takes
    /// over nobody's shards.
    #[must_use]
    pub fn new(kind: SiteKind, hosts: usize, folder: &Path) -> Self {
        Self {
            kind,
            hosts,
            disk_bytes: 2 << 30,
            cores_per_host: None,
            memory_bytes: None,
            zones: Vec::new(),
            seed: 0,
            folder: folder.to_owned(),
        }
    }
}

impl SiteKind {
    /// Its name in histories.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Loopback => "loopback",
        }
    }
}

/// The way to where the clients of a site are.
#[derive(Clone, Debug)]
pub struct Door(Option<PathBuf>);

impl Door {
    /// Moves the calling thread there. Runtimes call it when a thread starts.
    ///
    /// # Errors
    /// When it cannot go there.
    pub fn enter(&self) -> anyhow::Result<()> {
        match &self.0 {
            Some(namespace) => enter_namespace(namespace),
            None => Ok(()),
        }
    }
}

/// What joins hosts.
enum Joint {
    Switch(Switch),
    Proxy(Proxy),
}

/// Hosts and what joins them.
///
/// Fields are dropped in their order: processes, then their network, then what the record names.
pub struct Site {
    hosts: Vec<Host>,
    /// `None` while the hosts are made.
    joint: Option<Joint>,
    clients: Option<PathBuf>,
    record: Record,
}

impl Site {
    /// Whether such a site can be made here.
    ///
    /// # Errors
    /// With what is missing.
    pub fn possible(kind: SiteKind) -> Result<(), String> {
        if kind == SiteKind::Loopback {
            return Ok(());
        }
        if !rustix::process::geteuid().is_root() {
            return Err("needs root".to_owned());
        }
        for (program, package) in PROGRAMS {
            let found = run("sh", &["-c", &format!("command -v {program}")]);
            found.map_err(|_| format!("needs the program {program} (package {package})"))?;
        }
        if let Some(reason) = namespaces_missing() {
            return Err(reason.to_owned());
        }
        let free = run("losetup", &["--find"]);
        free.map_err(|error| format!("needs a loop device: {error:#}"))?;
        Ok(())
    }

    /// Makes the hosts, with their disks mounted and their network working. No node runs yet.
    ///
    /// # Errors
    /// When something cannot be made; what was made is removed. Also when what an earlier site left
    /// cannot be removed.
    pub fn create(plan: &SitePlan) -> anyhow::Result<Self> {
        ensure!(
            (1..=HOSTS_MAX).contains(&plan.hosts),
            "{} hosts are not between 1 and {HOSTS_MAX}",
            plan.hosts
        );
        fs::create_dir_all(&plan.folder)?;
        let folder = plan.folder.canonicalize()?.join("site");
        let record = Record::open()?;
        record.note(Made::Folder, &folder)?;
        fs::create_dir(&folder).context("make the folder of a site")?;
        let library = faults::compile(&folder).map_err(|error| format!("{error:#}"));
        let environment = Arc::new(Environment {
            record: record.path().to_owned(),
            library,
            seed: plan.seed,
        });
        let mut site = Self {
            hosts: Vec::new(),
            joint: None,
            clients: None,
            record,
        };
        for number in 0..plan.hosts {
            let host = site.create_host(plan, &folder, number, &environment)?;
            site.hosts.push(host);
        }
        match plan.kind {
            SiteKind::Namespaces => site.join(plan.seed)?,
            SiteKind::Loopback => {
                let places = site.hosts.iter().map(|host| ProxyHost {
                    node: host.peer,
                    advertised: host.advertised,
                });
                site.joint = Some(Joint::Proxy(Proxy::start(places.collect(), plan.seed)?));
            }
        }
        Ok(site)
    }

    fn create_host(
        &self,
        plan: &SitePlan,
        folder: &Path,
        number: usize,
        environment: &Arc<Environment>,
    ) -> anyhow::Result<Host> {
        let name = format!("node-{}", number + 1);
        let full_name = format!("{}-{name}", self.record.name());
        let at = folder.join(&name);
        let place = if plan.kind == SiteKind::Namespaces {
            let address = address_of(number, 0);
            let image = folder.join(format!("{name}.image"));
            Place {
                http: SocketAddr::from((address, HTTP_PORT)),
                peer: SocketAddr::from((address, PEER_PORT)),
                advertised: SocketAddr::from((address, PEER_PORT)),
                namespace: Some(self.create_namespace(&full_name)?),
                disk: Some(Disk::create(&self.record, &image, &at, plan.disk_bytes)?),
                groups: Groups::create(
                    &self.record,
                    &full_name,
                    plan.cores_per_host,
                    plan.memory_bytes,
                )?,
            }
        } else {
            fs::create_dir(&at)?;
            let relayed = ProxyHost::find()?;
            Place {
                http: FreePort::find()?,
                peer: relayed.node,
                advertised: relayed.advertised,
                namespace: None,
                disk: None,
                groups: Groups::default(),
            }
        };
        let zone = match plan.zones.len() {
            0 => None,
            zones => Some(plan.zones[number % zones].clone()),
        };
        let faults = Faults::create(folder.join(format!("{name}.faults")))?;
        let log = plan.folder.join(format!("{name}.log"));
        Ok(Host::new(
            name,
            zone,
            at,
            log,
            place,
            faults,
            environment.clone(),
        ))
    }

    fn create_namespace(&self, name: &str) -> anyhow::Result<PathBuf> {
        self.record.note(Made::Namespace, Path::new(name))?;
        run("ip", &["netns", "add", name])?;
        run("ip", &["-n", name, "link", "set", "lo", "up"])?;
        Ok(Path::new("/run/netns").join(name))
    }

    /// Joins the hosts, and the clients after them, with a switch.
    fn join(&mut self, seed: u64) -> anyhow::Result<()> {
        let clients = self.create_namespace(&format!("{}-clients", self.record.name()))?;
        let port = |name: &str, namespace: &Path, address| SwitchPort {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            address,
            prefix: PREFIX,
        };
        let mut ports = Vec::new();
        for (number, host) in self.hosts.iter().enumerate() {
            let namespace = host.namespace().context("a host without a namespace")?;
            ports.push(port(&host.name, namespace, address_of(number, 0)));
        }
        ports.push(port("clients", &clients, CLIENTS));
        self.clients = Some(clients);
        self.joint = Some(Joint::Switch(Switch::start(ports, seed)?));
        Ok(())
    }

    /// The links between the hosts, which have the hosts' numbers. With namespaces clients are the number after the last
    /// host; on loopback they do not come through here.
    #[must_use]
    pub fn network(&self) -> Option<&dyn Network> {
        Some(match self.joint.as_ref()? {
            Joint::Switch(switch) => switch,
            Joint::Proxy(proxy) => proxy,
        })
    }

    /// The way to where clients are, for threads that live longer than this borrow.
    #[must_use]
    pub fn door(&self) -> Door {
        Door(self.clients.clone())
    }

    /// Moves the calling thread to where clients are. Runtimes call it when a thread starts.
    ///
    /// # Errors
    /// When it cannot go there.
    pub fn enter(&self) -> anyhow::Result<()> {
        self.door().enter()
    }

    /// The address where hosts reach what runs beside the clients; `None` on loopback.
    #[must_use]
    pub fn clients_address(&self) -> Option<Ipv4Addr> {
        self.clients.as_ref().map(|_| CLIENTS)
    }

    /// The namespace of the clients, for runtimes whose threads outlive a borrow; `None` on loopback.
    #[must_use]
    pub fn clients_namespace(&self) -> Option<&Path> {
        self.clients.as_deref()
    }

    /// All hosts, in the order of their numbers.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// A host.
    ///
    /// # Panics
    /// When there is none of this number.
    #[must_use]
    pub fn host(&self, number: usize) -> &Host {
        &self.hosts[number]
    }

    /// A host, to do something to it.
    ///
    /// # Panics
    /// When there is none of this number.
    pub fn host_mut(&mut self, number: usize) -> &mut Host {
        &mut self.hosts[number]
    }

    /// Cuts the power of several hosts at one time: all stop to run before the first one's disk is cut. Afterwards
    /// their disks are mounted again with what was synced, and nothing runs.
    ///
    /// # Errors
    /// When it is not possible here, or a disk does not come back.
    pub fn power_cut(&mut self, hosts: &[usize]) -> anyhow::Result<()> {
        for &number in hosts {
            self.hosts[number].freeze_before_cut()?;
        }
        for &number in hosts {
            self.hosts[number].power_cut()?;
        }
        Ok(())
    }

    /// Gives a stopped host other addresses, as a restarted pod gets them. Seeds of the others stay as they were given.
    ///
    /// # Errors
    /// When it runs, or has had 250 addresses already, or no port is free.
    ///
    /// # Panics
    /// On loopback inside an asynchronous task: it waits for the relay.
    pub fn readdress(&mut self, number: usize) -> anyhow::Result<()> {
        let host = &mut self.hosts[number];
        ensure!(!host.is_running(), "{} runs", host.name);
        match self.joint.as_ref().context("a site that is not joined")? {
            Joint::Switch(switch) => {
                let generation = host.generation.checked_add(1);
                host.generation = generation.context("too many addresses")?;
                ensure!(host.generation < 250, "{} had 250 addresses", host.name);
                let address = address_of(number, host.generation);
                switch.readdress(number, address)?;
                host.http = SocketAddr::from((address, HTTP_PORT));
                host.peer = SocketAddr::from((address, PEER_PORT));
                host.advertised = host.peer;
            }
            Joint::Proxy(proxy) => {
                let relayed = ProxyHost::find()?;
                proxy.readdress(number, relayed)?;
                host.http = FreePort::find()?;
                host.peer = relayed.node;
                host.advertised = relayed.advertised;
            }
        }
        Ok(())
    }
}

/// The address of a host after it got so many new ones.
fn address_of(number: usize, generation: u8) -> Ipv4Addr {
    let last = u8::try_from(number + 1).unwrap_or(u8::MAX);
    Ipv4Addr::new(10, 77, generation, last)
}

/// The command that becomes a program inside a host's control groups; see `launch.sh`.
fn launch(
    record: &Path,
    preload: Option<&Path>,
    groups: &Groups,
    program: &Path,
) -> std::process::Command {
    const LAUNCH: &str = include_str!("launch.sh");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", LAUNCH, "launch"]).arg(record);
    command.arg(preload.unwrap_or(Path::new("")));
    command.args(groups.folders()).arg("--").arg(program);
    command
}
