//! Kinds of settings: which values they take, and the words for range and default.

use std::ffi::OsStr;
use std::fmt::Display;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

use super::forward::{self, Forwards};

/// The words for a kind of setting.
pub(crate) trait Describe {
    /// The default, as `--help` shows it.
    fn default_text(&self) -> String;

    /// Returns the required form of a value, to follow "is not".
    fn wanted(&self) -> String;

    /// Returns the accepted numbers, to follow the setting's meaning in brackets; `None` if any value is
    /// accepted or the meaning lists them.
    fn range(&self) -> Option<String> {
        None
    }

    /// Returns whether the settings file may have an array in the place of words separated by spaces.
    fn is_list(&self) -> bool {
        false
    }
}

/// A kind of setting: its default and how a value is read.
pub(crate) trait Kind: Describe {
    /// Type of the parsed value.
    type Value;

    /// True if `~/` at the beginning of a value is the user's home directory, as in AWS's own files.
    const IS_PATH: bool = false;

    /// The value of a setting that is not given.
    fn default(&self) -> Self::Value;

    /// The value in an environment variable or in the settings file; `None` when it cannot be used. It is not empty.
    fn read(&self, value: &OsStr) -> Option<Self::Value>;

    /// One line for each part of a value that is left out.
    fn mistakes(_value: &Self::Value) -> &[String] {
        &[]
    }
}

/// A kind whose values can be checked without being used.
pub(crate) trait Checked: Describe {
    /// Returns whether a value can be used, all of it.
    fn accepts(&self, value: &OsStr) -> bool;
}

impl<K: Kind> Checked for K {
    fn accepts(&self, value: &OsStr) -> bool {
        self.read(value).is_some_and(|value| K::mistakes(&value).is_empty())
    }
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
        "0, 1, no, yes, off, on, false or true".to_owned()
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
        "a path without control characters (put a path with backslashes in single quotes)".to_owned()
    }
}

impl Kind for File {
    type Value = Option<PathBuf>;

    const IS_PATH: bool = true;

    fn default(&self) -> Option<PathBuf> {
        None
    }

    fn read(&self, value: &OsStr) -> Option<Option<PathBuf>> {
        // Double quotes make them of the backslashes in `"C:\temp"`.
        let has_controls = value.as_encoded_bytes().iter().any(u8::is_ascii_control);
        (!has_controls).then(|| Some(PathBuf::from(value)))
    }
}

/// A filter of diagnostics. `off` and `0` are none.
pub(crate) struct Filter;

impl Describe for Filter {
    fn default_text(&self) -> String {
        "off".to_owned()
    }

    fn wanted(&self) -> String {
        "error, warn, info, debug, trace, off or a filter such as session_manager_plugin::link=debug"
            .to_owned()
    }
}

impl Kind for Filter {
    type Value = Option<String>;

    fn default(&self) -> Option<String> {
        None
    }

    fn read(&self, value: &OsStr) -> Option<Option<String>> {
        let filter = text(value)?;
        if filter.eq_ignore_ascii_case("off") || filter == "0" {
            return Some(None);
        }
        let directives = filter.split(',').map(str::trim).filter(|directive| !directive.is_empty());
        let directives: Vec<&str> = directives.collect();
        let filter = directives.join(",");
        let is_filter = filter.parse::<Targets>().is_ok() && directives.into_iter().all(is_directive);
        is_filter.then_some(Some(filter))
    }
}

/// Returns whether a part of a filter is a level, or has one for a module. A lone word, such as `verbose`,
/// would be the name of a module that does not exist, and log nothing. So would a span in brackets.
fn is_directive(directive: &str) -> bool {
    let is_for_module = directive.contains('=') || directive.starts_with(env!("CARGO_CRATE_NAME"));
    directive.parse::<LevelFilter>().is_ok() || (is_for_module && !directive.contains('['))
}

/// The additional local ports, see [`forward`].
pub(crate) struct ForwardList;

impl Describe for ForwardList {
    fn default_text(&self) -> String {
        forward::NONE.to_owned()
    }

    fn wanted(&self) -> String {
        "a list of [BIND:]PORT:HOST:HOSTPORT, such as 15432:db.internal:5432".to_owned()
    }

