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

#[test]
fn a_release_is_verified_as_the_readme_says_and_a_changed_one_is_not() {
    let readme = fs::read_to_string(path("README.md")).unwrap();
    let commands = readme
        .split("```sh\n")
        .filter_map(|rest| rest.split("```").next())
        .find(|block| block.contains("pkeyutl -verify"))
        .expect("README.md says how to verify a release");
    let (keys, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = |name: &str| folder.path().join(name);
    let bash = |script: &str| {
        let folder = folder.path();
        run(Command::new("bash").args(["-euc", script]).env("KEYS", keys.path()).current_dir(folder))
    };
    let good = |script: &str| {
        let ended = bash(script);
        assert_eq!(ended.code, 0, "{script}: {}{}", ended.stdout, ended.stderr);
    };
    for key in ["release", "another"] {
        good(&format!("openssl genpkey -algorithm ed25519 -out $KEYS/{key}.key"));
        good(&format!("openssl pkey -in $KEYS/{key}.key -pubout -out $KEYS/{key}.pub"));
    }
    let sign = path("tools/release/sign.sh").display().to_string();
    let make = |key: &str| {
        for name in ["SHA256SUMS", "SHA256SUMS.sig", "release.pub"] {
            let _ = fs::remove_file(file(name));
        }
        fs::write(file("user-service-1.2.3-linux-amd64"), "a binary").unwrap();
        fs::write(file("user-service 1.2.3.tar"), "an image").unwrap();
        good(&format!("{sign} . $KEYS/{key}.key; cp $KEYS/release.pub ."));
    };
    make("release");
    good(commands);
    for (what, change) in [
        ("another file", "echo more >>user-service-1.2.3-linux-amd64"),
        ("a missing file", "rm 'user-service 1.2.3.tar'"),
        ("other checksums", "echo 1 >user-service-1.2.3-linux-amd64; sha256sum user-service* >SHA256SUMS"),
        ("another signature", "openssl rand 64 >SHA256SUMS.sig"),
    ] {
        make("release");
        good(change);
        assert_ne!(bash(commands).code, 0, "{what} is taken");
    }
    make("another");
    assert_ne!(bash(commands).code, 0, "the signature of another key is taken");
    good("openssl genpkey -algorithm RSA -out $KEYS/rsa.key");
    let refused = bash(&format!("{sign} . $KEYS/rsa.key"));
    assert!(refused.code != 0 && refused.stderr.contains("no Ed25519 key"), "{}", refused.stderr);
}

/// The text without what differs from run to run: ids, etags and times.
fn masked(text: &str) -> String {
    const DIFFERENT: [&str; 4] = ["\"id\":", "\"etag\":", "\"createTime\":", "\"updateTime\":"];
    let mask =
        |line: &str| DIFFERENT.iter().fold(line.trim_end().to_owned(), |line, key| masked_value(&line, key));
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
