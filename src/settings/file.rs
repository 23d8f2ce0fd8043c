//! The settings file.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::forward;
use super::matching::{Conditions, Subject};
use super::table::{self, TABLE, Variable};
use super::warning::{Warning, limited, shown};
use crate::files::{self, FileError};

/// Path of the settings file: `session-manager-plugin/config.toml` in `XDG_CONFIG_HOME`, else in the system's
/// usual directory, by [`FILE_RULE`]. `None` without a home.
pub(crate) fn config_file(get: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let (variable, directories) = USUAL_DIRECTORIES;
    first_config_file(get, variable, directories, |path| path.exists())
}

/// The first of the usual directories that has the file, or else the first of them.
fn first_config_file(
    get: impl Fn(&str) -> Option<OsString>,
    variable: &str,
    directories: &[&str],
    exists: impl Fn(&Path) -> bool,
) -> Option<PathBuf> {
    let absolute = |name: &str| get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let file = |directory: PathBuf| directory.join(DIRECTORY).join(FILE);
    if let Some(directory) = absolute("XDG_CONFIG_HOME") {
        return Some(file(directory));
    }
    let home = absolute(variable)?;
    let files = || directories.iter().map(|directory| file(home.join(directory)));
    files().find(|path| exists(path)).or_else(|| files().next())
}

/// The values of the settings file, by the names of the variables.
pub(super) type Values = BTreeMap<&'static str, String>;

/// The file's values for the session `subject`: of the sections that match it, the first that has a setting, then the
/// file's top. No file, no values. Mistakes are reported for all sections.
pub(super) fn read(path: &Path, subject: &Subject, warnings: &mut Vec<Warning>) -> Values {
    let named = |reason: String| format!("settings file {}: {reason}", path.display());
    let text = match text(path) {
        Ok(text) => text,
        Err(error) => {
            let effect = if error.is_untrusted() { "is ignored" } else { "cannot be read" };
            let text = format!("settings file {} {effect}: {error}", path.display());
            if error.is_denied() {
                // Another user's, whose HOME `sudo -E` and the like have left in the environment.
                warnings.push(Warning::minor(text));
            } else if !error.is_absent() {
                warnings.push(Warning::new(text));
            }
            return Values::new();
        }
    };
    let (values, mistakes) = parse(&text, subject);
    warnings.extend(limited("", mistakes).into_iter().map(|mistake| Warning::new(named(mistake))));
    values
}

/// Returns why the whole file is ignored, if it is.
pub(crate) fn ignored_file(get: impl Fn(&str) -> Option<OsString>) -> Option<String> {
    let path = config_file(get)?;
    if text(&path).is_ok_and(|text| text.parse::<Table>().is_ok()) {
        return None;
    }
    let mut warnings = Vec::new();
    read(&path, &Subject::default(), &mut warnings);
    warnings.first().map(ToString::to_string)
}

fn parse(text: &str, subject: &Subject) -> (Values, Vec<String>) {
    let mut mistakes = Vec::new();
    let mut table = match text.parse::<Table>() {
        Ok(table) => table,
        Err(err) => {
            let before = err.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let reason = err.message().lines().next().unwrap_or_default().to_owned();
            let is_escape =
                text.lines().nth(line - 1).is_some_and(|line| line.contains('"') && line.contains('\\'));
            let advice = if is_escape { " (put a path with backslashes in single quotes)" } else { "" };
            return (Values::new(), vec![format!("line {line}: {reason}{advice}; the file is ignored")]);
        }
    };
    let sections = sections(table.remove(MATCH), &mut mistakes);
    // Those of the command `forward`.
    if table.get(TUNNELS).is_some_and(Value::is_table) {
        table.remove(TUNNELS);
    }
    let mut top = section_values(table, "", &mut mistakes);
    let mut values = Values::new();
    for (number, mut section) in sections.into_iter().enumerate() {
        let place = format!("[[match]] section {}: ", number + 1);
        let conditions = Conditions::take(&mut section);
        // It may be a condition, without which the section would match too much.
        if let Some(key) = section.keys().find(|key| table::find_key(key).is_none()) {
            let mistake = Warning::unknown_in_match(key, TABLE.iter().map(Variable::key));
            mistakes.push(format!("{place}{mistake}; the section is ignored"));
            continue;
        }
        let own = section_values(section, &place, &mut mistakes);
        match conditions {
            Ok(conditions) if conditions.match_session(subject) => {
                own.into_iter().for_each(|(name, value)| {
                    values.entry(name).or_insert(value);
                });
            }
            Ok(_) => mistakes.extend(own.iter().filter_map(|(name, value)| mistake(name, value, &place))),
            Err(reason) => mistakes.push(format!("{place}{reason}; the section is ignored")),
        }
    }
    // One that a section replaces is not read any more.
    top.retain(|name, value| {
        let is_read = !values.contains_key(name);
        mistakes.extend(mistake(name, value, "").filter(|_| !is_read));
        is_read
    });
    values.extend(top);
    (values, mistakes)
}

