//! A command on an instance, run by another program: its streams and its status.
//!
//! ```no_run
//! use session_manager_plugin::Command;
//!
//! # async fn example() -> Result<(), session_manager_plugin::Error> {
//! let output = Command::builder("i-0123456789abcdef0", "uptime").from_env().run().await?;
//! println!("status {}: {}", output.status, String::from_utf8_lossy(&output.stdout));
//! # Ok(())
//! # }
//! ```
//!
//! The session runs the document `AWS-StartNonInteractiveCommand`, which has no stdin; the instance needs a POSIX shell.
//! Agents before 3.1.1511.0 send both streams as stdout; a region without the document is [`Error::Service`]. What [`forward`](crate::forward) says about threads, the environment and
//! printing holds here, too.

mod builder;

use std::pin::pin;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

pub use self::builder::CommandBuilder;
use crate::embedding::{Error, Stop, Worker};
use crate::panics;
use crate::session::{CommandChunk, CommandOutcome, Script, end_started, run_command};

/// A command that runs. Dropping it ends its session, and the agent the command with it.
#[derive(Debug)]
pub struct Command {
    worker: Worker,
    chunks: mpsc::Receiver<CommandChunk>,
    end: oneshot::Receiver<Result<i32, Error>>,
}

/// A part of a command's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Of its standard output.
    Stdout(Bytes),
    /// Of its standard error.
    Stderr(Bytes),
}

/// Output and status of a command that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output {
    /// Exit status, 127 if the program does not exist; -1 if a signal has ended it.
    pub status: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Command {
    /// Arguments of a command on an instance: `i-…` or `mi-…`. The program is looked up there.
    pub fn builder(target: impl Into<String>, program: impl Into<String>) -> CommandBuilder {
        CommandBuilder::new(target.into(), program.into())
    }

    /// Returns the next part of the output; `None` after the last. While it is not taken, the remote waits. Cancel-safe.
    pub async fn next(&mut self) -> Option<Chunk> {
        self.chunks.recv().await.map(|chunk| match chunk {
            CommandChunk::Stdout(bytes) => Chunk::Stdout(bytes),
            CommandChunk::Stderr(bytes) => Chunk::Stderr(bytes),
        })
    }

    /// Waits for the end, drops the output that was not taken, and returns the exit status.
    ///
    /// # Errors
    /// See [`Error`]: the session could not be started, or has ended before the command.
    pub async fn wait(mut self) -> Result<i32, Error> {
        while self.chunks.recv().await.is_some() {}
        let end = (&mut self.end).await;
        self.worker.join().await;
        end.unwrap_or_else(|_| Err(Error::Internal(PANICKED.to_owned())))
    }
}

impl CommandBuilder {
    /// Runs the command to its end. A future that is dropped before ends the session, and the agent the command with it.
    ///
    /// # Errors
    /// See [`Error`]; a status other than 0 is not one.
    pub async fn run(self) -> Result<Output, Error> {
        let max = self.max_output;
        let mut command = self.start()?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(chunk) = command.next().await {
            match chunk {
                Chunk::Stdout(bytes) => stdout.extend_from_slice(&bytes),
                Chunk::Stderr(bytes) => stderr.extend_from_slice(&bytes),
            }
            if stdout.len() + stderr.len() > max {
                return Err(Error::OutputTooLong(max));
            }
        }
        let status = command.wait().await?;
        Ok(Output { status, stdout, stderr })
    }

    /// Starts the command, whose output is taken while it runs. Does not wait: [`Command::wait`] returns a failed start.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], or that there is no thread for it.
    pub fn start(self) -> Result<Command, Error> {
        self.check()?;
        let (sender, chunks) = mpsc::channel(CHUNKS);
        let (ended, end) = oneshot::channel();
        let worker = Worker::start(move |stop| async move {
            let _ = ended.send(run(self, sender, stop).await);
        })?;
        Ok(Command { worker, chunks, end })
    }
}

async fn run(builder: CommandBuilder, chunks: mpsc::Sender<CommandChunk>, stop: Stop) -> Result<i32, Error> {
    let mark = Uuid::new_v4().simple().to_string();
    let starter = builder.access.starter(builder.request(&mark)).await?;
    let access = starter.access();
    let stop = pin!(async { drop(stop.await) });
    match panics::contain(run_command(&starter, Script::untyped(&mark), chunks, stop)).await {
        Ok(Ok(CommandOutcome::Status(status))) => Ok(status),
        Ok(Ok(CommandOutcome::Closed(reason))) => Err(Error::ended(&reason)),
        Ok(Ok(CommandOutcome::Stopped)) => Err(Error::Closed),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => {
            end_started(&access).await;
            Err(Error::Internal(PANICKED.to_owned()))
        }
    }
}

/// Parts of the output that wait to be taken, of a message's payload each.
const CHUNKS: usize = 64;
const PANICKED: &str = "internal error: the session's thread has panicked";
