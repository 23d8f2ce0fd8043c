//! The command line of another process.

use std::ffi::OsString;
use std::path::PathBuf;

use super::identity;

/// How a process was started.
#[derive(Debug)]
pub(super) struct Command {
    pub executable: Option<PathBuf>,
    pub arguments: Vec<OsString>,
}

impl Command {
    /// Whether this is the AWS CLI, see [`identity`].
    pub(super) fn is_aws_cli(&self) -> bool {
        identity::is_aws_cli(self.executable.as_deref(), &self.arguments)
    }

    /// Whether nothing is left of it: the process is exiting, or has exited and is not waited for.
    pub(super) fn is_blank(&self) -> bool {
        self.executable.is_none() && self.arguments.iter().all(|argument| argument.is_empty())
    }
}
