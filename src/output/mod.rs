//! Everything that the program prints: texts, events, and the console that writes them.
//!
//! | file | holds |
//! |---|---|
//! | `official` | what callers parse on stdout, byte for byte |
//! | `status` | the events: a sentence for people, fields for tools |
//! | `sentences` | the sentences for people |
//! | `line` | a sentence as a line on stderr |
//! | `forms` | lines outside of a session, as the settings want them |
//! | `console` | stdout and stderr of a session, in order and without blocking |

#[cfg(feature = "cli")]
mod console;
#[cfg(feature = "cli")]
mod forms;
#[cfg(feature = "cli")]
mod line;
#[cfg(feature = "cli")]
pub(crate) mod official;
pub(crate) mod sentences;
mod status;

#[cfg(feature = "cli")]
pub(crate) use self::console::{Console, Style, WriteError};
#[cfg(feature = "cli")]
pub(crate) use self::forms::{failure_line, log_form, reporter, set_panic_form};
pub(crate) use self::status::{Cause, Status, Subject};
#[cfg(feature = "cli")]
pub(crate) use self::status::{Kind, events};
