//! The end of a run for the user: the final message, the last output, the exit status.

use std::time::Duration;

use tokio::time::Instant;

use super::ending::{End, LeftoverSession, Reaper, TERMINATE_TIMEOUT};
use super::watch::Watch;
use crate::output::{Console, Style, WriteError, official, sentences};
use crate::process::Signal;
use crate::term;

/// Outcome of a session.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    /// True if nothing has failed, the start included.
    pub is_well: bool,
    /// The remote command's status, if the agent has sent it.
    pub exit_code: Option<i32>,
    /// The last signal that this process got.
    pub signal: Option<Signal>,
    /// Nothing reads our stdout any more.
    pub is_reader_gone: bool,
    /// A script's output has an error of PowerShell.
    pub has_powershell_error: bool,
}

impl Outcome {
    /// The exit status for the AWS CLI: 0, or with `SSM_PLUGIN_EXIT_CODE=1` the remote command's status where the agent
    /// sends it and 255 for failures of our own.
    pub(crate) fn status(&self, wants_status: bool) -> u8 {
        match (wants_status, self.is_well) {
            (false, _) => 0,
            (true, false) => OWN_FAILURE,
            (true, true) => self.exit_code.map_or(0, |code| (code & 0xff) as u8),
        }
    }
}

/// State needed to end a run.
pub(super) struct Shutdown {
    /// The first session's id.
    pub id: String,
    pub console: Console,
    pub watch: Watch,
    /// The sessions that are left.
    pub leftovers: Vec<LeftoverSession>,
    /// Ends those that have failed before.
    pub reaper: Reaper,
    /// A signal has requested the end since it began.
    pub is_requested: bool,
    /// True if a failed write to stdout is no failure of the run: a port session writes only notices there.
    pub ignores_stdout_errors: bool,
}

impl Shutdown {
    /// Prints the final message, ends the remaining sessions and flushes stdout. Returns whether all went well, and the
    /// last signal.
    pub(super) async fn finish(mut self, end: End) -> (bool, Option<Signal>) {
        let mut is_well = true;
        let since = Instant::now();
        self.console.begin_closing();
        self.console.report(&end.status());
        let is_on_request = matches!(end, End::Interrupted | End::Terminated);
        match end {
            End::Closed(output) => {
                let sentence = official::channel_closed(&self.id, &output);
                match output.trim() {
                    "" => self.console.print(&sentence),
                    reason if self.console.style() == Style::Official && !self.console.prints() => {
                        self.console.report_failure(&sentences::closed_because(reason));
                    }
                    reason => self.console.fail(&sentence, reason),
                }
                if let Some(advice) = sentences::advice(&output) {
                    self.console.report_failure(advice);
                }
            }
            End::Interrupted => {
                self.end_sessions(since).await;
                self.console.print(&official::exiting(&self.id));
            }
            End::Finished | End::ReaderGone | End::Terminated => {}
            End::TimedOut => {
                let sentence = official::timed_out(&self.id);
                self.console.fail(&sentence, sentence.trim_end());
                self.console.suggest();
            }
            End::NotStarted(reason) => {
                self.console.fail(&official::cannot_start(&reason), &reason);
                self.console.suggest();
                is_well = false;
            }
            End::Failed(reason) => {
                // The reason may be that stdout takes no more: one line about it is enough.
                self.ignores_stdout_errors = true;
                self.console.report_failure(&reason);
                self.console.suggest();
                is_well = false;
            }
        }
        self.end_sessions(since).await;
        let written = tokio::select! {
            biased;
            written = self.console.flush() => written,
            // A reader that takes nothing must not keep us from ending on request.
            () = until_end_signal(&mut self.watch, self.is_requested) => Ok(()),
            () = tokio::time::sleep(LAST_WRITES), if is_on_request => Ok(()),
        };
        tokio::select! {
            () = term::settled() => {}
            () = until_end_signal(&mut self.watch, self.is_requested) => {}
        }
        if let Err(error @ WriteError::Failed(_)) = written
            && !self.ignores_stdout_errors
        {
            self.console.report_failure(&error.to_string());
            let _ = self.console.flush().await;
            is_well = false;
        }
        (is_well, self.watch.last())
    }

