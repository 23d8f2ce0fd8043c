//! The processes that count as the AWS CLI.
//!
//! | process | name |
//! |---|---|
//! | version 2 as AWS ships it, also in the snap | the executable `aws` or `aws2` (its preview), frozen with its Python |
//! | version 1; version 2 of distributions; pip, pipx, uv, conda, Homebrew | a Python that runs the script `aws` in any folder |
//! | the same as a module | a Python with `-m awscli`, or one that runs `awscli/__main__.py` |
//! | Windows | also `aws.exe`; a Python that runs `aws.cmd` (both a batch file and Python) or the launcher `aws.exe` |
//! | Nix | a Python that runs `.aws-wrapped` |
//! | LocalStack's wrapper, which is the AWS CLI in the same process | a Python that runs `awslocal` |
//!
//! These do not count, and may leave the plugin running:
//!
//! | process | reason |
//! |---|---|
//! | a Python that runs `aws.py`, `aws.pyz` or `aws.pex` | callers' own scripts; the AWS CLI has no such name |
//! | a Python that runs the folder `aws`, or `-m aws` | a caller's own package |
//! | a script of another interpreter: `sh aws`, `ruby aws.rb`, `node aws` | the AWS CLI is written in Python |
//! | another executable that was called as `aws` (a multi-call binary, a version manager's shim) | it has its own name |
//! | `aws.cmd` and `aws.exe` outside Windows; `AWS` where names differ by case | not the AWS CLI's names there |
//!
//! If the executable cannot be seen, as with another user's process, its first argument is used instead.
//! Wrappers that `exec` the AWS CLI (shims of pyenv and asdf, `env`, `nice`, scripts that end with `exec aws`)
//! have become one of these by the time we look, and wrappers that wait for it are its parents, not ours. A
//! caller's own executable or Python script with exactly the name `aws` cannot be distinguished from the AWS CLI, and
//! counts.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::path::Path;

/// Returns whether a process with this executable and these arguments (the first is the program's own name) is
/// the AWS CLI.
pub(super) fn is_aws_cli<A: AsRef<OsStr>>(executable: Option<&Path>, arguments: &[A]) -> bool {
    let arguments: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
    let Some(program) = executable.or(arguments.first().map(Path::new)) else { return false };
    let program = name(program);
    is_one_of(&program, &PROGRAMS) || is_python(&program) && runs_cli(arguments.get(1..).unwrap_or_default())
}

/// Returns whether `path` is named like the AWS CLI.
pub(super) fn is_named_aws_cli(path: &OsStr) -> bool {
    let name = name(Path::new(path));
    is_one_of(&name, &PROGRAMS) || is_one_of(&name, &SCRIPTS)
}

/// Follows Python's own rules: options, then a script, or a module after `-m`.
fn runs_cli(arguments: &[&OsStr]) -> bool {
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy();
        if text == HASH_OPTION {
            arguments.next();
            continue;
        }
        let Some(options) = text.strip_prefix('-').filter(|options| !options.is_empty()) else {
            return is_cli_script(Path::new(argument));
        };
        // Short options may stand together; the first one that takes a value takes the rest, or the next argument.
        let Some(at) = options.find(TAKES_VALUE) else { continue };
        let (_, rest) = options.split_at(at);
        let (kind, rest) = rest.split_at(1);
        let value = if rest.is_empty() {
            arguments.next().map(|next| next.to_string_lossy())
        } else {
            Some(rest.into())
        };
        match kind {
            "m" => return value.is_some_and(|module| module == MODULE || module.starts_with(SUBMODULE)),
            "c" => return false,
            _ => {}
        }
    }
    false
}

/// The script's folder is looked up from our own working folder, which is the caller's unless the caller chose another.
fn is_cli_script(path: &Path) -> bool {
    let script = name(path);
    if script == MAIN {
        return path.parent().is_some_and(|folder| folder.ends_with(MODULE));
    }
    is_one_of(&script, &SCRIPTS) && !path.is_dir()
}

/// `python3.13`, `python3.13t`, `pypy3`, `Python` in a macOS framework, `pythonw.exe`.
fn is_python(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.starts_with("python") || name.starts_with("pypy")
}

fn is_one_of(name: &str, names: &[&str]) -> bool {
    names.contains(&name)
}

/// The last component, in lower case where the system's names do not differ by case.
fn name(path: &Path) -> Cow<'_, str> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if IGNORES_CASE { name.to_ascii_lowercase().into() } else { name }
}

