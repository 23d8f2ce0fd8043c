//! Kinds of settings: which values they take, and the words for range and default.

use std::ffi::OsStr;
use std::fmt::Display;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The words for a kind of setting.
pub(crate) trait Describe {
    /// The default, as `--help` shows it.
    fn default_text(&self) -> String;

    /// What a value must be, to follow "is not".
    fn wanted(&self) -> String;

    /// Which numbers are taken, to follow the setting's meaning in brackets; `None` where any value is or the meaning lists them.
    fn range(&self) -> Option<String> {
        None
    }
}

/// A kind of setting: its default and how a value is read.
pub(crate) trait Kind: Describe {
    /// What the program works with.
    type Value;

    /// Whether `~/` at the beginning of a value is the user's home directory, as in AWS's own files.
    const IS_PATH: bool = false;

    /// The value of a setting that is not given.
    fn default(&self) -> Self::Value;

    /// The value in an environment variable or in the settings file; `None` when it cannot be used. It is not empty.
    fn read(&self, value: &OsStr) -> Option<Self::Value>;
}

/// When to print status lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum When {
    /// Only when stderr is a terminal.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
    /// Always, as JSON for tools.
    Json,
}

/// Off by default.
pub(crate) struct Flag;

impl Describe for Flag {
    fn default_text(&self) -> String {
        "0".to_owned()
    }

    fn wanted(&self) -> String {
        "0 or 1".to_owned()
    }
}

impl Kind for Flag {
    type Value = bool;

    fn default(&self) -> bool {
        false
    }

    fn read(&self, value: &OsStr) -> Option<bool> {
        match text(value)?.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Some(true),
            "0" | "false" | "no" | "off" => Some(false),
            _ => None,
        }
    }
}

