//! strace around a process: what it does to one file, and faults put in.

use std::collections::HashSet;

/// strace with its arguments, up to the command: writes to `output` what is done
/// to `files`, and injects faults there. The traced process keeps its process id.
pub fn arguments(output: &str, files: &[&str], inject: &[&str]) -> Vec<String> {
    let mut arguments: Vec<_> =
        ["strace", "-D", "-f", "--seccomp-bpf", "-y", "-ttt", "-T", "-o", output].map(String::from).into();
    for file in files {
        arguments.extend(["-P".into(), (*file).into()]);
    }
    for expression in ["trace=write,pwrite64,fsync,fdatasync"].iter().chain(inject) {
        arguments.extend(["-e".into(), (*expression).into()]);
    }
    arguments
}

/// The answers that no sync of the log stands behind: since the answer before,
/// something was written to the log, and all of that was synced before the answer.
pub fn unsynced(trace: &str, answers: &[f64]) -> Vec<usize> {
    let mut events = Vec::new();
    let mut pending = HashSet::new();
    for line in trace.lines() {
        let mut words = line.split_whitespace();
        let (Some(thread), Some(time), Some(call)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let Ok(time) = time.parse::<f64>() else { continue };
        let sync = call.starts_with("fsync(") || call.starts_with("fdatasync(");
        if call.starts_with("pwrite64(") {
            events.push((time, false));
        } else if sync && line.contains("unfinished") {
            pending.insert(thread);
        } else if sync && line.contains(" = 0 ") {
            let took =
                line.rsplit('<').next().and_then(|took| took.trim_end_matches('>').parse::<f64>().ok());
            events.push((time + took.unwrap_or(0.0), true));
        } else if line.contains("sync resumed") && line.contains(" = 0 ") && pending.remove(thread) {
            events.push((time, true));
        }
    }
    events.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut before = 0.0;
    let mut bad = Vec::new();
    for (number, &answer) in answers.iter().enumerate() {
        let mut since = events.iter().filter(|(time, _)| *time > before && *time <= answer);
        // The last thing that happened to the log is a sync.
        if since.next_back().is_none_or(|(_, sync)| !sync) {
            bad.push(number);
        }
        before = answer;
    }
    bad
}

/// The thread of each sync, in their order.
pub fn syncing_threads(trace: &str) -> Vec<&str> {
    trace.lines().filter_map(syncing_thread).collect()
}

fn syncing_thread(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    let (thread, _, call) = (words.next()?, words.next()?, words.next()?);
    (call.starts_with("fsync(") || call.starts_with("fdatasync(")).then_some(thread)
}
