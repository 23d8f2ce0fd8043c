//! Tests of the session by property and against another implementation; those by example are `session.rs`.

mod interop;
mod properties;
mod tentative;

/// The zero of virtual time: tests need some instant, and none of them depends on real time.
pub(super) fn epoch() -> std::time::Instant {
    std::time::Instant::now()
}
