//! The wait for the remote's output after an input has ended, sans-IO.
//!
//! The agent cannot be informed that an input has ended without ending the output, too: a half-closed connection is closed
//! altogether. So its end is held back until the remote has been quiet for a while. How long differs:
//!
//! | input | quiet | reason |
//! |---|---|---|
//! | stdin, the remote speaks SSH | four round trips, at least [`MIN_QUIET`] | SSH has no half-close: a client that has ended its input does not read either, and sshd drops pending output |
//! | stdin, any other remote | [`STDIN_QUIET`] | `printf … \| plugin`: the server may think before it answers |
//! | a connection of an agent that carries one | [`BASIC_QUIET`] | the same; the next client takes the place at once |
//!
//! The streams of `port::streams` have a separate time.

use std::time::Duration;

use tokio::time::Instant;

/// State of the end of one connection.
#[derive(Debug)]
pub(super) struct LastAnswers {
    quiet: Duration,
    /// The input has ended, and the remote has been quiet since then.
    quiet_since: Option<Instant>,
    /// The remote's first bytes, [`SSH`] and no more.
    greeting: Vec<u8>,
}

impl LastAnswers {
    /// Of a connection that is stdin and stdout.
    pub(super) fn on_stdin() -> LastAnswers {
        LastAnswers::new(STDIN_QUIET)
    }

    /// Of a forwarded connection with an agent that carries one at a time.
    pub(super) fn on_basic() -> LastAnswers {
        LastAnswers::new(BASIC_QUIET)
    }

    fn new(quiet: Duration) -> LastAnswers {
        LastAnswers { quiet, quiet_since: None, greeting: Vec::new() }
    }

    /// The input has ended.
    pub(super) fn handle_input_end(&mut self, now: Instant) {
        self.quiet_since = Some(now);
    }

    /// The remote has sent something.
    pub(super) fn handle_output(&mut self, now: Instant, bytes: &[u8]) {
        let missing = SSH.len() - self.greeting.len();
        self.greeting.extend(bytes.iter().take(missing));
        self.restart(now);
    }

    /// Waits once more, if the input has ended: something of it is still unacknowledged.
    pub(super) fn restart(&mut self, now: Instant) {
        if let Some(since) = &mut self.quiet_since {
            *since = now;
        }
    }

    /// Returns whether the remote has sent anything at all.
    pub(super) fn has_begun(&self) -> bool {
        !self.greeting.is_empty()
    }

    /// Returns whether the input has ended.
    pub(super) fn has_input_ended(&self) -> bool {
        self.quiet_since.is_some()
    }

    /// When the remote has been quiet for long enough; `None` before the end of the input.
    pub(super) fn over_at(&self, round_trip: Duration) -> Option<Instant> {
        let quiet = if self.greeting == SSH {
            (QUIET_ROUND_TRIPS * round_trip).clamp(MIN_QUIET, self.quiet)
        } else {
            self.quiet
        };
        self.quiet_since.map(|since| since + quiet)
    }
}

/// First bytes of a server that speaks SSH (RFC 4253, section 4.2).
const SSH: &[u8] = b"SSH-";
/// Time that a server may take to answer the input from stdin. The official plugin ends at once and loses the
/// answer.
const STDIN_QUIET: Duration = Duration::from_secs(2);
/// Time that a server may take to answer a half-closed connection. Shorter than with streams: these agents
/// never say that the destination has closed, so each connection stays open there for this long.
const BASIC_QUIET: Duration = Duration::from_secs(1);
/// Data under way when the last acknowledgement comes takes half a round trip; each gap in it may be another.
const QUIET_ROUND_TRIPS: u32 = 4;
/// On a short path the gaps are the agent's: a millisecond after each message, more on a busy machine.
const MIN_QUIET: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// When the wait is over, from the end of the input on, after `said` at that time.
    fn waits(mut answers: LastAnswers, said: &[&[u8]], round_trip: Duration) -> Duration {
        let now = Instant::now();
        answers.handle_input_end(now);
        said.iter().for_each(|bytes| answers.handle_output(now, bytes));
        answers.over_at(round_trip).expect("a time") - now
    }

    #[test]
    fn nothing_is_over_before_the_input_has_ended() {
        let mut answers = LastAnswers::on_stdin();
        answers.handle_output(Instant::now(), b"SSH-2.0-x\r\n");
        answers.restart(Instant::now());
        assert_eq!(
            (answers.over_at(MS), answers.has_input_ended(), answers.has_begun()),
            (None, false, true)
        );
    }

    #[test]
    fn ssh_waits_four_round_trips() {
        let ssh =
            |round_trip| waits(LastAnswers::on_stdin(), &[b"SSH-2.0-OpenSSH_9.9\r\n", b"more"], round_trip);
        assert_eq!(ssh(MS), MIN_QUIET);
        assert_eq!(ssh(12 * MS), MIN_QUIET);
        assert_eq!(ssh(13 * MS), 52 * MS);
        assert_eq!(ssh(150 * MS), 600 * MS);
        assert_eq!(ssh(3000 * MS), STDIN_QUIET);
        assert_eq!(waits(LastAnswers::on_stdin(), &[b"S", b"SH", b"-2.0"], MS), MIN_QUIET);
    }

    #[test]
    fn others_may_think() {
        let others: [&[&[u8]]; 4] = [&[], &[b"SSH"], &[b"HTTP/1.1 200 OK"], &[b"x", b"SSH-2.0"]];
        for said in others {
            assert_eq!(waits(LastAnswers::on_stdin(), said, MS), STDIN_QUIET, "{said:?}");
            assert_eq!(waits(LastAnswers::on_basic(), said, MS), BASIC_QUIET, "{said:?}");
        }
    }

    #[test]
    fn output_and_what_is_unacknowledged_prolong_it() {
        let start = Instant::now();
        for (mut answers, quiet) in
            [(LastAnswers::on_stdin(), STDIN_QUIET), (LastAnswers::on_basic(), BASIC_QUIET)]
        {
            answers.handle_input_end(start);
            let last = start + quiet - MS;
            answers.handle_output(last, b"late");
            assert_eq!(answers.over_at(MS), Some(last + quiet));
            answers.restart(last + MS);
            assert_eq!(answers.over_at(MS), Some(last + MS + quiet));
        }
    }
}
