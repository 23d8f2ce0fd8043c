//! Decisions about sessions and connections, sans-IO.

pub(crate) mod probes;
pub(crate) mod quota;
pub(crate) mod retry;
pub(crate) mod seats;
pub(crate) mod streams;
