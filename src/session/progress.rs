//! Progress of a connection, for a person at the terminal: a handshake that lasts, and an outage of a shell. A wait for a
//! websocket is reported by the link ([`LinkEvent::Connecting`](crate::link::LinkEvent::Connecting)).

use std::time::Duration;

use tokio::time::Instant;

/// Messages about the start of a session: one for each wait that lasts, and then one each [`REPEAT`] with the time.
#[derive(Debug)]
pub(super) struct StartProgress {
    target: String,
    current: Option<CurrentWait>,
}

/// Something that the start of a session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// The agent's part of the handshake.
    Agent,
    /// The data key of an encrypted session, from KMS.
    DataKey,
}

#[derive(Debug)]
struct CurrentWait {
    wait: Wait,
    since: Instant,
    next: Instant,
}

impl StartProgress {
    /// Progress of a session on `target`.
    pub(super) fn new(target: Option<&str>) -> StartProgress {
        StartProgress { target: target.unwrap_or("the instance").to_owned(), current: None }
    }

    /// Returns the message that is due. Call it each [`LOOK`]: a wait begins when it is first seen. `None` while there is no
    /// websocket.
    pub(super) fn poll(&mut self, now: Instant, wait: Option<Wait>) -> Option<String> {
        let Some(wait) = wait else {
            self.current = None;
            return None;
        };
        let current = match &mut self.current {
            Some(current) if current.wait == wait => current,
            _ => {
                self.current = Some(CurrentWait { wait, since: now, next: now + FIRST });
                return None;
            }
        };
        if now < current.next {
            return None;
        }
        let waited = now - current.since;
        current.next = now + REPEAT;
        let text = match wait {
            Wait::Agent => format!("waiting for the agent on {} …", self.target),
            Wait::DataKey => "waiting for a data key from KMS …".to_owned(),
        };
        let is_repeated = waited >= REPEAT;
        Some(if is_repeated { format!("{text} ({} s)", waited.as_secs()) } else { text })
    }
}

/// An outage of a shell's connection: one hint, and a line that is rewritten in place.
#[derive(Debug, Default)]
pub(super) struct Outage {
    last_contact: Option<Instant>,
    has_hinted: bool,
}

/// The state of a link, as far as an outage shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkState {
    /// A websocket is open and answers.
    pub is_open: bool,
    /// Arrival of the last message.
    pub last_contact: Option<Instant>,
    /// Start of the attempt under way.
    pub attempt_since: Option<Instant>,
}

/// Output of an outage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OutageOutput {
    /// A line that stays.
    Hint(&'static str),
    /// A line that the next one replaces.
    Line(String),
    /// The connection is healthy again: the line is removed.
    Over,
}

impl Outage {
    /// Returns the output that is due. `has_escapes`: `~.` ends the session.
    pub(super) fn poll(&mut self, now: Instant, link: LinkState, has_escapes: bool) -> Option<OutageOutput> {
        if link.is_open {
            return self.last_contact.take().map(|_| OutageOutput::Over);
        }
        // A new websocket that is lost at once is not a contact with the remote.
        let last_contact = *self.last_contact.get_or_insert(link.last_contact.unwrap_or(now));
        let silence = now.saturating_duration_since(last_contact);
        if silence < FIRST {
            return None;
        }
        if has_escapes && !self.has_hinted {
            self.has_hinted = true;
            return Some(OutageOutput::Hint(HINT));
        }
        let attempt = match link.attempt_since {
            Some(since) => format!("connecting for {} s", now.saturating_duration_since(since).as_secs()),
            None => "waiting to reconnect".to_owned(),
        };
        Some(OutageOutput::Line(format!("last contact {} s ago, {attempt}", silence.as_secs())))
    }
}