fn sections(value: Option<Value>, mistakes: &mut Vec<String>) -> Vec<Table> {
    let tables = match value {
        None => Some(Vec::new()),
        Some(Value::Array(values)) => values
            .into_iter()
            .map(|value| match value {
                Value::Table(table) => Some(table),
                _ => None,
            })
            .collect(),
        Some(_) => None,
    };
    tables.unwrap_or_else(|| {
        mistakes.push(
            "match must be a list of sections: write the header as [[match]], with two brackets on each side"
                .to_owned(),
        );
        Vec::new()
    })
}

/// The settings of a section, and what cannot be one.
fn section_values(section: Table, place: &str, mistakes: &mut Vec<String>) -> Values {
    let mut values = Values::new();
    for (key, value) in section {
        let Some(row) = table::find_key(&key) else {
            mistakes.push(Warning::unknown(&key, TABLE.iter().map(Variable::key)));
            continue;
        };
        let key = shown(&key);
        let Some(text) = value_text(&value, row) else {
            let kind = with_article(value.type_str());
            mistakes.push(if row.is_list() {
                format!("{place}{key} must be a string or an array of strings")
            } else {
                format!("{place}{key} must be a string, a whole number or a boolean, not {kind}")
            });
            continue;
        };
        if values.insert(row.name, text).is_some() {
            mistakes.push(format!("{place}{} is set twice, under two of its names", row.key()));
        }
    }
    values
}

fn with_article(noun: &str) -> String {
    format!("{} {noun}", if noun.starts_with('a') { "an" } else { "a" })
}

/// A value as it would stand in the environment.
fn value_text(value: &Value, row: &Variable) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Boolean(flag) => Some(flag.to_string()),
        Value::Array(values) if row.is_list() => {
            let texts: Option<Vec<&str>> = values.iter().map(Value::as_str).collect();
            let text = texts?.join(" ");
            Some(if text.is_empty() { forward::NONE.to_owned() } else { text })
        }
        _ => None,
    }
}

/// A line about a value that no session reads now, if it could not be used.
fn mistake(name: &'static str, value: &str, place: &str) -> Option<String> {
    let row = table::find(name)?;
    let is_good = value.trim().is_empty() || row.accepts(OsStr::new(value));
    (!is_good)
        .then(|| format!("{place}{} = {:?}: the value must be {}", row.key(), shown(value), row.wanted()))
}

pub(super) fn text(path: &Path) -> Result<String, FileError> {
    // It can name hosts to connect to and files to write.
    let bytes = files::read_trusted(path, MAX_SIZE)?;
    decoded(bytes).ok_or_else(|| io::Error::other("it is not valid UTF-8").into())
}

/// UTF-8, or UTF-16 with a byte order mark, as PowerShell's `>` writes it.
fn decoded(bytes: Vec<u8>) -> Option<String> {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let units: Vec<u16> = pairs.iter().map(|pair| unit(*pair)).collect();
        String::from_utf16(&units).ok().filter(|_| rest.is_empty())
    };
    match bytes.as_slice() {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8(rest.to_vec()).ok(),
        _ => String::from_utf8(bytes).ok(),
    }
}

