//! The queue of input that is not yet cut into messages.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::api::Input;
use super::message::PayloadType;

/// Handshake answers, which go first, and the session's input behind them. Small pieces of user data are joined and
/// large ones cut only when a message is about to go, since the service counts messages.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    answers: VecDeque<(PayloadType, Bytes)>,
    input: VecDeque<Piece>,
    bytes: usize,
}

#[derive(Debug)]
enum Piece {
    Bytes(Bytes),
    /// User data in a separate message.
    Tentative(Bytes),
    Message(PayloadType, Bytes),
}

/// Content of the next message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// User data, to be encrypted where the session is.
    Data(Bytes),
    /// The same, perhaps ignored.
    Tentative(Bytes),
    /// Anything else, as it is.
    Control(PayloadType, Bytes),
}

impl Outgoing {
    /// An answer of the handshake. It does not wait for the session to be ready.
    pub(super) fn push_answer(&mut self, payload_type: PayloadType, body: Bytes) {
        if self.answers.len() >= MAX_ANSWERS {
            return tracing::warn!(
                "dropped a handshake answer: the agent keeps asking without acknowledging"
            );
        }
        self.answers.push_back((payload_type, body));
    }

    pub(super) fn push(&mut self, input: Input) {
        match input {
            Input::Bytes(bytes) | Input::Tentative(bytes) if bytes.is_empty() => {}
            Input::Tentative(bytes) => {
                self.bytes += bytes.len();
                self.input.push_back(Piece::Tentative(bytes));
            }
            Input::Bytes(bytes) => {
                self.bytes += bytes.len();
                self.input.push_back(Piece::Bytes(bytes));
            }
            Input::Size(size) => match self.input.back_mut() {
                // Only the last of those that wait counts.
                Some(Piece::Message(PayloadType::Size, body)) => *body = size.payload(),
                _ => self.input.push_back(Piece::Message(PayloadType::Size, size.payload())),
            },
            Input::Flag(flag) => self.input.push_back(Piece::Message(PayloadType::Flag, flag.payload())),
        }
    }

    /// User data that waits, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of memory that answers and input hold.
    pub(super) fn held_bytes(&self) -> usize {
        let answers = self.answers.iter().map(|(_, body)| body.len() + size_of::<(PayloadType, Bytes)>());
        answers.sum::<usize>() + self.bytes + self.input.len() * size_of::<Piece>()
    }

    pub(super) fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    pub(super) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Returns whether the next input is tentative.
    pub(super) fn is_tentative(&self) -> bool {
        matches!(self.input.front(), Some(Piece::Tentative(_)))
    }

    /// Takes what the next message carries: at most `limit` bytes of user data. Input only when the session is ready.
    pub(super) fn pop(&mut self, limit: usize, is_ready: bool) -> Option<Next> {
        if let Some((payload_type, body)) = self.answers.pop_front() {
            return Some(Next::Control(payload_type, body));
        }
        if !is_ready {
            return None;
        }
        match self.input.pop_front()? {
            Piece::Message(payload_type, body) => Some(Next::Control(payload_type, body)),
            Piece::Tentative(body) => {
                self.bytes -= body.len();
                Some(Next::Tentative(body))
            }
            Piece::Bytes(first) => {
                let body = self.join(first, limit);
                self.bytes -= body.len();
                Some(Next::Data(body))
            }
        }
    }

    /// As much user data as fits, across the pieces it came in; a full piece is not copied.
    fn join(&mut self, mut first: Bytes, limit: usize) -> Bytes {
        if first.len() >= limit {
            let body = first.split_to(limit);
            if !first.is_empty() {
                self.input.push_front(Piece::Bytes(first));
            }
            return body;
        }
        if !matches!(self.input.front(), Some(Piece::Bytes(_))) {
            return first;
        }
        let mut body = BytesMut::from(first);
        while let Some(Piece::Bytes(piece)) = self.input.front_mut()
            && body.len() < limit
        {
            let take = piece.len().min(limit - body.len());
            body.extend_from_slice(&piece[..take]);
            piece.advance(take);
            if piece.is_empty() {
                self.input.pop_front();
            }
        }
        body.freeze()
    }
}

/// A handshake has three, each of which is bounded (`handshake`).
const MAX_ANSWERS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::payload::{Flag, TerminalSize};

    fn data(bytes: &'static [u8]) -> Option<Next> {
        Some(Next::Data(Bytes::from_static(bytes)))
    }

    #[test]
    fn small_pieces_are_joined_and_large_ones_cut() {
        let mut outgoing = Outgoing::default();
        for piece in ["a", "", "bc", "defgh", "i"] {
            outgoing.push(Input::Bytes(Bytes::from_static(piece.as_bytes())));
        }
        assert_eq!(outgoing.bytes(), 9);
        assert_eq!(outgoing.pop(4, true), data(b"abcd"));
        assert_eq!(outgoing.pop(4, true), data(b"efgh"));
        assert_eq!(outgoing.pop(4, true), data(b"i"));
        assert_eq!((outgoing.pop(4, true), outgoing.bytes()), (None, 0));
    }

    #[test]
    fn answers_that_are_not_taken_are_bounded() {
        let mut outgoing = Outgoing::default();
        for _ in 0..1000 {
            outgoing.push_answer(PayloadType::HandshakeResponse, Bytes::new());
        }
        assert_eq!(std::iter::from_fn(|| outgoing.pop(9, false)).count(), MAX_ANSWERS);
    }

    #[test]
    fn signals_keep_their_place_among_the_bytes() {
        let mut outgoing = Outgoing::default();
        outgoing.push(Input::Bytes(Bytes::from_static(b"before")));
        outgoing.push(Input::Flag(Flag::DisconnectToPort));
        outgoing.push(Input::Bytes(Bytes::from_static(b"after")));
        assert_eq!(outgoing.pop(100, true), data(b"before"));
        assert!(matches!(outgoing.pop(100, true), Some(Next::Control(PayloadType::Flag, _))));
        assert_eq!(outgoing.pop(100, true), data(b"after"));
    }

    #[test]
    fn of_sizes_that_wait_the_last_is_sent() {
        let mut outgoing = Outgoing::default();
        let size = |cols| TerminalSize { cols, rows: 24 };
        (0..1000).for_each(|cols| outgoing.push(Input::Size(size(cols))));
        assert_eq!(outgoing.pop(9, true), Some(Next::Control(PayloadType::Size, size(999).payload())));
        assert_eq!(outgoing.pop(9, true), None);
    }

    #[test]
    fn answers_overtake_input_which_waits_for_the_session() {
        let mut outgoing = Outgoing::default();
        outgoing.push(Input::Bytes(Bytes::from_static(b"early")));
        outgoing.push_answer(PayloadType::HandshakeResponse, Bytes::new());
        assert!(matches!(outgoing.pop(9, false), Some(Next::Control(PayloadType::HandshakeResponse, _))));
        assert_eq!(outgoing.pop(9, false), None);
        assert_eq!(outgoing.pop(9, true), data(b"early"));
    }
}
