//! `ssm-sim` as a program.
fn main() {}
