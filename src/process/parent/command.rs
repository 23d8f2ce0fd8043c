//! The command line of another process.

use std::ffi::OsString;
use std::path::PathBuf;

use super::identity;

/// Command line of a process.
#[derive(Debug)]
pub(super) struct Command {
    pub executable: Option<PathBuf>,
    pub arguments: Vec<OsString>,
}

impl Command {
    /// Returns whether this is the AWS CLI, see [`identity`].
    pub(super) fn is_aws_cli(&self) -> bool {
        identity::is_aws_cli(self.executable.as_deref(), &self.arguments)
    }

    /// The name of the program's file, without `.exe`.
    pub(super) fn name(&self) -> Option<String> {
        let program = self.executable.clone().or_else(|| self.arguments.first().map(PathBuf::from))?;
        let name = program.file_name()?.to_string_lossy().into_owned();
        Some(name.strip_suffix(".exe").map_or(name.clone(), str::to_owned))
    }

    /// Returns whether nothing is left of it: the process is exiting, or has exited and is not waited for.
    pub(super) fn is_blank(&self) -> bool {
        self.executable.is_none() && self.arguments.iter().all(|argument| argument.is_empty())
    }
}
