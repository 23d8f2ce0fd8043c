//! `session-manager-plugin doctor`: checks of what usually goes wrong, with advice for each finding.
//!
//! | check | what is looked at |
//! |---|---|
//! | `settings` | variables and the settings file: unknown names, bad values |
//! | `plugin` | which plugin the AWS CLI finds on the PATH |
//! | `aws-cli` | its version, and whether it hands the token over where others can see it |
//! | `region`, `credentials` | where they come from, and whether there are any; never the secret itself |
//! | `dns`, `proxy`, `trust` | the way to the service |
//! | `clock` | this machine's against the service's: signatures hold for five minutes |
//! | `websocket` | whether one can be opened at the region's endpoint |
//! | `terminal`, `log` | what this process stands on |
//!
//! No session is started. Nothing is changed, except that the log is opened as a session would open it: its directory and
//! file are made, old files removed. Checks that wait for others end within [`CHECK_TIMEOUT`].

mod credentials;
mod identity;
mod local;
mod network;
mod options;
mod report;

use std::time::Duration;

use self::identity::Identity;
use self::network::Route;
pub(crate) use self::options::Options;
pub(crate) use self::report::{Check, Report};
use crate::panics;
use crate::settings::Loaded;

/// Makes all checks.
pub(crate) async fn examine(options: &Options, loaded: &Loaded) -> Report {
    let identity = Identity::read(options).await;
    let route = Route::new(options, &loaded.settings, &identity);
    let (cli, plugin, credentials, clock, dns, websocket) = tokio::join!(
        limited("aws-cli", local::aws_cli()),
        limited("plugin", local::plugin()),
        limited("credentials", credentials::check(options, &loaded.settings, &identity, &route)),
        limited("clock", network::clock(&route)),
        limited("dns", network::dns(&route)),
        limited("websocket", network::websocket(&route)),
    );
    let region = identity.check_region(options, &cli);
    Report {
        checks: vec![
            local::settings(loaded),
            plugin,
            cli,
            region,
            credentials,
            dns,
            network::proxy(&route),
            network::trust(&route),
            clock,
            websocket,
            local::terminal(),
            local::log(&loaded.settings),
        ],
    }
}

async fn limited(name: &'static str, check: impl Future<Output = Check>) -> Check {
    let check = panics::contain(check);
    match tokio::time::timeout(CHECK_TIMEOUT, check).await {
        Ok(Ok(check)) => check,
        Ok(Err(panic)) => {
            Check::failure(name, panic.to_string()).advice("report it, with the program's version")
        }
        Err(_) => Check::failure(name, format!("no answer within {} s", CHECK_TIMEOUT.as_secs())).advice(
            "a program hangs, or something on the way drops packets: check firewalls, VPN and proxies",
        ),
    }
}

/// How long one check may take; they run side by side.
pub(crate) const CHECK_TIMEOUT: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::report::Status;
    use super::*;

    #[tokio::test]
    async fn a_check_that_panics_is_a_failure() {
        let check = limited("dns", async { panic!("a secret") }).await;
        assert_eq!((check.name, check.status), ("dns", Status::Failure));
        assert!(check.found.starts_with("internal error") && !check.found.contains("secret"), "{check:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_is_a_failure() {
        let check = limited("dns", std::future::pending()).await;
        assert_eq!((check.name, check.status), ("dns", Status::Failure));
        assert_eq!(check.found, "no answer within 15 s");
    }
}
