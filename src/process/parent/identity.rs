//! Which processes are the AWS CLI.
//!
//! | process | how it is known |
//! |---|---|
//! | version 2 as AWS ships it, also from the snap | the executable `aws` (`aws.exe`), frozen with its Python |
//! | version 1; version 2 of distributions; pip, pipx, uv, conda | a Python that runs the script `aws`, whatever its folder |
//! | the same by module | a Python with `-m awscli` |
//! | Windows | a Python that runs `aws.cmd` (which is both a batch file and Python) or the launcher `aws.exe` |
//! | Nix | a Python that runs `.aws-wrapped` |
//! | LocalStack's wrapper | a Python that runs `awslocal`, which is the AWS CLI in one process |
//!
//! Wrappers that `exec` it (shims of pyenv and asdf, `env`, `nice`, scripts that end with `exec aws`) have become one of
//! these by the time we look, and wrappers that wait for it are its parents, not ours. A shell script that happens to be
//! named `aws` is none: it may leave us running.

use std::ffi::OsStr;
use std::path::Path;

/// Whether a process with this executable and these arguments (the first is the program's own name) is the AWS CLI.
pub(super) fn is_aws_cli<A: AsRef<OsStr>>(executable: Option<&Path>, arguments: &[A]) -> bool {
    let arguments: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
    let own_name = arguments.first().map(Path::new);
    let mut names = [executable, own_name].into_iter().flatten().map(name);
    names.clone().any(|name| is_cli_name(&name))
        || names.any(|name| is_python(&name)) && runs_cli(arguments.get(1..).unwrap_or_default())
}

/// Whether `path` is named like the AWS CLI.
pub(super) fn is_named_aws_cli(path: &OsStr) -> bool {
    is_cli_name(&name(Path::new(path)))
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
        let (option, rest) = options.split_at(at);
        let _ = option;
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

fn is_cli_script(path: &Path) -> bool {
    let is_module = name(path) == "__main__" && path.parent().is_some_and(|folder| folder.ends_with(MODULE));
    is_module || is_cli_name(&name(path))
}

fn is_cli_name(name: &str) -> bool {
    CLI_NAMES.contains(&name)
}

/// `python3.13`, `python3.13t`, `pypy3`, `Python` in a macOS framework, `pythonw.exe`.
fn is_python(name: &str) -> bool {
    name.starts_with("python") || name.starts_with("pypy")
}

/// The last component in lower case (two systems do not care), without the suffix of a program.
fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let suffix = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix));
    suffix.map_or(name.clone(), str::to_owned)
}

/// `aws2` was the preview of version 2.
const CLI_NAMES: [&str; 4] = ["aws", "aws2", ".aws-wrapped", "awslocal"];
const SUFFIXES: [&str; 5] = [".exe", ".cmd", ".py", ".pyz", ".pex"];
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

    #[test]
    fn every_form_of_the_aws_cli_is_known() {
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
            // The executable of another user's process cannot be seen.
            ("", "aws ssm start-session"),
            ("", "/usr/bin/python3 /usr/bin/aws ssm start-session"),
        ] {
            assert!(is_cli(executable, arguments), "{executable} {arguments}");
        }
    }

    #[test]
    #[cfg(windows)]
    fn every_form_on_windows_is_known() {
        for (executable, arguments) in [
            (r"C:\Program Files\Amazon\AWSCLIV2\aws.exe", "aws ssm start-session"),
            (r"C:\Python312\python.exe", r"C:\Python312\python.exe -x C:\Python312\Scripts\aws.cmd ssm"),
            (r"C:\u\tools\awscli\Scripts\python.exe", r"python.exe C:\u\bin\AWS.EXE ssm start-session"),
        ] {
            assert!(is_cli(executable, arguments), "{executable} {arguments}");
        }
    }

    #[test]
    fn nobody_else_is_taken_for_it() {
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
            ("/usr/bin/python3.11", "python3 -m awscli_plugin_x"),
            ("/usr/bin/python3.11", "python3 /usr/bin/ansible-playbook aws"),
            ("/usr/bin/python3.11", "python3 /usr/bin/aws-annoying session-manager port-forward"),
            ("/usr/bin/aws-vault", "aws-vault exec p -- aws ssm start-session"),
            ("/usr/bin/timeout", "timeout 5 aws ssm start-session"),
            ("/usr/bin/node", "node /opt/toolkit/aws"),
            ("/sbin/init", ""),
            ("", ""),
        ] {
            assert!(!is_cli(executable, arguments), "{executable} {arguments}");
        }
        assert!(!is_aws_cli::<&str>(None, &[]));
    }
}