    fn is_list(&self) -> bool {
        true
    }
}

impl Kind for ForwardList {
    type Value = Forwards;

    fn default(&self) -> Forwards {
        Forwards::default()
    }

    fn read(&self, value: &OsStr) -> Option<Forwards> {
        text(value).map(forward::parse)
    }

    fn mistakes(value: &Forwards) -> &[String] {
        &value.mistakes
    }
}

/// A number of bytes between two others, both included; it may have the unit K, M or G, also as KiB or KB, by 1024.
pub(crate) struct Bytes {
    pub default: usize,
    pub least: usize,
    pub most: usize,
}

impl Describe for Bytes {
    fn default_text(&self) -> String {
        with_unit(self.default as u64, &SIZES)
    }

    fn wanted(&self) -> String {
        format!("a number of bytes from {}, such as {}", self.range_text(), self.default_text())
    }

    fn range(&self) -> Option<String> {
        Some(self.range_text())
    }
}

impl Bytes {
    fn range_text(&self) -> String {
        format!("{} to {}", with_unit(self.least as u64, &SIZES), with_unit(self.most as u64, &SIZES))
    }
}

impl Kind for Bytes {
    type Value = usize;

    fn default(&self) -> usize {
        self.default
    }

    fn read(&self, value: &OsStr) -> Option<usize> {
        let value = text(value)?.to_ascii_lowercase();
        let value = value.strip_suffix('b').unwrap_or(&value);
        let value = value.strip_suffix('i').filter(|value| value.ends_with(['k', 'm', 'g'])).unwrap_or(value);
        let bytes = usize::try_from(number_with_unit(value, &SIZES)?).ok()?;
        (self.least..=self.most).contains(&bytes).then_some(bytes)
    }
}

/// A number in its largest unit without a fraction.
fn with_unit(number: u64, units: &[(&str, u64)]) -> String {
    let unit = units.iter().find(|(_, size)| number >= *size && number.is_multiple_of(*size));
    unit.map_or_else(|| number.to_string(), |(unit, size)| format!("{}{unit}", number / size))
}

/// A whole number with one of the units, or without; of any case.
fn number_with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let unit = unit.trim_start();
    let size = match units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) {
        Some((_, size)) => *size,
        None if unit.is_empty() => 1,
        None => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(size)
}

const SIZES: [(&str, u64); 3] = [("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)];
const TIMES: [(&str, u64); 4] = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];

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

/// Address of a SOCKS proxy.
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
        "a port number, unix:<path> or none".to_owned()
    }
}

impl Kind for Socks {
    type Value = Option<SocksAddress>;

    fn default(&self) -> Option<SocksAddress> {
        None
    }

    fn read(&self, value: &OsStr) -> Option<Option<SocksAddress>> {
        if text(value)?.eq_ignore_ascii_case(forward::NONE) {
            return Some(None);
        }
        let address = match text(value)?.strip_prefix("unix:") {
            Some("") => return None,
            Some(path) => SocksAddress::File(PathBuf::from(path)),
            None => SocksAddress::Port(text(value)?.parse().ok()?),
        };
        Some(Some(address))
    }
}

/// A time in whole seconds, up to a day. It may have the unit s, m, h or d.
pub(crate) struct Seconds(pub Duration);

impl Seconds {
    const MOST: u64 = 86_400;
}

impl Describe for Seconds {
    fn default_text(&self) -> String {
        with_unit(self.0.as_secs(), &TIMES)
    }

    fn wanted(&self) -> String {
        "a time from 1s to 1d, such as 30s or 5m".to_owned()
    }

    fn range(&self) -> Option<String> {
        Some("1s to 1d".to_owned())
    }
}

impl Kind for Seconds {
    type Value = Duration;

    fn default(&self) -> Duration {
        self.0
    }

    fn read(&self, value: &OsStr) -> Option<Duration> {
        let seconds = number_with_unit(text(value)?, &TIMES)?;
        (1..=Seconds::MOST).contains(&seconds).then(|| Duration::from_secs(seconds))
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
        format!("four numbers separated by dots, such as {}", self.0)
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
