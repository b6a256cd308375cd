//! The README shows commands and what they print. This runs the commands and
//! compares, so that what it shows stays true.

use std::{fs, process::Command};

use crate::{
    run::{path, run},
    support::{
        Server,
        documented::{Example, examples},
    },
};

/// Where the README says the server is.
const SHOWN_ADDR: &str = "localhost:50051";

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

/// The text without what differs from run to run: ids, etags and times.
fn masked(text: &str) -> String {
    const DIFFERENT: [&str; 4] = ["\"id\":", "\"etag\":", "\"createTime\":", "\"updateTime\":"];
    let mask = |line: &str| match DIFFERENT.iter().find(|key| line.trim_start().starts_with(**key)) {
        Some(key) => format!("{key} ..."),
        None => DIFFERENT.iter().fold(line.trim_end().to_owned(), |line, key| masked_value(&line, key)),
    };
    text.trim_end().lines().map(mask).collect::<Vec<_>>().join("\n")
}

/// A line of JSON without the text that is the value of this key.
fn masked_value(line: &str, key: &str) -> String {
    let Some((before, value)) = line.split_once(key) else { return line.to_owned() };
    // A quote that is a part of the text has a backslash in front.
    let end = value.match_indices('"').skip(1).find(|(at, _)| !value[..*at].ends_with('\\'));
    let end = end.map_or(value.len(), |(at, quote)| at + quote.len());
    format!("{before}{key}...{}", &value[end..])
}
