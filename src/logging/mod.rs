//! Diagnostics to a file, off by default; never to stdout.
//!
//! Written by a separate thread from a bounded queue: lines are lost rather than a session stopped, and their number is
//! written. Each line names the session, since several plugins append to one file.
//!
//! The daily files and the queue are our own. tracing-appender creates files with the umask's mode, follows symbolic links,
//! and bounds its queue in lines, not bytes. file-rotate accepts open options, but rotates by renaming, which several
//! processes that append to one file would do against each other.

mod form;
mod queue;

use std::fmt::{Debug, Write as _};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use bytes::Bytes;
use tracing::field::Field;
use tracing::{Level, Metadata};
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::{FilterExt, Targets, filter_fn};
use tracing_subscriber::fmt::format;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime as Clock};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use self::form::LineForm;
use self::queue::QueueGuard;
use crate::files;
use crate::printable::OneLine;
use crate::settings::Settings;

/// Keeps the log's writer alive; the rest is written when it is dropped.
#[derive(Debug)]
#[must_use = "the log ends when this is dropped"]
pub(crate) struct Guard {
    _queue: QueueGuard,
}

/// Starts logging for the session `id` if the settings ask for it. `report` is called when the file first takes no more.
///
/// # Errors
/// A sentence about a bad filter or a file that cannot be written. The session does not depend on it.
pub(crate) fn start(
    settings: &Settings,
    id: &str,
    report: impl FnOnce(&str) + Send + 'static,
) -> Result<Option<Guard>, String> {
    let Some(filter) = settings.log.as_deref() else { return Ok(None) };
    try_start(filter, settings, id, report)
        .map(Some)
        .map_err(|error| format!("logging is disabled: {error:#}"))
}

/// Logs to stderr what the options `-v`, `-vv` and `-vvv` of a command ask for, whatever the settings say. Nothing waits for
/// a reader of stderr. `form` makes the lines of tools.
///
/// # Errors
/// When there can be no thread.
pub(crate) fn to_stderr(verbosity: u8, form: Option<fn(&str) -> Bytes>) -> Result<Guard, String> {
    let level = match verbosity {
        0 | 1 => Level::INFO,
        2 => Level::DEBUG,
        _ => Level::TRACE,
    };
    let is_wanted = move |metadata: &Metadata<'_>| may_be_logged(metadata) && *metadata.level() <= level;
    let sink: Box<dyn Write + Send> = match form {
        Some(form) => Box::new(LineForm::new(io::stderr(), form)),
        None => Box::new(io::stderr()),
    };
    let (writer, guard) =
        queue::start(sink, Clock, |_| {}).map_err(|error| format!("logging is disabled: {error}"))?;
    let lines = fmt::layer()
        .with_writer(writer)
        .with_ansi(false)
        .with_target(false)
        .fmt_fields(format::debug_fn(write_field).delimited(" "));
    // Another one is in use only in tests.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter_fn(is_wanted))).try_init();
    Ok(Guard { _queue: guard })
}

fn try_start(
    filter: &str,
    settings: &Settings,
    id: &str,
    report: impl FnOnce(&str) + Send + 'static,
) -> anyhow::Result<Guard> {
    let filter = filter.parse::<Targets>();
    // Its text ends with its cause's.
    let filter = filter.map_err(|error| anyhow::anyhow!("SSM_PLUGIN_LOG is not a valid filter: {error}"))?;
    let stamp = Stamp::new(id);
    let (writer, guard) =
        queue::start(open(settings)?, stamp.clone(), report).context("cannot start a thread")?;
    let lines = fmt::layer()
        .with_writer(writer)
        .with_ansi(false)
        .with_timer(stamp)
        .fmt_fields(format::debug_fn(write_field).delimited(" "));
    tracing_subscriber::registry()
        .with(lines.with_filter(filter.and(filter_fn(may_be_logged))))
        .try_init()
        .map_err(|err| anyhow::anyhow!("{err}"))
        .context("another log is in use")?;
    Ok(Guard { _queue: guard })
}

/// Whatever the filter of the settings says: libraries below us log headers and bodies with tokens and keys in them
/// once they are asked for detail.
fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let is_ours =
        target == OWN_TARGET || target.strip_prefix(OWN_TARGET).is_some_and(|rest| rest.starts_with("::"));
    is_ours || *metadata.level() <= FOREIGN_LEVEL
}

/// Opens the log as a session would, whether or not the settings ask for one. Returns its file, or the directory of the
/// daily files.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn check(settings: &Settings) -> anyhow::Result<PathBuf> {
    open(settings)?;
    place(settings).context("no home directory")
}

