//! AmazonSSM: managed instances.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use crate::instance::{Instance, PingStatus};
use crate::service::Service;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DescribeInstanceInformation {
    #[serde(default)]
    filters: Vec<Filter>,
    max_results: Option<usize>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Filter {
    key: String,
    values: Vec<String>,
}

pub(super) fn describe_instance_information(
    service: &Arc<Service>,
    request: &DescribeInstanceInformation,
) -> Result<Value, ApiError> {
    let page = request.max_results.unwrap_or(LARGEST_PAGE);
    if !(SMALLEST_PAGE..=LARGEST_PAGE).contains(&page) {
        return Err(ApiError::new(
            "ValidationException",
            format!(
                "1 validation error detected: Value '{page}' at 'maxResults' failed to satisfy constraint"
            ),
        ));
    }
    let start = match &request.next_token {
        Some(token) => token
            .parse()
            .map_err(|_| ApiError::new("InvalidNextToken", "The specified token is not valid."))?,
        None => 0,
    };
    let mut found = Vec::new();
    for instance in service.instances() {
        let mut matches = true;
        for filter in &request.filters {
            matches &= filter.matches(&instance)?;
        }
        if matches {
            found.push(instance);
        }
    }
    let list: Vec<Value> = found.iter().skip(start).take(page).map(information).collect();
    let mut answer = json!({ "InstanceInformationList": list });
    if start + page < found.len() {
        answer["NextToken"] = (start + page).to_string().into();
    }
    Ok(answer)
}

impl Filter {
    fn matches(&self, instance: &Instance) -> Result<bool, ApiError> {
        let has = |value: &str| self.values.iter().any(|wanted| wanted == value);
        Ok(match self.key.as_str() {
            "InstanceIds" => has(&instance.id),
            "PingStatus" => has(instance.ping_status.name()),
            "PlatformTypes" => has(&instance.platform_type),
            "tag-key" => instance.tags.keys().any(|key| has(key)),
            key => match key.strip_prefix("tag:") {
                Some(tag) => instance.tags.get(tag).is_some_and(|value| has(value)),
                None => {
                    return Err(ApiError::new(
                        "InvalidInstanceInformationFilterValue",
                        format!("{key} is not a filter."),
                    ));
                }
            },
        })
    }
}

fn information(instance: &Instance) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let silent = if instance.ping_status == PingStatus::Online { 0.0 } else { LOST_SINCE_SECONDS };
    let is_managed = instance.id.starts_with("mi-");
    json!({
        "InstanceId": instance.id,
        "PingStatus": instance.ping_status.name(),
        "LastPingDateTime": now - silent,
        "AgentVersion": instance.agent_version,
        "IsLatestVersion": true,
        "PlatformType": instance.platform_type,
        "PlatformName": instance.platform_name,
        "ResourceType": if is_managed { "ManagedInstance" } else { "EC2Instance" },
        "ComputerName": instance.computer_name,
        "IPAddress": "10.0.0.7",
    })
}

/// The service's limits of `MaxResults`.
const SMALLEST_PAGE: usize = 5;
const LARGEST_PAGE: usize = 50;
/// Time since the last ping of an instance that is not online.
const LOST_SINCE_SECONDS: f64 = 7200.0;
