//! The dependency rules of `src`: which module may import which, and how large a file
//! may be. docs/ARCHITECTURE.md says why.

#![allow(clippy::unwrap_used, reason = "a test that panics has said enough")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// What each module may import, itself apart. `listener` and `layers` take what they
/// call as a tower service, so neither imports the next one.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("listener", &["rpc", "config", "tls", "util"]),
    ("edge", &["rpc", "config", "util"]),
    ("layers", &["auth", "rpc", "domain", "config", "telemetry", "proto", "util"]),
    ("auth", &["rpc", "domain", "config", "tls", "util"]),
    ("service", &["rpc", "feed", "domain", "config", "proto", "util"]),
    ("rpc", &["domain", "config", "util"]),
    ("feed", &["domain", "util"]),
    ("store", &["domain", "config", "telemetry", "tls", "util"]),
    ("domain", &[]),
    // Every module may ask these, and they ask none of the above.
    ("config", &["util"]),
    ("telemetry", &["config", "tls", "util"]),
    ("tls", &["util"]),
    ("signals", &[]),
    ("proto", &[]),
    ("util", &[]),
];

/// Where the modules are put together, so that anything may be imported.
const FREE: &[&str] = &["admin", "app", "cli", "fuzzing", "lib", "main", "shutdown"];

/// The longest file, in lines.
const MAX_LINES: usize = 400;

/// Texts that belong to one machine or to how the code came about.
const FOREIGN: &[&str] = &["/home/", "/root/", "/Users/"];

#[test]
fn imports_follow_the_dependency_order() {
    let mut breaches = Vec::new();
    for (path, text) in sources() {
        breaches.extend(
            forbidden(&path, &text).into_iter().map(|module| format!("{} imports {module}", path.display())),
        );
    }
    assert!(breaches.is_empty(), "see MAY_IMPORT in tests/architecture.rs:\n{}", breaches.join("\n"));
}

#[test]
fn the_table_of_the_architecture_page_is_what_is_checked() {
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ARCHITECTURE.md")).unwrap();
    let mut table = Vec::new();
    for row in page.lines().filter(|row| row.starts_with("| `src/")) {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [module, _, imports] = cells[..] else { panic!("not three cells: {row}") };
        let module = module.trim_matches('`').trim_start_matches("src/");
        let module = module.trim_end_matches('/').trim_end_matches(".rs");
        table.push((module, imports.split(", ").filter(|name| *name != "none").collect::<Vec<_>>()));
    }
    let checked: Vec<_> = MAY_IMPORT.iter().map(|(module, imports)| (*module, imports.to_vec())).collect();
    assert_eq!(table, checked, "docs/ARCHITECTURE.md and MAY_IMPORT, in the same order");
}

#[test]
fn a_forbidden_import_is_found_however_it_is_spelt() {
    let caught = |path: &str, text: &str| forbidden(Path::new(path), text).into_iter().collect::<Vec<_>>();
    assert_eq!(caught("domain/user.rs", "use crate::store::Memory;"), ["store"]);
    assert_eq!(
        caught(
            "store/mod.rs",
            "use crate::{\n    config::Config,\n    domain::{Error, User},\n    service,\n};"
        ),
        ["service"]
    );
    assert_eq!(caught("service/health.rs", "fn f() { let _ = crate::layers::stack(); }"), ["layers"]);
    assert_eq!(caught("service/error_status.rs", "use super::super::listener::Limits;"), ["listener"]);
    assert_eq!(caught("domain/mod.rs", "use super::store::Store;"), ["store"]);
    assert_eq!(caught("signals.rs", "use super::app::App;"), ["app"]);

    assert!(
        caught("domain/user.rs", "use super::store::Store; // domain/store.rs, not src/store").is_empty()
    );
    assert!(caught("domain/user.rs", "/// See [`crate::store`].").is_empty());
    assert!(caught("listener/mod.rs", "use crate::{config, rpc::call::Call};").is_empty());
}

