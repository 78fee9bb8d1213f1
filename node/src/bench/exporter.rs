//! The series of one target: what a node exporter on a server with eight processors tells, with
//! values that move like the real ones.
//!
//! About 700 series, of which three quarters stand still on a lightly loaded machine; the moving
//! ones are counters of whole units, counters of hundredths of seconds, gauges of pages, and a few
//! durations with random digits.

use super::random::Random;

/// How a series' value moves from one scrape to the next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Motion {
    /// Always the same.
    Constant(f64),
    /// Rises by about `per_second`, in multiples of `quantum`; still in every second scrape when idle.
    Counter { per_second: f64, quantum: f64 },
    /// Wanders around `middle` in steps of `quantum`.
    Gauge { middle: f64, quantum: f64 },
    /// A measured duration: `middle` times 0.5 to 1.5, nine decimals.
    Duration { middle: f64 },
}

impl Motion {
    /// The value at the first scrape.
    pub(super) fn first(self, random: &mut Random) -> f64 {
        match self {
            Self::Constant(value) => value,
            // As if the machine had run for up to a month.
            Self::Counter {
                per_second,
                quantum,
            } => quantize(per_second * random.unit() * 2_592_000.0, quantum),
            Self::Gauge { middle, quantum } => quantize(middle * (0.5 + random.unit()), quantum),
            Self::Duration { middle } => duration(middle, random),
        }
    }

    /// The value `seconds` after `before`.
    pub(super) fn next(self, before: f64, seconds: f64, random: &mut Random) -> f64 {
        match self {
            Self::Constant(value) => value,
            Self::Counter {
                per_second,
                quantum,
            } => {
                let rise = per_second * seconds * 2.0 * random.unit();
                quantize(before + rise, quantum)
            }
            Self::Gauge { middle, quantum } => {
                let pull = (middle - before) * 0.1;
                let step = (random.unit() - 0.5) * middle * 0.05;
                quantize(before + pull + step, quantum).max(0.0)
            }
            Self::Duration { middle } => duration(middle, random),
        }
    }
}

/// The multiple of `quantum` nearest to `value`, as a decimal fraction where `quantum` is one.
fn quantize(value: f64, quantum: f64) -> f64 {
    if quantum < 1.0 {
        let per_unit = (1.0 / quantum).round();
        (value * per_unit).round() / per_unit
    } else {
        (value / quantum).round() * quantum
    }
}

fn duration(middle: f64, random: &mut Random) -> f64 {
    quantize(middle * (0.5 + random.unit()), 1e-9)
}

/// One series of every target: its labels without `instance` and `job`, sorted by name, and its motion.
#[derive(Clone, Debug)]
pub(super) struct SeriesShape {
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) motion: Motion,
}

/// All series of a target, in the order of its exposition. Always the same list.
pub(super) fn series_of_a_target() -> Vec<SeriesShape> {
    let mut list = ShapeList(Vec::with_capacity(800));
    processors(&mut list);
    memory(&mut list);
    disks_and_filesystems(&mut list);
    network(&mut list);
    kernel(&mut list);
    collectors(&mut list);
    units(&mut list);
    list.0
}

struct ShapeList(Vec<SeriesShape>);

