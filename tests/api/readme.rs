//! The README shows commands and what they print. This runs the commands and
//! compares, so that what it shows stays true.

use std::{fs, process::Command};

use crate::{
    run::{path, run},
    support::Server,
};

/// Where the README says the server is.
const SHOWN_ADDR: &str = "localhost:50051";

/// A command and what the README says it prints.
struct Example {
    command: String,
    output: String,
}

#[test]
fn the_quick_start_prints_what_it_shows() {
    let server = Server::start(&[]);
    let examples = examples(&fs::read_to_string(path("README.md")).unwrap());
    assert!(examples.len() >= 6, "the README shows {} commands only", examples.len());
    for Example { command, output } in examples {
        let here = command.replace(SHOWN_ADDR, &server.grpc_addr.to_string());
        let ended = run(Command::new("bash").args(["-c", &here]).current_dir(path("")));
        let printed = ended.stdout + &ended.stderr;
        assert_eq!(masked(&printed), masked(&output), "what `{command}` printed, and what README.md shows");
    }
}

/// The commands of the README's `console` blocks, in order.
fn examples(readme: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
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

/// The text without what differs from run to run: ids, etags and times.
fn masked(text: &str) -> String {
    const DIFFERENT: [&str; 4] = ["\"id\":", "\"etag\":", "\"createTime\":", "\"updateTime\":"];
    let mask = |line: &str| match DIFFERENT.iter().find(|key| line.trim_start().starts_with(**key)) {
        Some(key) => format!("{key} ..."),
        None => line.trim_end().to_owned(),
    };
    text.trim_end().lines().map(mask).collect::<Vec<_>>().join("\n")
}
