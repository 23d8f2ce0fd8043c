//! Escape sequences of interactive shells, OpenSSH's rules: a tilde at the start of a line (or of the
//! session) is held back until the next byte decides.
//!
//! | typed | effect |
//! |---|---|
//! | `~.` | terminate |
//! | `~?` | help |
//! | `~#` | state of the connection (no letter: `~ssm-user/` is typed at prompts) |
//! | `~-` | no escapes from here on |
//! | `~~` | one tilde |
//! | `~` and anything else | both bytes |
//!
//! In scope: bytes in, actions out. Out of scope: whether the session has escapes at all (only a shell
//! whose stdin is a terminal; never SSH or port sessions).

use bytes::Bytes;

/// Actions that a chunk of input requests, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Bytes for the remote.
    Send(Bytes),
    /// `~.`: end the session.
    Terminate,
    /// `~?`: show [`crate::output::official::ESCAPE_HELP`].
    Help,
    /// `~-`: no escapes from here on; say [`crate::output::official::ESCAPES_DISABLED`].
    Disabled,
    /// `~#`: show the state of the connection.
    Status,
}

/// Finds escape sequences in typed input, however it is cut into chunks.
#[derive(Debug, Default)]
pub(crate) struct Escape {
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// After a newline or carriage return, or at the start.
    #[default]
    LineStart,
    /// Within a line.
    Inside,
    /// After a tilde at the start of a line, which has not been sent.
    Tilde,
    /// `~-` was typed.
    Off,
}

impl Escape {
    /// At the start of a session, which counts as the start of a line.
    #[must_use]
    pub(crate) fn new() -> Escape {
        Escape::default()
    }

    /// Returns false after `~-`.
    #[must_use]
    pub(crate) fn is_on(&self) -> bool {
        self.state != State::Off
    }

    /// The actions of one chunk. Input after `~.` in the same chunk is dropped.
    #[must_use]
    pub(crate) fn input(&mut self, chunk: Bytes) -> Vec<Action> {
        let mut out = Output::default();
        for (at, &byte) in chunk.iter().enumerate() {
            match self.state {
                State::Off => {
                    out.keep(at);
                    break;
                }
                State::LineStart if byte == ESCAPE => {
                    out.cut(&chunk, at);
                    self.state = State::Tilde;
                }
                State::LineStart | State::Inside => {
                    out.keep(at);
                    self.state = after(byte);
                }
                State::Tilde => {
                    self.state = State::LineStart;
                    match byte {
                        b'.' => {
                            out.actions.push(Action::Terminate);
                            return out.actions;
                        }
                        b'?' => out.actions.push(Action::Help),
                        b'#' => out.actions.push(Action::Status),
                        b'-' => {
                            out.actions.push(Action::Disabled);
                            self.state = State::Off;
                        }
                        ESCAPE => {
                            out.keep(at);
                            self.state = State::Inside;
                        }
                        _ => {
                            out.restore_tilde(at);
                            self.state = after(byte);
                        }
                    }
                }
            }
        }
        out.cut(&chunk, chunk.len());
        out.actions
    }

    /// The input has ended: the tilde that is still held, if any.
    #[must_use]
    pub(crate) fn finish(&mut self) -> Option<Bytes> {
        let held = self.state == State::Tilde;
        self.state = State::Inside;
        held.then_some(Bytes::from_static(TILDE))
    }
}

fn after(byte: u8) -> State {
    if matches!(byte, b'\r' | b'\n') { State::LineStart } else { State::Inside }
}

/// Gathers runs of the chunk without copying them, but for a tilde that came with an earlier one.
#[derive(Default)]
struct Output {
    actions: Vec<Action>,
    /// Start of the run of bytes to send.
    start: Option<usize>,
}

impl Output {
    fn keep(&mut self, at: usize) {
        self.start.get_or_insert(at);
    }

    fn restore_tilde(&mut self, at: usize) {
        if at > 0 {
            self.keep(at - 1);
        } else {
            self.actions.push(Action::Send(Bytes::from_static(TILDE)));
            self.keep(at);
        }
    }

    fn cut(&mut self, chunk: &Bytes, end: usize) {
        if let Some(start) = self.start.take()
            && start < end
        {
            self.actions.push(Action::Send(chunk.slice(start..end)));
        }
    }
}

