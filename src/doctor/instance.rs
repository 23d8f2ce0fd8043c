//! The target of a session, as the service knows it.

use std::time::SystemTime;

use super::network::Route;
use super::options::Options;
use super::report::{Check, time};
use crate::aws::{Client, ErrorKind, InvalidTag, ManagedInstance, TargetName};

/// Looks up the instance that `--target` names: its connection to the service, its platform, its agent's version.
///
/// SSM has no dry run for StartSession, so the permission to start sessions is not checked.
pub(super) async fn check(options: &Options, route: &Route, client: Option<&Client>) -> Check {
    const NAME: &str = "instance";
    let Some(target) = options.target.as_deref() else {
        return Check::skipped(NAME, "no --target to look up");
    };
    let name = match TargetName::parse(target) {
        Ok(name) => name,
        Err(error) => return Check::failure(NAME, error.to_string()).advice(InvalidTag::ADVICE),
    };
    if target.starts_with("ecs:") {
        return Check::skipped(NAME, "an ECS container; check its agent with aws ecs describe-tasks");
    }
    if let Err(reason) = route.usable() {
        return Check::skipped(NAME, reason);
    }
    let Some(client) = client else { return Check::skipped(NAME, "cannot be looked up without a region") };
    let (key, value) = filter(name);
    match client.instances(Some((&key, value))).await {
        Ok(found) => judge(target, &found),
        Err(error) => match error.kind {
            ErrorKind::Denied => Check::skipped(
                NAME,
                "no permission to look up instances (ssm:DescribeInstanceInformation); only targets given by name or tag need it",
            )
            .field("allowed", false),
            ErrorKind::NoCredentials
            | ErrorKind::BadCredentials
            | ErrorKind::SignInNeeded
            | ErrorKind::UnsafeCache
            | ErrorKind::UnreadableFile => Check::skipped(NAME, "see the credentials check"),
            _ => Check::skipped(NAME, format!("cannot be checked: {error}")),
        },
    }
}

/// The filter of DescribeInstanceInformation.
fn filter(name: TargetName<'_>) -> (String, &str) {
    match name {
        TargetName::Id(id) => ("InstanceIds".to_owned(), id),
        TargetName::Tag(key, value) => (format!("tag:{key}"), value),
        TargetName::Name(name) => ("tag:Name".to_owned(), name),
    }
}

fn judge(target: &str, found: &[ManagedInstance]) -> Check {
    const NAME: &str = "instance";
    let instance = match found {
        [instance] => instance,
        [] => {
            let text = match TargetName::parse(target) {
                Ok(TargetName::Name(_)) => format!(
                    "no managed instance of this account and region has the Name tag {target} (doctor does not look up \
                     computer names: if this is one, use the instance id)"
                ),
                _ => format!("{target} is not a managed instance of this account and region"),
            };
            return Check::failure(NAME, text)
            .advice(
                "check --region and --profile; check that SSM Agent runs on the instance, and that the instance's role allows \
                 Systems Manager (AmazonSSMManagedInstanceCore)",
            );
        }
        several => {
            let ids: Vec<&str> = several.iter().map(|instance| instance.id.as_str()).take(MAX_IDS).collect();
            return Check::warning(
                NAME,
                format!("{target} matches {} instances: {}", several.len(), ids.join(", ")),
            )
            .advice("use the id of one instance");
        }
    };
    let ManagedInstance { id, state, platform, agent_version, .. } = instance;
    let seen =
        instance.last_ping.filter(|_| state != ONLINE).map(|ping| format!(", last seen {}", time(ping)));
    let text = format!(
        "{id} is {}{}; {platform}, SSM Agent {}",
        if state == ONLINE { "connected" } else { "not connected" },
        seen.unwrap_or_default(),
        if agent_version.is_empty() { "of unknown version" } else { agent_version },
    );
    let outdated = shortcomings(agent_version);
    let check = match (state.as_str(), outdated.as_slice()) {
        (ONLINE, []) => Check::ok(NAME, text),
        (ONLINE, outdated) => Check::warning(NAME, format!("{text}; this version of the agent lacks: {}", outdated.join("; ")))
            .advice(format!(
                "update the agent: aws ssm send-command --document-name AWS-UpdateSSMAgent --targets Key=InstanceIds,Values={id}"
            )),
        ("Inactive", _) => Check::failure(NAME, text).advice("start the instance"),
        _ => Check::failure(NAME, text)
            .advice("check that the instance runs and that its SSM Agent can reach the service"),
    };
    let check = check
        .field("id", id.as_str())
        .field("state", state.as_str())
        .field("platform", platform.as_str())
        .field("agent_version", agent_version.as_str());
    instance
        .last_ping
        .into_iter()
        .fold(check, |check: Check, ping: SystemTime| check.field("last_ping", time(ping)))
}

/// Returns the things that an agent of this version is too old for. Nothing is known of versions that are not numbers.
fn shortcomings(version: &str) -> Vec<&'static str> {
    let Some(version) = version.split('.').map(|part| part.parse().ok()).collect::<Option<Vec<u64>>>() else {
        return Vec::new();
    };
    NEEDS.iter().filter(|(since, _)| version.as_slice() < since.as_slice()).map(|(_, what)| *what).collect()
}

/// The first version with each ability or fix. The abilities are the official plugin's gates (`AgentVersion`).
const NEEDS: [([u64; 3], &str); 3] = [
    ([2, 3, 723], "support for ending a session through the agent"),
    (
        [3, 0, 197],
        "support for several connections at once through one port, and for SSM_PLUGIN_RESTART, _FORWARD and _SOCKS",
    ),
    ([3, 3, 4851], "the fix for CVE-2026-89049"),
];
/// The state of an instance that sessions can be started on.
const ONLINE: &str = "Online";
/// Ids that are listed.
const MAX_IDS: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Status;

    #[test]
    fn agents_that_are_too_old() {
        assert!(shortcomings("3.3.4851.0").is_empty() && shortcomings("4.0").is_empty());
        assert_eq!(shortcomings("3.3.4793.0"), ["the fix for CVE-2026-89049"]);
        assert_eq!(shortcomings("3.0.196.0").len(), 2);
        assert_eq!(shortcomings("2.3.1.0").len(), 3);
        assert!(shortcomings("").is_empty() && shortcomings("new").is_empty());
    }

    #[test]
    fn states() {
        let instance = |state: &str, version: &str| ManagedInstance {
            id: "i-1".into(),
            name: String::new(),
            state: state.into(),
            last_ping: Some(SystemTime::UNIX_EPOCH),
            platform: "Amazon Linux".into(),
            is_windows: false,
            agent_version: version.into(),
        };
        let judge = |state, version| judge("i-1", &[instance(state, version)]);
        let check = judge("Online", "3.3.4851.0");
        assert_eq!(check.found, "i-1 is connected; Amazon Linux, SSM Agent 3.3.4851.0");
        let check = judge("Online", "3.3.1.0");
        assert_eq!(check.status, Status::Warning);
        assert!(check.advice.unwrap().ends_with("AWS-UpdateSSMAgent --targets Key=InstanceIds,Values=i-1"));
        let check = judge("ConnectionLost", "3.3.1.0");
        assert_eq!(check.status, Status::Failure);
        assert!(check.found.contains("not connected, last seen 1970-01-01T00:00:00Z"), "{}", check.found);
        let two = [instance("Online", ""), instance("Online", "")];
        assert_eq!(super::judge("web", &two).found, "web matches 2 instances: i-1, i-1");
    }
}
