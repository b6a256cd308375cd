//! What the documentation promises: metrics, log lines, and what commands print.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// The kind of a metric, its labels, and who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    pub kind: String,
    pub labels: BTreeSet<String>,
    pub shown: String,
}

/// The rows of the table.
pub fn promised() -> BTreeMap<String, Promise> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/METRICS.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let labels = cells[3].split(", ").map(|label| label.trim_matches('`').to_owned());
        let labels = labels.filter(|label| !label.is_empty()).collect();
        let promise = Promise { kind: cells[2].into(), labels, shown: cells[4].into() };
        (cells[1].trim_matches('`').into(), promise)
    })
    .collect()
}

/// What a page of metrics shows: the kind of each metric and the labels it was seen with.
pub fn shown(page: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut shown = BTreeMap::new();
    let mut name = String::new();
    for line in page.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (metric, kind) = kind.split_once(' ').unwrap();
            name = metric.into();
            shown.entry(name.clone()).or_insert((kind.to_owned(), BTreeSet::new()));
        } else if let Some((_, labels)) = line.split_once('{') {
            let labels = labels.rsplit_once('}').unwrap().0.split("\",");
            let labels = labels.map(|label| label.split('=').next().unwrap().to_owned());
            shown.get_mut(&name).unwrap().1.extend(labels.filter(|label| label != "le"));
        }
    }
    shown
}

/// Compares them: everything shown is promised, and everything promised to one of
/// `whom` is shown.
pub fn agrees(page: &str, whom: &[&str]) {
    let (promised, shown) = (promised(), shown(page));
    let mut wrong = Vec::new();
    for (name, (kind, labels)) in &shown {
        match promised.get(name) {
            None => wrong.push(format!("{name} is shown and not documented")),
            Some(promise) if promise.kind != *kind || promise.labels != *labels => {
                wrong.push(format!("{name} is a {kind} with {labels:?}, documented as {promise:?}"));
            }
            Some(promise) if !whom.contains(&promise.shown.as_str()) => {
                wrong.push(format!("{name} is shown, but documented for {}", promise.shown));
            }
            Some(_) => {}
        }
    }
    for (name, promise) in promised {
        if whom.contains(&promise.shown.as_str()) && !shown.contains_key(&name) {
            wrong.push(format!("{name} is documented and not shown"));
        }
    }
    assert!(wrong.is_empty(), "{}\n{page}", wrong.join("\n"));
}

/// The fields of the log line that docs/OPERATIONS.md shows.
pub fn log_fields() -> BTreeSet<String> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OPERATIONS.md")).unwrap();
    fields(page.lines().find(|line| line.starts_with("{\"timestamp\"")).expect("a line is shown"))
}

/// The fields of a log line.
pub fn fields(line: &str) -> BTreeSet<String> {
    serde_json::from_str::<BTreeMap<String, serde_json::Value>>(line).unwrap().into_keys().collect()
}

/// What is always shown, and by whoever leaves `metric_names` as it is.
pub const ALWAYS: [&str; 3] = [
    "always",
    "`metric_names` is `both` or `grpc_prometheus`",
    "`metric_names` is `both` or `opentelemetry`",
];

/// A command, and what a page says that it prints.
#[derive(Debug)]
pub struct Example {
    pub command: String,
    pub output: String,
}

/// The commands of a page's `console` blocks, in order.
pub fn examples(page: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| inside) {
            examples.push(Example { command: command.to_owned(), output: String::new() });
        } else if let Some(example) = examples.last_mut().filter(|_| inside) {
            if example.command.ends_with('\\') {
                example.command.extend(["\n", line]);
            } else {
                example.output.extend([line, "\n"]);
            }
        }
    }
    examples
}
