//! SSH documents: stdin and stdout are the connection, 8-bit clean both ways.

use std::time::Duration;

use super::ending::{End, ends_session};
use super::state::Session;
use crate::link::LinkEvent;
use crate::process::Signal;
use crate::protocol::{Event, Input};
use crate::term::Stdin;
use tokio::time::Instant;

/// Runs until either side ends. After the end of stdin what was read is sent and acknowledged, and answers are still
/// written until the remote has been quiet for [`QUIET_END`]; the official plugin ends at once and loses them.
pub(super) async fn run(session: &mut Session) -> anyhow::Result<End> {
    session.console.keep_clean();
    // Both streams tell when nobody is there any more; ssh lives on when it has gone to the background.
    session.watch.outlive_parent();
    let mut stdin = Stdin::open()?;
    let mut input_is_open = true;
    let mut quiet_since = Instant::now();
    loop {
        let Session { link, console, watch, .. } = session;
        tokio::select! {
            event = link.next(console.has_room()) => match event {
                LinkEvent::Channel(Event::Output(bytes)) => {
                    quiet_since = Instant::now();
                    console.write(&bytes);
                }
                other => if let Some(end) = session.handle(other) { return Ok(end) },
            },
            chunk = stdin.read(), if input_is_open && link.wants_input() => match chunk {
                Ok(chunk) if !chunk.is_empty() => link.send(Input::Bytes(chunk)),
                ended => {
                    if let Err(error) = ended {
                        tracing::warn!(%error, "stdin has ended");
                    }
                    input_is_open = false;
                    quiet_since = Instant::now();
                }
            },
            signal = watch.recv() => match signal {
                Signal::Usr1 => session.report(),
                signal if ends_session(signal) => return Ok(End::Terminated),
                _ => {}
            },
            written = console.drive() => if let Err(error) = written { return Ok(error.into()) },
            () = tokio::time::sleep_until(quiet_since + QUIET_END), if !input_is_open => {
                if link.is_drained() {
                    return Ok(End::Finished);
                }
                quiet_since = Instant::now();
            }
        }
    }
}

/// How long answers may take after the end of stdin.
const QUIET_END: Duration = Duration::from_secs(2);
