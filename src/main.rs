//! `session-manager-plugin`: argv in, exit status out.
fn main() {}
