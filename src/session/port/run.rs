//! The port of argv.

use super::listen::Listener;
use super::{mux, single};
use crate::output::{Kind, Status, sentences};
use crate::protocol::PortProperties;
use crate::session::ending::End;
use crate::session::shutdown::Shutdown;
use crate::session::state::Session;
use crate::settings::Settings;

/// Listens, and runs until the session ends or a signal comes.
pub(in crate::session) async fn run(
    mut session: Box<Session>,
    properties: &PortProperties,
) -> (End, Shutdown) {
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
