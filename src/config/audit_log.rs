//! Where audit lines go, as a setting.

use std::path::PathBuf;

use super::value::{SettingKind, Value};

/// Where audit lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditLog {
    Off,
    Stderr,
    File(PathBuf),
}

impl AuditLog {
    pub fn is_on(&self) -> bool {
        *self != Self::Off
    }
}

impl Value for AuditLog {
    const KIND: SettingKind = SettingKind::Text;
    const EXPECTED: &'static str =
        "off, stderr, or file: and a path, such as file:/var/log/user-service/audit.log";
    const PLACEHOLDER: &'static str = "off|stderr|file:PATH";

    fn read(text: &str) -> Option<Self> {
        match text {
            "off" => Some(Self::Off),
            "stderr" => Some(Self::Stderr),
            _ => {
                text.strip_prefix("file:").filter(|path| !path.is_empty()).map(|path| Self::File(path.into()))
            }
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Off => "off".into(),
            Self::Stderr => "stderr".into(),
            Self::File(path) => format!("file:{}", path.display()),
        }
    }
}
