//! Shared test code: clients of the proxy.

use super::{Handshake, MAX_REQUEST, Protocol, Refusal, Request, Step};

/// Plays a client that has sent `bytes`, of which up to `piece` arrive at a time: what was sent to it, how it ended
/// (`None`: more is wanted), and the number of bytes that were not read.
pub(super) fn play(bytes: &[u8], piece: usize) -> (Vec<u8>, Option<Step>, usize) {
    let (mut handshake, mut rest, mut sent) = (Handshake::default(), bytes, Vec::new());
    let (mut step, mut total) = (handshake.start(), 0);
    loop {
        let wanted = match step {
            Step::Read(count) if rest.len() < count => return (sent, None, rest.len()),
            Step::Read(count) => count,
            Step::ReadSome(_) if rest.is_empty() => return (sent, None, 0),
            Step::ReadSome(most) => most.min(rest.len()).min(piece),
            Step::Send(bytes) => {
                sent.extend_from_slice(bytes);
                step = handshake.handle(&[]);
                continue;
            }
            end => return (sent, Some(end), rest.len()),
        };
        assert!(wanted > 0);
        total += wanted;
        assert!(total <= MAX_REQUEST + 262, "{total} bytes");
        let (now, later) = rest.split_at(wanted);
        rest = later;
        step = handshake.handle(now);
    }
}

/// Returns the request and its early data, or panics.
#[track_caller]
pub(super) fn request_of(bytes: &[u8], piece: usize) -> (String, Protocol, Vec<u8>) {
    match play(bytes, piece) {
        (_, Some(Step::Connect(Request { destination, preface })), left) => {
            let early = [&preface.early[..], &bytes[bytes.len() - left..]].concat();
            (destination.to_string(), preface.protocol.unwrap(), early)
        }
        other => panic!("{:?}: {other:?}", String::from_utf8_lossy(bytes)),
    }
}

/// Returns the answer and the reason of a refusal, or panics.
#[track_caller]
pub(super) fn refusal_of(bytes: &[u8]) -> (Vec<u8>, Refusal) {
    match play(bytes, usize::MAX).1 {
        Some(Step::Refuse(answer, refusal)) => (answer, refusal),
        other => panic!("{:?}: {other:?}", String::from_utf8_lossy(bytes)),
    }
}