const ESCAPE: u8 = b'~';
const TILDE: &[u8] = b"~";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(chunks: &[&str]) -> (String, Vec<Action>) {
        let mut escape = Escape::new();
        let mut sent = Vec::new();
        let mut others = Vec::new();
        for chunk in chunks {
            for action in escape.input(Bytes::copy_from_slice(chunk.as_bytes())) {
                match action {
                    Action::Send(bytes) => sent.extend_from_slice(&bytes),
                    other => others.push(other),
                }
            }
        }
        sent.extend(escape.finish().unwrap_or_default());
        (String::from_utf8(sent).unwrap(), others)
    }

    #[test]
    fn sequences_at_the_start_of_a_line() {
        use Action::{Disabled, Help, Status, Terminate};
        let cases: &[(&str, &str, &[Action])] = &[
            ("~.", "", &[Terminate]),
            ("ls\r~.rest", "ls\r", &[Terminate]),
            ("ls\n~.", "ls\n", &[Terminate]),
            ("ls~.", "ls~.", &[]),
            ("~?", "", &[Help]),
            ("~?~?", "", &[Help, Help]),
            ("~#~.", "", &[Status, Terminate]),
            ("ls ~ssm-user/\r~ssm-user/\r~s", "ls ~ssm-user/\r~ssm-user/\r~s", &[]),
            ("~~.", "~.", &[]),
            ("\r~~~.", "\r~~.", &[]),
            ("~x~.", "~x~.", &[]),
            ("~\r~.", "~\r", &[Terminate]),
            ("~-\r~.\r~?", "\r~.\r~?", &[Disabled]),
            ("cd ~/x\r~", "cd ~/x\r~", &[]),
            ("~", "~", &[]),
            ("", "", &[]),
        ];
        for (typed, sent, actions) in cases {
            let expected = ((*sent).to_owned(), actions.to_vec());
            assert_eq!(run(&[typed]), expected, "{typed:?}");
            if !typed.ends_with("rest") {
                let bytes: Vec<String> = typed.chars().map(String::from).collect();
                let bytes: Vec<&str> = bytes.iter().map(String::as_str).collect();
                assert_eq!(run(&bytes), expected, "{typed:?}, one at a time");
            }
        }
    }

    #[test]
    fn a_lone_tilde_is_held_until_the_next_byte() {
        let mut escape = Escape::new();
        assert_eq!(escape.input(Bytes::from_static(b"~")), []);
        assert_eq!(
            escape.input(Bytes::from_static(b"/")),
            [Action::Send(Bytes::from_static(b"~")), Action::Send(Bytes::from_static(b"/"))]
        );
    }

    #[test]
    fn actions_keep_their_place_between_the_bytes() {
        assert_eq!(
            Escape::new().input(Bytes::from_static(b"a\r~?b\r")),
            [
                Action::Send(Bytes::from_static(b"a\r")),
                Action::Help,
                Action::Send(Bytes::from_static(b"b\r"))
            ]
        );
    }

    proptest! {
        #[test]
        fn other_bytes_pass_under_any_chunking(
            bytes in proptest::collection::vec(prop_oneof![
                3 => any::<u8>(), 1 => Just(b'~'), 1 => Just(b'\r'), 1 => Just(b'\n')
            ], 0..400),
            cut in 1usize..40,
        ) {
            let mut start = true;
            let bytes: Vec<u8> = bytes.into_iter().map(|byte| {
                let byte = if start && byte == b'~' { b'x' } else { byte };
                start = matches!(byte, b'\r' | b'\n');
                byte
            }).collect();
            let mut escape = Escape::new();
            let mut sent = Vec::new();
            for chunk in bytes.chunks(cut) {
                for action in escape.input(Bytes::copy_from_slice(chunk)) {
                    match action {
                        Action::Send(part) => sent.extend_from_slice(&part),
                        other => prop_assert!(false, "{:?}", other),
                    }
                }
            }
            prop_assert_eq!(sent, bytes);
        }

        #[test]
        fn chunking_never_matters(
            bytes in proptest::collection::vec(prop_oneof![
                Just(b'~'), Just(b'\r'), Just(b'\n'), Just(b'?'), Just(b'#'), Just(b'-'), Just(b'a')
            ], 0..60),
            cut in 1usize..10,
        ) {
            let text = String::from_utf8(bytes).unwrap();
            let chunks: Vec<&str> =
                text.as_bytes().chunks(cut).map(|chunk| std::str::from_utf8(chunk).unwrap()).collect();
            prop_assert_eq!(run(&chunks), run(&[&text]));
        }
    }
}
