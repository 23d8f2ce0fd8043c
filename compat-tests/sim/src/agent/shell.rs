//! Shells and interactive commands: a program on a pty.

use std::io;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use filedescriptor::FileDescriptor;
use portable_pty::{Child, CommandBuilder, PtySize, native_pty_system};
use rustix::termios::{Winsize, tcsetwinsize};
use serde::Deserialize;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinSet;

use super::output::Output;
use super::send::Sender;
use super::session::Handled;
use super::{AgentOptions, AgentSpec, Document, payload_type, process};

/// The client's side of the pty.
pub(super) struct Input {
    pty: Arc<AsyncFd<FileDescriptor>>,
    _program: Program,
}

impl Input {
    /// Starts the program.
    pub(super) fn start(
        spec: &AgentSpec,
        sender: &Arc<Sender>,
        tasks: &mut JoinSet<String>,
    ) -> Result<Input, String> {
        let command = command(&spec.document, &spec.options)?;
        let (pty, program) =
            open(command).map_err(|error| format!("Unable to start command: {error:#}\n"))?;
        let pty = Arc::new(pty);
        let output = Output::new(sender, payload_type::OUTPUT, &spec.options);
        let (reader, delay) = (Arc::clone(&pty), spec.options.shell_delay);
        tasks.spawn(async move {
            tokio::time::sleep(delay).await;
            pump(&reader, output).await;
            String::new()
        });
        Ok(Input { pty, _program: program })
    }

    pub(super) async fn handle(&mut self, payload_type: u32, payload: Bytes) -> Handled {
        let done = match payload_type {
            payload_type::OUTPUT => self.write(&payload).await,
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

    async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.pty.writable().await?;
            if let Ok(written) = ready.try_io(|pty| Ok(rustix::io::write(pty.get_ref(), bytes)?)) {
                bytes = &bytes[written?..];
            }
        }
        Ok(())
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
        Ok(tcsetwinsize(self.pty.get_ref(), size)?)
    }
}

/// Reads the pty until the last program on it is gone.
async fn pump(pty: &AsyncFd<FileDescriptor>, mut output: Output) {
    let mut buffer = output.buffer();
    loop {
        output.active().await;
        let Ok(mut ready) = pty.readable().await else { return };
        match ready.try_io(|pty| Ok(rustix::io::read(pty.get_ref(), &mut buffer[..])?)) {
            Ok(Ok(0) | Err(_)) => return,
            Ok(Ok(read)) => {
                if output.text(&buffer[..read]).await.is_err() {
                    return;
                }
            }
            Err(_would_block) => {}
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
    command.env("TERM", "xterm-256color");
    if std::env::var_os("LANG").is_none_or(|value| value.is_empty()) {
        command.env("LANG", "C.UTF-8");
    }
    if let Ok(folder) = std::env::current_dir() {
        command.cwd(folder);
    }
    Ok(command)
}

/// Opens a pty and starts the program on it, as leader of a session of its own.
fn open(command: CommandBuilder) -> anyhow::Result<(AsyncFd<FileDescriptor>, Program)> {
    let pair = native_pty_system().openpty(PtySize::default()).context("failed to open a pty")?;
    let child = pair.slave.spawn_command(command).context("failed to start pty")?;
    let program = Program(Some(child));
    let master = pair.master.as_raw_fd().context("the pty has no descriptor")?;
    let mut master = FileDescriptor::dup(&master).context("failed to duplicate the pty's descriptor")?;
    master.set_non_blocking(true).context("failed to make the pty non-blocking")?;
    Ok((AsyncFd::register(master).context("failed to watch the pty")?, program))
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