#[test]
fn every_file_fits_a_newcomer_and_any_machine() {
    let mut breaches = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        let mut breach = |what: String| breaches.push(format!("src/{} {what}", path.display()));
        if lines > MAX_LINES {
            breach(format!("has {lines} lines: divide it by its nouns"));
        }
        if !text.starts_with("//!") && !path.ends_with("tests.rs") {
            breach("does not say at its top what it is for".into());
        }
        for foreign in FOREIGN.iter().filter(|foreign| text.contains(**foreign)) {
            breach(format!("holds {foreign}"));
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn errors_are_made_where_their_size_is_bounded() {
    // How tonic's statuses are made, but for those that come from a peer.
    const MAKERS: [&str; 6] = [
        "Status::new(",
        "Status::with_",
        "Status::internal(",
        "Status::unavailable(",
        "Status::unknown(",
        "Status::unimplemented(",
    ];
    let mut makers = BTreeSet::new();
    for (path, text) in sources() {
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let test = path.ends_with("tests.rs") || path.ends_with("testing.rs");
        if !test && MAKERS.iter().any(|maker| code.contains(maker)) {
            makers.insert(path.display().to_string());
        }
    }
    assert_eq!(makers, BTreeSet::from(["rpc/status/size.rs".to_owned()]));
}

/// Every source file: its path below `src`, and its text.
fn sources() -> Vec<(PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut found, mut folders) = (Vec::new(), vec![src.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(&src).unwrap().to_owned(), text));
            }
        }
    }
    assert!(found.len() > 20, "there are {} source files only", found.len());
    found
}

/// The modules that a file imports and may not.
fn forbidden(path: &Path, text: &str) -> BTreeSet<String> {
    let module = module_of(path);
    if FREE.contains(&module.as_str()) {
        return BTreeSet::new();
    }
    let (_, allowed) = MAY_IMPORT
        .iter()
        .find(|(name, _)| *name == module)
        .unwrap_or_else(|| panic!("say in tests/architecture.rs what src/{module} may import"));
    let code: String = text
        .lines()
        .filter_map(|line| line.split("//").next())
        .fold(String::new(), |all, line| all + line + "\n");
    // A test of the service calls a real store.
    let is_test = path.ends_with("testing.rs") || path.ends_with("tests.rs");
    let for_tests: &[&str] = if is_test { &["store"] } else { &[] };
    // `super` once for every folder on the way up leads out of the module.
    let depth = path.components().count() - usize::from(path.ends_with("mod.rs"));
    let mut imported = names_after(&code, "crate::");
    imported.extend(names_after(&code, &"super::".repeat(depth)));
    imported
        .into_iter()
        .filter(|name| {
            is_module(name)
                && *name != module
                && !allowed.contains(&name.as_str())
                && !for_tests.contains(&name.as_str())
        })
        .collect()
}

fn module_of(path: &Path) -> String {
    let first = path.components().next().expect("a path has a component").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

fn is_module(name: &str) -> bool {
    FREE.contains(&name) || MAY_IMPORT.iter().any(|(module, _)| *module == name)
}

/// The first names of the paths that follow `prefix`, braces taken apart.
fn names_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let before = code[..at].chars().next_back();
        // `super::super::x` holds `super::x`, which is another place.
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(group) => names.extend(names_of_group(group)),
            None => names.extend(name(rest)),
        }
    }
    names
}

/// The first names of the items of `{a::b, c::{d, e}}`, from behind its brace.
fn names_of_group(group: &str) -> BTreeSet<String> {
    let (mut names, mut depth, mut start) = (BTreeSet::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' => {
                names.extend(name(&group[start..at]));
                break;
            }
            ',' if depth == 0 => {
                names.extend(name(&group[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    names
}

fn name(text: &str) -> Option<String> {
    let name: String = text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}
