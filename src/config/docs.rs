//! The tables in docs/ that are written from the code, first of all that of the settings.

use std::{
    env,
    fmt::Write,
    fs,
    path::Path,
    sync::{Mutex, PoisonError},
};

use super::{
    SETTINGS, Setting,
    postgres_options::{Meaning, OPTIONS},
    value::SettingKind,
};

/// Compares a table with the one that stands in this page between marks of this name.
/// `BLESS=1 cargo test --lib documented` writes it there instead.
pub fn compare(page: &str, name: &str, table: &str) {
    const COMMAND: &str = "BLESS=1 cargo test --lib documented";
    /// A page may have several tables, which are written by tests that run concurrently.
    static PAGES: Mutex<()> = Mutex::new(());
    let _alone = PAGES.lock().unwrap_or_else(PoisonError::into_inner);
    let begin = format!("<!-- {name}: written by `{COMMAND}` -->\n");
    let end = format!("<!-- {name} end -->\n");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(&begin).expect("the page says where the table begins");
    let (documented, after) = rest.split_once(&end).expect("the page says where the table ends");
    if env::var_os("BLESS").is_some() {
        fs::write(&path, [before, &begin, table, &end, after].concat()).unwrap();
    } else {
        assert_eq!(documented, table, "run `{COMMAND}`");
    }
}

fn table() -> String {
    let mut table = String::from("| key | default | limits | what it is |\n|---|---|---|---|\n");
    for key in SETTINGS {
        let (name, default, limits, doc) = (key.name, key.default(), limits(key), key.doc);
        writeln!(table, "| `{name}` | `{default}` | {limits} | {doc} |").expect("a String can be written to");
    }
    table
}

/// What a value may be, short.
fn limits(key: &Setting) -> String {
    match (key.kind, &key.range) {
        (_, Some(range)) => format!("{} to {}", grouped(*range.start()), grouped(*range.end())),
        (SettingKind::Switch, None) => "`true`, `false`".into(),
        _ => key.expected_form.into(),
    }
}

/// A number with commas.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// The options of a `PostgreSQL` URL.
fn options() -> String {
    let mut table = String::from("| option | what becomes of it |\n|---|---|\n");
    for (name, meaning) in OPTIONS {
        let meaning = match meaning {
            Meaning::Driver => "taken".into(),
            Meaning::Own(doc) => (*doc).into(),
            Meaning::Already(values) => format!("only `{}`, which changes nothing", values.join("`, `")),
            Meaning::Instead(what) => format!("refused: {what}"),
        };
        writeln!(table, "| `{name}` | {meaning} |").expect("a String can be written to");
    }
    table
}

#[test]
fn the_documented_settings_and_options_are_those_of_the_tables() {
    compare("docs/CONFIGURATION.md", "settings", &table());
    compare("docs/CONFIGURATION.md", "options", &options());
}

#[test]
fn every_setting_has_a_doc_and_a_limit() {
    for key in SETTINGS {
        let (name, doc) = (key.name, key.doc);
        assert!(
            doc.ends_with('.') && !doc.contains(['|', '\n']),
            "{name}: {doc:?} is no sentence for a table"
        );
        assert_eq!(
            key.kind == SettingKind::Number,
            key.range.is_some(),
            "{name}: numbers have ranges, others have not"
        );
        assert!(!key.expected_form.is_empty(), "{name} says what a good value is");
    }
}

#[test]
fn every_default_is_a_good_value() {
    for key in SETTINGS {
        let mut config = super::Config::default();
        assert!((key.set)(&mut config, &key.default()).is_some(), "{}: {}", key.name, key.expected());
    }
}
