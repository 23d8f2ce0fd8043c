//! Managed instances, as DescribeInstanceInformation knows them.

use std::collections::BTreeMap;
use std::str::FromStr;

/// One managed instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// `i-…` or `mi-…`.
    pub id: String,
    /// Name of the computer itself.
    pub computer_name: String,
    /// `Linux`, `Windows` or `MacOS`.
    pub platform_type: String,
    /// The operating system's name.
    pub platform_name: String,
    /// Version of its agent.
    pub agent_version: String,
    /// True if its agent is connected.
    pub ping_status: PingStatus,
    /// Tags; its usual name is the tag `Name`.
    pub tags: BTreeMap<String, String>,
}

/// Connection of an instance's agent to the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PingStatus {
    /// Connected.
    Online,
    /// Not heard of for five minutes.
    ConnectionLost,
    /// Stopped, or not heard of for long.
    Inactive,
}

/// An SSH public key on its way to an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedKey {
    /// The instance.
    pub instance: String,
    /// Its user who may log in with the key.
    pub user: String,
    /// The key, in the form of `authorized_keys`.
    pub key: String,
}

impl Instance {
    /// A connected Linux instance without a name.
    #[must_use]
    pub fn new(id: &str) -> Instance {
        Instance {
            id: id.to_owned(),
            computer_name: format!("ip-{}.ec2.internal", id.trim_start_matches("i-")),
            platform_type: "Linux".to_owned(),
            platform_name: "Amazon Linux".to_owned(),
            agent_version: "3.3.4851.0".to_owned(),
            ping_status: PingStatus::Online,
            tags: BTreeMap::new(),
        }
    }

    /// The same with a tag.
    #[must_use]
    pub fn with_tag(mut self, key: &str, value: &str) -> Instance {
        self.tags.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The same with the tag `Name`.
    #[must_use]
    pub fn named(self, name: &str) -> Instance {
        self.with_tag("Name", name)
    }

    /// The same with another version of the agent.
    #[must_use]
    pub fn with_agent(mut self, version: &str) -> Instance {
        version.clone_into(&mut self.agent_version);
        self
    }

    /// The same in another state.
    #[must_use]
    pub fn in_state(self, ping_status: PingStatus) -> Instance {
        Instance { ping_status, ..self }
    }
}

/// `ID[,name=NAME][,computer=NAME][,platform=TYPE][,state=STATE][,tag:KEY=VALUE]…`.
impl FromStr for Instance {
    type Err = String;

    fn from_str(text: &str) -> Result<Instance, String> {
        let mut parts = text.split(',');
        let id = parts.next().filter(|id| !id.is_empty()).ok_or("expected an instance id")?;
        let mut instance = Instance::new(id);
        for part in parts {
            let (name, value) = part.split_once('=').ok_or_else(|| format!("{part:?} is not name=value"))?;
            match (name, name.strip_prefix("tag:")) {
                ("name", _) => instance = instance.named(value),
                ("computer", _) => value.clone_into(&mut instance.computer_name),
                ("platform", _) => {
                    value.clone_into(&mut instance.platform_type);
                    value.clone_into(&mut instance.platform_name);
                }
                ("state", _) => instance.ping_status = value.parse()?,
                (_, Some(tag)) => instance = instance.with_tag(tag, value),
                _ => return Err(format!("unknown property {name:?}")),
            }
        }
        Ok(instance)
    }
}

impl PingStatus {
    /// Its name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            PingStatus::Online => "Online",
            PingStatus::ConnectionLost => "ConnectionLost",
            PingStatus::Inactive => "Inactive",
        }
    }
}

impl FromStr for PingStatus {
    type Err = String;

    fn from_str(text: &str) -> Result<PingStatus, String> {
        let all = [PingStatus::Online, PingStatus::ConnectionLost, PingStatus::Inactive];
        let found = all.into_iter().find(|status| status.name() == text);
        found.ok_or_else(|| format!("{text:?} is not Online, ConnectionLost or Inactive"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_on_the_command_line() {
        let instance: Instance =
            "i-1,name=web 1,state=ConnectionLost,platform=Windows,tag:Env=prod".parse().unwrap();
        assert_eq!((instance.id.as_str(), instance.tags["Name"].as_str()), ("i-1", "web 1"));
        assert_eq!(
            (instance.ping_status, instance.platform_type.as_str()),
            (PingStatus::ConnectionLost, "Windows")
        );
        assert_eq!(instance.tags["Env"], "prod");
        for text in ["", ",name=x", "i-1,name", "i-1,state=Gone", "i-1,colour=red"] {
            assert!(text.parse::<Instance>().is_err(), "{text}");
        }
    }
}
