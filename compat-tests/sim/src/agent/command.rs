//! Non-interactive commands: a program on pipes, or with its output in a file.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::input::Handled;
use super::output::Output;
use super::process::{self, Interrupt};
use super::programs::Program;
use super::send::Sender;
use super::{AgentOptions, Broken, payload_type};

/// The client's side: only Ctrl-C and Ctrl-\ reach the program.
pub(super) struct Input {
    pid: u32,
    exited: watch::Receiver<bool>,
    /// The program has no process, and goes on to its end.
    ignores_signals: bool,
}

impl Input {
    /// Starts the program.
    ///
    /// Separate, standard output and error come as they are written, with the exit code at the end; else both are
    /// collected in a file and sent when the program has ended (agent source).
    pub(super) fn start(
        command: &str,
        separate: bool,
        options: &AgentOptions,
        sender: &Arc<Sender>,
        tasks: &mut JoinSet<String>,
    ) -> Result<Input, String> {
        if command.trim().is_empty() {
            return Err("Commands cannot be empty for session type NonInteractiveCommands".to_owned());
        }
        let (exit, exited) = watch::channel(false);
        let mut streams = Streams {
            stdout: Output::new(sender, payload_type::OUTPUT, options),
            stderr: Output::new(sender, payload_type::STDERR, options),
            exit_code: Output::new(sender, payload_type::EXIT_CODE, options),
            wrong_by: i32::from(options.broken == Some(Broken::ExitCode)),
        };
        if let Some(program) = options.programs.start(command) {
            tasks.spawn(async move {
                streams.other(program, separate, exit).await;
                String::new()
            });
            return Ok(Input { pid: 0, exited, ignores_signals: true });
        }
        let words = match shell_words::split(command) {
            Ok(words) => words,
            Err(error) => {
                let reason = format!("Unable to start command: Failed to parse commands input: {error}\n\n");
                tasks.spawn(async move {
                    // There is no receiver any more when this fails.
                    let _ = streams.stderr.bytes(reason.as_bytes()).await;
                    reason
                });
                return Ok(Input { pid: 0, exited, ignores_signals: false });
            }
        };
        if options.is_windows {
            tasks.spawn(async move {
                let _ = streams.stderr.bytes(POWERSHELL_ERROR.as_bytes()).await;
                let _ = streams.exit_code.bytes(b"EXIT_CODE: 1").await;
                String::new()
            });
            return Ok(Input { pid: 0, exited, ignores_signals: false });
        }
        let (program, arguments) = words.split_first().ok_or("missing command")?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(process::environment());
        command.stdin(Stdio::null()).kill_on_drop(true);
        #[cfg(unix)]
        command.process_group(0);

        let mut pid = 0;
        let started = if separate {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().map(|child| (child, None))
        } else {
            collect(&mut command).and_then(|file| Ok((command.spawn()?, Some(file))))
        };
        match started {
            Ok((child, file)) => {
                pid = child.id().unwrap_or(0);
                tasks.spawn(async move {
                    match file {
                        Some(file) => streams.collected(child, file, exit).await,
                        None => streams.separate(child, exit).await,
                    };
                    String::new()
                });
            }
            Err(error) => {
                let reason = not_started(program, &error);
                tasks.spawn(async move {
                    if separate {
                        let _ = streams.exit_code.bytes(b"EXIT_CODE: 1").await;
                    }
                    let _ = streams.stderr.bytes(reason.as_bytes()).await;
                    format!("Error occurred starting the command: {reason}\n")
                });
            }
        }
        Ok(Input { pid, exited, ignores_signals: false })
    }

    /// Other input than control characters, and sizes, are acknowledged and ignored. A control character is
    /// acknowledged when the program has ended.
    pub(super) async fn handle(&mut self, payload_type: u32, payload: Bytes) -> Handled {
        if payload_type != payload_type::OUTPUT {
            return Handled::Taken;
        }
        let signal = payload.iter().find_map(|byte| match byte {
            0x03 => Some(Interrupt::Interrupt),
            0x1c => Some(Interrupt::Quit),
            _ => None,
        });
        let Some(signal) = signal else { return Handled::Taken };
        if *self.exited.borrow() || !(self.ignores_signals || process::signal(self.pid, signal)) {
            return Handled::Refused;
        }
        // An error means that the task is gone, and the program with it.
        let _ = self.exited.wait_for(|exited| *exited).await;
        Handled::Taken
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        process::kill_group(self.pid);
    }
}

/// Destinations of stdout and stderr.
struct Streams {
    stdout: Output,
    stderr: Output,
    exit_code: Output,
    /// Added to the exit code.
    wrong_by: i32,
}

impl Streams {
    async fn separate(mut self, mut child: Child, exit: watch::Sender<bool>) {
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        tokio::join!(pump(stdout, self.stdout), pump(stderr, self.stderr));
        let status = child.wait().await;
        exit.send_replace(true);
        // Go's code for a program that a signal has ended is -1.
        let code = status.map_or(1, |status| status.code().unwrap_or(-1)) + self.wrong_by;
        let _ = self.exit_code.bytes(format!("EXIT_CODE: {code}").as_bytes()).await;
    }

    /// A program without a process, which writes to stdout alone.
    async fn other(mut self, program: Program, separate: bool, exit: watch::Sender<bool>) {
        let mut stream = program.stream;
        if separate {
            pump(Some(stream), self.stdout).await;
            exit.send_replace(true);
            let code = program.exit_code + self.wrong_by;
            let _ = self.exit_code.bytes(format!("EXIT_CODE: {code}").as_bytes()).await;
            return;
        }
        let mut collected = Vec::new();
        let _ = stream.read_to_end(&mut collected).await;
        exit.send_replace(true);
        for part in collected.chunks(self.stdout.buffer().len()) {
            self.stdout.active().await;
            if self.stdout.text(part).await.is_err() {
                return;
            }
        }
    }

    async fn collected(mut self, mut child: Child, mut file: File, exit: watch::Sender<bool>) {
        let _ = child.wait().await;
        exit.send_replace(true);
        if file.rewind().is_err() {
            return;
        }
        let mut buffer = self.stdout.buffer();
        loop {
            self.stdout.active().await;
            match file.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(read) => {
                    if self.stdout.text(&buffer[..read]).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// Sends what a pipe gives until it is closed. During a pause the real agent gives up here; this one waits.
async fn pump(pipe: Option<impl AsyncRead + Unpin>, mut output: Output) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = output.buffer();
    loop {
        output.active().await;
        match pipe.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => {
                if output.text(&buffer[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Directs both outputs into a file without a name.
fn collect(command: &mut Command) -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("ssm-sim-{:032x}", fastrand::u128(..)));
    let file = File::options().read(true).append(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    command.stdout(file.try_clone()?).stderr(file.try_clone()?);
    Ok(file)
}

/// Error record of Windows PowerShell 5.1.
const POWERSHELL_ERROR: &str = "sh : The term 'sh' is not recognized as the name of a cmdlet, function, script file, or \
    operable program.\r\nAt line:1 char:1\r\n    + CategoryInfo          : ObjectNotFound: (sh:String) [], \
    CommandNotFoundException\r\n    + FullyQualifiedErrorId : CommandNotFoundException\r\n";

/// Go's words for a program that cannot be started.
fn not_started(program: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound if !program.contains('/') => {
            format!("exec: \"{program}\": executable file not found in $PATH")
        }
        io::ErrorKind::NotFound => format!("fork/exec {program}: no such file or directory"),
        io::ErrorKind::PermissionDenied => format!("fork/exec {program}: permission denied"),
        _ => format!("fork/exec {program}: {error}"),
    }
}
