//! The integration tests: the binary as it is called, by hand and by real clients.
//!
//! - [`program`]: arguments, settings, doctor, logs, JSON events.
//! - [`clients`]: unchanged AWS CLIs, OpenSSH and PostgreSQL.
//! - [`commands`]: sessions without an AWS CLI.
//! - [`aws`]: signatures, credentials, resuming, ending, encryption, secrets.
//! - [`port`]: forwarded ports, sockets and streams, persistent ports, several ports, SOCKS.
//! - [`lifetime`]: signals, dead parents, deadlines, terminals, scripts.
//! - [`network`]: bad links, malformed input, proxies, certificate authorities, dead paths.
//! - [`library`]: ports and commands of programs that embed the crate.
//! - [`project`]: the book, documents, scripts.
//! - [`hostile`]: a peer that lies.
//! - [`windows`]: the program for Windows, where `scripts/windows` runs it.
//! - [`differential`]: the same scripts against the official plugin, or what it once printed.
//!
//! Tests that need terminals, signals, shell scripts or UNIX clients run on UNIX only.
//!
//! `PLUGIN_UNDER_TEST=<path>` runs the tests against another binary; `REFERENCE_PLUGIN=<path>` names the official
//! plugin for [`differential`].

#[cfg_attr(windows, expect(dead_code, reason = "the tests that need UNIX use the rest"))]
mod harness;

#[cfg(unix)]
mod aws;
#[cfg(unix)]
mod clients;
#[cfg(unix)]
mod commands;
#[cfg(unix)]
mod differential;
#[cfg(unix)]
mod hostile;
#[cfg(unix)]
mod library;
#[cfg(unix)]
mod lifetime;
mod network;
mod port;
mod program;
mod project;
mod windows;