/// Interval between looks at a wait.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// Waiting that lasts this long is shown.
const FIRST: Duration = Duration::from_secs(3);
const REPEAT: Duration = Duration::from_secs(15);
const HINT: &str = "to end the session, press Enter and then type ~.";

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Messages and the seconds at which they come, with a look each second.
    fn messages(
        progress: &mut StartProgress,
        start: Instant,
        waits: impl Fn(u32) -> Option<Wait>,
    ) -> Vec<(u32, String)> {
        let at = |second| progress.poll(start + SECOND * second, waits(second)).map(|text| (second, text));
        (0..60).filter_map(at).collect()
    }

    #[test]
    fn a_wait_that_lasts_is_shown_and_repeated_with_its_time() {
        let mut progress = StartProgress::new(Some("i-1"));
        let messages = messages(&mut progress, Instant::now(), |_| Some(Wait::Agent));
        let expected = [
            (3, "waiting for the agent on i-1 …"),
            (18, "waiting for the agent on i-1 … (18 s)"),
            (33, "waiting for the agent on i-1 … (33 s)"),
            (48, "waiting for the agent on i-1 … (48 s)"),
        ];
        assert_eq!(messages, expected.map(|(second, text)| (second, text.to_owned())));
    }

    #[test]
    fn each_wait_counts_from_its_own_beginning() {
        let mut progress = StartProgress::new(None);
        let messages = messages(&mut progress, Instant::now(), |second| match second {
            0..10 => None,
            10..12 => Some(Wait::DataKey),
            _ => Some(Wait::Agent),
        });
        let expected = [
            (15, "waiting for the agent on the instance …"),
            (30, "waiting for the agent on the instance … (18 s)"),
            (45, "waiting for the agent on the instance … (33 s)"),
        ];
        assert_eq!(messages, expected.map(|(second, text)| (second, text.to_owned())));
    }

    #[test]
    fn a_quick_start_shows_nothing() {
        let (mut progress, now) = (StartProgress::new(None), Instant::now());
        for tenth in 0..29 {
            assert_eq!(progress.poll(now + SECOND / 10 * tenth, Some(Wait::DataKey)), None);
        }
        assert_eq!(progress.poll(now + SECOND * 3, Some(Wait::Agent)), None);
    }

    fn lost(heard: Instant, attempt: Option<Instant>) -> LinkState {
        LinkState { is_open: false, last_contact: Some(heard), attempt_since: attempt }
    }

    const OPEN: LinkState = LinkState { is_open: true, last_contact: None, attempt_since: None };

    #[test]
    fn an_outage_counts_from_the_last_contact_and_ends() {
        let (mut outage, heard) = (Outage::default(), Instant::now());
        assert_eq!(outage.poll(heard, OPEN, true), None);
        let link = lost(heard, Some(heard + SECOND * 4));
        assert_eq!(outage.poll(heard + SECOND * 2, link, true), None, "most end before");
        assert_eq!(outage.poll(heard + SECOND * 4, link, true), Some(OutageOutput::Hint(HINT)));
        let line = |text: &str| Some(OutageOutput::Line(text.to_owned()));
        let at = |second| heard + SECOND * second;
        assert_eq!(outage.poll(at(5), link, true), line("last contact 5 s ago, connecting for 1 s"));
        assert_eq!(outage.poll(at(12), link, true), line("last contact 12 s ago, connecting for 8 s"));
        // An attempt has opened a websocket that brought nothing.
        let waiting = lost(at(12), None);
        assert_eq!(outage.poll(at(13), waiting, true), line("last contact 13 s ago, waiting to reconnect"));
        assert_eq!(outage.poll(at(14), OPEN, true), Some(OutageOutput::Over));
        assert_eq!(outage.poll(at(15), OPEN, true), None);
        // The next one has no hint.
        let link = lost(at(20), Some(at(24)));
        assert_eq!(outage.poll(at(24), link, true), line("last contact 4 s ago, connecting for 0 s"));
    }

    #[test]
    fn a_shell_without_escapes_shows_no_hint() {
        let (mut outage, heard) = (Outage::default(), Instant::now());
        let output = outage.poll(heard + SECOND * 4, lost(heard, None), false);
        assert_eq!(output, Some(OutageOutput::Line("last contact 4 s ago, waiting to reconnect".to_owned())));
    }
}
