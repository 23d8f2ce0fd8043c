//! Programs of shells and commands: processes, or made by the caller of the agent.

use std::fmt;
use std::sync::Arc;

use super::destination::Connection;

/// A running program without a process. The end of its stream is its end.
pub struct Program {
    /// Its input and output.
    pub stream: Box<dyn Connection>,
    /// Its exit code, which is reported with its end.
    pub exit_code: i32,
}

type Start = dyn Fn(&str) -> Program + Send + Sync;

/// The way to run the programs of an agent.
#[derive(Clone, Default)]
pub struct Programs(Option<Arc<Start>>);

impl Programs {
    /// Programs are made by `start`, which gets the command, for a shell the empty string; by default they are processes.
    pub fn new(start: impl Fn(&str) -> Program + Send + Sync + 'static) -> Programs {
        Programs(Some(Arc::new(start)))
    }

    /// Starts a program, if it is no process.
    pub(super) fn start(&self, command: &str) -> Option<Program> {
        self.0.as_ref().map(|start| start(command))
    }
}

impl fmt::Debug for Programs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "without processes" } else { "as processes" })
    }
}
