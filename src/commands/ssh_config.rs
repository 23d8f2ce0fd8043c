//! `ssh-config`: the block for `~/.ssh/config`.

use std::path::{Path, PathBuf};

use super::failure::Failure;
use super::grammar::PROGRAM;
use super::request::SshConfig;
use crate::quote;

/// The block, to be printed on stdout.
///
/// # Errors
/// A pattern or an option that cannot stand in the file.
pub(super) fn block(options: &SshConfig) -> Result<String, Failure> {
    let patterns = match options.patterns.as_slice() {
        [] => "i-* mi-*".to_owned(),
        patterns => patterns.join(" "),
    };
    let common = &options.common;
    let mut words = vec!["ssh".to_owned()];
    for (name, value) in [
        ("--profile", &common.profile),
        ("--region", &common.region),
        ("--endpoint-url", &common.endpoint_url),
        ("--reason", &common.reason),
    ] {
        words.extend(value.iter().flat_map(|value| [name.to_owned(), escaped(value)]));
    }
    words.extend(common.wait.map(|wait| format!("--wait={}", wait.as_secs())));
    for (flag, count) in
        [("--json", common.json.into()), ("--quiet", common.quiet.into()), ("--verbose", common.verbose)]
    {
        words.extend((0..count).map(|_: u8| flag.to_owned()));
    }
    match &options.push_key {
        Some(None) => words.push("--push-key".to_owned()),
        Some(Some(file)) => words.push(format!("--push-key={}", escaped(file))),
        None => {}
    }
    if options.push_key.is_some() {
        words.extend(["--user", "%r"].map(str::to_owned));
    }
    let socket = options.push_key.as_ref().filter(|file| file.is_none()).and_then(|_| agent_socket());
    words.extend(socket.iter().flat_map(|socket| ["--identity-agent".to_owned(), socket.clone()]));
    words.extend(["%h", "%p"].map(str::to_owned));
    let command = format!("{} {}", program(), quote::join(words.iter().map(String::as_str)));
    if [&patterns, &command].iter().any(|text| text.chars().any(char::is_control)) {
        return Err(Failure::usage("a control character is not allowed in ssh's configuration"));
    }
    // A key made for the run is in no file that IdentitiesOnly could name.
    let agent = socket.map(|socket| format!("    IdentityAgent \"{socket}\"\n    IdentitiesOnly no\n"));
    Ok(format!(
        "# SSH over AWS Systems Manager, without the AWS CLI\nHost {patterns}\n    ProxyCommand {command}\n{}",
        agent.unwrap_or_default()
    ))
}

/// The socket on which a run offers a key of its own: one for each user of an instance, named by what both ProxyCommand and
/// IdentityAgent replace. ssh and HOME may disagree on `~`, so it is not used.
fn agent_socket() -> Option<String> {
    if cfg!(windows) {
        return None;
    }
    let folder = std::env::home_dir()?.join(".ssh");
    let folder = folder.to_str().filter(|folder| !folder.contains(['"', '$']))?;
    Some(format!("{}/{PROGRAM}-%r@%h", escaped(folder)))
}

/// The program as ssh finds it: by its name where the PATH leads to this one, else by its path.
fn program() -> String {
    let Ok(ours) = std::env::current_exe() else { return PROGRAM.to_owned() };
    // OpenSSH for Windows does not search the PATH.
    if cfg!(windows) {
        return format!("\"{}\"", escaped(&ours.display().to_string()));
    }
    if first_on_path().is_some_and(|found| is_same(&found, &ours)) {
        return PROGRAM.to_owned();
    }
    quote::quote(&escaped(&ours.display().to_string()))
}

fn first_on_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(PROGRAM)).find(|file| file.is_file())
}

fn is_same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// ssh replaces what begins with a percent sign.
fn escaped(text: &str) -> String {
    text.replace('%', "%%")
}
