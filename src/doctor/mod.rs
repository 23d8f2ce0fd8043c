//! `session-manager-plugin doctor`: what usually goes wrong, looked at in a few seconds, with what to do about it.
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
//! No session is started, nothing is changed (but for the log's directory, which is made), and each check ends within [`CHECK_TIMEOUT`].

mod aws;
mod local;
mod network;
mod report;

use std::time::Duration;

pub use self::report::{Check, Report};
use crate::settings::{Loaded, Settings};

/// What the words after `doctor` ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Answer in JSON.
    pub json: bool,
    /// The region instead of the environment's or the profile's.
    pub region: Option<String>,
    /// The profile instead of the environment's.
    pub profile: Option<String>,
    /// The websocket's URL instead of the region's endpoint.
    pub url: Option<String>,
}

impl Options {
    /// Reads the words: `--name value` or `--name=value`.
    ///
    /// # Errors
    /// The word that is not understood, in a sentence.
    pub fn parse(words: &[String]) -> Result<Options, String> {
        let mut options = Options::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let (name, mut value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            let place = match name {
                "--json" if value.is_none() => {
                    options.json = true;
                    continue;
                }
                "--region" => &mut options.region,
                "--profile" => &mut options.profile,
                "--url" => &mut options.url,
                _ => return Err(format!("unknown word {word:?}; see --help")),
            };
            if value.is_none() {
                value = words.next().cloned();
            }
            *place = Some(value.filter(|value| !value.is_empty()).ok_or(format!("{name} needs a value"))?);
        }
        Ok(options)
    }
}

/// Makes all checks.
pub async fn examine(options: &Options) -> Report {
    let loaded = Settings::load();
    let place = aws::place(options).await;
    let way = network::Way::new(options, &loaded.settings, &place).await;
    let (cli, plugin, credentials, clock, dns, websocket) = tokio::join!(
        limited("aws-cli", local::aws_cli()),
        limited("plugin", local::plugin()),
        limited("credentials", aws::credentials(options, &loaded.settings, &place, &way)),
        limited("clock", network::clock(&way)),
        limited("dns", network::dns(&way)),
        limited("websocket", network::websocket(&way)),
    );
    let region = aws::region(&place, options, &cli);
    Report {
        checks: vec![
            local::settings(&loaded),
            plugin,
            cli,
            region,
            credentials,
            dns,
            network::proxy(&way),
            network::trust(&way),
            clock,
            websocket,
            local::terminal(),
            log(&loaded),
        ],
    }
}

fn log(loaded: &Loaded) -> Check {
    local::log(&loaded.settings)
}

async fn limited(name: &'static str, check: impl Future<Output = Check>) -> Check {
    tokio::time::timeout(CHECK_TIMEOUT, check).await.unwrap_or_else(|_| {
        Check::failure(name, format!("no answer within {} s", CHECK_TIMEOUT.as_secs())).advice(
            "something on the way takes packets and answers nothing: look at firewalls, VPN and proxies",
        )
    })
}

/// How long one check may take; they run side by side.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(15);
/// How long one question over the network may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::report::Status;
    use super::*;

    fn parse(words: &[&str]) -> Result<Options, String> {
        Options::parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn words() {
        assert_eq!(parse(&[]), Ok(Options::default()));
        let options =
            parse(&["--json", "--region", "eu-west-1", "--profile=p", "--url", "wss://h/x?a=b"]).unwrap();
        assert!(options.json);
        assert_eq!(options.region.as_deref(), Some("eu-west-1"));
        assert_eq!(options.profile.as_deref(), Some("p"));
        assert_eq!(options.url.as_deref(), Some("wss://h/x?a=b"));
        assert_eq!(parse(&["--region"]).unwrap_err(), "--region needs a value");
        assert_eq!(parse(&["--url="]).unwrap_err(), "--url needs a value");
        assert_eq!(parse(&["--fix"]).unwrap_err(), "unknown word \"--fix\"; see --help");
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_is_a_failure() {
        let check = limited("dns", std::future::pending()).await;
        assert_eq!((check.name, check.status), ("dns", Status::Failure));
        assert_eq!(check.found, "no answer within 15 s");
    }
}
