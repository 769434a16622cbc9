//! What the process takes of the machine, under the names that all Prometheus clients share
//! (prometheus.io, "Writing client libraries", section "Process metrics").

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, Opts, Registry};
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// Reads it when it is asked for; a figure that cannot be read is left out.
#[derive(Debug)]
struct Process {
    /// When it was started, in seconds since 1970. Read once: the kernel works it out anew
    /// from its clocks, and where one of them is set this would look like a restart.
    began: Option<f64>,
}

/// What `/proc/self/stat` says (`proc_pid_stat(5)`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Stat {
    /// User and system time, in ticks.
    cpu: u64,
    threads: u64,
    /// Since the machine was started, in ticks.
    began: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

pub(super) fn register(registry: &Registry) {
    let process = Process { began: began() };
    registry.register(Box::new(process)).expect("each family is registered once");
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        Vec::new() // what it shows depends on what can be read
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Vec::new();
        if let Some(stat) = own_stat() {
            families.extend(counter(CPU, seconds(stat.cpu)));
            families.extend(gauge(THREADS, as_float(stat.threads)));
            families.extend(gauge(VIRTUAL, as_float(stat.virtual_bytes)));
            let resident = stat.resident_pages.saturating_mul(page_size() as u64);
            families.extend(gauge(RESIDENT, as_float(resident)));
        }
        if let Some(began) = self.began {
            families.extend(gauge(START, began));
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // The one that reads the folder stands in it.
            families.extend(gauge(FDS, as_float((open.count() as u64).saturating_sub(1))));
        }
        if let Some(most) = getrlimit(Resource::Nofile).current {
            families.extend(gauge(FDS_MAX, as_float(most)));
        }
        families
    }
}

fn own_stat() -> Option<Stat> {
    fs::read_to_string("/proc/self/stat").ok().and_then(|text| stat(&text))
}

fn began() -> Option<f64> {
    Some(as_float(boot_time()?) + seconds(own_stat()?.began))
}

fn seconds(ticks: u64) -> f64 {
    as_float(ticks) / as_float(clock_ticks_per_second().max(1))
}

/// The fields after the name, which stands in parentheses and may hold any byte.
fn stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // Numbered from one in proc_pid_stat(5); the first here is the third, the state.
    let nth = |nth: usize| fields.get(nth - 3)?.parse::<u64>().ok();
    Some(Stat {
        cpu: nth(14)?.saturating_add(nth(15)?),
        threads: nth(20)?,
        began: nth(22)?,
        virtual_bytes: nth(23)?,
        resident_pages: nth(24)?,
    })
}

/// When the machine was started, in seconds since 1970 (`proc_stat(5)`).
fn boot_time() -> Option<u64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

fn counter((name, help): (&str, &str), value: f64) -> Vec<MetricFamily> {
    let made = Counter::with_opts(Opts::new(name, help)).expect("our metric names are valid");
    made.inc_by(value);
    made.collect()
}

fn gauge((name, help): (&str, &str), value: f64) -> Vec<MetricFamily> {
    let made = Gauge::with_opts(Opts::new(name, help)).expect("our metric names are valid");
    made.set(value);
    made.collect()
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus counts in floats")]
fn as_float(number: u64) -> f64 {
    number as f64
}

const CPU: (&str, &str) =
    ("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.");
const THREADS: (&str, &str) = ("process_threads", "Number of OS threads in the process.");
const VIRTUAL: (&str, &str) = ("process_virtual_memory_bytes", "Virtual memory size in bytes.");
const RESIDENT: (&str, &str) = ("process_resident_memory_bytes", "Resident memory size in bytes.");
const START: (&str, &str) =
    ("process_start_time_seconds", "Start time of the process since unix epoch in seconds.");
const FDS: (&str, &str) = ("process_open_fds", "Number of open file descriptors.");
const FDS_MAX: (&str, &str) = ("process_max_fds", "Maximum number of open file descriptors.");

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn a_name_in_parentheses_may_hold_anything() {
        let text = "12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 70 30 13 14 15 16 4 18 99 4096 25 26 27";
        let wanted =
            Stat { cpu: 100, threads: 4, began: 99, virtual_bytes: 4096, resident_pages: 25 };
        assert_eq!(stat(text), Some(wanted));
        for cut in
            ["", "12 (a", "12 (a) S 1 2", "12 (a) S x x x x x x x x x x x x x x x x x x x x x"]
        {
            assert_eq!(stat(cut), None, "{cut}");
        }
    }

    #[test]
    fn this_process_is_seen_as_it_is() {
        let text = Metrics::new().text();
        let value = |name: &str| -> f64 {
            let found = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
            found.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().expect("a number")
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("past 1970").as_secs_f64();
        let age = now - value("process_start_time_seconds");
        assert!((-2.0..86_400.0).contains(&age), "{age}");
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_virtual_memory_bytes") > value("process_resident_memory_bytes"));
        assert!(value("process_threads") >= 2.0);
        assert!((3.0..value("process_max_fds")).contains(&value("process_open_fds")));
        assert!(value("process_cpu_seconds_total") < 86_400.0);
    }
}
