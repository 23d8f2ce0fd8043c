//! Payload types of data messages (agent source).

pub(super) const OUTPUT: u32 = 1;
// Of shells alone, which are played on UNIX.
#[cfg(unix)]
pub(super) const SIZE: u32 = 3;
pub(super) const HANDSHAKE_REQUEST: u32 = 5;
pub(super) const HANDSHAKE_RESPONSE: u32 = 6;
pub(super) const HANDSHAKE_COMPLETE: u32 = 7;
pub(super) const ENCRYPTION_CHALLENGE_REQUEST: u32 = 8;
pub(super) const ENCRYPTION_CHALLENGE_RESPONSE: u32 = 9;
pub(super) const FLAG: u32 = 10;
pub(super) const STDERR: u32 = 11;
pub(super) const EXIT_CODE: u32 = 12;

/// Returns whether the agent encrypts it in an encrypted session.
pub(super) fn encrypted_by_agent(payload_type: u32) -> bool {
    matches!(payload_type, OUTPUT | STDERR | EXIT_CODE)
}