const MATCH: &str = "match";
pub(super) const TUNNELS: &str = "tunnels";
const DIRECTORY: &str = "session-manager-plugin";
const FILE: &str = "config.toml";
/// The variable of the home directory, and the directories below it that may hold the file; the first that does wins.
const USUAL_DIRECTORIES: (&str, &[&str]) = if cfg!(windows) {
    ("LOCALAPPDATA", &[""])
} else if cfg!(target_os = "macos") {
    ("HOME", MACOS)
} else {
    ("HOME", &[".config"])
};
/// Users of several systems share `~/.config` among them; the other is macOS's own.
const MACOS: &[&str] = &[".config", "Library/Application Support"];
/// The rule of [`config_file`], for the manual page.
pub(crate) const FILE_RULE: &str = "Otherwise it is in ~/.config, or on Windows in %LOCALAPPDATA%. On macOS, if this directory \
    in ~/.config has no config.toml, a config.toml in ~/Library/Application Support/session-manager-plugin is used.";
/// Bytes; two dozen settings with room for comments.
const MAX_SIZE: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> (Values, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        let mut warnings = Vec::new();
        let values = read(&path, &Subject::default(), &mut warnings);
        let place = format!("settings file {}: ", path.display());
        let texts = warnings.iter().map(|warning| warning.to_string().replacen(&place, "", 1)).collect();
        (values, texts)
    }

    #[test]
    fn texts_numbers_and_flags() {
        let (values, warnings) =
            read_text("# mine\nmessage_rate = 900\nquiet = true\nlocal_host = '::1'\ncolumns = 80\n");
        assert_eq!(warnings, [""; 0]);
        let expected = [
            ("COLUMNS", "80"),
            ("SSM_PLUGIN_LOCAL_HOST", "::1"),
            ("SSM_PLUGIN_MESSAGE_RATE", "900"),
            ("SSM_PLUGIN_QUIET", "true"),
        ];
        assert_eq!(values, BTreeMap::from(expected.map(|(name, value)| (name, value.to_owned()))));
    }

    #[test]
    fn a_mistake_is_reported_once_and_the_rest_counts() {
        let (values, warnings) = read_text("mesage_rate = 1\nshells = 2\nwindow = [1]\n[quiet]\nx = 1\n");
        assert!(values.is_empty());
        assert_eq!(
            warnings,
            [
                "unknown setting mesage_rate; did you mean message_rate?",
                "quiet must be a string, a whole number or a boolean, not a table",
                "unknown setting shells; see --help",
                "window must be a string, a whole number or a boolean, not an array",
            ]
        );
        let (values, warnings) = read_text("quiet = 1\nwindow = = 2\n");
        assert!(values.is_empty());
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0].starts_with("line 2: ") && warnings[0].ends_with("the file is ignored"),
            "{warnings:?}"
        );
    }

    /// PowerShell's `>` writes UTF-16, its `Out-File -Encoding utf8` a byte order mark.
    #[test]
    fn files_of_powershell() {
        let text = "quiet = 'ja, \u{fc}ber 😀'\r\n";
        let units = |to_bytes: fn(u16) -> [u8; 2], mark: [u8; 2]| {
            [mark.to_vec(), text.encode_utf16().flat_map(to_bytes).collect()].concat()
        };
        let little = units(u16::to_le_bytes, [0xff, 0xfe]);
        assert_eq!(decoded(little.clone()).as_deref(), Some(text));
        assert_eq!(decoded(units(u16::to_be_bytes, [0xfe, 0xff])).as_deref(), Some(text));
        assert_eq!(decoded([&[0xef, 0xbb, 0xbf], text.as_bytes()].concat()).as_deref(), Some(text));
        assert_eq!(decoded(text.as_bytes().to_vec()).as_deref(), Some(text));
        for broken in
            [&little[..little.len() - 1], &[0xff, 0xfe, 0, 0xd8], &[0xff, 0], &[0xef, 0xbb, 0xbf, 0xff]]
        {
            assert_eq!(decoded(broken.to_vec()), None, "{broken:?}");
        }
        let (values, warnings) = read_text(text);
        assert_eq!((values["SSM_PLUGIN_QUIET"].as_str(), warnings), ("ja, \u{fc}ber 😀", Vec::new()));
    }

    #[test]
    fn a_path_with_backslashes_in_double_quotes() {
        let hint = "(put a path with backslashes in single quotes); the file is ignored";
        let (values, warnings) = read_text("quiet = 1\nlog_file = \"C:\\Users\\p.log\"\n");
        assert!(values.is_empty());
        assert!(warnings[0].starts_with("line 2: ") && warnings[0].ends_with(hint), "{warnings:?}");
        let (values, warnings) = read_text("log_file = 'C:\\Users\\p.log'\n");
        assert_eq!((values["SSM_PLUGIN_LOG_FILE"].as_str(), warnings), (r"C:\Users\p.log", Vec::new()));
    }

    #[test]
    fn no_file_is_fine_and_an_unreadable_one_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let mut warnings = Vec::new();
        assert!(read(&dir.path().join("absent"), &Subject::default(), &mut warnings).is_empty());
        assert_eq!(warnings, []);
        read(dir.path(), &Subject::default(), &mut warnings);
        assert_eq!(warnings.len(), 1);
        let long = dir.path().join("long");
        std::fs::write(&long, "#".repeat(MAX_SIZE as usize + 1)).unwrap();
        read(&long, &Subject::default(), &mut warnings);
        assert!(warnings[1].to_string().contains("larger than 65536 bytes"), "{warnings:?}");
    }

    #[cfg(unix)]
    #[test]
    fn one_that_others_can_write_is_ignored() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, "quiet = true\n").unwrap();
        for (changed, mode) in [(path.as_path(), 0o646), (dir.path(), 0o777)] {
            std::fs::set_permissions(changed, std::fs::Permissions::from_mode(mode)).unwrap();
            let mut warnings = Vec::new();
            assert!(read(&path, &Subject::default(), &mut warnings).is_empty());
            let place = changed.display();
            let text = format!(
                "settings file {} is ignored: other users can write to {place} (mode {mode:o}); to prevent that, run \
                 chmod go-w {place}",
                path.display()
            );
            assert_eq!(warnings, [Warning::new(text)]);
            std::fs::set_permissions(changed, std::fs::Permissions::from_mode(0o700)).unwrap();
        }
        let mut warnings = Vec::new();
        assert_eq!(read(&path, &Subject::default(), &mut warnings).len(), 1);
        assert_eq!(warnings, []);
    }

    #[cfg(not(any(windows, target_os = "macos")))]
    #[test]
    fn its_place() {
        let at = |pairs: &[(&str, &str)]| {
            config_file(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
        };
        let expected = |dir: &str| Some(PathBuf::from(format!("{dir}/session-manager-plugin/config.toml")));
        assert_eq!(at(&[("HOME", "/home/a")]), expected("/home/a/.config"));
        assert_eq!(at(&[("HOME", "/home/a"), ("XDG_CONFIG_HOME", "/c")]), expected("/c"));
        assert_eq!(at(&[("HOME", "/home/a"), ("XDG_CONFIG_HOME", "c")]), expected("/home/a/.config"));
        assert_eq!(at(&[]), None);
    }

    #[test]
    fn on_macos_dot_config_wins_over_application_support() {
        let root = if cfg!(windows) { r"C:\home" } else { "/home" };
        let dot_config = Path::new(root).join(".config/session-manager-plugin/config.toml");
        let library = Path::new(root).join("Library/Application Support/session-manager-plugin/config.toml");
        let found = |existing: &[&Path]| {
            let get = |name: &str| (name == "HOME").then(|| root.into());
            first_config_file(get, "HOME", MACOS, |path| existing.contains(&path)).unwrap()
        };
        assert_eq!(found(&[&dot_config, &library]), dot_config);
        assert_eq!(found(&[&library]), library);
        assert_eq!(found(&[&dot_config]), dot_config);
        assert_eq!(found(&[]), dot_config, "the path to create");
    }
}
