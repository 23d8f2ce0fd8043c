//! The stdin of a profile's `credential_process`, which the SDK lets inherit ours.
//!
//! Ours carries the session's bytes: a process that reads would take them (an SSH session broke after a resume). So the
//! SDK gets the profile files with a command that begins with a redirection. A terminal stays as it is, for processes that
//! ask the user for a code.

use std::io::IsTerminal as _;

use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};

use super::files;

/// The profile files with another stdin for the processes in them, `None` if the files can be used as they are. The
/// files must have been checked.
pub(super) fn profile_files() -> Option<EnvConfigFiles> {
    if std::io::stdin().is_terminal() {
        return None;
    }
    let mut builder = EnvConfigFiles::builder();
    let mut has_process = false;
    for (kind, file) in
        [EnvConfigFileKind::Config, EnvConfigFileKind::Credentials].into_iter().zip(files::FILES)
    {
        // The SDK reports what cannot be read or is not text, or takes it for empty.
        let text = std::fs::read(files::path_of(file)).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        match text.and_then(|text| with_redirection(&text)) {
            Some(text) => {
                has_process = true;
                builder = builder.with_contents(kind, text);
            }
            None => match kind {
                EnvConfigFileKind::Config => builder = builder.include_default_config_file(true),
                EnvConfigFileKind::Credentials => builder = builder.include_default_credentials_file(true),
            },
        }
    }
    has_process.then(|| builder.build())
}

/// The text with a redirection in front of each process's command; `None` if there is none.
fn with_redirection(text: &str) -> Option<String> {
    let mut changed = false;
    let lines = text.split_inclusive('\n').map(|line| {
        let redirected = line.split_once('=').filter(|(key, _)| is_process(key));
        changed |= redirected.is_some();
        match redirected {
            Some((key, command)) => format!("{key}= {REDIRECTION}{command}"),
            None => line.to_owned(),
        }
    });
    let text = lines.collect();
    changed.then_some(text)
}

fn is_process(key: &str) -> bool {
    key.trim().eq_ignore_ascii_case("credential_process")
}

/// For `sh -c`: the shell's own stdin, which all of the command inherits.
#[cfg(unix)]
const REDIRECTION: &str = "exec </dev/null;";
/// For `cmd.exe /C`, where it holds for the first command of a line.
#[cfg(windows)]
const REDIRECTION: &str = "<NUL ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_processes_are_changed() {
        assert_eq!(with_redirection("[default]\nregion = x\n"), None);
        let text = "[a]\ncredential_process=one | two = x # c\r\n[b]\n Credential_Process = \"a b\" c";
        let expected = format!(
            "[a]\ncredential_process= {REDIRECTION}one | two = x # c\r\n[b]\n Credential_Process = {REDIRECTION} \"a b\" c"
        );
        assert_eq!(with_redirection(text), Some(expected));
        assert_eq!(with_redirection("# credential_process = x\n"), None);
    }
}
