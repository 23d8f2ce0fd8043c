//! .
pub mod escape;
