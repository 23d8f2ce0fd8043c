//! EC2 Instance Connect: public keys that are good for a minute.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use crate::service::Service;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SendSshPublicKey {
    instance_id: Option<String>,
    #[serde(rename = "InstanceOSUser")]
    user: Option<String>,
    #[serde(rename = "SSHPublicKey")]
    key: Option<String>,
}

pub(super) fn send_ssh_public_key(
    service: &Arc<Service>,
    request: &SendSshPublicKey,
) -> Result<Value, ApiError> {
    let id = request.instance_id.as_deref().ok_or_else(|| ApiError::missing("instanceId"))?;
    let user = request.user.as_deref().ok_or_else(|| ApiError::missing("instanceOSUser"))?;
    let key = request.key.as_deref().ok_or_else(|| ApiError::missing("sSHPublicKey"))?.trim();
    if !service.instances().iter().any(|instance| instance.id == id) {
        return Err(ApiError::new("EC2InstanceNotFoundException", format!("Instance {id} does not exist")));
    }
    let words: Vec<&str> = key.split_whitespace().collect();
    let is_key = words.len() >= 2 && KINDS.contains(&words[0]) && !key.contains(['\n', '\r']);
    if !is_key {
        return Err(ApiError::new("InvalidArgsException", "The specified public key is not valid."));
    }
    service.push_key(id, user, key).map_err(|error| ApiError::server("ServiceException", error))?;
    Ok(json!({ "RequestId": uuid::Uuid::new_v4().to_string(), "Success": true }))
}

/// The kinds of keys that the service documents.
const KINDS: [&str; 2] = ["ssh-rsa", "ssh-ed25519"];
