//! Shells and commands: the remote's terminal here, or its streams.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::ending::End;
use super::escape::{Action, Escape};
use super::live::LiveSession;
use super::progress::{LinkState, Outage, OutageOutput};
use super::shutdown::ends_session;
use super::state::Session;
use super::timer::sleep_until;
use crate::link::LinkEvent;
use crate::output::{Style, official, sentences};
use crate::process::Signal;
use crate::protocol::{Event, Input, TerminalSize};
use crate::term::{
    MODES_OFF, RawMode, Stdin, current_size, stdin_is_pipe_terminal, stdin_is_terminal, stdout_is_terminal,
};

/// Terminal or streams of the remote command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Remote {
    /// A terminal: the end of input is a byte there.
    Terminal,
    /// A terminal in which one line is typed, and nothing else.
    Typed(Bytes),
    /// Plain streams.
    Streams,
}

/// Runs until the remote side ends. The end of our input ends the input alone: what the remote still sends is printed
/// (agent#354, the best known complaint about the official plugin).
pub(super) async fn run(session: &mut Session, remote: Remote) -> anyhow::Result<End> {
    // Streams have no terminal at their other end that would echo, edit lines or make returns of newlines.
    let raw = match remote {
        Remote::Terminal => RawMode::enter(),
        Remote::Typed(_) | Remote::Streams => Ok(None),
    };
    let raw = raw.unwrap_or_else(|error| {
        session.console.status(&sentences::stays_in_line_mode(error));
        None
    });
    if stdin_is_pipe_terminal() {
        session.console.status(sentences::PIPE_TERMINAL);
    }
    let is_terminal = remote == Remote::Terminal;
    let reads_input = match &remote {
        Remote::Terminal => true,
        Remote::Typed(_) => false,
        Remote::Streams => session.console.style() == Style::Official,
    };
    let mut shell = Shell {
        is_terminal,
        escape: (reads_input && stdin_is_terminal()).then(Escape::new),
        fallback: TerminalSize { cols: session.settings.columns, rows: session.settings.lines },
        size: None,
        is_line_start: true,
        ends_sent: 0,
        next_end: None,
        outage: Outage::default(),
    };
    // Before all input: what was typed ahead may start a program that asks for the size once.
    shell.send_size(session);
    if let Remote::Typed(line) = remote {
        session.live.link.send(Input::Bytes(line));
    }
    let mut stdin = if reads_input { Some(Stdin::open()?) } else { None };
    let mut size_check = tokio::time::interval(SIZE_CHECK);
    let end = loop {
        let Session { live: LiveSession { link, .. }, console, watch, script, .. } = session;
        tokio::select! {
            event = link.next(console.has_room()) => match event {
                LinkEvent::Channel(Event::Output(bytes)) => match script {
                    Some(script) => console.write(&script.handle_output(&bytes)),
                    None => console.write(&bytes),
                },
                LinkEvent::Channel(Event::Stderr(bytes)) => {
                    if let Some(script) = script {
                        script.handle_error(&bytes);
                    }
                    console.write_error(&bytes);
                }
                // `outage` shows it, each second.
                LinkEvent::Connecting { .. } => {}
                other => if let Some(end) = session.handle(other) { break end },
            },
            chunk = read(&mut stdin), if link.wants_input() => match chunk {
                Ok(chunk) if !chunk.is_empty() => if let Some(end) = shell.input(session, chunk) { break end },
                ended => {
                    if let Err(error) = ended {
                        tracing::warn!(%error, "stdin has ended");
                    }
                    stdin = None;
                    shell.end_input(session);
                }
            },
            signal = watch.recv() => match signal {
                Signal::WindowChanged => shell.send_size(session),
                Signal::Continue => {
                    if let Some(Err(error)) = raw.as_ref().map(RawMode::reenter) {
                        console.status(&sentences::stays_in_line_mode(error));
                    }
                    shell.send_size(session);
                }
                Signal::Usr1 => session.report(),
                signal => match signal.control_byte() {
                    Some(byte) => link.send(Input::Bytes(Bytes::copy_from_slice(&[byte]))),
                    None if ends_session(signal) => break End::Terminated,
                    None => {}
                },
            },
            written = console.drive() => if let Err(error) = written { break error.into() },
            _ = size_check.tick() => {
                shell.send_size(session);
                shell.show_outage(session);
                // A terminal without keyboard and screen has hung up. A command without a terminal runs to its end.
                if is_terminal && stdin.is_none() && session.console.has_lost_reader() {
                    break End::ReaderGone;
                }
            }
            () = sleep_until(shell.next_end) => shell.repeat_end(session),
        }
    };
    if is_terminal && is_cut_off(&end) && stdout_is_terminal() {
        session.console.write(MODES_OFF);
    }
    if is_terminal && stdout_is_terminal() && is_within_line(&end, session.console.style()) {
        session.console.end_line();
    }
    drop(raw);
    Ok(end)
}

