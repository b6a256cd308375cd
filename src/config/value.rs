//! The types that settings have, and how each is read and written.

use std::{
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use super::postgres::PostgresUrl;

/// What a value is in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingKind {
    Text,
    Number,
    Switch,
    /// What no setting is: a list, a table, a fraction, a date.
    Other,
}

/// A type that a setting can have.
pub trait Value: Sized {
    const KIND: SettingKind;
    /// What a good value is, in words.
    const EXPECTED: &'static str;
    /// The same in one word, for help texts.
    const PLACEHOLDER: &'static str;

    /// Whether a value may hold a password. No message shows such a value unless
    /// [`Value::read`] understood it.
    const MAY_HOLD_SECRET: bool = false;

    fn read(text: &str) -> Option<Self>;

    /// Why a text is not read, and what to do, where that is known. Repeats nothing that
    /// may be secret.
    fn advice(_text: &str) -> Option<String> {
        None
    }

    /// A text that [`Value::read`] reads back.
    fn show(&self) -> String;

    /// What a range is a range of.
    fn number(&self) -> Option<u64> {
        None
    }
}

/// Reads a value that is also within its range. No value has control characters:
/// each is shown in one line of a log or a file.
pub fn read<V: Value>(text: &str, range: Option<&RangeInclusive<u64>>) -> Option<V> {
    if text.contains(char::is_control) {
        return None;
    }
    let value = V::read(text)?;
    let within = |number| range.is_none_or(|range| range.contains(&number));
    value.number().is_none_or(within).then_some(value)
}

macro_rules! numbers {
    ($($number:ty),+) => { $(
        impl Value for $number {
            const KIND: SettingKind = SettingKind::Number;
            const EXPECTED: &'static str = "a whole number";
            const PLACEHOLDER: &'static str = "N";

            fn read(text: &str) -> Option<Self> {
                text.parse().ok()
            }

            fn show(&self) -> String {
                self.to_string()
            }

            fn number(&self) -> Option<u64> {
                u64::try_from(*self).ok()
            }
        }
    )+ };
}

numbers!(u32, usize);

/// An enum of which each variant is one word.
macro_rules! choices {
    ($name:ident, $expected:literal, $placeholder:literal, [$($variant:ident $word:literal),+]) => {
        impl Value for $name {
            const KIND: SettingKind = SettingKind::Text;
            const EXPECTED: &'static str = $expected;
            const PLACEHOLDER: &'static str = $placeholder;

            fn read(text: &str) -> Option<Self> {
                match text {
                    $($word => Some(Self::$variant),)+
                    _ => None,
                }
            }

            fn show(&self) -> String {
                match self {
                    $(Self::$variant => $word.into(),)+
                }
            }
        }
    };
}

impl Value for Duration {
    const KIND: SettingKind = SettingKind::Number;
    const EXPECTED: &'static str = "a whole number of milliseconds";
    const PLACEHOLDER: &'static str = "MS";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok().map(Self::from_millis)
    }

    fn show(&self) -> String {
        self.as_millis().to_string()
    }

    fn number(&self) -> Option<u64> {
        u64::try_from(self.as_millis()).ok()
    }
}

impl Value for bool {
    const KIND: SettingKind = SettingKind::Switch;
    const EXPECTED: &'static str = "true or false";
    const PLACEHOLDER: &'static str = "true|false";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    const KIND: SettingKind = SettingKind::Text;
    const EXPECTED: &'static str = "a text that is not empty";
    const PLACEHOLDER: &'static str = "TEXT";

