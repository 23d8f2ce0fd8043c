//! Sessions: one loop per kind of session, between its link and the standard streams.
//!
//! [`run()`] opens the channel, waits until the agent announces the kind of session, runs that kind's loop, and ends
//! the session: the last messages, the pending output, the exit status.
//!
//! | kind | loop | standard streams |
//! |---|---|---|
//! | shell or command | `shell` | the remote's terminal or streams |
//! | SSH document | `stdio` | the connection itself, 8-bit clean |
//! | port forwarding | `port` | notices only |
//!
//! ```text
//! run ─▶ opening ─▶ loops (shell, stdio, port) ─▶ state ─▶ shutdown ─▶ ending, watch ─▶ starter ─▶ access, live
//!                  embedded (a command, a port) ──────────────────────▶ ending
//! ```
//!
//! Each file uses some of those to its right. `shell` uses `escape`, too; it and `run` use `progress`. `marked` finds a command's status in the output.
//! Other programs embed what is below `embedded`; the rest has a console, signals and settings, and is left out without the feature `cli`.

mod access;
mod embedded;
mod embedded_command;
mod ending;
#[cfg(feature = "cli")]
pub(crate) mod escape;
#[cfg(feature = "cli")]
mod last_answers;
mod live;
mod marked;
#[cfg(feature = "cli")]
mod opening;
mod port;
#[cfg(feature = "cli")]
mod progress;
#[cfg(feature = "cli")]
mod run;
#[cfg(feature = "cli")]
mod shell;
#[cfg(feature = "cli")]
mod shutdown;
mod starter;
#[cfg(feature = "cli")]
mod state;
#[cfg(feature = "cli")]
mod stdio;
mod timer;
#[cfg(feature = "cli")]
mod watch;
#[cfg(all(test, target_os = "linux"))]
mod worlds;
mod wrapper;

pub(crate) use self::access::{Access, is_region, stream_host, with_network};
pub(crate) use self::embedded::{EmbeddedError, end_started};
pub(crate) use self::embedded_command::{CommandChunk, CommandOutcome, run_command};
pub(crate) use self::ending::End;
pub(crate) use self::marked::Script;
#[cfg(feature = "cli")]
pub(crate) use self::port::{
    Bound, Forwarded, Forwarding, ListenFailure, ListenOn, PortForwarder, Ports, StartFailure,
};
pub(crate) use self::port::{Door, EmbeddedConfig, EmbeddedPort, MemoryStream};
#[cfg(feature = "cli")]
pub(crate) use self::run::{Run, run};
#[cfg(feature = "cli")]
pub(crate) use self::shutdown::{OWN_FAILURE, Outcome};
pub(crate) use self::starter::{StartError, Starter, request};
pub(crate) use self::wrapper::{COMMAND_DOCUMENT, command_parameters};