/// The file of the settings, or the directory of the daily files; `None` without a home directory.
pub(crate) fn place(settings: &Settings) -> Option<PathBuf> {
    let daily = || settings.state_dir.as_ref().map(|state| state.join(DIRECTORY));
    settings.log_file.clone().or_else(daily)
}

/// Writes one field of a line or a span. Its value may hold text from outside, and stays on the line.
fn write_field(writer: &mut format::Writer<'_>, field: &Field, value: &dyn Debug) -> std::fmt::Result {
    if field.name() != MESSAGE {
        write!(writer, "{}=", field.name())?;
    }
    write!(OneLine::new(writer), "{value:?}")
}

/// Time and session at the beginning of each line.
#[derive(Clone)]
struct Stamp(String);

impl Stamp {
    fn new(id: &str) -> Stamp {
        Stamp(id.chars().filter(char::is_ascii_graphic).take(MAX_ID).collect())
    }
}

impl FormatTime for Stamp {
    fn format_time(&self, writer: &mut format::Writer<'_>) -> std::fmt::Result {
        Clock.format_time(writer)?;
        write!(writer, " {}", self.0)
    }
}

/// The file of the settings, or a daily one in the user's state directory.
fn open(settings: &Settings) -> anyhow::Result<Box<dyn Write + Send>> {
    if let Some(path) = &settings.log_file {
        let cannot_open = || format!("cannot open {}", path.display());
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            private_dir(folder).with_context(cannot_open)?;
        }
        let file = files::append_private(path).with_context(cannot_open)?;
        return Ok(Box::new(file));
    }
    let Some(state) = &settings.state_dir else { bail!("no home directory; set SSM_PLUGIN_LOG_FILE") };
    let dir = state.join(DIRECTORY);
    Ok(Box::new(Daily::new(&dir).with_context(|| format!("cannot write to {}", dir.display()))?))
}

fn private_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// One file a day (UTC), the last [`KEPT_FILES`] of them. Several plugins append to the same one.
struct Daily {
    dir: PathBuf,
    day: u64,
    file: File,
}

impl Daily {
    fn new(dir: &Path) -> io::Result<Daily> {
        private_dir(dir)?;
        let day = today();
        let file = files::append_private(&dir.join(file_name(day)))?;
        remove_old(dir, day);
        Ok(Daily { dir: dir.to_owned(), day, file })
    }
}

impl Write for Daily {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let day = today();
        if day != self.day {
            self.day = day;
            // Without a new file the old one is used.
            if let Ok(file) = files::append_private(&self.dir.join(file_name(day))) {
                self.file = file;
                remove_old(&self.dir, day);
            }
        }
        self.file.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Names of days sort as the days do; what cannot be removed stays.
fn remove_old(dir: &Path, day: u64) {
    let oldest = file_name(day.saturating_sub(KEPT_FILES));
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.len() == oldest.len()
            && name.starts_with(FILE_PREFIX)
            && name.ends_with(FILE_SUFFIX)
            && *name <= *oldest
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn file_name(day: u64) -> String {
    let (year, month, day) = date(day);
    format!("{FILE_PREFIX}{year:04}-{month:02}-{day:02}{FILE_SUFFIX}")
}

/// Days since 1970-01-01 (UTC).
fn today() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 86_400
}

/// Year, month and day of the Gregorian calendar, counted in eras of 400 years that begin in March.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Name of the field that holds an event's text.
const MESSAGE: &str = "message";
const OWN_TARGET: &str = "session_manager_plugin";
/// The most detail that other crates may log. At `DEBUG` the AWS SDK and the websocket library print requests.
const FOREIGN_LEVEL: Level = Level::INFO;
/// Below the state directory.
const DIRECTORY: &str = "session-manager-plugin";
const FILE_PREFIX: &str = "plugin.";
const FILE_SUFFIX: &str = ".log";
/// Days, and so files, that are kept.
const KEPT_FILES: u64 = 7;
/// Characters of a session's id in a line; the service's are shorter.
const MAX_ID: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(dir: &Path) -> Settings {
        Settings { state_dir: Some(dir.to_owned()), ..Settings::default() }
    }