    fn read(text: &str) -> Option<Self> {
        (!text.trim().is_empty()).then(|| text.into())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl Value for SocketAddr {
    const KIND: SettingKind = SettingKind::Text;
    const EXPECTED: &'static str = "an IP address and a port, such as [::]:50051 or 127.0.0.1:0";
    const PLACEHOLDER: &'static str = "IP:PORT";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// Where users are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// `memory:`
    Memory,
    /// `sqlite:PATH`
    Sqlite(PathBuf),
    /// `postgres://USER@HOST/DATABASE`
    Postgres(Box<PostgresUrl>),
}

impl Value for StoreUrl {
    const KIND: SettingKind = SettingKind::Text;
    const EXPECTED: &'static str = "memory: or sqlite: and a path, such as sqlite:/data/user-service.db, or \
                                 postgres: and a place, such as postgres://user@host/database?sslmode=verify-full";
    const PLACEHOLDER: &'static str = "URL";
    const MAY_HOLD_SECRET: bool = true;

    fn read(text: &str) -> Option<Self> {
        if text == "memory:" {
            return Some(Self::Memory);
        }
        if text.starts_with("postgres") {
            return PostgresUrl::parse(text).ok().map(|url| Self::Postgres(Box::new(url)));
        }
        sqlite_path(text.strip_prefix("sqlite:")?).ok().map(Self::Sqlite)
    }

    fn advice(text: &str) -> Option<String> {
        if text.starts_with("postgres") {
            return PostgresUrl::parse(text).err();
        }
        if let Some(path) = text.strip_prefix("sqlite:") {
            return sqlite_path(path).err().map(|why| format!("{why}, such as sqlite:/data/user-service.db"));
        }
        let is_of_libpq = ["host=", "dbname=", "postgresql:"].iter().any(|part| text.contains(part));
        is_of_libpq.then(|| "PostgreSQL is named by postgres://USER@HOST/DATABASE".into())
    }

    fn show(&self) -> String {
        match self {
            Self::Memory => "memory:".into(),
            Self::Sqlite(path) => format!("sqlite:{}", path.display()),
            Self::Postgres(url) => url.to_string(),
        }
    }
}

/// The path after `sqlite:`, which is a name as the file system has it. What other programs
/// read something else into is refused: it would make a file of that very name.
///
/// # Errors
/// The form that is expected instead.
fn sqlite_path(path: &str) -> Result<PathBuf, &'static str> {
    let escape = |part: &str| part.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    if path.starts_with("//") {
        return Err("after sqlite: comes a path with one / or none in front");
    }
    if path.starts_with(':') {
        return Err("a store in memory is memory: and nothing else; after sqlite: comes a path");
    }
    if path.starts_with("file:") {
        return Err("after sqlite: comes a path without file:");
    }
    if path.contains(['?', '#']) {
        return Err("after sqlite: comes a path without options: leave out all from ? or # on");
    }
    if path.split('%').skip(1).any(escape) {
        return Err("after sqlite: comes a path as it is, without % escapes");
    }
    if path.is_empty() || path.ends_with('/') || [".", ".."].contains(&path.rsplit('/').next().unwrap_or(""))
    {
        return Err("after sqlite: comes the path of a file");
    }
    Ok(path.into())
}

/// A file, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OptionalPath(Option<PathBuf>);

impl OptionalPath {
    /// No file.
    pub const NONE: Self = Self(None);

    pub fn path(&self) -> Option<&Path> {
        self.0.as_deref()
    }
}

impl From<PathBuf> for OptionalPath {
    fn from(path: PathBuf) -> Self {
        Self(Some(path))
    }
}

impl Value for OptionalPath {
    const KIND: SettingKind = SettingKind::Text;
    const EXPECTED: &'static str = "a path, or nothing";
    const PLACEHOLDER: &'static str = "PATH";

    fn read(text: &str) -> Option<Self> {
        Some(Self((!text.is_empty()).then(|| text.into())))
    }

    fn show(&self) -> String {
        self.0.as_ref().map_or_else(String::new, |path| path.display().to_string())
    }
}

/// Whether clients need a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    Required,
    Optional,
}

choices!(ClientAuth, "required or optional", "required|optional", [Required "required", Optional "optional"]);

/// A text, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OptionalText(Option<String>);

impl OptionalText {
    /// No text.
    pub const NONE: Self = Self(None);

    pub fn text(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl Value for OptionalText {
    const KIND: SettingKind = SettingKind::Text;
    const EXPECTED: &'static str = "a text, or nothing";
    const PLACEHOLDER: &'static str = "TEXT";

    fn read(text: &str) -> Option<Self> {
        Some(Self((!text.is_empty()).then(|| text.into())))
    }

    fn show(&self) -> String {
        self.0.clone().unwrap_or_default()
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    Json,
    Text,
}

choices!(LogFormat, "auto, json or text", "auto|json|text", [Auto "auto", Json "json", Text "text"]);

/// Whose names the metrics of calls have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricNames {
    Both,
    GrpcPrometheus,
    OpenTelemetry,
    /// And nothing else is measured either.
    None,
}

impl MetricNames {
    pub fn has_grpc_prometheus(self) -> bool {
        matches!(self, Self::Both | Self::GrpcPrometheus)
    }

    pub fn has_opentelemetry(self) -> bool {
        matches!(self, Self::Both | Self::OpenTelemetry)
    }
}

choices!(
    MetricNames,
    "both, grpc_prometheus, opentelemetry or none",
    "both|grpc_prometheus|opentelemetry|none",
    [Both "both", GrpcPrometheus "grpc_prometheus", OpenTelemetry "opentelemetry", None "none"]
);
