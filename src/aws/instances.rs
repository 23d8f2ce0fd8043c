//! The managed instances of an account, as DescribeInstanceInformation knows them.

use std::time::{Duration, SystemTime};

use aws_sdk_ssm::types::{InstanceInformation, InstanceInformationStringFilter};

use super::client::Client;
use super::error::{AwsError, ErrorKind};

/// One managed instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedInstance {
    /// `i-…` or `mi-…`.
    pub id: String,
    /// The computer's name for itself, or the name given when it was registered; may be empty.
    pub name: String,
    /// `Online`, `ConnectionLost` or `Inactive`.
    pub state: String,
    /// When the service last heard from the agent.
    pub last_ping: Option<SystemTime>,
    /// The operating system; may be empty.
    pub platform: String,
    /// True if it is Windows.
    pub is_windows: bool,
    /// The version of its agent; may be empty.
    pub agent_version: String,
}

impl Client {
    /// The instances that `filter` (`tag:Name`, `InstanceIds`, …) selects; all of them without one, up to a thousand.
    ///
    /// # Errors
    /// See [`AwsError`].
    pub async fn instances(&self, filter: Option<(&str, &str)>) -> Result<Vec<ManagedInstance>, AwsError> {
        const CALL: &str = "ssm:DescribeInstanceInformation";
        let refused = |error: aws_sdk_ssm::error::BuildError| AwsError::new(CALL, ErrorKind::Refused, error);
        let filter = match filter {
            Some((key, value)) => {
                let filter = InstanceInformationStringFilter::builder().key(key).values(value).build();
                Some(filter.map_err(refused)?)
            }
            None => None,
        };
        let mut found = Vec::new();
        let mut token = None;
        for _ in 0..MAX_PAGES {
            let (ssm, key) = self.ssm(CALL, TIMEOUT).await?;
            let call = ssm.describe_instance_information().max_results(PAGE);
            let call = call.set_filters(filter.clone().map(|filter| vec![filter])).set_next_token(token);
            let answer = self.answer(CALL, &key, call.send().await).await?;
            found.extend(answer.instance_information_list.unwrap_or_default().into_iter().map(into_instance));
            token = answer.next_token.filter(|token| !token.is_empty());
            if token.is_none() {
                break;
            }
        }
        Ok(found)
    }
}

fn into_instance(found: InstanceInformation) -> ManagedInstance {
    let platform_type = found.platform_type.map(|kind| kind.as_str().to_owned()).unwrap_or_default();
    ManagedInstance {
        id: found.instance_id.unwrap_or_default(),
        name: found.computer_name.or(found.name).unwrap_or_default(),
        state: found.ping_status.map(|status| status.as_str().to_owned()).unwrap_or_default(),
        last_ping: found.last_ping_date_time.and_then(|time| SystemTime::try_from(time).ok()),
        platform: found.platform_name.unwrap_or_else(|| platform_type.clone()),
        is_windows: platform_type == "Windows",
        agent_version: found.agent_version.unwrap_or_default(),
    }
}

/// The largest page that the service allows.
const PAGE: i32 = 50;
const MAX_PAGES: usize = 20;
/// For each page.
const TIMEOUT: Duration = Duration::from_secs(15);
