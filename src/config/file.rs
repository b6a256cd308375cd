//! The configuration file: TOML, one flat table.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::{ConfigErrors, Setting, Source, load::Entry, value::SettingKind};
use crate::util::bounded_file;

/// The settings of the file at `path`. An error of the file as a whole is added to
/// `errors`.
pub fn read(path: &Path, errors: &mut ConfigErrors) -> Vec<Entry> {
    let whole = Source::File { path: path.into(), line: None };
    let text = match File::open(path).and_then(bounded_file::text) {
        Ok(text) => text,
        Err(error) => {
            errors.add(&whole, format_args!("cannot be read: {error}"));
            return Vec::new();
        }
    };
    match DeTable::parse(&text) {
        Ok(table) => entries(path, &text, table.get_ref()),
        Err(error) => {
            let at =
                Source::File { path: path.into(), line: error.span().map(|at| line_at(&text, at.start)) };
            errors.add(&at, format_args!("is not TOML: {}", error.message()));
            Vec::new()
        }
    }
}

fn entries(path: &Path, text: &str, table: &DeTable<'_>) -> Vec<Entry> {
    let mut keys: Vec<_> = table.iter().collect();
    keys.sort_by_key(|(key, _)| key.span().start);
    let entry = |(key, value): (&Spanned<DeString<'_>>, &Spanned<DeValue<'_>>)| {
        let line = line_at(text, key.span().start);
        let (kind, value) = scalar(value.get_ref());
        let source = Source::File { path: PathBuf::from(path), line: Some(line) };
        Entry { name: key.get_ref().to_string(), kind: Some(kind), value, source }
    };
    keys.into_iter().map(entry).collect()
}

/// A value as text, and what it is.
fn scalar(value: &DeValue<'_>) -> (SettingKind, String) {
    match value {
        DeValue::String(text) => (SettingKind::Text, text.to_string()),
        DeValue::Boolean(on) => (SettingKind::Switch, on.to_string()),
        DeValue::Integer(number) => match u64::from_str_radix(number.as_str(), number.radix()) {
            Ok(value) => (SettingKind::Number, value.to_string()),
            Err(_) => (SettingKind::Number, number.to_string()),
        },
        other => (SettingKind::Other, other.type_str().to_owned()),
    }
}

/// The line that the byte at `offset` is in, the first being 1.
fn line_at(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// One line of a file: `key = value # source`.
pub fn line(key: &Setting, value: &str, source: &Source) -> String {
    match key.kind {
        SettingKind::Text => format!("{} = {} # {source}\n", key.name, toml::Value::from(value)),
        _ => format!("{} = {value} # {source}\n", key.name),
    }
}
