//! The SSM endpoint of a call.

use url::{Host, Url};

/// The endpoint for all services: a stand-in on loopback.
pub(super) fn for_all(endpoint: Option<&str>) -> Option<String> {
    let is_loopback = match Url::parse(endpoint?).ok()?.host()? {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    };
    endpoint.filter(|_| is_loopback).map(str::to_owned)
}

/// The endpoint for SSM that the caller's words name, `None` for the SDK's own rules.
///
/// The AWS CLI hands over the endpoint of the service that made the session. `aws ecs execute-command` makes it with
/// ECS, which knows neither ResumeSession nor TerminateSession. On loopback one stand-in is taken to serve both, unless
/// the environment (`is_configured`) names another endpoint for SSM.
pub(super) fn for_ssm(endpoint: Option<&str>, target: Option<&str>, is_configured: bool) -> Option<String> {
    let endpoint = endpoint?;
    let url = Url::parse(endpoint).ok().filter(|url| matches!(url.scheme(), "https" | "http"))?;
    let host = url.host()?;
    let is_task = target.is_some_and(|target| target.starts_with("ecs:"));
    let is_kept = match &host {
        Host::Domain(name) if *name == "localhost" => !(is_task && is_configured),
        Host::Domain(name) => {
            let has = |service: &str| {
                let fips = format!("{service}-fips");
                name.split('.').any(|label| label.eq_ignore_ascii_case(service) || label == fips)
            };
            !has("ecs") && (!is_task || has("ssm"))
        }
        Host::Ipv4(address) if address.is_loopback() => !(is_task && is_configured),
        Host::Ipv6(address) if address.is_loopback() => !(is_task && is_configured),
        _ => !is_task,
    };
    is_kept.then(|| endpoint.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: Option<&str> = Some("ecs:cluster_0123456789abcdef_0123456789abcdef-2531612879");

    fn kept(endpoint: &str, target: Option<&str>) -> bool {
        match for_ssm(Some(endpoint), target, false) {
            Some(kept) => {
                assert_eq!(kept, endpoint);
                true
            }
            None => false,
        }
    }

    #[test]
    fn a_stand_in_on_loopback_is_all_services() {
        for (endpoint, is_for_all) in [
            ("http://127.0.0.1:8080", true),
            ("http://[::1]:8080", true),
            ("http://localhost:4566", true),
            ("https://vpce-1-2.ssm.us-east-1.vpce.amazonaws.com", false),
            ("localhost", false),
        ] {
            assert_eq!(for_all(Some(endpoint)).is_some(), is_for_all, "{endpoint}");
        }
    }

    #[test]
    fn the_endpoint_of_ssm_is_used() {
        for endpoint in [
            "https://ssm.eu-west-1.amazonaws.com",
            "https://ssm-fips.us-gov-west-1.amazonaws.com",
            "https://vpce-1-2.ssm.us-east-1.vpce.amazonaws.com",
            "http://127.0.0.1:8080",
            "http://[::1]:8080",
            "http://localhost:4566",
        ] {
            assert!(kept(endpoint, Some("i-0123456789abcdef0")), "{endpoint}");
            assert!(kept(endpoint, TASK), "{endpoint}");
        }
        assert!(kept("https://gateway.example", Some("i-0123456789abcdef0")));
    }

    #[test]
    fn the_endpoint_of_ecs_is_not() {
        for endpoint in [
            "https://ecs.eu-west-1.amazonaws.com",
            "https://ecs-fips.us-east-1.amazonaws.com",
            "https://ecs.eu-west-1.api.aws",
            "https://vpce-1-2.ecs.us-east-1.vpce.amazonaws.com",
        ] {
            assert!(!kept(endpoint, TASK), "{endpoint}");
            assert!(!kept(endpoint, None), "{endpoint}");
        }
        assert!(!kept("https://gateway.example", TASK));
    }

    #[test]
    fn a_stand_in_gives_way_to_an_endpoint_of_the_environment() {
        assert_eq!(for_ssm(Some("http://127.0.0.1:1"), TASK, true), None);
        let instance = Some("i-0123456789abcdef0");
        assert!(for_ssm(Some("http://127.0.0.1:1"), instance, true).is_some());
    }

    #[test]
    fn what_is_no_endpoint_is_ignored() {
        for endpoint in ["", "ssm.eu-west-1.amazonaws.com", "ftp://ssm.eu-west-1.amazonaws.com", "https://"] {
            assert!(!kept(endpoint, None), "{endpoint}");
        }
        assert_eq!(for_ssm(None, None, false), None);
    }
}
