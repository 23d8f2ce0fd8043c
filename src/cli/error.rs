//! Errors of the argument contract.

use thiserror::Error;

/// Reason that the arguments are rejected. The text never contains any part of the response.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CliError {
    /// The argument at this position (from 1) is not UTF-8.
    #[error("argument {0} is not valid UTF-8")]
    NotUtf8(usize),
    /// The named environment variable holds nothing.
    #[error("the environment variable {0}, which should hold the StartSession response, is not set")]
    ResponseNotSet(String),
    /// The response is no JSON object.
    #[error("the StartSession response is not a JSON object (line {line}, column {column})")]
    NotJson {
        /// Line of the first error, counted from 1.
        line: usize,
        /// Column of the first error, counted from 1.
        column: usize,
    },
    /// A field the session cannot do without.
    #[error("the StartSession response has no {0}")]
    MissingField(&'static str),
    /// A field that should be a string.
    #[error("the field {0} of the StartSession response is not a string")]
    NotAString(&'static str),
    /// A field that is printed, with characters that control a terminal.
    #[error("the field {0} of the StartSession response contains control characters")]
    ControlCharacters(&'static str),
}