const IGNORES_CASE: bool = cfg!(any(windows, target_vendor = "apple"));
/// Executables. `aws2` was the preview of version 2.
const PROGRAMS: [&str; 2] = if cfg!(windows) { ["aws.exe", "aws2.exe"] } else { ["aws", "aws2"] };
/// Scripts that a Python runs.
#[cfg(not(windows))]
const SCRIPTS: [&str; 3] = ["aws", ".aws-wrapped", "awslocal"];
#[cfg(windows)]
const SCRIPTS: [&str; 6] = ["aws", "aws.cmd", "aws.exe", "awslocal", "awslocal.bat", "awslocal.exe"];
/// A package's own script.
const MAIN: &str = "__main__.py";
const MODULE: &str = "awscli";
const SUBMODULE: &str = "awscli.";
/// Python's options with a value: command, module, warning, implementation option.
const TAKES_VALUE: [char; 4] = ['c', 'm', 'W', 'X'];
/// The only long option with a value.
const HASH_OPTION: &str = "--check-hash-based-pycs";

#[cfg(test)]
mod tests {
    use super::*;

    fn is_cli(executable: &str, arguments: &str) -> bool {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        is_aws_cli((!executable.is_empty()).then_some(Path::new(executable)), &arguments)
    }

    /// Names of programs as systems other than Windows have them.
    #[cfg(not(windows))]
    #[test]
    fn every_form_of_the_aws_cli_counts() {
        for (executable, arguments) in [
            ("/usr/local/aws-cli/v2/2.31.0/dist/aws", "aws ssm start-session --target i-1"),
            ("/usr/local/aws-cli/v2/2.31.0/dist/aws", "/usr/local/bin/aws ssm start-session"),
            ("/snap/aws-cli/1234/bin/aws", "aws ssm start-session"),
            ("/usr/bin/python3.11", "/usr/bin/python3 /usr/bin/aws ssm start-session"),
            ("/usr/bin/python3.11", "/home/u/venv/bin/python3 /home/u/venv/bin/aws ssm start-session"),
            (
                "/opt/cpython-3.12/bin/python3.12",
                "/home/u/.local/bin/python /home/u/.local/bin/aws ecs execute-command",
            ),
            ("/usr/bin/python3.13t", "python3 -m awscli ssm start-session"),
            ("/usr/bin/python3.11", "python3 -Im awscli ssm start-session"),
            ("/usr/bin/python3.11", "python3 -X dev -W ignore -u -mawscli ssm start-session"),
            ("/usr/bin/python3.11", "python3 --check-hash-based-pycs never -B /usr/bin/aws ssm"),
            ("/usr/bin/python3.11", "python3 /site-packages/awscli/__main__.py ssm"),
            (
                "/nix/store/x-python3-3.12/bin/python3.12",
                "/nix/store/x/python3.12 /nix/store/y/bin/.aws-wrapped ssm",
            ),
            (
                "/opt/homebrew/Python.app/Contents/MacOS/Python",
                "python /opt/homebrew/bin/aws ssm start-session",
            ),
            ("/usr/bin/pypy3", "pypy3 /usr/local/bin/aws ssm"),
            ("/usr/bin/python3.11", "python3 /usr/local/bin/awslocal ssm start-session"),
            ("/usr/local/aws-cli/v2/2.0.0dev0/dist/aws2", "aws2 ssm start-session"),
            // A link of another name leads to it.
            ("/usr/local/aws-cli/v2/2.31.0/dist/aws", "/home/u/bin/aws-2.31 ssm start-session"),
            // The executable of another user's process cannot be seen.
            ("", "aws ssm start-session"),
            ("", "/usr/bin/python3 /usr/bin/aws ssm start-session"),
        ] {
            assert!(is_cli(executable, arguments), "{executable} {arguments}");
        }
    }

    #[test]
    #[cfg(windows)]
    fn every_form_on_windows_counts() {
        for (executable, arguments) in [
            (r"C:\Program Files\Amazon\AWSCLIV2\aws.exe", "aws ssm start-session"),
            (r"C:\Python312\python.exe", r"C:\Python312\python.exe -x C:\Python312\Scripts\aws.cmd ssm"),
            (r"C:\u\tools\awscli\Scripts\python.exe", r"python.exe C:\u\bin\AWS.EXE ssm start-session"),
            (r"C:\Python312\python.exe", r"python.exe C:\Python312\Scripts\awslocal ssm start-session"),
        ] {
            assert!(is_cli(executable, arguments), "{executable} {arguments}");
        }
    }

