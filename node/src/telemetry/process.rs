//! What the operating system says of this process, under the names that all Prometheus clients use.

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};
use std::fmt::Error;

/// Reads `/proc/self` at each scrape; values that cannot be read are left out.
#[derive(Debug)]
pub(crate) struct ProcessCollector;

struct Stat {
    cpu_seconds: f64,
    start_seconds: f64,
    threads: i64,
    virtual_bytes: i64,
    resident_bytes: i64,
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut gauge = |name: &str, help: &str, value: f64| {
            let metric = ConstGauge::new(value);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        let stat = read_stat();
        if let Some(stat) = &stat {
            let resident = stat.resident_bytes as f64;
            gauge(
                "process_resident_memory_bytes",
                "Resident memory size in bytes",
                resident,
            )?;
            let size = stat.virtual_bytes as f64;
            gauge(
                "process_virtual_memory_bytes",
                "Virtual memory size in bytes",
                size,
            )?;
            gauge("process_threads", "Number of threads", stat.threads as f64)?;
            let start = stat.start_seconds;
            gauge(
                "process_start_time_seconds",
                "Start time since the Unix epoch",
                start,
            )?;
        }
        if let Some(open) = open_files() {
            gauge(
                "process_open_fds",
                "Number of open file descriptors",
                open as f64,
            )?;
        }
        if let Some(limit) = open_files_max() {
            gauge(
                "process_max_fds",
                "Maximum number of open file descriptors",
                limit,
            )?;
        }
        if let Some(stat) = &stat {
            let metric = ConstCounter::new(stat.cpu_seconds);
            let help = "Total user and system CPU time spent in seconds";
            let name = "process_cpu_seconds";
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
        }
        Ok(())
    }
}

/// Fields of `/proc/self/stat` by proc(5); the name in parentheses may contain anything.
fn read_stat() -> Option<Stat> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<i64>().ok();
    // Linux reports times in ticks of 1/100 s on every architecture that Trefoil builds for.
    let ticks = 100.0;
    Some(Stat {
        cpu_seconds: (number(14)? + number(15)?) as f64 / ticks,
        start_seconds: boot_seconds()? + number(22)? as f64 / ticks,
        threads: number(20)?,
        virtual_bytes: number(23)?,
        // Pages of 4 KiB; kernels with larger pages report through smaps only.
        resident_bytes: number(24)? * 4096,
    })
}

fn boot_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

fn open_files() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count())
}

fn open_files_max() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = text
        .lines()
        .find(|line| line.starts_with("Max open files"))?;
    line.split_ascii_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_numbers() {
        let stat = read_stat().expect("the kernel describes this process");
        assert!(stat.resident_bytes > 0 && stat.threads > 0 && stat.start_seconds > 1e9);
        assert!(open_files().is_some_and(|n| n > 0) && open_files_max().is_some());
    }
}
