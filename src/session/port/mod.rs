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
//! | `mux` | the user's side of a pump: signals, texts |
//! | `single` | the loop for agents up to 3.0.196.0, which carry one connection at a time |
//! | `listen` | where connections come from: ports, socket files, clients of the proxy |
//! | `proxy` | requests of proxy clients and the answers to them, sans-IO |
//! | `local` | one local connection: its task, what waits for its reader, its socket, the journal |
//! | `embedded` | a port inside another program, for the library's `forward` |
//! | `forward` | ports and a SOCKS proxy without a session of argv, for the command `forward` |
//! | `signals` | effects of signals on a forwarded port |

mod core;
mod embedded;
mod forward;
mod listen;
mod local;
mod mux;
mod proxy;
mod pump;
mod signals;
mod single;

pub(crate) use self::embedded::{Door, EmbeddedConfig, EmbeddedPort};
pub(crate) use self::forward::{
    Bound, Forwarded, Forwarding, ListenFailure, ListenOn, PortForwarder, StartFailure,
};
#[cfg(all(test, target_os = "linux"))]
pub(crate) use self::listen::MemoryPorts;
pub(crate) use self::listen::{ListenError, Listener, Ports};
pub(crate) use self::local::MemoryStream;
use super::ending::{End, Shutdown};
use super::state::Session;
use crate::output::{Kind, Status, sentences};
use crate::protocol::PortProperties;
use crate::settings::Settings;

/// Listens, and runs until the session ends or a signal comes.
pub(super) async fn run(mut session: Box<Session>, properties: &PortProperties) -> (End, Shutdown) {
    let Session { ports, settings, .. } = &*session;
    let listener = match Listener::bind(ports, properties, settings.local_host.as_deref()).await {
        Ok(listener) => listener,
        Err(error) => {
            if let Some(advice) = error.advice() {
                session.console.report_failure(advice);
            }
            error.owner().into_iter().for_each(|owner| session.console.status(&owner));
            let end = End::NotStarted(error.to_string());
            let closing = session.into_shutdown(&end);
            return (end, closing);
        }
    };
    session.console.print(&listener.notice(&session.live.id));
    mux::report_taken(&mut session.console, &listener);
    session.console.report(&Status::Ready {
        kind: Kind::Port,
        session: Some(session.live.id.clone()),
        port: listener.port(),
        socket: listener.socket(),
        destination: None,
    });
    let is_restarted = session.settings.restart;
    let (end, mut closing) = if session.live.link.capabilities().multiplexing {
        mux::run(*session, listener).await
    } else {
        let Settings { restart, socks, forward, .. } = &session.settings;
        if *restart || socks.is_some() || !forward.is_empty() {
            session.console.report_failure(sentences::AGENT_TOO_OLD);
        }
        let end = single::run(&mut session, listener).await;
        let closing = session.into_shutdown(&end);
        (end, closing)
    };
    if !is_restarted && matches!(end, End::Closed(_) | End::TimedOut) {
        closing.console.status(sentences::RESTART_HINT);
    }
    closing.ignores_stdout_errors = true;
    (end, closing)
}
