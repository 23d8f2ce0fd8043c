//! Limits of what is read ahead from standard input.

/// Bytes read from stdin at once.
pub(super) const READ_SIZE: usize = 64 * 1024;
/// Reads that wait between the stdin thread and the session.
pub(super) const STDIN_CHUNKS: usize = 4;
