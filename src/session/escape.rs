//! Escape sequences of interactive shells.

use bytes::Bytes;

/// What a chunk of input asks for, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Bytes for the remote.
    Send(Bytes),
    /// `~.`: end the session.
    Terminate,
    /// `~?`: show [`crate::notice::ESCAPE_HELP`].
    Help,
    /// `~s`: show the state of the connection.
    Status,
}

/// Finds escape sequences in typed input.
#[derive(Debug)]
pub struct Escape(());

impl Escape {
    /// At the start of a session, which counts as after a newline.
    pub fn new() -> Escape {
        unimplemented!()
    }
    /// The actions of one chunk, in order.
    pub fn input(&mut self, _chunk: Bytes) -> Vec<Action> {
        unimplemented!()
    }
    /// Input has ended: a held tilde, if any.
    pub fn finish(&mut self) -> Option<Bytes> {
        unimplemented!()
    }
}
