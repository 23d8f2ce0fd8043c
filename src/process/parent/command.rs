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
}
