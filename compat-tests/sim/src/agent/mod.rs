//! The agent: does the work an amazon-ssm-agent does at the far end of a session.
//!
//! It shares no code with the plugin, so that the two check each other. What the agent does follows the agent's
//! public source and frames recorded from it (`compat-tests/vectors`).

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these lists are for the plugin's protocol core, which is given its time and environment"
)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub mod codec;
mod command;
mod counters;
mod crypto;
mod destination;
mod handshake;
mod input;
mod output;
mod payload_type;
mod port_basic;
mod port_mux;
mod process;
mod programs;
mod receive;
mod send;
mod session;
#[cfg(unix)]
mod shell;
mod smux;
mod spec;
#[cfg(test)]
mod tests;
mod utf8;
mod version;

use input::Handled;
use receive::Receiver;
use send::Sender;
use session::Session;

pub use counters::{Counters, CountersSnapshot};
pub use destination::{Connection, Destinations, Dialing};
pub use programs::{Program, Programs};
pub use spec::{
    AgentEnd, AgentOptions, AgentSpec, Broken, Document, FromGateway, Generation, KmsDecrypt, KmsPolicy,
};

/// Runs one session to its end. Everything it started ends with the future, also when it is dropped.
///
/// `inbound` closed ends the session, as does a `channel_closed` frame in it. Frames the agent sends go to
/// `outbound`; when that is full the agent waits, so it has to be emptied also while no client is connected. While
/// a destination takes nothing, nothing is taken from `inbound` either: drop the future to end such a session.
pub async fn run(
    spec: AgentSpec,
    inbound: mpsc::Receiver<FromGateway>,
    outbound: mpsc::Sender<Bytes>,
    counters: Arc<Counters>,
) -> AgentEnd {
    let sender = Arc::new(Sender::new(outbound, counters));
    let mut receiver = Receiver::new(inbound, Arc::clone(&sender));
    receiver.set_silent(spec.options.broken == Some(Broken::NoAcknowledgement));
    let mut background = JoinSet::new();
    background.spawn(Arc::clone(&sender).resend());

    let output = match work(&spec, &mut receiver, &sender).await {
        Ok(Over::Ended(output)) => output,
        Ok(Over::Closed) => return AgentEnd::default(),
        Err(output) => output,
    };
    // `PrepareToCloseChannel` of the agent. Input is not taken any more.
    let flush = async {
        loop {
            tokio::select! {
                () = sender.all_acknowledged() => return,
                input = receiver.next() => match input {
                    Some(input) => receiver.refuse(input),
                    None => return,
                },
            }
        }
    };
    // After this time the agent closes without the acknowledgements.
    let _ = tokio::time::timeout(FLUSH_TIMEOUT, flush).await;
    AgentEnd { output }
}

/// Cause of a session's end.
enum Over {
    /// By itself, with this output.
    Ended(String),
    /// From outside: there is no receiver any more.
    Closed,
}

/// Handshake and session; `Err` when there was none, with the agent's reason.
async fn work(spec: &AgentSpec, receiver: &mut Receiver, sender: &Arc<Sender>) -> Result<Over, String> {
    let mut client_version = String::new();
    if spec.kms.is_some() || spec.options.always_handshake || spec.document.requires_handshake() {
        match handshake::perform(spec, receiver, sender).await {
            Ok(client) => client_version = client.version,
            Err(handshake::Failure::Closed) => return Ok(Over::Closed),
            Err(handshake::Failure::Failed(reason)) => {
                return Err(format!("Encountered error while initiating handshake. {reason}"));
            }
        }
    }
    let mut tasks = JoinSet::new();
    let mut session = Session::start(spec, &client_version, sender, &mut tasks)?;
    Ok(tokio::select! {
        ended = tasks.join_next() => match ended {
            Some(Ok(output)) => Over::Ended(output),
            Some(Err(error)) => Over::Ended(format!("the agent's session task failed: {error}")),
            None => Over::Ended(String::new()),
        },
        () = input(spec, receiver, sender, &mut session) => Over::Closed,
    })
}

/// Hands the client's messages to the session until the channel or the session is closed from outside.
async fn input(spec: &AgentSpec, receiver: &mut Receiver, sender: &Sender, session: &mut Session) {
    while let Some(input) = receiver.next().await {
        let handled = match sender.cipher() {
            Some(cipher) if input.payload_type == payload_type::OUTPUT => match cipher.open(&input.payload) {
                Ok(payload) => session.handle(input.payload_type, payload.into()).await,
                Err(error) => {
                    tracing::debug!(error, "input that cannot be decrypted");
                    Handled::Refused
                }
            },
            _ => session.handle(input.payload_type, input.payload.clone()).await,
        };
        match handled {
            Handled::Refused => receiver.refuse(input),
            Handled::Terminate if spec.options.broken == Some(Broken::StuckTerminate) => {
                return std::future::pending().await;
            }
            Handled::Taken | Handled::Terminate => {
                if receiver.accept(input).await.is_err() || matches!(handled, Handled::Terminate) {
                    return;
                }
            }
        }
    }
}

/// Agent source: `PrepareToCloseChannel`.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
