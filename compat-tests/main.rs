//! The integration tests: the binary as it is called, by hand and by real clients.
//!
//! - [`cli`]: arguments and visible text.
//! - [`aws`]: signatures, credentials, resuming, ending, encryption, secrets.
//! - [`aws_cli`], [`ssh`], [`postgres`]: unchanged AWS CLIs, OpenSSH and PostgreSQL.
//! - [`port`], [`sessions`], [`sockets`], [`stdio`]: the binary alone against the simulator.
//! - [`doctor`], [`settings`], [`logs`], [`wire_log`]: what the program says about itself.
//! - [`library`]: the crate without the program.
//! - [`live`]: `scripts/live` at services that keep the rules and at others.
//! - [`lifetime`]: signals, dead parents, deadlines, terminals, scripts.
//! - [`faults`]: malformed input from the network.
//! - [`network`]: proxies, private certificate authorities, other stream hosts, half-open connections.
//! - [`faults_link`]: a bad link.
//! - [`hostile`]: a peer that lies.
//! - [`differential`]: the same scripts against the official plugin, or what it once printed.
//!
//! `PLUGIN_UNDER_TEST=<path>` runs the tests against another binary; `REFERENCE_PLUGIN=<path>` names the official
//! plugin for [`differential`].

mod harness;

mod aws;
mod aws_cli;
mod cli;
mod differential;
mod doctor;
mod faults;
mod faults_link;
mod hostile;
mod library;
mod lifetime;
mod live;
mod logs;
mod network;
mod port;
mod postgres;
mod sessions;
mod settings;
mod sockets;
mod ssh;
mod stdio;
mod wire_log;