/// A text, with the words for having none.
pub(crate) struct Text(pub &'static str);

impl Describe for Text {
    fn default_text(&self) -> String {
        self.0.to_owned()
    }

    fn wanted(&self) -> String {
        "valid UTF-8".to_owned()
    }
}

impl Kind for Text {
    type Value = Option<String>;

    fn default(&self) -> Option<String> {
        None
    }

    fn read(&self, value: &OsStr) -> Option<Option<String>> {
        Some(Some(text(value)?.to_owned()))
    }
}

/// A local host's name or address, with the words for having none. An IPv6 address may have brackets, as in a URL.
pub(crate) struct Host(pub &'static str);

impl Describe for Host {
    fn default_text(&self) -> String {
        self.0.to_owned()
    }

    fn wanted(&self) -> String {
        "valid UTF-8".to_owned()
    }
}

impl Kind for Host {
    type Value = Option<String>;

    fn default(&self) -> Option<String> {
        None
    }

    fn read(&self, value: &OsStr) -> Option<Option<String>> {
        let host = text(value)?;
        let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let address = address.filter(|address| address.parse::<Ipv6Addr>().is_ok());
        Some(Some(address.unwrap_or(host).to_owned()))
    }
}

/// A file's name, of any bytes, with the words for having none.
pub(crate) struct File(pub &'static str);

impl Describe for File {
    fn default_text(&self) -> String {
        self.0.to_owned()
    }

    fn wanted(&self) -> String {
        "the name of a file (put a path with backslashes in single quotes)".to_owned()
    }
}

impl Kind for File {
    type Value = Option<PathBuf>;

    const IS_PATH: bool = true;

    fn default(&self) -> Option<PathBuf> {
        None
    }

    fn read(&self, value: &OsStr) -> Option<Option<PathBuf>> {
        Some(Some(PathBuf::from(value)))
    }
}

/// A filter of diagnostics. `off` and `0` are none.
pub(crate) struct Filter;

impl Describe for Filter {
    fn default_text(&self) -> String {
        "off".to_owned()
    }

    fn wanted(&self) -> String {
        "valid UTF-8".to_owned()
    }
}

impl Kind for Filter {
    type Value = Option<String>;

    fn default(&self) -> Option<String> {
        None
    }

    fn read(&self, value: &OsStr) -> Option<Option<String>> {
        let filter = text(value)?;
        Some(Some(filter.to_owned()).filter(|filter| !filter.eq_ignore_ascii_case("off") && filter != "0"))
    }
}

/// A whole number between two others, both included.
pub(crate) struct Number<T> {
    pub default: T,
    pub least: T,
    pub most: T,
}

impl<T: Display> Describe for Number<T> {
    fn default_text(&self) -> String {
        self.default.to_string()
    }

    fn wanted(&self) -> String {
        format!("a number from {} to {}", self.least, self.most)
    }

    fn range(&self) -> Option<String> {
        Some(format!("{} to {}", self.least, self.most))
    }
}

impl<T: Copy + Display + FromStr + PartialOrd> Kind for Number<T> {
    type Value = T;

    fn default(&self) -> T {
        self.default
    }

    fn read(&self, value: &OsStr) -> Option<T> {
        text(value)?.parse().ok().filter(|number| (self.least..=self.most).contains(number))
    }
}

/// Where a SOCKS proxy listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SocksAddress {
    /// A port on loopback; 0 is any free one.
    Port(u16),
    /// A socket file.
    File(PathBuf),
}

/// A port number or `unix:<path>`, or none.
pub(crate) struct Socks;

impl Describe for Socks {
    fn default_text(&self) -> String {
        "none".to_owned()
    }

    fn wanted(&self) -> String {
        "a port number or unix:<path>".to_owned()
    }
}

impl Kind for Socks {
    type Value = Option<SocksAddress>;

    fn default(&self) -> Option<SocksAddress> {
        None
    }

    fn read(&self, value: &OsStr) -> Option<Option<SocksAddress>> {
        let address = match text(value)?.strip_prefix("unix:") {
            Some("") => return None,
            Some(path) => SocksAddress::File(PathBuf::from(path)),
            None => SocksAddress::Port(text(value)?.parse().ok()?),
        };
        Some(Some(address))
    }
}

/// A time in whole seconds, up to a day.
pub(crate) struct Seconds(pub Duration);

impl Seconds {
    const NUMBERS: Number<u64> = Number { default: 1, least: 1, most: 86_400 };
}

impl Describe for Seconds {
    fn default_text(&self) -> String {
        self.0.as_secs().to_string()
    }

    fn wanted(&self) -> String {
        Seconds::NUMBERS.wanted()
    }
}

impl Kind for Seconds {
    type Value = Duration;

    fn default(&self) -> Duration {
        self.0
    }

    fn read(&self, value: &OsStr) -> Option<Duration> {
        Seconds::NUMBERS.read(value).map(Duration::from_secs)
    }
}

/// One of some words. The first is the default.
pub(crate) struct Choice<T: 'static>(pub &'static [(&'static str, T)]);

impl<T> Describe for Choice<T> {
    fn default_text(&self) -> String {
        self.0.first().map(|(word, _)| (*word).to_owned()).unwrap_or_default()
    }

    fn wanted(&self) -> String {
        let words: Vec<&str> = self.0.iter().map(|(word, _)| *word).collect();
        match words.split_last() {
            Some((last, [])) => (*last).to_owned(),
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
            None => String::new(),
        }
    }
}

impl<T: Copy + Default> Kind for Choice<T> {
    type Value = T;

    fn default(&self) -> T {
        self.0.first().map(|(_, value)| *value).unwrap_or_default()
    }

    fn read(&self, value: &OsStr) -> Option<T> {
        let value = text(value)?;
        self.0.iter().find(|(word, _)| value.eq_ignore_ascii_case(word)).map(|(_, value)| *value)
    }
}

/// Four numbers, the form of all versions of the official plugin: the AWS CLI takes fewer, the service may not.
pub(crate) struct Version(pub &'static str);

impl Describe for Version {
    fn default_text(&self) -> String {
        self.0.to_owned()
    }

    fn wanted(&self) -> String {
        "a version of four numbers".to_owned()
    }
}

impl Kind for Version {
    type Value = String;

    fn default(&self) -> String {
        self.0.to_owned()
    }

    fn read(&self, value: &OsStr) -> Option<String> {
        let version = text(value)?;
        let is_number =
            |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()) && part.parse::<u32>().is_ok();
        let is_version = version.split('.').count() == 4 && version.split('.').all(is_number);
        is_version.then(|| version.to_owned())
    }
}

fn text(value: &OsStr) -> Option<&str> {
    value.to_str().map(str::trim)
}