    #[test]
    fn no_other_name_counts() {
        for (executable, arguments) in [
            ("/bin/bash", "bash"),
            ("/bin/bash", "-bash"),
            ("/bin/dash", "sh -c aws ssm start-session"),
            ("/bin/dash", "/bin/sh /usr/local/bin/aws ssm start-session"),
            ("/usr/bin/ssh", "ssh -f i-1 sleep 10"),
            ("/usr/bin/python3.11", "python3"),
            ("/usr/bin/python3.11", "python3 -"),
            ("/usr/bin/python3.11", "python3 -c aws"),
            ("/usr/bin/python3.11", "python3 -W aws tunnel.py"),
            ("/usr/bin/python3.11", "python3 -m ansible aws"),
            ("/usr/bin/python3.11", "python3 -m aws"),
            ("/usr/bin/python3.11", "python3 -m awscli_plugin_x"),
            ("/usr/bin/python3.11", "python3 /usr/bin/ansible-playbook aws"),
            ("/usr/bin/python3.11", "python3 /usr/bin/aws-annoying session-manager port-forward"),
            ("/usr/bin/python3.11", "python3 aws.py"),
            ("/usr/bin/python3.11", "python3 -u /home/u/tunnels/aws.py start"),
            ("/usr/bin/python3.11", "python3 /home/u/bin/aws.pyz"),
            ("/usr/bin/python3.11", "python3 /home/u/bin/aws.pex"),
            ("/usr/bin/python3.11", "python3 /home/u/aws/__main__.py"),
            ("/usr/bin/python3.11", "python3 /home/u/aws/tunnel.py"),
            ("/usr/bin/ruby3.1", "ruby /home/u/aws.rb"),
            ("/usr/bin/ruby3.1", "ruby /home/u/bin/aws"),
            ("/usr/bin/node", "node /opt/toolkit/aws"),
            ("/usr/bin/aws-vault", "aws-vault exec p -- aws ssm start-session"),
            ("/home/u/.local/bin/aws-sso", "aws-sso exec"),
            ("/home/u/.local/bin/mise", "/home/u/.local/share/mise/shims/aws ssm start-session"),
            ("/bin/busybox", "aws"),
            ("/bin/bash", "aws"),
            ("/usr/bin/timeout", "timeout 5 aws ssm start-session"),
            ("", "-aws"),
            ("/sbin/init", ""),
            ("", ""),
        ] {
            assert!(!is_cli(executable, arguments), "{executable} {arguments}");
        }
        assert!(!is_aws_cli::<&str>(None, &[]));
    }

    #[cfg(not(any(windows, target_vendor = "apple")))]
    #[test]
    fn names_of_other_systems_do_not_count() {
        for arguments in ["python3 AWS ssm", "python3 aws.cmd ssm", "python3 aws.exe ssm"] {
            assert!(!is_cli("/usr/bin/python3.11", arguments), "{arguments}");
        }
        assert!(!is_cli("/home/u/AWS", "AWS ssm"));
    }

    #[test]
    fn a_folder_is_not_the_aws_cli() {
        let parent = tempfile::tempdir().unwrap();
        let script = parent.path().join("aws");
        let arguments = [OsStr::new("python3"), script.as_os_str(), OsStr::new("ssm")];
        let python = Path::new(if cfg!(windows) { "python.exe" } else { "/usr/bin/python3.11" });
        std::fs::write(&script, "").unwrap();
        assert!(is_aws_cli(Some(python), &arguments));
        std::fs::remove_file(&script).unwrap();
        std::fs::create_dir(&script).unwrap();
        assert!(!is_aws_cli(Some(python), &arguments));
    }

    #[test]
    fn the_last_command_of_a_shell() {
        let own = if cfg!(windows) { "C:/x/aws.exe" } else { "/usr/bin/aws" };
        assert!(is_named_aws_cli(OsStr::new(own)));
        for other in ["/home/u/aws.py", "/home/u/aws.rb", "/usr/bin/aws-vault", "/home/u/aws/tunnel", ""] {
            assert!(!is_named_aws_cli(OsStr::new(other)), "{other}");
        }
    }
}
