//! Forwarded ports.
//!
//! ```text
//! listen ─▶ pump ─▶ Connection (local) ┐           ┌─▶ Session ─▶ Streams ─▶ smux
//!            ▲                         ├─ reports ─▶ Forwarder (core)
//!            └────── actions ──────────┴───────────┘
//! ```
//!
//! | file | subject |
//! |---|---|
//! | `core` | everything that is decided, sans-IO: which session carries which connection, when sessions are started |
//! | `pump` | carries the decisions out: owns links, session starts, listeners and local connections |
//! | `run` | the port of argv |
//! | `mux` | the user's side of a pump: signals, texts |
//! | `single` | the loop for agents up to 3.0.196.0, which carry one connection at a time |
//! | `listen` | where connections come from: ports, socket files, clients of the proxy |
//! | `proxy` | requests of proxy clients and the answers to them, sans-IO |
//! | `local` | one local connection: its task, what waits for its reader, its socket, the journal |
//! | `embedded` | a port inside another program, for the library's `forward` |
//! | `forward` | ports and a SOCKS proxy without a session of argv, for the command `forward` |
//! | `signals` | effects of signals on a forwarded port |

mod core;
mod early;
mod embedded;
#[cfg(feature = "cli")]
mod forward;
mod listen;
mod local;
#[cfg(feature = "cli")]
mod mux;
mod proxy;
mod pump;
#[cfg(feature = "cli")]
mod run;
#[cfg(feature = "cli")]
mod signals;
#[cfg(feature = "cli")]
mod single;

pub(crate) use self::embedded::{Door, EmbeddedConfig, EmbeddedPort};
#[cfg(feature = "cli")]
pub(crate) use self::forward::{
    Bound, Forwarded, Forwarding, ListenFailure, ListenOn, PortForwarder, StartFailure,
};
pub(crate) use self::listen::ListenError;
#[cfg(feature = "cli")]
pub(crate) use self::listen::Ports;
#[cfg(all(test, target_os = "linux"))]
pub(crate) use self::listen::{MemoryPorts, PortSpace, StreamListener};
pub(crate) use self::local::MemoryStream;
#[cfg(feature = "cli")]
pub(super) use self::run::run;
