//! Shells and interactive commands: a program on a pty.

use std::fs::File;
use std::io;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use filedescriptor::FileDescriptor;
use portable_pty::{Child, CommandBuilder, PtySize, native_pty_system};
use rustix::termios::{Winsize, tcsetwinsize};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::task::JoinSet;

use super::input::Handled;
use super::output::Output;
use super::send::Sender;
use super::{AgentOptions, AgentSpec, Document, payload_type, process};

/// The client's side of the pty.
pub(super) struct Input {
    keyboard: Box<dyn AsyncWrite + Send + Unpin>,
    /// The pty again, for its size, and what runs on it; `None` for a program without a process.
    pty: Option<(File, Program)>,
}

impl Input {
    /// Starts the program.
    pub(super) fn start(
        spec: &AgentSpec,
        sender: &Arc<Sender>,
        tasks: &mut JoinSet<String>,
    ) -> Result<Input, String> {
        let output = Output::new(sender, payload_type::OUTPUT, &spec.options);
        let delay = spec.options.shell_delay;
        let show = |screen: Box<dyn AsyncRead + Send + Unpin>| {
            tasks.spawn(async move {
                tokio::time::sleep(delay).await;
                pump(screen, output).await;
                String::new()
            });
        };
        let line = match &spec.document {
            Document::InteractiveCommand { command } => command.as_str(),
            _ => "",
        };
        if let Some(program) = spec.options.programs.start(line) {
            let (screen, keyboard) = tokio::io::split(program.stream);
            show(Box::new(screen));
            return Ok(Input { keyboard: Box::new(keyboard), pty: None });
        }
        let command = command(&spec.document, &spec.options)?;
        let Pty { screen, keyboard, terminal, program } = open(command)
            .map_err(|error| format!("Unable to start command: Failed to start pty: {error:#}\n\n"))?;
        show(Box::new(screen));
        Ok(Input { keyboard: Box::new(keyboard), pty: Some((terminal, program)) })
    }

    pub(super) async fn handle(&mut self, payload_type: u32, payload: Bytes) -> Handled {
        let done = match payload_type {
            payload_type::OUTPUT => self.keyboard.write_all(&payload).await,
            payload_type::SIZE => self.resize(&payload),
            _ => Ok(()),
        };
        match done {
            Ok(()) => Handled::Taken,
            Err(error) => {
                tracing::debug!(%error, "input refused");
                Handled::Refused
            }
        }
    }

    fn resize(&self, payload: &[u8]) -> io::Result<()> {
        let size: Size = serde_json::from_slice(payload)?;
        // The agent cuts the numbers to 16 bits as well.
        let size = Winsize {
            ws_row: (size.rows & 0xffff) as u16,
            ws_col: (size.cols & 0xffff) as u16,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        match &self.pty {
            Some((terminal, _)) => Ok(tcsetwinsize(terminal, size)?),
            None => Ok(()),
        }
    }
}

/// Reads the pty until the last program on it is gone.
async fn pump(mut screen: impl AsyncRead + Unpin, mut output: Output) {
    let mut buffer = output.buffer();
    loop {
        output.active().await;
        match screen.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => {
                if output.text(&buffer[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn command(document: &Document, options: &AgentOptions) -> Result<CommandBuilder, String> {
    let mut command = match document {
        Document::InteractiveCommand { command } => {
            if command.trim().is_empty() {
                return Err(format!("Commands cannot be empty for session type {}", document.session_type()));
            }
            let mut shell = CommandBuilder::new("sh");
            shell.args(["-c", command]);
            shell
        }
        _ => CommandBuilder::new(options.shell.as_deref().unwrap_or("sh")),
    };
    command.env_clear();
    for (name, value) in process::environment() {
        command.env(name, value);
    }
    if let Ok(folder) = std::env::current_dir() {
        command.cwd(folder);
    }
    Ok(command)
}

/// A pty's master, three times, and what runs on it.
struct Pty {
    screen: pipe::Receiver,
    keyboard: pipe::Sender,
    terminal: File,
    program: Program,
}

/// Opens a pty and starts the program on it, as leader of a session of its own.
fn open(command: CommandBuilder) -> anyhow::Result<Pty> {
    let pair = native_pty_system().openpty(PtySize::default())?;
    let child = pair.slave.spawn_command(command)?;
    let program = Program(Some(child));
    let master = pair.master.as_raw_fd().context("the pty has no descriptor")?;
    let mut master = FileDescriptor::dup(&master)?;
    // Shared by all copies of the descriptor.
    master.set_non_blocking(true)?;
    // No pipes, but the runtime's way to own and watch any descriptor that can be watched.
    Ok(Pty {
        screen: pipe::Receiver::from_file_unchecked(master.as_file()?)?,
        keyboard: pipe::Sender::from_file_unchecked(master.as_file()?)?,
        terminal: master.as_file()?,
        program,
    })
}

/// The program on the pty; killed when dropped, with all of its session.
struct Program(Option<Box<dyn Child + Send + Sync>>);

impl Drop for Program {
    fn drop(&mut self) {
        let Some(mut child) = self.0.take() else { return };
        if let Some(pid) = child.process_id() {
            process::kill_session(pid);
        }
        // It is killed: only its status is to be collected, which takes no time but may not happen here.
        std::thread::spawn(move || child.wait());
    }
}

#[derive(Deserialize)]
struct Size {
    #[serde(default)]
    cols: u32,
    #[serde(default)]
    rows: u32,
}
