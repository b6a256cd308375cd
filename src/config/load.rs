//! Puts a configuration together: file, then environment, then flags, each over
//! the one before.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    path::PathBuf,
};

use super::{
    Config, ConfigErrors, ENV_PREFIX, HIDDEN, SETTINGS, Setting, checks, errors::nearest, file, quote,
    value::SettingKind,
};

/// The variable that names the file.
pub(super) const FILE_VARIABLE: &str = "USERSVC_CONFIG";

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Default,
    File { path: PathBuf, line: Option<usize> },
    Environment(String),
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            // Quoted, so that no path can end the comment that holds it.
            Self::File { path, line } => {
                write!(f, "file {:?}", path.to_string_lossy())?;
                line.map_or(Ok(()), |line| write!(f, ", line {line}"))
            }
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag --{name}"),
        }
    }
}

/// Everything that can set anything.
#[derive(Debug, Default)]
pub struct Inputs {
    /// The file, where a flag names it.
    pub file: Option<PathBuf>,
    /// All variables of the environment.
    pub env: Vec<(OsString, OsString)>,
    /// Keys and values.
    pub flags: Vec<(&'static str, String)>,
}

/// What one source says of one setting.
pub struct Entry {
    /// The key, as the file spells keys.
    pub name: String,
    /// What the value is, where its source can tell.
    pub kind: Option<SettingKind>,
    pub value: String,
    pub source: Source,
}

/// A configuration that is good, and where each value comes from.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    /// One for each of [`SETTINGS`].
    sources: Vec<Source>,
}

impl Inputs {
    /// Reads all sources and checks everything.
    ///
    /// # Errors
    /// Every error of the configuration, not only the first.
    pub fn load(self) -> Result<Loaded, ConfigErrors> {
        let mut errors = ConfigErrors::default();
        let (env_file, environment) = environment(self.env, &mut errors);
        let mut entries = match self.file.or(env_file) {
            Some(path) => file::read(&path, &mut errors),
            None => Vec::new(),
        };
        entries.extend(environment);
        entries.extend(self.flags.into_iter().map(|(name, value)| {
            let source = Source::Flag(name.replace('_', "-"));
            Entry { name: name.into(), kind: None, value, source }
        }));

        let mut loaded = Loaded { config: Config::default(), sources: vec![Source::Default; SETTINGS.len()] };
        let bad: Vec<_> = entries.into_iter().filter_map(|entry| loaded.apply(entry, &mut errors)).collect();
        loaded.derive();
        checks::run(&loaded, &bad, &mut errors);
        errors.none_or(loaded)
    }
}

impl Loaded {
    /// Gives settings that were not set what follows from others.
    fn derive(&mut self) {
        if *self.source("store_queue") == Source::Default {
            let half = (self.config.max_unary_calls / 2).max(1);
            self.config.store_queue = self.config.store_queue.min(half);
        }
    }

    /// Whether the setting of this name has another value than its default.
    pub fn is_changed(&self, name: &str) -> bool {
        index(name).is_some_and(|index| {
            let show = SETTINGS[index].show;
            show(&self.config) != show(&Config::default())
        })
    }

    /// Where the value of this key comes from.
    pub fn source(&self, name: &str) -> &Source {
        index(name).map_or(&Source::Default, |index| &self.sources[index])
    }

    /// The configuration as a file that says the same, each value with its source.
    pub fn to_toml(&self) -> String {
        let line = |(key, source): (&Setting, &Source)| file::line(key, &(key.show)(&self.config), source);
        SETTINGS.iter().zip(&self.sources).map(line).collect()
    }

    /// Takes over what an entry says, or returns its key where that is wrong.
    fn apply(&mut self, entry: Entry, errors: &mut ConfigErrors) -> Option<String> {
        let Some(index) = index(&entry.name) else {
            errors.add(&entry.source, unknown(&entry));
            return Some(entry.name);
        };
        let key = &SETTINGS[index];
        // Only the file tells a number from a text.
        let right_kind = entry.kind.is_none_or(|kind| kind == key.kind);
        if right_kind && (key.set)(&mut self.config, &entry.value).is_some() {
            self.sources[index] = entry.source;
            return None;
        }
        if let Some(advice) = (key.advice)(&entry.value) {
            errors.add(&entry.source, format_args!("{}: {advice}", key.name));
            return Some(entry.name);
        }
        let value = match entry.kind {
            Some(SettingKind::Other) => format!("something of type {}", entry.value),
            _ if key.may_hold_secret => HIDDEN.into(),
            _ => quote(&entry.value),
        };
        errors.add(&entry.source, key.refusal(&value));
        Some(entry.name)
    }
}

/// Where [`SETTINGS`] has the setting of this name.
fn index(name: &str) -> Option<usize> {
    SETTINGS.iter().position(|setting| setting.name == name)
}

/// The file that the environment names, and what it sets.
fn environment(
    variables: Vec<(OsString, OsString)>,
    errors: &mut ConfigErrors,
) -> (Option<PathBuf>, Vec<Entry>) {
    let mut path = None;
    let mut entries = Vec::new();
    for (name, value) in variables {
        let Some(key) = name.to_str().and_then(|name| name.strip_prefix(ENV_PREFIX)) else { continue };
        if name == OsStr::new(FILE_VARIABLE) {
            path = Some(value.into());
            continue;
        }
        let source = Source::Environment(format!("{ENV_PREFIX}{key}"));
        match value.into_string() {
            // In lower case it is another variable, and would be a second one for the setting.
            Ok(value) => {
                let is_upper = !key.bytes().any(|byte| byte.is_ascii_lowercase());
                let name = if is_upper { key.to_ascii_lowercase() } else { format!("{ENV_PREFIX}{key}") };
                entries.push(Entry { name, kind: None, value, source });
            }
            Err(_) => errors.add(&source, "the value is not valid UTF-8"),
        }
    }
    // The environment is unordered; messages should be ordered.
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    (path, entries)
}

fn unknown(entry: &Entry) -> String {
    let (written, guess) = match &entry.source {
        Source::Environment(name) => {
            let known = SETTINGS.iter().map(Setting::env).chain([FILE_VARIABLE.to_owned()]);
            (name.as_str(), nearest(&name.to_ascii_uppercase(), known))
        }
        _ => (entry.name.as_str(), nearest(&entry.name, SETTINGS.iter().map(|key| key.name.to_owned()))),
    };
    let written = quote(written);
    match guess {
        Some(guess) => format!("there is no setting {written}; did you mean {guess}?"),
        None => format!("there is no setting {written}"),
    }
}
