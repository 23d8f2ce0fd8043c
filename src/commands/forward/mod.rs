//! `forward`: local ports that outlive their sessions, by themselves or for as long as a command runs.

mod command;
mod spec;

use std::io::{self, IsTerminal as _};

use self::command::Running;
use super::connect::{Connection, signal_number, signal_status};
use super::failure::{self, Failure};
use super::request::Forward;
use crate::printable::one_line;
use crate::process;
use crate::session::{Forwarding, ListenFailure, OWN_FAILURE, Outcome, PortForwarder, StartFailure};
use crate::settings::{Settings, Tunnel, When, ignored_file};

/// Runs `forward`. Returns the exit status: the command's, if there is one.
pub(super) async fn run(options: &Forward, settings: &Settings) -> Result<u8, Failure> {
    let forwarding = forwarding(options)?;
    let connection = Connection::to(&options.target, &options.common, settings).await?;
    let mut settings = settings.clone();
    settings.sessions = options.sessions.unwrap_or(settings.sessions);
    report_relaxations(&settings);
    let request = connection.request(None, None);
    let wait = options.common.wait;
    let listening =
        PortForwarder::listen(&forwarding, connection.access(), request, settings, None, wait).await;
    let mut forwarder = listening.map_err(|failure| cannot_listen(options, &failure))?;
    if options.is_eager {
        let started = forwarder.start_sessions(wait).await;
        forwarder = started.map_err(|failure| match failure {
            StartFailure::Reason(reason) => Failure::new(reason),
            StartFailure::Signal(signal) => Failure::signal(signal_number(signal).unwrap_or_default()),
        })?;
    }
    if options.command.is_empty() {
        forwarder.announce(true);
        let outcome = forwarder.run(handle_signal, std::future::pending()).await;
        return Ok(status(&outcome));
    }
    if !options.common.quiet {
        forwarder.announce(false);
    }
    let mut running = Running::start(&options.command, forwarder.bound()).map_err(Failure::new)?;
    let (id, mut ended) = (running.id(), None);
    let outcome = forwarder
        .run(|signal| command::handle_signal(id, signal), async { ended = Some(running.wait().await) })
        .await;
    Ok(ended.unwrap_or_else(|| status(&outcome)))
}

/// The options, with those of the tunnel of the settings file that the target names. The command line's come first.
pub(super) fn with_tunnel(mut options: Forward) -> Result<Forward, Failure> {
    let tunnel = Tunnel::load(&options.target, |name| std::env::var_os(name)).map_err(Failure::usage)?;
    let Some(tunnel) = tunnel else {
        if options.specs.is_empty() && options.dynamic.is_none() {
            let get = |name: &str| std::env::var_os(name);
            let section = ignored_file(get).unwrap_or_else(|| {
                format!("the settings file has no section [tunnels.{}]", one_line(&options.target))
            });
            return Err(nothing_to_forward(&format!("no SPEC is given, and {section}")));
        }
        return Ok(options);
    };
    if let Some(count) = tunnel.sessions.filter(|count| !(1..=MAX_SESSIONS).contains(count)) {
        return Err(Failure::usage(format!(
            "tunnels.{}: sessions is {count}, but must be 1 to {MAX_SESSIONS}",
            options.target
        )));
    }
    options.target = tunnel.target;
    options.common.profile = options.common.profile.or(tunnel.profile);
    options.common.region = options.common.region.or(tunnel.region);
    options.specs.extend(tunnel.forwards);
    options.dynamic = options.dynamic.or(tunnel.socks.map(|port| port.to_string()));
    options.sessions = options.sessions.or(tunnel.sessions);
    Ok(options)
}

fn nothing_to_forward(reason: &str) -> Failure {
    Failure::usage(format!(
        "nothing to forward: {reason}; add a SPEC such as 15432:db.internal:5432, or -D 1080; see session-manager-plugin \
         help forward"
    ))
}

/// Names the safeguards that settings relax, to a person at a terminal. These ports start sessions, as those of
/// `SSM_PLUGIN_RESTART` do.
fn report_relaxations(settings: &Settings) {
    let is_wanted = matches!(settings.status, When::Auto | When::Always) && io::stderr().is_terminal();
    for relaxation in (Settings { restart: true, ..settings.clone() }).relaxations() {
        if is_wanted {
            failure::report(settings, &relaxation.to_string());
        }
    }
}

/// Without a command a signal ends the tunnels, except that job control works as usual.
fn handle_signal(signal: process::Signal) -> bool {
    if signal == process::Signal::Suspend {
        process::stop();
    }
    signal_number(signal).is_none()
}

fn status(outcome: &Outcome) -> u8 {
    signal_status(outcome).unwrap_or(if outcome.is_well { 0 } else { OWN_FAILURE })
}

fn forwarding(options: &Forward) -> Result<Forwarding, Failure> {
    let mistake =
        |reason: String| Failure::usage(format!("{reason}; see session-manager-plugin help forward"));
    let mut ports = Vec::new();
    for text in &options.specs {
        ports.push(spec::parse(text).map_err(mistake)?);
    }
    if ports.len() > MAX_SPECS {
        return Err(mistake(format!("{} ports, but at most {MAX_SPECS} are allowed", ports.len())));
    }
    let socks = options.dynamic.as_deref().map(spec::parse_dynamic).transpose().map_err(mistake)?;
    if ports.is_empty() && socks.is_none() {
        return Err(nothing_to_forward("the section has neither forwards nor socks"));
    }
    if options.is_eager && ports.is_empty() {
        return Err(mistake(
            "--eager needs at least one SPEC: with -D alone, no session can start until a client names a destination".to_owned(),
        ));
    }
    Ok(Forwarding { ports, socks })
}

fn cannot_listen(options: &Forward, failure: &ListenFailure) -> Failure {
    let of = match (failure.index.and_then(|index| options.specs.get(index)), &options.dynamic) {
        (Some(spec), _) => format!("{spec}: "),
        (None, Some(dynamic)) if failure.port.is_some() => format!("-D {dynamic}: "),
        _ => String::new(),
    };
    Failure::new(format!("{of}{}", failure.reason))
}

/// A listener and its sessions each.
const MAX_SPECS: usize = 64;
/// As of the setting `SSM_PLUGIN_SESSIONS`.
const MAX_SESSIONS: usize = 8;
