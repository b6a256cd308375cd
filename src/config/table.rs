//! The type of a setting, and the macro that builds all of them from the table.

use std::ops::RangeInclusive;

use super::{Config, ENV_PREFIX, quote, value::SettingKind};

/// One setting.
pub struct Setting {
    /// As the file spells it; a duration ends in its unit.
    pub name: &'static str,
    /// Settings that are explained together.
    pub group: &'static str,
    /// A sentence or two.
    pub doc: &'static str,
    /// How a value is called in a help text.
    pub placeholder: &'static str,
    pub(super) kind: SettingKind,
    pub(super) expected_form: &'static str,
    pub(super) may_hold_secret: bool,
    pub(super) range: Option<RangeInclusive<u64>>,
    pub(super) advice: fn(&str) -> Option<String>,
    pub(super) set: fn(&mut Config, &str) -> Option<()>,
    pub(super) show: fn(&Config) -> String,
}

impl Setting {
    /// `USERSVC_GRPC_ADDR`
    pub fn env(&self) -> String {
        format!("{ENV_PREFIX}{}", self.name.to_ascii_uppercase())
    }

    /// `grpc-addr`
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// The default, as one would write it.
    pub fn default(&self) -> String {
        (self.show)(&Config::default())
    }

    /// What a good value is, in words.
    pub fn expected(&self) -> String {
        match &self.range {
            Some(range) => format!("{} from {} to {}", self.expected_form, range.start(), range.end()),
            None => self.expected_form.into(),
        }
    }

    /// Looks at a text that may be a value.
    ///
    /// # Errors
    /// What a value must be.
    pub fn check(&self, text: &str) -> Result<(), String> {
        let is_value = (self.set)(&mut Config::default(), text).is_some();
        if is_value { Ok(()) } else { Err(self.refusal(&quote(text))) }
    }

    /// Why a value that is shown in this way is wrong.
    pub(super) fn refusal(&self, shown: &str) -> String {
        format!("{} must be {}, not {shown}", self.name, self.expected())
    }
}

/// Makes `Config`, its defaults and `SETTINGS` from rows of
/// `/// doc`, `field: Type = default`, and the range where the value is a number.
macro_rules! settings {
    ($($group:literal { $(
        $(#[doc = $doc:literal])+
        $field:ident: $kind:ident = $default:expr $(, $range:expr)?;
    )+ })+) => {
        /// The effective configuration.
        #[derive(Clone, Debug)]
        pub struct Config { $($(
            $(#[doc = $doc])+
            pub $field: $kind,
        )+)+ }

        impl Default for Config {
            fn default() -> Self {
                Self { $($( $field: $default, )+)+ }
            }
        }

        /// Every setting, in the order of the documentation.
        pub static SETTINGS: &[Setting] = &[ $($( Setting {
            name: $crate::config::table::settings!(@name $field $kind),
            group: $group,
            doc: concat!($($doc),+).trim_ascii(),
            placeholder: <$kind as $crate::config::value::Value>::PLACEHOLDER,
            kind: <$kind as $crate::config::value::Value>::KIND,
            expected_form: <$kind as $crate::config::value::Value>::EXPECTED,
            may_hold_secret: <$kind as $crate::config::value::Value>::MAY_HOLD_SECRET,
            range: $crate::config::table::settings!(@range $($range)?),
            advice: <$kind as $crate::config::value::Value>::advice,
            set: |config, text| {
                let range = $crate::config::table::settings!(@range $($range)?);
                config.$field = $crate::config::value::read(text, range.as_ref())?;
                Some(())
            },
            show: |config| $crate::config::value::Value::show(&config.$field),
        }, )+)+ ];
    };
    (@name $field:ident Duration) => { concat!(stringify!($field), "_ms") };
    (@name $field:ident $kind:ident) => { stringify!($field) };
    (@range) => { None };
    (@range $range:expr) => { Some($range) };
}

pub(super) use settings;