impl ShapeList {
    fn push(&mut self, name: &str, labels: &[(&'static str, &str)], motion: Motion) {
        let mut all = vec![("__name__", name.to_owned())];
        all.extend(labels.iter().map(|(n, v)| (*n, (*v).to_owned())));
        all.sort_by_key(|(name, _)| *name);
        self.0.push(SeriesShape {
            labels: all,
            motion,
        });
    }
}

fn counter(per_second: f64, quantum: f64) -> Motion {
    Motion::Counter {
        per_second,
        quantum,
    }
}

fn processors(list: &mut ShapeList) {
    let modes = [
        ("idle", 0.93),
        ("iowait", 0.002),
        ("irq", 0.0),
        ("nice", 0.0),
        ("softirq", 0.003),
        ("steal", 0.0),
        ("system", 0.02),
        ("user", 0.045),
    ];
    for cpu in ["0", "1", "2", "3", "4", "5", "6", "7"] {
        for (mode, share) in modes {
            let labels = [("cpu", cpu), ("mode", mode)];
            list.push("node_cpu_seconds_total", &labels, counter(share, 0.01));
        }
        for mode in ["nice", "user"] {
            let labels = [("cpu", cpu), ("mode", mode)];
            list.push(
                "node_cpu_guest_seconds_total",
                &labels,
                Motion::Constant(0.0),
            );
        }
        let scheduler = [
            ("node_schedstat_running_seconds_total", counter(0.07, 1e-9)),
            ("node_schedstat_timeslices_total", counter(350.0, 1.0)),
            ("node_schedstat_waiting_seconds_total", counter(0.004, 1e-9)),
            ("node_softnet_dropped_total", Motion::Constant(0.0)),
            ("node_softnet_processed_total", counter(120.0, 1.0)),
            ("node_softnet_times_squeezed_total", Motion::Constant(3.0)),
            (
                "node_cpu_scaling_frequency_max_hertz",
                Motion::Constant(3.6e9),
            ),
            (
                "node_cpu_scaling_frequency_min_hertz",
                Motion::Constant(8e8),
            ),
        ];
        for (name, motion) in scheduler {
            list.push(name, &[("cpu", cpu)], motion);
        }
    }
}

fn memory(list: &mut ShapeList) {
    let moving = [
        "Active",
        "Active_anon",
        "Active_file",
        "AnonPages",
        "Buffers",
        "Cached",
        "Committed_AS",
        "Dirty",
        "Inactive",
        "Inactive_anon",
        "Inactive_file",
        "KernelStack",
        "Mapped",
        "MemAvailable",
        "MemFree",
        "PageTables",
        "SReclaimable",
        "SUnreclaim",
        "Shmem",
        "Slab",
    ];
    let fixed = [
        "AnonHugePages",
        "Bounce",
        "CmaFree",
        "CmaTotal",
        "CommitLimit",
        "DirectMap1G",
        "DirectMap2M",
        "DirectMap4k",
        "HardwareCorrupted",
        "HugePages_Free",
        "HugePages_Rsvd",
        "HugePages_Surp",
        "HugePages_Total",
        "Hugepagesize",
        "Hugetlb",
        "MemTotal",
        "Mlocked",
        "NFS_Unstable",
        "Percpu",
        "SwapCached",
        "SwapFree",
        "SwapTotal",
        "Unevictable",
        "VmallocChunk",
        "VmallocTotal",
        "VmallocUsed",
        "Writeback",
        "WritebackTmp",
    ];
    for (place, field) in moving.iter().enumerate() {
        let middle = 4096.0 * 2_000.0 * (1 + place * place) as f64;
        let motion = Motion::Gauge {
            middle,
            quantum: 4096.0,
        };
        list.push(&format!("node_memory_{field}_bytes"), &[], motion);
    }
    for (place, field) in fixed.iter().enumerate() {
        let motion = Motion::Constant(4096.0 * ((place * 7919) % 4_000) as f64);
        list.push(&format!("node_memory_{field}_bytes"), &[], motion);
    }
}

fn disks_and_filesystems(list: &mut ShapeList) {
    for (device, load) in [("nvme0n1", 40.0), ("nvme1n1", 2.0), ("sda", 0.0)] {
        let fields = [
            ("io_now", Motion::Constant(0.0)),
            ("io_time_seconds_total", counter(load * 0.001, 0.001)),
            (
                "io_time_weighted_seconds_total",
                counter(load * 0.002, 0.001),
            ),
            ("read_bytes_total", counter(load * 4096.0, 512.0)),
            ("read_time_seconds_total", counter(load * 0.0005, 0.001)),
            ("reads_completed_total", counter(load * 0.3, 1.0)),
            ("reads_merged_total", counter(load * 0.01, 1.0)),
            ("write_time_seconds_total", counter(load * 0.001, 0.001)),
            ("writes_completed_total", counter(load * 0.7, 1.0)),
            ("writes_merged_total", counter(load * 0.2, 1.0)),
            ("written_bytes_total", counter(load * 8192.0, 512.0)),
            ("discards_completed_total", Motion::Constant(0.0)),
            ("discards_merged_total", Motion::Constant(0.0)),
            ("flush_requests_total", counter(load * 0.05, 1.0)),
        ];
        for (field, motion) in fields {
            list.push(&format!("node_disk_{field}"), &[("device", device)], motion);
        }
    }
    let mounts = [
        ("/dev/nvme0n1p2", "ext4", "/", 5e10),
        ("/dev/nvme0n1p1", "vfat", "/boot/efi", 0.0),
        ("/dev/nvme1n1", "xfs", "/var/lib/data", 4e11),
        ("tmpfs", "tmpfs", "/run", 1e6),
    ];
    for (device, fstype, mountpoint, used) in mounts {
        let labels = [
            ("device", device),
            ("fstype", fstype),
            ("mountpoint", mountpoint),
        ];
        let available = match used {
            0.0 => Motion::Constant(5.2e8),
            _ => Motion::Gauge {
                middle: used,
                quantum: 4096.0,
            },
        };
        let fields = [
            ("avail_bytes", available),
            ("free_bytes", available),
            ("size_bytes", Motion::Constant(1.0e12)),
            ("files", Motion::Constant(6.1e7)),
            (
                "files_free",
                Motion::Gauge {
                    middle: 6.0e7,
                    quantum: 1.0,
                },
            ),
            ("readonly", Motion::Constant(0.0)),
            ("device_error", Motion::Constant(0.0)),
        ];
        for (field, motion) in fields {
            list.push(&format!("node_filesystem_{field}"), &labels, motion);
        }
    }
}

fn network(list: &mut ShapeList) {
    let fields = [
        ("address_assign_type", 0.0),
        ("carrier", 0.0),
        ("carrier_changes_total", 0.0),
        ("device_id", 0.0),
        ("dormant", 0.0),
        ("flags", 0.0),
        ("iface_id", 0.0),
        ("iface_link", 0.0),
        ("info", 0.0),
        ("mtu_bytes", 0.0),
        ("net_dev_group", 0.0),
        ("protocol_type", 0.0),
        ("receive_bytes_total", 9_000.0),
        ("receive_compressed_total", 0.0),
        ("receive_drop_total", 0.0),
        ("receive_errs_total", 0.0),
        ("receive_fifo_total", 0.0),
        ("receive_frame_total", 0.0),
        ("receive_multicast_total", 0.0),
        ("receive_packets_total", 40.0),
        ("speed_bytes", 0.0),
        ("transmit_bytes_total", 7_000.0),
        ("transmit_carrier_total", 0.0),
        ("transmit_colls_total", 0.0),
        ("transmit_compressed_total", 0.0),
        ("transmit_drop_total", 0.0),
        ("transmit_errs_total", 0.0),
        ("transmit_fifo_total", 0.0),
        ("transmit_packets_total", 35.0),
        ("transmit_queue_length", 0.0),
        ("up", 0.0),
    ];
    for (device, load) in [("eth0", 1.0), ("eth1", 0.0), ("lo", 0.2), ("docker0", 0.0)] {
        for (place, (field, per_second)) in fields.iter().enumerate() {
            let motion = match per_second * load {
                0.0 => Motion::Constant((place % 3) as f64),
                per_second => counter(per_second, 1.0),
            };
            list.push(
                &format!("node_network_{field}"),
                &[("device", device)],
                motion,
            );
        }
    }
}

fn kernel(list: &mut ShapeList) {
    for (name, middle) in [
        ("node_load1", 0.6),
        ("node_load5", 0.5),
        ("node_load15", 0.4),
    ] {
        list.push(
            name,
            &[],
            Motion::Gauge {
                middle,
                quantum: 0.01,
            },
        );
    }
    let counters = [
        ("node_context_switches_total", 2_500.0),
        ("node_forks_total", 4.0),
        ("node_intr_total", 1_800.0),
        ("node_vmstat_pgfault", 3_000.0),
        ("node_vmstat_pgmajfault", 0.1),
        ("node_vmstat_pgpgin", 60.0),
        ("node_vmstat_pgpgout", 400.0),
        ("node_netstat_IpExt_InOctets", 16_000.0),
        ("node_netstat_IpExt_OutOctets", 14_000.0),
        ("node_netstat_Tcp_InSegs", 70.0),
        ("node_netstat_Tcp_OutSegs", 75.0),
        ("node_netstat_Tcp_PassiveOpens", 2.0),
        ("node_netstat_Tcp_ActiveOpens", 1.5),
        ("node_netstat_Udp_InDatagrams", 3.0),
        ("node_netstat_Udp_OutDatagrams", 3.0),
        ("node_netstat_Ip_Forwarding", 0.0),
    ];
    for (name, per_second) in counters {
        list.push(name, &[], counter(per_second, 1.0));
    }
    for extension in [
        "Icmp_InErrors",
        "Icmp_InMsgs",
        "Icmp_OutMsgs",
        "Icmp6_InErrors",
        "Icmp6_InMsgs",
        "Icmp6_OutMsgs",
        "TcpExt_ListenDrops",
        "TcpExt_ListenOverflows",
        "TcpExt_SyncookiesFailed",
        "TcpExt_SyncookiesRecv",
        "TcpExt_SyncookiesSent",
        "TcpExt_TCPTimeouts",
        "Tcp_CurrEstab",
        "Tcp_InErrs",
        "Tcp_OutRsts",
        "Tcp_RetransSegs",
        "Udp6_InDatagrams",
        "Udp6_InErrors",
        "UdpLite_InErrors",
        "Udp_InErrors",
        "Udp_NoPorts",
        "Udp_RcvbufErrors",
    ] {
        let name = format!("node_netstat_{extension}");
        list.push(&name, &[], Motion::Constant(extension.len() as f64));
    }
    list.push("node_boot_time_seconds", &[], Motion::Constant(1.7e9));
    list.push("node_time_seconds", &[], counter(1.0, 1e-6));
    list.push(
        "node_procs_running",
        &[],
        Motion::Gauge {
            middle: 2.0,
            quantum: 1.0,
        },
    );
    list.push(
        "node_filefd_allocated",
        &[],
        Motion::Gauge {
            middle: 2_400.0,
            quantum: 32.0,
        },
    );
    list.push("node_entropy_available_bits", &[], Motion::Constant(256.0));
}

fn collectors(list: &mut ShapeList) {
    let names = [
        "arp",
        "bcache",
        "bonding",
        "btrfs",
        "conntrack",
        "cpu",
        "cpufreq",
        "diskstats",
        "dmi",
        "edac",
        "entropy",
        "fibrechannel",
        "filefd",
        "filesystem",
        "hwmon",
        "infiniband",
        "ipvs",
        "loadavg",
        "mdadm",
        "meminfo",
        "netclass",
        "netdev",
        "netstat",
        "nfs",
        "nfsd",
        "nvme",
        "os",
        "powersupplyclass",
        "pressure",
        "rapl",
        "schedstat",
        "selinux",
        "sockstat",
        "softnet",
        "stat",
        "tapestats",
        "textfile",
        "thermal_zone",
        "time",
        "timex",
        "udp_queues",
        "uname",
        "vmstat",
        "xfs",
        "zfs",
    ];
    for (place, name) in names.iter().enumerate() {
        let middle = 0.00002 * (1 + place % 9) as f64;
        let labels = [("collector", *name)];
        let motion = Motion::Duration { middle };
        list.push("node_scrape_collector_duration_seconds", &labels, motion);
        list.push(
            "node_scrape_collector_success",
            &labels,
            Motion::Constant(1.0),
        );
    }
    list.push("up", &[], Motion::Constant(1.0));
    list.push(
        "scrape_duration_seconds",
        &[],
        Motion::Duration { middle: 0.02 },
    );
    list.push("scrape_samples_scraped", &[], Motion::Constant(700.0));
    list.push(
        "scrape_samples_post_metric_relabeling",
        &[],
        Motion::Constant(700.0),
    );
    list.push("scrape_series_added", &[], Motion::Constant(0.0));
}

fn units(list: &mut ShapeList) {
    let services = [
        "apt-daily",
        "atd",
        "auditd",
        "bind9",
        "chrony",
        "containerd",
        "cron",
        "dbus",
        "docker",
        "exim4",
        "fail2ban",
        "getty",
        "haproxy",
        "ifup",
        "irqbalance",
        "kubelet",
        "logrotate",
        "multipathd",
        "networking",
        "nginx",
        "node-exporter",
        "polkit",
        "postgresql",
        "redis",
        "rsyslog",
        "smartd",
        "snapd",
        "ssh",
        "sysstat",
        "systemd-journald",
        "systemd-logind",
        "systemd-resolved",
        "systemd-udevd",
        "unattended-upgrades",
        "vector",
        "zabbix-agent",
    ];
    for service in services {
        let name = format!("{service}.service");
        for state in ["activating", "active", "deactivating", "failed", "inactive"] {
            let labels = [
                ("name", name.as_str()),
                ("state", state),
                ("type", "simple"),
            ];
            let value = if state == "active" { 1.0 } else { 0.0 };
            list.push("node_systemd_unit_state", &labels, Motion::Constant(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn series_are_distinct_and_mostly_still() {
        let shapes = series_of_a_target();
        let distinct: BTreeSet<String> = shapes.iter().map(|s| format!("{:?}", s.labels)).collect();
        assert_eq!(distinct.len(), shapes.len());
        assert!(
            (650..850).contains(&shapes.len()),
            "{} series",
            shapes.len()
        );
        let mut random = Random::new(1, 1);
        let still = |shape: &&SeriesShape| {
            let first = shape.motion.first(&mut random);
            shape.motion.next(first, 15.0, &mut random).to_bits() == first.to_bits()
        };
        let share = shapes.iter().filter(still).count() as f64 / shapes.len() as f64;
        assert!(
            (0.6..0.85).contains(&share),
            "{share} of the series stand still"
        );
    }

    #[test]
    fn values_move_as_their_kind_says() {
        let mut random = Random::new(7, 0);
        let hundredths = counter(0.5, 0.01);
        let mut value = hundredths.first(&mut random);
        for _ in 0..100 {
            let next = hundredths.next(value, 15.0, &mut random);
            assert!(next >= value);
            assert_eq!((next * 100.0).round() / 100.0, next);
            value = next;
        }
        let pages = Motion::Gauge {
            middle: 4_096_000.0,
            quantum: 4096.0,
        };
        assert_eq!(pages.next(4_096_000.0, 15.0, &mut random) % 4096.0, 0.0);
    }
}
