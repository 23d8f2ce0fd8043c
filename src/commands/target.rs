//! Instances by their names ([`TargetName`]). A name that is neither an id nor a tag is that of an instance's `Name` tag, or
//! else that of its computer.

use std::time::{Duration, SystemTime};

use super::failure::{Failure, refused};
use crate::aws::{self, InvalidTag, ManagedInstance, TargetName};
use crate::printable::one_line;

impl From<InvalidTag> for Failure {
    fn from(error: InvalidTag) -> Failure {
        Failure::usage(error.to_string()).with_advice(InvalidTag::ADVICE)
    }
}

/// A target that was looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub id: String,
    /// True for Windows; `None` for an id, which is not looked up.
    pub is_windows: Option<bool>,
}

/// The target as StartSession takes it, if no call is needed for that.
///
/// # Errors
/// When it is not a target.
pub(super) fn known(text: &str) -> Result<Option<&str>, Failure> {
    Ok(match TargetName::parse(text)? {
        TargetName::Id(id) => Some(id),
        TargetName::Tag(..) | TargetName::Name(_) => None,
    })
}

/// Looks an instance up by its tag or its name.
///
/// # Errors
/// When there is not exactly one: with the list of those that match, or of all there are.
pub(super) async fn look_up(text: &str, aws: &aws::Client) -> Result<Found, Failure> {
    let (key, value) = match TargetName::parse(text)? {
        TargetName::Id(id) => return Ok(Found { id: id.to_owned(), is_windows: None }),
        TargetName::Tag(key, value) => (key, value),
        TargetName::Name(name) => ("Name", name),
    };
    tracing::info!("ssm:DescribeInstanceInformation for tag:{key}={value}");
    let tagged = aws.instances(Some((&format!("tag:{key}"), value))).await;
    let mut found = tagged.map_err(|error| refused(&error))?;
    if !found.is_empty() {
        return only(text, found);
    }
    let all = aws.instances(None).await.map_err(|error| refused(&error))?;
    if matches!(TargetName::parse(text)?, TargetName::Name(_)) {
        found.extend(all.iter().filter(|instance| is_called(instance, value)).cloned());
    }
    if !found.is_empty() {
        return only(text, found);
    }
    if all.is_empty() {
        return Err(Failure::new(format!(
            "{text:?} matches no instance: this account and region have no managed instances"
        ))
        .with_advice(
            "check the region and the profile, and that the instance's role allows Systems Manager",
        ));
    }
    let failure =
        Failure::new(format!("no managed instance matches {text:?}; managed instances: {}", all.len()));
    Err(failure.with_details(list(&all, SystemTime::now())))
}

/// The state of a target that is not connected, with the next step; `None` if it cannot be found out.
pub(super) async fn state(id: &str, aws: &aws::Client) -> Option<String> {
    if id.starts_with("ecs:") {
        return None;
    }
    let found = aws.instances(Some(("InstanceIds", id))).await.ok()?;
    let Some(instance) = found.first() else {
        return Some(format!(
            "{id} is not a managed instance of this account and region; check --region and --profile"
        ));
    };
    let since = instance.last_ping.map(|ping| format!(", last seen {}", ago(ping, SystemTime::now())));
    let step = match instance.state.as_str() {
        "Online" => "try again",
        "Inactive" => "start the instance",
        _ => "check that the instance is running and that its SSM Agent can reach the service",
    };
    Some(format!("its state is {}{}: {step}", instance.state, since.unwrap_or_default()))
}

fn only(text: &str, found: Vec<ManagedInstance>) -> Result<Found, Failure> {
    match found.as_slice() {
        [instance] => {
            tracing::info!("{text} is {}", instance.id);
            Ok(Found { id: instance.id.clone(), is_windows: Some(instance.is_windows) })
        }
        _ => {
            let failure = Failure::new(format!("{text:?} matches {} instances", found.len()));
            Err(failure
                .with_advice("use the id of one instance")
                .with_details(list(&found, SystemTime::now())))
        }
    }
}

/// Returns whether it is the computer's name, with or without its domain, in any case.
fn is_called(instance: &ManagedInstance, name: &str) -> bool {
    let short = instance.name.split('.').next().unwrap_or_default();
    instance.name.eq_ignore_ascii_case(name) || short.eq_ignore_ascii_case(name)
}

/// A line for each instance: id, name, state, platform.
fn list(instances: &[ManagedInstance], now: SystemTime) -> String {
    let rows = instances.iter().take(MAX_LISTED).map(|instance| {
        let since = match instance.last_ping {
            Some(ping) if instance.state != "Online" => format!(" ({})", ago(ping, now)),
            _ => String::new(),
        };
        [
            instance.id.clone(),
            instance.name.clone(),
            format!("{}{since}", instance.state),
            instance.platform.clone(),
        ]
        .map(|cell| one_line(&cell))
    });
    let rows: Vec<_> = rows.collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths = [width(0), width(1), width(2)];
    let mut text = String::new();
    for [id, name, state, platform] in &rows {
        let line = format!("  {id:0$}  {name:1$}  {state:2$}  {platform}", widths[0], widths[1], widths[2]);
        text += line.trim_end();
        text += "\n";
    }
    if instances.len() > MAX_LISTED {
        text += &format!("  … and {} more\n", instances.len() - MAX_LISTED);
    }
    text
}

fn ago(then: SystemTime, now: SystemTime) -> String {
    let seconds = now.duration_since(then).unwrap_or(Duration::ZERO).as_secs();
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} minutes ago", seconds / 60),
        7200..172_800 => format!("{} hours ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

const MAX_LISTED: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(number: usize) -> ManagedInstance {
        ManagedInstance {
            id: format!("i-{number}"),
            name: "web.internal".to_owned(),
            state: "Online".to_owned(),
            last_ping: None,
            platform: "Linux".to_owned(),
            agent_version: String::new(),
            is_windows: false,
        }
    }

    #[test]
    fn ids_need_no_call() {
        assert_eq!(known("i-0123"), Ok(Some("i-0123")));
        assert_eq!(known("web-1"), Ok(None));
        let invalid = "\"tag:Env\" is not a valid tag; use tag:KEY=VALUE";
        assert_eq!(known("tag:Env"), Err(Failure::usage(invalid)));
    }

    #[test]
    fn a_computer_s_name_with_or_without_its_domain() {
        for (name, expected) in
            [("web", true), ("WEB", true), ("web.internal", true), ("web.other", false), ("", false)]
        {
            assert_eq!(is_called(&instance(1), name), expected, "{name}");
        }
    }

    #[test]
    fn lists_are_short_and_cannot_be_forged() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let lost = ManagedInstance {
            state: "ConnectionLost".to_owned(),
            last_ping: Some(now - Duration::from_secs(7200)),
            name: "a\n\u{1b}[2Jb".to_owned(),
            ..instance(2)
        };
        assert_eq!(
            list(&[instance(1), lost], now),
            "  i-1  web.internal   Online                        Linux\n  \
             i-2  a\\x0a\\x1b[2Jb  ConnectionLost (2 hours ago)  Linux\n"
        );
        let many: Vec<_> = (0..30).map(instance).collect();
        let text = list(&many, now);
        assert!(text.lines().count() == 21 && text.ends_with("  … and 10 more\n"), "{text}");
        assert_eq!(ago(now - Duration::from_secs(600), now), "10 minutes ago");
        assert_eq!(ago(now + Duration::from_secs(600), now), "0 s ago");
    }
}
