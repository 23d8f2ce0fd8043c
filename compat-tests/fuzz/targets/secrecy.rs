//! See `harness::secrecy`.
#![no_main]

#[path = "../harness.rs"]
#[expect(dead_code, reason = "each target uses one function of it")]
mod harness;

libfuzzer_sys::fuzz_target!(|data: &[u8]| harness::secrecy(data));
