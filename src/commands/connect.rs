//! From a target's name to a session: access to AWS, StartSession, and what to do when it is refused.

use std::time::Duration;

use aws_config::profile::ProfileSet;
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use super::failure::{Failure, SIGNAL_BASE, refused, report};
use super::request::Common;
use super::target::{self, Found};
use crate::aws::{self, AwsContext, AwsError, ErrorKind, StartSessionOutput};
use crate::cli::StartSession;
use crate::output::{self, Style};
use crate::printable::one_line;
use crate::process::{Signal, Signals};
use crate::session::{self, Access, Outcome, Ports, Run, Script};
use crate::settings::Settings;
use crate::wire_log;

/// A target that sessions can be started on.
#[derive(Debug)]
pub(super) struct Connection<'a> {
    common: &'a Common,
    settings: &'a Settings,
    access: Access,
    /// As StartSession takes it.
    pub target: String,
    /// True for Windows; `None` if it was not looked up.
    pub is_windows: Option<bool>,
}

impl<'a> Connection<'a> {
    /// Finds the target and the way to it.
    ///
    /// # Errors
    /// When the region or the profile cannot be used.
    pub(super) async fn to(
        target: &str,
        common: &'a Common,
        settings: &'a Settings,
    ) -> Result<Connection<'a>, Failure> {
        let url = stream_host(common)?;
        let profile = aws::profile_name(common.profile.clone());
        // Files that cannot be read are reported by the first call.
        let files = aws::profiles(profile.as_deref()).await.ok();
        if let (Some(profile), Some(files)) = (&profile, &files) {
            check_profile(profile, files)?;
        }
        if aws::region_in_effect(common.region.clone(), files.as_ref()).is_none() {
            return Err(Failure::new("no region is set")
                .with_advice("use --region, set AWS_REGION, or set region in ~/.aws/config"));
        }
        let bundle = files.as_ref().filter(|_| url.scheme() == "wss").and_then(aws::ca_bundle);
        let known = target::known(target)?;
        let context = AwsContext {
            region: common.region.clone().unwrap_or_default(),
            profile,
            endpoint: common.endpoint_url.clone(),
            target: known.map(str::to_owned),
            ..AwsContext::default()
        };
        let mut found = Found { id: known.unwrap_or_default().to_owned(), is_windows: None };
        let access = Access::new(settings.stream_hosts(), context, bundle, async |aws: aws::Client| {
            if known.is_some() {
                return Ok(aws);
            }
            found = target::look_up(target, &aws).await?;
            Ok::<_, Failure>(aws.for_target(&found.id))
        });
        let access = access.await?;
        Ok(Connection { common, settings, access, target: found.id, is_windows: found.is_windows })
    }

    /// The way to AWS.
    pub(super) fn access(&self) -> &Access {
        &self.access
    }

    /// The request for a session with a document; `None`: the account's default for shells.
    pub(super) fn request(&self, document: Option<&str>, parameters: Option<Value>) -> Value {
        session::request(&self.target, document, parameters, self.common.reason.as_deref())
    }

    /// Looks up whether the target is Windows. False if that cannot be found out.
    pub(super) async fn look_up_windows(&self) -> bool {
        match self.is_windows {
            Some(is_windows) => is_windows,
            None if self.target.starts_with("ecs:") => false,
            None => {
                let found = self.access.aws.instances(Some(("InstanceIds", &self.target))).await;
                found.is_ok_and(|found| found.first().is_some_and(|instance| instance.is_windows))
            }
        }
    }

    /// Starts a session and runs it to its end.
    ///
    /// # Errors
    /// When it could not be started.
    pub(super) async fn run(&self, request: Value, style: Style) -> Result<Outcome, Failure> {
        let opened = self.open(&request).await?.map_err(|error| refused(&error))?;
        Ok(self.run_opened(opened, request, style, None).await)
    }

    /// Starts a session with a command whose status may be in its output, and runs it to its end. Returns the service's
    /// error when it refuses the session.
    ///
    /// # Errors
    /// When it could not be started for any other reason.
    pub(super) async fn try_run(
        &self,
        request: Value,
        script: Script,
    ) -> Result<Result<Outcome, AwsError>, Failure> {
        match self.open(&request).await? {
            Ok(opened) => Ok(Ok(self.run_opened(opened, request, Style::Plain, Some(script)).await)),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn run_opened(
        &self,
        opened: StartSessionOutput,
        request: Value,
        style: Style,
        script: Option<Script>,
    ) -> Outcome {
        let start = StartSession {
            session_id: opened.session_id,
            stream_url: opened.stream_url,
            token: opened.token,
            region: self.common.region.clone().unwrap_or_default(),
            profile: aws::profile_name(self.common.profile.clone()),
            target: Some(self.target.clone()),
            request: Some(request),
            endpoint: self.common.endpoint_url.clone(),
            legacy: false,
            response_is_argument: false,
        };
        let settings = self.settings.clone();
        let wire_log = wire_log::start(
            settings.wire_log.as_deref(),
            settings.wire_log_payloads,
            output::reporter(&settings),
        );
        let wire_log = wire_log.unwrap_or_else(|reason| {
            report(&settings, &reason);
            None
        });
        let recording = wire_log.as_ref().map(wire_log::Guard::recording);
        let access = Some(self.access.clone());
        let ports = Ports::System;
        session::run(Run { start, access, settings, recording, parent: None, style, ports, script }).await
    }

    /// Starts a session; with `--wait`, as soon as the target is connected.
    async fn open(&self, request: &Value) -> Result<Result<StartSessionOutput, AwsError>, Failure> {
        let mut signals = Signals::install().map_err(|error| Failure::new(error.to_string()))?;
        let mut attempts = self.common.wait.map(|wait| Attempts::new(Instant::now() + wait));
        let mut may_look_again = true;
        loop {
            let error = match self.attempt(request, &mut signals).await? {
                Ok(opened) => return Ok(Ok(opened)),
                Err(error) => error,
            };
            let waiting = attempts.as_mut().filter(|_| error.kind == ErrorKind::TargetNotConnected);
            let next = waiting.and_then(|attempts| attempts.next(Instant::now()));
            match (error.kind, next) {
                // The cached credentials may have expired: the next call looks for new ones.
                (ErrorKind::BadCredentials, _) if std::mem::take(&mut may_look_again) => {}
                (ErrorKind::TargetNotConnected, Some(next)) => {
                    tracing::info!("{} is not connected yet", self.target);
                    tokio::select! {
                        () = tokio::time::sleep_until(next) => {}
                        number = ending_signal(&mut signals) => return Err(Failure::signal(number)),
                    }
                }
                (ErrorKind::TargetNotConnected, _) => return Err(self.not_connected(&error).await),
                _ => return Ok(Err(error)),
            }
        }
    }

    /// One StartSession. After a signal the session is ended as soon as it is there.
    async fn attempt(
        &self,
        request: &Value,
        signals: &mut Signals,
    ) -> Result<Result<StartSessionOutput, AwsError>, Failure> {
        tracing::info!(%request, "ssm:StartSession");
        let aws = &self.access.aws;
        let mut start = Box::pin(aws.start(request));
        let number = tokio::select! {
            opened = &mut start => return Ok(opened),
            number = ending_signal(signals) => number,
        };
        if let Ok(Ok(opened)) = tokio::time::timeout(LAST_ANSWER, start).await {
            let _ = aws.terminate(&opened.session_id).await;
        }
        Err(Failure::signal(number))
    }

    async fn not_connected(&self, error: &AwsError) -> Failure {
        let failure = match target::state(&self.target, &self.access.aws).await {
            Some(state) => Failure::new(error.to_string()).with_advice(state),
            None => refused(error),
        };
        match self.common.wait {
            Some(wait) => failure.with_advice(format_args!("--wait ended after {} s", wait.as_secs())),
            None => failure.with_advice("use --wait to wait until it is connected"),
        }
    }
}

/// Times of the attempts to start a session on a target that is not connected: the last one at the end of the wait.
#[derive(Debug)]
struct Attempts {
    pause: Duration,
    last: Instant,
}

impl Attempts {
    /// Attempts until `last`.
    fn new(last: Instant) -> Attempts {
        Attempts { pause: FIRST_PAUSE, last }
    }

    /// The time of the next attempt after one that has failed. `None` when the wait is over.
    fn next(&mut self, now: Instant) -> Option<Instant> {
        if now >= self.last {
            return None;
        }
        let next = (now + self.pause).min(self.last);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Some(next)
    }
}

/// Checks that a profile exists.
pub(super) fn check_profile(name: &str, files: &ProfileSet) -> Result<(), Failure> {
    if name == DEFAULT_PROFILE || files.get_profile(name).is_some() {
        return Ok(());
    }
    let known = aws::profile_names(files);
    let advice = if known.is_empty() {
        "no profiles are configured; run aws configure".to_owned()
    } else {
        format!("available profiles: {}", known.join(", "))
    };
    Err(Failure::new(format!("profile {name:?} does not exist")).with_advice(one_line(&advice)))
}

/// The address by which the proxy for calls to AWS is chosen: the endpoint's if there is one, else the region's.
fn stream_host(common: &Common) -> Result<Url, Failure> {
    let endpoint = common.endpoint_url.as_deref();
    session::stream_host(endpoint, common.region.as_deref()).ok_or_else(|| {
        Failure::usage(format!(
            "--endpoint-url {:?} is not an http or https URL such as https://ssm.eu-west-1.amazonaws.com",
            endpoint.unwrap_or_default()
        ))
    })
}

/// The number of the next signal that ends a command. Cancel-safe.
async fn ending_signal(signals: &mut Signals) -> u8 {
    loop {
        if let Some(number) = signal_number(signals.recv().await) {
            return number;
        }
    }
}

/// The number of a signal that ends a command; `None` for one that does not.
pub(super) fn signal_number(signal: Signal) -> Option<u8> {
    match signal {
        Signal::Hangup => Some(1),
        Signal::Interrupt => Some(2),
        Signal::Quit => Some(3),
        Signal::Terminate => Some(15),
        Signal::Suspend | Signal::WindowChanged | Signal::Continue | Signal::Usr1 => None,
    }
}

/// The exit status of a session that a signal has ended, if one has.
pub(super) fn signal_status(outcome: &Outcome) -> Option<u8> {
    outcome.signal.and_then(signal_number).map(|number| SIGNAL_BASE + number)
}

/// Needs no file: keys may come from the environment or from the instance.
const DEFAULT_PROFILE: &str = "default";
/// Time that the answer to StartSession may still take after a signal.
const LAST_ANSWER: Duration = Duration::from_secs(3);
/// Between the first two attempts to start a session on a target that is not connected; doubled from one to the next.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds at which attempts are made, each of which takes none.
    fn attempts(wait: u64) -> Vec<u64> {
        let begin = Instant::now();
        let mut attempts = Attempts::new(begin + Duration::from_secs(wait));
        let times = std::iter::successors(Some(begin), |now| attempts.next(*now));
        times.map(|time| (time - begin).as_secs()).collect()
    }

    #[test]
    fn the_last_attempt_is_at_the_end_of_the_wait() {
        assert_eq!(attempts(0), [0]);
        assert_eq!(attempts(1), [0, 1]);
        assert_eq!(attempts(2), [0, 1, 2]);
        assert_eq!(attempts(8), [0, 1, 3, 7, 8]);
        assert_eq!(attempts(40), [0, 1, 3, 7, 15, 25, 35, 40]);
    }
}
