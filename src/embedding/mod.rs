//! The parts that [`forward`](crate::forward) and [`remote_command`](crate::remote_command) share: access to AWS, errors, and the thread that a
//! session runs on.

mod error;
mod options;
mod worker;

pub use self::error::Error;
pub(crate) use self::options::{AccessOptions, access_options};
pub(crate) use self::worker::{Stop, Worker};
