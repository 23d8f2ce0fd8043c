//! Ending a session at the other side.

use std::time::Duration;

use crate::aws;
use crate::link::{Link, LinkEvent};
use crate::protocol::{Event, Flag, Input};

/// Ends a session within [`TERMINATE_TIMEOUT`]: through the agent if it understands that and takes it, else through
/// the service. Only the agent's port sessions read the flag; others acknowledge it and go on.
pub(super) async fn terminate(link: &mut Link, is_port: bool, aws: Option<&aws::Client>, session_id: &str) {
    let ended = async {
        let has_flag = is_port && link.is_open() && link.capabilities().terminate_flag;
        if has_flag && agent_has_taken_it(link).await {
            return;
        }
        let Some(aws) = aws else { return };
        if let Err(error) = aws.terminate(session_id).await {
            tracing::warn!(%error, "the session may still be open at the service");
        }
    };
    if tokio::time::timeout(TERMINATE_TIMEOUT, ended).await.is_err() {
        tracing::warn!("the end of the session was not confirmed in time");
    }
}

async fn agent_has_taken_it(link: &mut Link) -> bool {
    link.send(Input::Flag(Flag::TerminateSession));
    let taken = async {
        loop {
            match link.next_until_drained().await {
                None | Some(LinkEvent::Channel(Event::Closed(_))) => return true,
                Some(LinkEvent::GaveUp(_) | LinkEvent::Lost(_)) => return false,
                Some(_) => {}
            }
        }
    };
    tokio::time::timeout(FLAG_TIMEOUT, taken).await.unwrap_or(false)
}

/// How long the end of a session may take.
pub(super) const TERMINATE_TIMEOUT: Duration = Duration::from_secs(2);
/// After that the service is asked instead of the agent.
const FLAG_TIMEOUT: Duration = Duration::from_secs(1);
