//! The integration tests: the binary as it is called, by hand and by real clients.
//!
//! - [`cli`]: arguments and visible text.
//! - [`commands`]: sessions without an AWS CLI.
//! - [`aws`]: signatures, credentials, resuming, ending, encryption, secrets.
//! - [`aws_cli`], [`ssh`], [`postgres`]: unchanged AWS CLIs, OpenSSH and PostgreSQL.
//! - [`port`], [`sessions`], [`sockets`], [`stdio`]: the binary alone against the simulator.
//! - [`outliving`], [`further_ports`], [`socks`]: ports that outlive their session, several ports, a SOCKS proxy.
//! - [`events`]: JSON on stderr for tools.
//! - [`doctor`], [`settings`], [`logs`], [`wire_log`]: what the program says about itself.
//! - [`library`]: the crate without the program.
//! - [`readme`]: the README's commands and settings.
//! - [`wording`]: doc comments, links and paths in documents.
//! - [`verify_on_aws`]: `scripts/verify-on-aws` at services that keep the rules and at others.
//! - [`link_places`]: `scripts/link-places`, with which packages and users place links to the program.
//! - [`lifetime`]: signals, dead parents, deadlines, terminals, scripts.
//! - [`faults`]: malformed input from the network.
//! - [`network`]: proxies, private certificate authorities, other stream hosts, half-open connections.
//! - [`faults_link`]: a bad link.
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
mod aws_cli;
mod cli;
#[cfg(unix)]
mod commands;
#[cfg(unix)]
mod differential;
#[cfg(unix)]
mod doctor;
#[cfg(unix)]
mod events;
mod faults;
mod faults_link;
#[cfg(unix)]
mod further_ports;
#[cfg(unix)]
mod hostile;
mod layers;
mod library;
#[cfg(unix)]
mod lifetime;
#[cfg(unix)]
mod link_places;
#[cfg(unix)]
mod logs;
mod network;
#[cfg(unix)]
mod outliving;
mod port;
#[cfg(unix)]
mod postgres;
#[cfg(unix)]
mod readme;
mod sessions;
#[cfg(unix)]
mod settings;
#[cfg(unix)]
mod sockets;
#[cfg(unix)]
mod socks;
#[cfg(unix)]
mod ssh;
mod stdio;
#[cfg(unix)]
mod verify_on_aws;
mod windows;
#[cfg(unix)]
mod wire_log;
mod wording;
