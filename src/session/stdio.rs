//! SSH documents: stdin and stdout are the connection, 8-bit clean both ways.

use super::ending::End;
use super::last_answers::LastAnswers;
use super::live::LiveSession;
use super::shutdown::ends_session;
use super::state::Session;
use super::timer::sleep_until;
use crate::link::LinkEvent;
use crate::output::sentences;
use crate::process::Signal;
use crate::protocol::{Event, Input};
use crate::term::Stdin;
use tokio::time::Instant;

/// Runs until either side ends. After the end of stdin what was read is sent and acknowledged, and answers are still
/// written until the remote has been quiet for a while (`last_answers`); the official plugin ends at once and loses them.
pub(super) async fn run(session: &mut Session) -> anyhow::Result<End> {
    session.console.keep_clean();
    // Both streams report EOF when ssh exits; ssh itself keeps running after `ssh -f`.
    session.watch.outlive_parent();
    let mut stdin = Stdin::open()?;
    let mut answers = LastAnswers::on_stdin();
    loop {
        let over_at = answers.over_at(session.live.link.stats().rtt);
        let Session { live: LiveSession { link, .. }, console, watch, .. } = session;
        tokio::select! {
            event = link.next(console.has_room()) => match event {
                LinkEvent::Channel(Event::Output(bytes)) => {
                    answers.handle_output(Instant::now(), &bytes);
                    console.write(&bytes);
                }
                other => if let Some(end) = session.handle(other) {
                    if matches!(&end, End::Closed(reason) if reason.is_empty()) && !answers.has_begun() {
                        session.console.report_failure(sentences::NOTHING_CAME);
                    }
                    return Ok(end);
                },
            },
            chunk = stdin.read(), if !answers.has_input_ended() && link.wants_input() => match chunk {
                Ok(chunk) if !chunk.is_empty() => link.send(Input::Bytes(chunk)),
                ended => {
                    if let Err(error) = ended {
                        tracing::warn!(%error, "stdin has ended");
                    }
                    answers.handle_input_end(Instant::now());
                }
            },
            signal = watch.recv() => match signal {
                Signal::Usr1 => session.report(),
                signal if ends_session(signal) => return Ok(End::Terminated),
                _ => {}
            },
            written = console.drive() => if let Err(error) = written { return Ok(error.into()) },
            () = sleep_until(over_at) => {
                if link.is_drained() && link.is_open() {
                    return Ok(End::Finished);
                }
                answers.restart(Instant::now());
            }
        }
    }
}
