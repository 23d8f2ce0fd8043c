//! `session-manager-plugin doctor`: checks of what usually goes wrong, with advice for each finding.
//!
//! | check | subject |
//! |---|---|
//! | `settings` | variables and the settings file: unknown names, bad values |
//! | `plugin` | which plugin the AWS CLI finds on the PATH |
//! | `aws-cli` | its version, and whether it hands the token over where others can see it |
//! | `region`, `credentials` | their sources, and a call to STS with the credentials; never the secret itself |
//! | `instance` | `--target`: its connection to the service, platform, and agent's version |
//! | `encryption` | the KMS key of the account's shells, and by a dry run the permission to use it |
//! | `dns`, `proxy`, `trust` | the path to the service |
//! | `clock` | this machine's against the service's: signatures hold for five minutes |
//! | `websocket` | opening one at the region's endpoint |
//! | `terminal`, `log` | this process's surroundings |
//!
//! A check whose subject cannot work because another check has failed is skipped: one cause is one failure.
//!
//! No session is started. Nothing is changed, except that the log is opened as a session would open it: its directory and
//! file are made, old files removed. Checks that wait for others end within [`CHECK_TIMEOUT`].

mod credentials;
mod encryption;
mod identity;
mod instance;
mod local;
mod network;
mod options;
mod report;

use std::cell::RefCell;
use std::time::Duration;

use self::identity::Identity;
use self::network::Route;
pub(crate) use self::options::{Options, args};
pub(crate) use self::report::{Check, Look, Report};
use crate::panics;
use crate::settings::LoadedSettings;

/// Makes all checks, and passes each to `show` as it ends.
pub(crate) async fn examine(options: &Options, loaded: &LoadedSettings, show: impl Fn(&Check)) -> Report {
    let findings = Findings { checks: RefCell::default(), show };
    findings.add(local::settings(loaded));
    let identity = Identity::read(options).await;
    let route = Route::new(options, &loaded.settings, &identity);
    findings.add(network::proxy(&route));
    findings.add(network::trust(&route));
    findings.add(local::terminal());
    findings.add(local::log(&loaded.settings));
    let client = credentials::client(&identity, &route);
    let client = client.as_ref();
    let cli = async {
        let cli = limited("aws-cli", local::aws_cli()).await;
        findings.add(identity.check_region(options, &cli));
        findings.add(cli);
    };
    let caller = async {
        let check = credentials::check(options, &loaded.settings, &identity, &route, client);
        findings.add(limited("credentials", check).await);
        if options.target.is_some() {
            // After the credentials, whose failure it would repeat.
            findings.add(limited("instance", instance::check(options, &route, client)).await);
        }
        findings.add(limited("encryption", encryption::check(options, &route, client)).await);
    };
    let path = async {
        let dns = limited("dns", network::dns(&route)).await;
        findings.add(dns.clone());
        let check = network::websocket(&route, &dns);
        findings.add(limited("websocket", check).await);
    };
    let plugin = async { findings.add(limited("plugin", local::plugin()).await) };
    let clock = async { findings.add(limited("clock", network::clock(&route)).await) };
    tokio::join!(cli, plugin, caller, path, clock);
    Report::new(findings.checks.into_inner())
}

/// The checks that have ended.
struct Findings<F> {
    checks: RefCell<Vec<Check>>,
    show: F,
}

impl<F: Fn(&Check)> Findings<F> {
    fn add(&self, check: Check) {
        (self.show)(&check);
        self.checks.borrow_mut().push(check);
    }
}

async fn limited(name: &'static str, check: impl Future<Output = Check>) -> Check {
    let check = panics::contain(check);
    match tokio::time::timeout(CHECK_TIMEOUT, check).await {
        Ok(Ok(check)) => check,
        Ok(Err(panic)) => Check::failure(name, panic.to_string())
            .advice("report this error together with the program's version"),
        Err(_) => Check::failure(name, format!("no result within {} s", CHECK_TIMEOUT.as_secs())).advice(
            "a program hangs, or something on the way drops packets: check firewalls, VPN and proxies",
        ),
    }
}

/// Time limit of one check; checks run concurrently.
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
        assert_eq!(check.found, "no result within 15 s");
    }
}
