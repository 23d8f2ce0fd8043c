//! Arguments of a remote command.

use crate::embedding::{AccessOptions, Error, access_options};
use crate::session::{COMMAND_DOCUMENT, command_parameters};

/// Arguments of a [`Command`](super::Command).
#[derive(Clone, Debug)]
#[must_use = "nothing happens before run() or start() is called"]
pub struct CommandBuilder {
    pub(super) access: AccessOptions,
    words: Vec<String>,
    pub(super) max_output: usize,
}

access_options!(CommandBuilder);

impl CommandBuilder {
    pub(super) fn new(target: String, program: String) -> CommandBuilder {
        let access = AccessOptions::new(target);
        CommandBuilder { access, words: vec![program], max_output: MAX_OUTPUT }
    }

    /// Adds an argument, which arrives as it is: no shell splits or expands it.
    pub fn arg(mut self, argument: impl Into<String>) -> CommandBuilder {
        self.words.push(argument.into());
        self
    }

    /// Adds arguments, as [`arg`](Self::arg).
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl Into<String>>) -> CommandBuilder {
        self.words.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets the most bytes that [`run`](Self::run) keeps of both streams together; 64 MiB is the default.
    pub fn max_output(mut self, bytes: usize) -> CommandBuilder {
        self.max_output = bytes;
        self
    }

    /// Checks what can be checked without a call.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`].
    pub(super) fn check(&self) -> Result<(), Error> {
        self.access.check()?;
        if self.words.iter().any(|word| word.contains('\0')) {
            return Err(Error::InvalidArgument("an argument contains a NUL character".to_owned()));
        }
        if self.words.first().is_none_or(String::is_empty) {
            return Err(Error::InvalidArgument("the program's name is empty".to_owned()));
        }
        Ok(())
    }

    /// The request of the session. `mark`: stands before the status where the agent sends none.
    pub(super) fn request(&self, mark: &str) -> serde_json::Value {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        self.access.request(Some(COMMAND_DOCUMENT), Some(command_parameters(mark, &words)))
    }
}

/// Bytes.
const MAX_OUTPUT: usize = 64 << 20;
