//! Settings that relax a safeguard, named to the user with their meaning.

use std::fmt;
use std::net::IpAddr;

use super::Settings;

/// A safeguard that a setting relaxes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Relaxation {
    /// Name of the setting's variable.
    pub name: &'static str,
    /// Its value, as it is in use.
    pub value: String,
    /// The consequence.
    pub meaning: &'static str,
    /// Only forwarded ports have it.
    pub is_of_ports: bool,
}

impl fmt::Display for Relaxation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}: {}", self.name, self.value, self.meaning)
    }
}

impl Settings {
    /// Returns the safeguards that these settings relax.
    pub(crate) fn relaxations(&self) -> Vec<Relaxation> {
        let mut found = Vec::new();
        let mut add = |name, value: &str, meaning, is_of_ports| {
            found.push(Relaxation { name, value: value.to_owned(), meaning, is_of_ports });
        };
        if let Some(host) = self.local_host.as_deref().filter(|host| !is_loopback(host)) {
            add("SSM_PLUGIN_LOCAL_HOST", host, OTHER_MACHINES, true);
        }
        for forward in &self.forward.list {
            if let Some(bind) = forward.bind.as_deref().filter(|bind| !is_loopback(bind)) {
                let value = format!("{bind}:{}:{}", forward.local_port, forward.destination);
                add("SSM_PLUGIN_FORWARD", &value, OTHER_MACHINES, true);
            }
        }
        let starts_sessions = self.restart || self.socks.is_some() || !self.forward.is_empty();
        if self.any_user && starts_sessions {
            add(
                "SSM_PLUGIN_ANY_USER",
                "1",
                "all users of this machine can connect and use your AWS permissions",
                true,
            );
        }
        if let Some(host) = &self.allow_stream_host {
            add("SSM_PLUGIN_ALLOW_STREAM_HOST", host, "this host may also receive a session's token", false);
        }
        if self.message_rate == 0 || self.message_rate > SERVICE_RATE {
            let rate = self.message_rate.to_string();
            let meaning = "the service ends sessions that send more than about 1000 messages per second";
            add("SSM_PLUGIN_MESSAGE_RATE", &rate, meaning, false);
        }
        found
    }
}

/// Returns whether only this machine can reach a listener on `host`. A name that is not known for that may be any.
fn is_loopback(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

const OTHER_MACHINES: &str = "other machines can connect to the forwarded port";
/// Messages per second at which the service ends sessions.
const SERVICE_RATE: u32 = 1000;

#[cfg(test)]
mod tests {
    use crate::settings::{LoadedSettings, Subject};

    fn relaxations(environment: &[(&str, &str)]) -> Vec<String> {
        let get =
            |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        let loaded = LoadedSettings::from(get, std::iter::empty(), None, &Subject::default());
        loaded.settings.relaxations().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn defaults_and_loopback_relax_nothing() {
        assert!(relaxations(&[]).is_empty());
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "[::1]", "::ffff:127.0.0.1"] {
            assert!(relaxations(&[("SSM_PLUGIN_LOCAL_HOST", host)]).is_empty(), "{host}");
        }
        assert!(relaxations(&[("SSM_PLUGIN_FORWARD", "1:db:2 127.0.0.1:3:db:4")]).is_empty());
        assert!(relaxations(&[("SSM_PLUGIN_ANY_USER", "1")]).is_empty(), "no port that it is about");
        assert!(relaxations(&[("SSM_PLUGIN_MESSAGE_RATE", "1000")]).is_empty());
    }

    #[test]
    fn each_with_value_and_meaning() {
        let found = relaxations(&[
            ("SSM_PLUGIN_LOCAL_HOST", "0.0.0.0"),
            ("SSM_PLUGIN_FORWARD", "*:15432:db.internal:5432,1:db:2"),
            ("SSM_PLUGIN_ANY_USER", "yes"),
            ("SSM_PLUGIN_ALLOW_STREAM_HOST", "gateway.example"),
            ("SSM_PLUGIN_MESSAGE_RATE", "0"),
        ]);
        assert_eq!(found.len(), 5, "{found:#?}");
        assert_eq!(
            found[0],
            "SSM_PLUGIN_LOCAL_HOST=0.0.0.0: other machines can connect to the forwarded port"
        );
        assert!(
            found[1].starts_with("SSM_PLUGIN_FORWARD=") && found[1].contains(":15432:db.internal:5432: ")
        );
        assert!(found[2].starts_with("SSM_PLUGIN_ANY_USER=1: "));
        assert!(found[3].starts_with("SSM_PLUGIN_ALLOW_STREAM_HOST=gateway.example: "));
        assert!(found[4].starts_with("SSM_PLUGIN_MESSAGE_RATE=0: "));
        assert_eq!(relaxations(&[("SSM_PLUGIN_MESSAGE_RATE", "1001")]).len(), 1);
        assert_eq!(relaxations(&[("SSM_PLUGIN_LOCAL_HOST", "my-laptop")]).len(), 1);
    }
}