/// The next input; pends when there is none any more.
async fn read(stdin: &mut Option<Stdin>) -> io::Result<Bytes> {
    match stdin {
        Some(stdin) => stdin.read().await,
        None => std::future::pending().await,
    }
}

/// Returns whether the remote program could not clear up after itself.
fn is_cut_off(end: &End) -> bool {
    match end {
        End::Terminated | End::TimedOut | End::Failed(_) => true,
        End::Closed(reason) => !reason.is_empty(),
        _ => false,
    }
}

/// Returns whether what follows, if only the prompt of a local shell, would continue the remote's last line: the official
/// sentences begin with a new one.
fn is_within_line(end: &End, style: Style) -> bool {
    match end {
        End::Terminated | End::TimedOut | End::Failed(_) => true,
        End::Closed(reason) => !reason.is_empty() && style == Style::Plain,
        _ => false,
    }
}

struct Shell {
    is_terminal: bool,
    escape: Option<Escape>,
    fallback: TerminalSize,
    size: Option<TerminalSize>,
    is_line_start: bool,
    /// Number of times that the end of input was sent to the remote terminal, and the time of the next.
    ends_sent: u32,
    next_end: Option<Instant>,
    outage: Outage,
}

impl Shell {
    fn input(&mut self, session: &mut Session, chunk: Bytes) -> Option<End> {
        let actions = match &mut self.escape {
            Some(escape) => escape.input(chunk),
            None => vec![Action::Send(chunk)],
        };
        for action in actions {
            match action {
                Action::Send(bytes) => {
                    self.is_line_start = matches!(bytes.last(), Some(b'\n' | b'\r'));
                    // The official plugin's translation, for terminals in line mode: Enter is a carriage return.
                    let is_enter = bytes == "\n" && self.is_terminal;
                    let bytes = if is_enter { Bytes::from_static(b"\r") } else { bytes };
                    session.live.link.send(Input::Bytes(bytes));
                }
                Action::Terminate => return Some(End::Terminated),
                Action::Help => session.console.answer(official::ESCAPE_HELP),
                Action::Disabled => session.console.answer(official::ESCAPES_DISABLED),
                Action::Status => session.report(),
            }
        }
        None
    }

    /// Tells a remote terminal that the input has ended, as one types it: a return if a line was begun (a shell runs
    /// its script's last line too, when that has no newline), then the end-of-file character. That one is repeated for
    /// a while, since a program that reads keys, or a shell that starts one, throws away what was typed before.
    fn end_input(&mut self, session: &mut Session) {
        if let Some(held) = self.escape.as_mut().and_then(Escape::finish) {
            session.live.link.send(Input::Bytes(held));
        }
        if self.is_terminal {
            if !self.is_line_start {
                session.live.link.send(Input::Bytes(Bytes::from_static(RETURN)));
            }
            self.repeat_end(session);
        }
    }

    fn repeat_end(&mut self, session: &mut Session) {
        session.live.link.send(Input::Bytes(Bytes::from_static(END_OF_FILE)));
        let wait = FIRST_REPEAT * 2u32.pow(self.ends_sent);
        self.ends_sent += 1;
        self.next_end = (self.ends_sent < MAX_ENDS).then(|| Instant::now() + wait);
    }

    fn show_outage(&mut self, session: &mut Session) {
        let Session { live: LiveSession { link, .. }, console, .. } = session;
        if !console.shows_progress() {
            return;
        }
        let state = LinkState {
            is_open: link.is_open(),
            last_contact: link.last_contact(),
            attempt_since: link.attempt_since(),
        };
        let has_escapes = self.escape.as_ref().is_some_and(Escape::is_on);
        match self.outage.poll(Instant::now(), state, has_escapes) {
            Some(OutageOutput::Hint(text)) => console.progress(text),
            Some(OutageOutput::Line(text)) => console.rewrite(&text, current_size(self.fallback).cols.into()),
            Some(OutageOutput::Over) => console.erase(),
            None => {}
        }
    }

    fn send_size(&mut self, session: &mut Session) {
        let size = current_size(self.fallback);
        if self.size != Some(size) {
            self.size = Some(size);
            session.live.link.send(Input::Size(size));
        }
    }
}

const RETURN: &[u8] = b"\r";
const END_OF_FILE: &[u8] = &[4];
/// Before the end of input is repeated; doubled each time, so that it is no keepalive in disguise.
const FIRST_REPEAT: Duration = Duration::from_secs(1);
const MAX_ENDS: u32 = 9;
/// For terminals whose window changes are signalled to another process group (the official plugin's interval).
const SIZE_CHECK: Duration = Duration::from_millis(500);