    #[test]
    fn dates() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (19_782, (2024, 2, 29)),
            (20_453, (2025, 12, 31)),
            (20_454, (2026, 1, 1)),
        ] {
            assert_eq!(date(days), expected, "{days}");
        }
    }

    #[test]
    fn a_stamp_cannot_forge_a_line() {
        let mut text = String::new();
        Stamp::new("jane-0a1b\n2026 ERROR").format_time(&mut format::Writer::new(&mut text)).unwrap();
        assert!(text.ends_with("Z jane-0a1b2026ERROR"), "{text}");
    }

    #[test]
    fn a_field_cannot_forge_a_line() {
        let written = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let layer = fmt::layer()
            .with_writer(Shared(written.clone()))
            .with_ansi(false)
            .without_time()
            .fmt_fields(format::debug_fn(write_field).delimited(" "));
        let error = "closed\x1b[2J\r\n2026-01-01T00:00:00Z s ERROR forged";
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let _span = tracing::info_span!("lane", destination = %error).entered();
            tracing::info!(%error, length = 3, "not opened: {error}");
        });
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let shown = r"closed\x1b[2J\x0d\x0a2026-01-01T00:00:00Z s ERROR forged";
        assert!(text.contains(&format!("lane{{destination={shown}}}")), "{text}");
        assert!(text.ends_with(&format!("not opened: {shown} error={shown} length=3\n")), "{text}");
    }

    /// A log in memory.
    #[derive(Clone)]
    struct Shared(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl fmt::MakeWriter<'_> for Shared {
        type Writer = Shared;

        fn make_writer(&self) -> Shared {
            self.clone()
        }
    }

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_place_is_known_without_a_log() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(check(&settings(dir.path())).unwrap(), dir.path().join(DIRECTORY));
        let file = dir.path().join("log");
        let settings = Settings { log_file: Some(file.clone()), ..settings(dir.path()) };
        assert_eq!(check(&settings).unwrap(), file);
        assert!(check(&Settings::default()).is_err());
    }

    #[test]
    fn off_by_default() {
        assert!(start(&Settings::default(), "s", |_| {}).unwrap().is_none());
    }

    #[test]
    fn a_day_has_its_file_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join(DIRECTORY);
        private_dir(&logs).unwrap();
        let day = today();
        let (old, recent) = (file_name(day - KEPT_FILES), file_name(day - 1));
        for name in [old.as_str(), recent.as_str(), "unrelated.log"] {
            fs::write(logs.join(name), "x").unwrap();
        }
        let mut log = open(&settings(dir.path())).unwrap();
        log.write_all(b"line\n").unwrap();
        log.flush().unwrap();
        assert!(!logs.join(&old).exists());
        assert!(logs.join(&recent).exists() && logs.join("unrelated.log").exists());
        let today =
            fs::read_dir(&logs).unwrap().flatten().find(|entry| fs::read(entry.path()).unwrap() == b"line\n");
        assert!(today.unwrap().file_name().to_str().unwrap().starts_with(FILE_PREFIX));
    }

    #[test]
    fn the_folder_of_a_named_file_is_created() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/log");
        let settings = Settings { log_file: Some(path.clone()), ..Settings::default() };
        open(&settings).unwrap().write_all(b"line\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"line\n");
        assert!(open(&settings).is_ok(), "it exists");
        let settings = Settings { log_file: Some(path.join("below a file/log")), ..settings };
        let error = open(&settings).err().unwrap();
        assert!(error.to_string().starts_with("cannot open "), "{error:#}");
    }

    #[test]
    fn the_next_day_has_another_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Daily::new(dir.path()).unwrap();
        let before = log.day;
        fs::remove_file(dir.path().join(file_name(before))).unwrap();
        log.day -= 1;
        log.write_all(b"line\n").unwrap();
        assert_eq!(fs::read(dir.path().join(file_name(log.day))).unwrap(), b"line\n");
    }

    /// The log goes on in the file that is open.
    #[cfg(unix)]
    #[test]
    fn a_folder_exchanged_for_one_that_others_can_write_gets_no_file() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().unwrap();
        let (dir, before) = (parent.path().join("logs"), parent.path().join("before"));
        let mut log = Daily::new(&dir).unwrap();
        let name = file_name(log.day);
        fs::rename(&dir, &before).unwrap();
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
        log.day -= 1;
        log.write_all(b"line\n").unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        assert_eq!(fs::read(before.join(name)).unwrap(), b"line\n");
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_reads_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        drop(open(&Settings { log_file: Some(path.clone()), ..Settings::default() }).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }

    #[test]
    fn a_place_that_cannot_be_written_is_an_error_with_its_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let err = open(&settings(file.path())).err().unwrap();
        assert!(err.to_string().contains(&*file.path().to_string_lossy()), "{err:#}");
        let settings = Settings { log: Some("debug".to_owned()), ..settings(file.path()) };
        assert!(
            start(&settings, "s", |_| {}).unwrap_err().starts_with("logging is disabled: cannot write to ")
        );
        let settings = Settings { log: Some("a=b=c".to_owned()), ..settings };
        assert!(
            format!("{:#}", try_start("a=b=c", &settings, "s", |_| {}).err().unwrap())
                .contains("SSM_PLUGIN_LOG")
        );
    }
}
