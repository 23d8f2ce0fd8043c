//! The settings file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::table::{TABLE, Variable};
use super::warning::{Warning, shown};
use crate::files::{self, FileError};

/// Where the settings file is looked for: `session-manager-plugin/config.toml` in `XDG_CONFIG_HOME`, else in the
/// system's usual place (`~/.config`, `~/Library/Application Support`, `%LOCALAPPDATA%`). `None` without a home.
pub(crate) fn config_file(get: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name: &str| get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let usual = || {
        if cfg!(windows) {
            absolute("LOCALAPPDATA")
        } else {
            absolute("HOME").map(|home| home.join(BELOW_HOME))
        }
    };
    absolute("XDG_CONFIG_HOME").or_else(usual).map(|dir| dir.join(DIRECTORY).join(FILE))
}

/// The file's values by the names of the variables. No file, no values.
pub(super) fn read(path: &Path, warnings: &mut Vec<Warning>) -> BTreeMap<&'static str, String> {
    let named = |reason: String| format!("settings file {}: {reason}", path.display());
    let text = match text(path) {
        Ok(text) => text,
        Err(error) => {
            let effect = if error.is_untrusted() { "is ignored" } else { "cannot be read" };
            let text = named(format!("{effect}: {error}"));
            if error.is_denied() {
                // Another user's, whose HOME `sudo -E` and the like have left in the environment.
                warnings.push(Warning::minor(text));
            } else if !error.is_absent() {
                warnings.push(Warning::new(text));
            }
            return BTreeMap::new();
        }
    };
    let mut warn = |reason: String| warnings.push(Warning::new(named(reason)));
    let table = match text.parse::<Table>() {
        Ok(table) => table,
        Err(err) => {
            let before = err.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let reason = err.message().lines().next().unwrap_or_default().to_owned();
            let is_escape =
                text.lines().nth(line - 1).is_some_and(|line| line.contains('"') && line.contains('\\'));
            let advice = if is_escape { " (put a path with backslashes in single quotes)" } else { "" };
            warn(format!("line {line}: {reason}{advice}; the file is ignored"));
            return BTreeMap::new();
        }
    };
    let mut values = BTreeMap::new();
    for (key, value) in table {
        if key == TUNNELS && value.is_table() {
            continue;
        }
        let Some(row) = TABLE.iter().find(|row| row.key() == key) else {
            warn(Warning::unknown(&key, TABLE.iter().map(Variable::key)).to_string());
            continue;
        };
        match value {
            Value::String(text) => values.insert(row.name, text),
            Value::Integer(number) => values.insert(row.name, number.to_string()),
            Value::Boolean(flag) => values.insert(row.name, flag.to_string()),
            other => {
                let key = shown(&key);
                warn(format!("{key} is {}, not a text, a number, true or false", other.type_str()));
                continue;
            }
        };
    }
    values
}

pub(super) fn text(path: &Path) -> Result<String, FileError> {
    // It can name hosts to connect to and files to write.
    let bytes = files::read_trusted(path, MAX_SIZE)?;
    decoded(bytes).ok_or_else(|| io::Error::other("it is not UTF-8").into())
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

/// The table of the tunnels, which are no settings.
pub(super) const TUNNELS: &str = "tunnels";
const DIRECTORY: &str = "session-manager-plugin";
const FILE: &str = "config.toml";
const BELOW_HOME: &str = if cfg!(target_os = "macos") { "Library/Application Support" } else { ".config" };
/// Bytes; two dozen settings with room for comments.
const MAX_SIZE: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (BTreeMap<&'static str, String>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        let mut warnings = Vec::new();
        let values = read(&path, &mut warnings);
        let place = format!("settings file {}: ", path.display());
        let texts = warnings.iter().map(|warning| warning.to_string().replacen(&place, "", 1)).collect();
        (values, texts)
    }

    #[test]
    fn texts_numbers_and_flags() {
        let (values, warnings) =
            parse("# mine\nmessage_rate = 900\nquiet = true\nlocal_host = '::1'\ncolumns = 80\n");
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
    fn what_is_wrong_is_said_once_and_the_rest_counts() {
        let (values, warnings) = parse("mesage_rate = 1\nshells = 2\nwindow = [1]\n[quiet]\nx = 1\n");
        assert!(values.is_empty());
        assert_eq!(
            warnings,
            [
                "unknown setting mesage_rate; did you mean message_rate?",
                "quiet is table, not a text, a number, true or false",
                "unknown setting shells; see --help",
                "window is array, not a text, a number, true or false",
            ]
        );
        let (values, warnings) = parse("quiet = 1\nwindow = = 2\n");
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
        let (values, warnings) = parse(text);
        assert_eq!((values["SSM_PLUGIN_QUIET"].as_str(), warnings), ("ja, \u{fc}ber 😀", Vec::new()));
    }

    #[test]
    fn a_path_with_backslashes_in_double_quotes() {
        let hint = "(put a path with backslashes in single quotes); the file is ignored";
        let (values, warnings) = parse("quiet = 1\nlog_file = \"C:\\Users\\p.log\"\n");
        assert!(values.is_empty());
        assert!(warnings[0].starts_with("line 2: ") && warnings[0].ends_with(hint), "{warnings:?}");
        let (values, warnings) = parse("log_file = 'C:\\Users\\p.log'\n");
        assert_eq!((values["SSM_PLUGIN_LOG_FILE"].as_str(), warnings), (r"C:\Users\p.log", Vec::new()));
    }

    #[test]
    fn no_file_is_fine_and_one_that_cannot_be_read_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let mut warnings = Vec::new();
        assert!(read(&dir.path().join("absent"), &mut warnings).is_empty());
        assert_eq!(warnings, []);
        read(dir.path(), &mut warnings);
        assert_eq!(warnings.len(), 1);
        let long = dir.path().join("long");
        std::fs::write(&long, "#".repeat(MAX_SIZE as usize + 1)).unwrap();
        read(&long, &mut warnings);
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
            assert!(read(&path, &mut warnings).is_empty());
            let place = changed.display();
            let text = format!(
                "settings file {}: is ignored: other users can write to {place} (mode {mode:o}); chmod go-w {place} \
                 changes that",
                path.display()
            );
            assert_eq!(warnings, [Warning::new(text)]);
            std::fs::set_permissions(changed, std::fs::Permissions::from_mode(0o700)).unwrap();
        }
        let mut warnings = Vec::new();
        assert_eq!(read(&path, &mut warnings).len(), 1);
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
}
