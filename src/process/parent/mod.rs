//! The process that called us, and whether its death ends us.
//!
//! Only the AWS CLI's does: it waits for us on a user's behalf, and when it is killed nothing is left that could end the
//! session, while its port stays open (cli#5149). Every other caller may start us and leave: a shell's pipeline, `nohup`,
//! `setsid`, a tool that writes a pid file, `ssh -f`.
//!
//! # A CLI that dies while we start
//!
//! Between its fork and our first look some milliseconds pass, and an AWS CLI that is killed within them can no longer be
//! asked for its name. What is left of it:
//!
//! - our process group, which is neither our own nor that of the process which adopted us. Alone that proves nothing: it
//!   is as true of a later part of a pipeline of a shell with job control, and of a tool that forked twice.
//! - `_`, in which bash, zsh and ksh pass the path of the command they run, and which the AWS CLI passes on. It names
//!   `aws` only if no shell has run anything since.
//!
//! Both together count as its death. A process that is exiting has lost its command line already, but is still our
//! parent until it has given back its memory: we wait until it is not. Where a shell does not set `_`, a CLI killed in those milliseconds leaves us
//! running, which is the smaller evil: that the response was in `AWS_SSM_START_SESSION_RESPONSE` cannot decide, since
//! callers who leave do the same.

mod command;
#[cfg(not(any(target_os = "linux", target_vendor = "apple", windows)))]
mod elsewhere;
mod identity;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(any(target_vendor = "apple", all(unix, test)))]
mod macos;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use std::ffi::OsStr;
use std::time::Duration;

use self::command::Command;
#[cfg(not(any(target_os = "linux", target_vendor = "apple", windows)))]
use self::elsewhere as system;
#[cfg(target_os = "linux")]
use self::linux as system;
#[cfg(target_vendor = "apple")]
use self::macos as system;
#[cfg(unix)]
use self::unix::Process;
#[cfg(windows)]
use self::windows::Process;
#[cfg(all(windows, test))]
pub(crate) use self::windows::shown_command_line;

/// The process that called us, where its death concerns us.
///
/// Not `PR_SET_PDEATHSIG`: that follows the *thread* that made us, and a start can miss it.
#[derive(Debug)]
pub(crate) struct Parent {
    caller: Caller,
    name: Option<String>,
}

#[derive(Debug)]
enum Caller {
    AwsCli(Process),
    /// The AWS CLI, which had died before we could look.
    DeadAwsCli,
    Other,
}

impl Parent {
    /// Identifies the caller. Call this before anything else.
    pub(crate) fn find() -> Parent {
        let last_command = std::env::var_os("_");
        for _ in 0..TRIES {
            let Some(process) = Process::parent() else { break };
            let command = process.command();
            let name = command.as_ref().and_then(Command::name);
            let is_cli = command.as_ref().is_some_and(Command::is_aws_cli);
            // What was read belongs to our parent only if that is still the same one.
            let caller = match (is_cli, process.is_parent()) {
                (true, true) => Caller::AwsCli(process),
                (true, false) => Caller::DeadAwsCli,
                (false, true) if command.is_some_and(|command| command.is_blank()) => {
                    std::thread::sleep(EXIT_POLL);
                    continue;
                }
                (false, true) if process.may_have_adopted_us() && names_aws_cli(last_command.as_deref()) => {
                    Caller::DeadAwsCli
                }
                (false, true) => Caller::Other,
                (false, false) => continue,
            };
            return Parent { caller, name };
        }
        Parent { caller: Caller::Other, name: None }
    }

    /// Returns true if the AWS CLI has called us: its request is the one that started the session.
    pub(crate) fn is_aws_cli(&self) -> bool {
        !matches!(self.caller, Caller::Other)
    }

    /// The name of the program that has called us: `aws` for the AWS CLI, else that of the executable's file.
    pub(crate) fn name(&self) -> Option<&str> {
        if self.is_aws_cli() { Some("aws") } else { self.name.as_deref() }
    }

    /// Resolves when the AWS CLI that called us has died; never, if another program has called us. Needs a runtime
    /// with IO and time. Cancel-safe.
    pub(crate) async fn death(&mut self) {
        match &mut self.caller {
            Caller::AwsCli(process) => process.exit().await,
            Caller::DeadAwsCli => {}
            Caller::Other => std::future::pending().await,
        }
    }
}

fn names_aws_cli(last_command: Option<&OsStr>) -> bool {
    last_command.is_some_and(identity::is_named_aws_cli)
}

/// Looks at the parent. It changes at most from the caller to the one that adopts us, unless that dies, too; one that is
/// exiting needs milliseconds for that.
const TRIES: usize = 200;
/// Interval at which an exiting parent is checked.
const EXIT_POLL: Duration = Duration::from_millis(1);
