//! What the process itself takes of the machine, read when metrics are asked for.

use std::{
    fmt::{Display, Write},
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

use super::catalog::{self, Metric};

/// This process, since it has begun.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    started: f64,
}

impl Process {
    /// Notes the time; to be called as the process starts.
    pub fn start() -> Self {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: started.as_secs_f64() }
    }

    /// Appends the standard `process_*` metrics. They are not in the recorder, which
    /// cannot say that a number with a fraction is a counter.
    pub fn render(self, text: &mut String) {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        #[allow(clippy::cast_precision_loss, reason = "2^52 seconds are long enough")]
        let cpu = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
        add(text, "process_cpu_seconds_total", cpu);
        add(text, "process_start_time_seconds", self.started);
        if let Some(limit) = getrlimit(Resource::Nofile).current {
            add(text, "process_max_fds", limit);
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // One of them is the directory itself.
            let open = open.count().saturating_sub(1);
            add(text, "process_open_fds", open);
        }
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let number = |key| {
            status.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok())
        };
        let kib = |key| number(key).map(|kib: u64| kib * 1_024);
        if let Some(bytes) = kib("VmRSS:") {
            add(text, "process_resident_memory_bytes", bytes);
        }
        if let Some(bytes) = kib("VmSize:") {
            add(text, "process_virtual_memory_bytes", bytes);
        }
        if let Some(threads) = number("Threads:") {
            add(text, "process_threads", threads);
        }
    }
}

/// Appends a metric of the catalog that is not in the recorder.
pub fn add(text: &mut String, name: &str, value: impl Display) {
    if head(text, name).is_some() {
        let _ = writeln!(text, "{name} {value}\n");
    }
}

/// The same with a value for each of its label's values.
pub fn add_labelled(text: &mut String, name: &str, values: &[(&str, usize)]) {
    let Some(Metric { labels: [label, ..], .. }) = head(text, name) else { return };
    for (of, value) in values {
        let _ = writeln!(text, "{name}{{{label}=\"{of}\"}} {value}");
    }
    text.push('\n');
}

/// Appends what introduces a metric of the catalog.
fn head(text: &mut String, name: &str) -> Option<&'static Metric> {
    let metric = catalog::find(name)?;
    // A string takes every write.
    let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {}", metric.help, metric.kind.name());
    Some(metric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_what_it_takes() {
        let mut text = String::new();
        Process::start().render(&mut text);
        for name in ["cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds", "threads"] {
            let name = format!("process_{name} ");
            let line = text
                .lines()
                .find(|line| line.starts_with(&name))
                .unwrap_or_else(|| panic!("{name} in {text}"));
            let value: f64 = line[name.len()..].parse().unwrap();
            assert!(value > 0.0, "{line}");
        }
    }
}