    /// Ends what is left, with one deadline for all calls: [`terminate_timeout`] after the beginning of the end, or
    /// a second signal.
    async fn end_sessions(&mut self, since: Instant) {
        let Shutdown { leftovers, reaper, watch, is_requested, .. } = self;
        leftovers.drain(..).for_each(|leftover| reaper.end(leftover));
        let until = since + terminate_timeout(watch.last());
        let insisted = async {
            loop {
                let signal = watch.recv().await;
                *is_requested |= ends_session(signal);
                if insists(signal, since.elapsed()) {
                    return;
                }
            }
        };
        reaper.finish_by(until, insisted).await;
    }
}

/// Time limit for ending all sessions after a signal. Windows ends a program five seconds after its window has been closed,
/// its user has logged off or a shutdown has begun. Nothing waits for the program meanwhile, and what is not ended then stays
/// open at the service.
fn terminate_timeout(signal: Option<Signal>) -> Duration {
    match signal {
        Some(Signal::Hangup | Signal::Terminate) if cfg!(windows) => UNATTENDED_TERMINATE_TIMEOUT,
        _ => TERMINATE_TIMEOUT,
    }
}

/// Completes at once if the end `is_requested` already.
async fn until_end_signal(watch: &mut Watch, is_requested: bool) {
    while !is_requested && !ends_session(watch.recv().await) {}
}

/// Returns whether a signal so long after the beginning of the end means that the user does not want to wait. A hangup
/// does not: the caller may have got the first signal, too, and is gone now.
fn insists(signal: Signal, elapsed: Duration) -> bool {
    matches!(signal, Signal::Interrupt | Signal::Quit | Signal::Terminate) && elapsed >= SAME_REQUEST
}

/// Returns whether a signal ends a session of any kind.
pub(super) fn ends_session(signal: Signal) -> bool {
    matches!(signal, Signal::Interrupt | Signal::Quit | Signal::Terminate | Signal::Hangup)
}

impl From<WriteError> for End {
    fn from(error: WriteError) -> End {
        match error {
            WriteError::ReaderGone => End::ReaderGone,
            error @ WriteError::Failed(_) => End::Failed(error.to_string()),
        }
    }
}

impl From<anyhow::Error> for End {
    fn from(error: anyhow::Error) -> End {
        End::Failed(format!("{error:#}"))
    }
}

/// Time in which a second signal is a copy of the first: `timeout` sends one to its child and one to the whole group.
const SAME_REQUEST: Duration = Duration::from_millis(500);
/// Time limit for ending all sessions when Windows ends this process: its five seconds but one, in which the event arrives
/// and the process ends.
const UNATTENDED_TERMINATE_TIMEOUT: Duration = Duration::from_secs(4);
/// Time that output may still be written after a request to end.
const LAST_WRITES: Duration = Duration::from_secs(1);

/// The exit status for failures of our own, where one is requested: ssh's number.
pub(crate) const OWN_FAILURE: u8 = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_signal_counts_when_it_is_not_a_copy_of_the_first() {
        let late = SAME_REQUEST;
        assert!([Signal::Interrupt, Signal::Quit, Signal::Terminate].into_iter().all(|it| insists(it, late)));
        assert!(!insists(Signal::Terminate, late - Duration::from_millis(1)));
        assert!(![Signal::Hangup, Signal::WindowChanged].into_iter().any(|it| insists(it, late)));
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_that_do_not_end_are_left_in_time() {
        let at_end_of_system = if cfg!(windows) { 4 } else { 2 };
        for (signal, seconds) in [
            (None, 2),
            (Some(Signal::Interrupt), 2),
            (Some(Signal::Hangup), at_end_of_system),
            (Some(Signal::Terminate), at_end_of_system),
        ] {
            let mut reaper = Reaper::default();
            reaper.end(LeftoverSession::Starting(Box::pin(std::future::pending())));
            let begin = Instant::now();
            reaper.finish_by(begin + terminate_timeout(signal), std::future::pending()).await;
            assert_eq!(begin.elapsed(), Duration::from_secs(seconds), "{signal:?}");
        }
    }
}
