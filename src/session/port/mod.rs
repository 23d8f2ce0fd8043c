//! Forwarded ports.
//!
//! ```text
//! Listener ─▶ connection ─▶ Pool (one per destination) ─▶ Lane (one per session) ─▶ Link
//!                                                           └ Streams (smux)
//! ```
//!
//! | file | what it knows |
//! |---|---|
//! | `mux` | the loop: who is asked for events, what is said of them |
//! | `basic` | the loop for agents up to 3.0.196.0, which carry one connection at a time |
//! | `listener` | where connections come from |
//! | `pool` | the lanes of one destination: how many, which one takes a connection, when another is started |
//! | `lane` | one session from StartSession to its end |
//! | `streams` | fairness, half-close and stalls of one session's streams, sans-IO |
//! | `connection`, `gauge`, `local_stream` | one local connection: its task, what waits for its reader, its socket |
//! | `journal` | what became of each connection |

mod basic;
mod connection;
mod gauge;
mod journal;
mod lane;
mod listener;
mod local_stream;
mod mux;
mod pool;
mod streams;

use self::listener::Listener;
use super::console::Console;
use super::ending::{Closing, End, ends_session};
use super::state::Session;
use crate::notice;
use crate::process::Signal;
use crate::protocol::PortProperties;

/// Listens, and runs until the session ends or a signal comes.
pub(super) async fn run(mut session: Session, properties: &PortProperties) -> (End, Closing) {
    let listener = match Listener::bind(properties, session.settings.local_host.as_deref()).await {
        Ok(listener) => listener,
        Err(error) => {
            let end = End::NotStarted(error.to_string());
            let closing = session.into_closing(&end, true);
            return (end, closing);
        }
    };
    session.console.say(&listener.notice(&session.id));
    let (end, mut closing) = if session.link.capabilities().multiplexing {
        mux::run(session, listener).await
    } else {
        let end = basic::run(&mut session, listener).await;
        let closing = session.into_closing(&end, true);
        (end, closing)
    };
    closing.may_lose_words = true;
    (end, closing)
}

/// What a signal asks of a forwarded port.
enum Asked {
    End,
    Report,
    Nothing,
}

impl Asked {
    fn by(signal: Signal, console: &mut Console) -> Asked {
        match signal {
            Signal::Usr1 => Asked::Report,
            signal if ends_session(signal) || signal == Signal::Suspend => {
                console.say(notice::TERMINATE_SIGNAL);
                Asked::End
            }
            _ => Asked::Nothing,
        }
    }
}
