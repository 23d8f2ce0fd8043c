//! A parsed command line.

use std::ffi::OsString;
use std::time::Duration;

use clap::ArgMatches;

/// A command with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// `start-session`
    StartSession(StartSession),
    /// `shell`
    Shell(Shell),
    /// `ssh`
    Ssh(Ssh),
    /// `ssh-config`
    SshConfig(SshConfig),
    /// `run`
    Run(Run),
    /// `forward`
    Forward(Forward),
}

/// Options of all commands that start sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Common {
    pub profile: Option<String>,
    pub region: Option<String>,
    pub endpoint_url: Option<String>,
    pub reason: Option<String>,
    /// Time to wait for a target that is not connected.
    pub wait: Option<Duration>,
    pub json: bool,
    pub quiet: bool,
    pub verbose: u8,
}

/// Arguments of `start-session`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StartSession {
    pub common: Common,
    pub target: String,
    pub document: Document,
}

/// A session document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Document {
    pub name: Option<String>,
    /// As typed.
    pub parameters: Option<String>,
}

/// Arguments of `shell`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shell {
    pub common: Common,
    pub target: String,
    pub document: Document,
}

/// Arguments of `ssh`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ssh {
    pub common: Common,
    pub target: String,
    pub port: u16,
    /// Set with `--push-key`; the file, if one is named.
    pub push_key: Option<Option<String>>,
    pub user: Option<String>,
    /// The path of the socket, as typed.
    pub identity_agent: Option<String>,
}

/// Arguments of `ssh-config`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SshConfig {
    pub common: Common,
    pub patterns: Vec<String>,
    pub push_key: Option<Option<String>>,
}

/// Arguments of `run`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Run {
    pub common: Common,
    pub target: String,
    pub command: Vec<OsString>,
}

/// Arguments of `forward`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Forward {
    pub common: Common,
    pub target: String,
    /// As typed.
    pub specs: Vec<String>,
    /// The value of `-D`, as typed.
    pub dynamic: Option<String>,
    pub is_eager: bool,
    pub sessions: Option<usize>,
    pub command: Vec<OsString>,
}

impl Request {
    /// The command's name.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Request::StartSession(_) => "start-session",
            Request::Shell(_) => "shell",
            Request::Ssh(_) => "ssh",
            Request::SshConfig(_) => "ssh-config",
            Request::Run(_) => "run",
            Request::Forward(_) => "forward",
        }
    }

    /// The options that all commands have.
    pub(super) fn common(&self) -> &Common {
        match self {
            Request::StartSession(StartSession { common, .. })
            | Request::Shell(Shell { common, .. })
            | Request::Ssh(Ssh { common, .. })
            | Request::SshConfig(SshConfig { common, .. })
            | Request::Run(Run { common, .. })
            | Request::Forward(Forward { common, .. }) => common,
        }
    }

    /// The target, as typed; `None` for a command without one.
    pub(super) fn target(&self) -> Option<&str> {
        match self {
            Request::SshConfig(_) => None,
            Request::StartSession(StartSession { target, .. })
            | Request::Shell(Shell { target, .. })
            | Request::Ssh(Ssh { target, .. })
            | Request::Run(Run { target, .. })
            | Request::Forward(Forward { target, .. }) => Some(target),
        }
    }

    /// Takes the arguments of the command `name`; `None` for one that starts no session.
    pub(super) fn from_matches(name: &str, found: &ArgMatches) -> Option<Request> {
        // Completions have no common options.
        let common = || common(found);
        let target = || text(found, "target").unwrap_or_default();
        Some(match name {
            "start-session" => Request::StartSession(StartSession {
                common: common(),
                target: target(),
                document: document(found),
            }),
            "shell" => {
                Request::Shell(Shell { common: common(), target: target(), document: document(found) })
            }
            "ssh" => Request::Ssh(Ssh {
                common: common(),
                target: target(),
                port: found.get_one::<u16>("port").copied().unwrap_or(SSH_PORT),
                push_key: push_key(found),
                user: text(found, "user"),
                identity_agent: text(found, "identity-agent"),
            }),
            "ssh-config" => Request::SshConfig(SshConfig {
                common: common(),
                patterns: found.get_many::<String>("pattern").into_iter().flatten().cloned().collect(),
                push_key: push_key(found),
            }),
            "run" => Request::Run(Run {
                common: common(),
                target: target(),
                command: found.get_many::<OsString>("command").into_iter().flatten().cloned().collect(),
            }),
            "forward" => {
                let listed = |name: &str| found.get_many::<String>(name).into_iter().flatten().cloned();
                Request::Forward(Forward {
                    common: common(),
                    target: target(),
                    specs: listed("spec").chain(listed("local")).collect(),
                    dynamic: text(found, "dynamic"),
                    is_eager: found.get_flag("eager"),
                    sessions: found.get_one::<u64>("sessions").and_then(|count| usize::try_from(*count).ok()),
                    command: found.get_many::<OsString>("command").into_iter().flatten().cloned().collect(),
                })
            }
            _ => return None,
        })
    }
}

fn common(found: &ArgMatches) -> Common {
    Common {
        profile: text(found, "profile"),
        region: text(found, "region"),
        endpoint_url: text(found, "endpoint-url"),
        reason: text(found, "reason"),
        wait: found.get_one::<u64>("wait").map(|seconds| Duration::from_secs(*seconds)),
        json: found.get_flag("json"),
        quiet: found.get_flag("quiet"),
        verbose: found.get_count("verbose"),
    }
}

/// An empty value stands for none.
fn push_key(found: &ArgMatches) -> Option<Option<String>> {
    text(found, "push-key").map(|file| Some(file).filter(|file| !file.is_empty()))
}

fn document(found: &ArgMatches) -> Document {
    Document { name: text(found, "document-name"), parameters: text(found, "parameters") }
}

fn text(found: &ArgMatches, name: &str) -> Option<String> {
    found.get_one::<String>(name).cloned()
}

const SSH_PORT: u16 = 22;
