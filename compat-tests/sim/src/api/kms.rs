//! TrentService: KMS data keys.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::account::ACCOUNT;
use super::error::ApiError;
use crate::kms::Context;
use crate::service::Service;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct GenerateDataKey {
    key_id: Option<String>,
    number_of_bytes: Option<usize>,
    key_spec: Option<String>,
    encryption_context: Option<Context>,
    dry_run: Option<bool>,
}

pub(super) fn generate_data_key(
    service: &Arc<Service>,
    request: &GenerateDataKey,
) -> Result<Value, ApiError> {
    let key_id = request.key_id.as_deref().ok_or_else(|| ApiError::missing("keyId"))?;
    allowed(service, "kms:GenerateDataKey", key_id)?;
    let keys = &service.config.kms.keys;
    if !keys.is_empty() && !keys.iter().any(|k| k == key_id) {
        return Err(ApiError::new(
            "NotFoundException",
            format!("Key '{}' does not exist", arn(service, key_id)),
        ));
    }
    let length = match (request.number_of_bytes, request.key_spec.as_deref()) {
        (Some(length @ 1..=1024), None) => length,
        (None, Some("AES_256")) => 32,
        (None, Some("AES_128")) => 16,
        _ => {
            return Err(ApiError::new(
                "ValidationException",
                "Please specify either number of bytes or key spec.",
            ));
        }
    };
    if request.dry_run == Some(true) {
        return Err(ApiError::new(
            "DryRunOperationException",
            "The request would have succeeded, but the DryRun option is set.",
        ));
    }
    let context = request.encryption_context.clone().unwrap_or_default();
    let key = service.kms.generate(key_id, length, &context);
    let key = key.ok_or_else(|| ApiError::server("KMSInternalException", "no randomness"))?;
    service.note_secret(&key.plaintext);
    Ok(json!({
        "KeyId": arn(service, key_id),
        "Plaintext": STANDARD.encode(key.plaintext),
        "CiphertextBlob": STANDARD.encode(key.blob),
    }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Decrypt {
    ciphertext_blob: Option<String>,
    encryption_context: Option<Context>,
}

pub(super) fn decrypt(service: &Arc<Service>, request: &Decrypt) -> Result<Value, ApiError> {
    allowed(service, "kms:Decrypt", "*")?;
    let blob = request.ciphertext_blob.as_deref().ok_or_else(|| ApiError::missing("ciphertextBlob"))?;
    let blob = STANDARD.decode(blob).map_err(|e| ApiError::new("SerializationException", e.to_string()))?;
    let context = request.encryption_context.clone().unwrap_or_default();
    let opened = service.kms.decrypt(&blob, &context);
    let (key_id, plaintext) = opened.ok_or_else(|| ApiError::new("InvalidCiphertextException", ""))?;
    Ok(json!({
        "KeyId": arn(service, &key_id),
        "Plaintext": STANDARD.encode(plaintext),
        "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
    }))
}

fn allowed(service: &Service, action: &str, resource: &str) -> Result<(), ApiError> {
    if !service.config.kms.deny {
        return Ok(());
    }
    let user = &service.config.user;
    Err(ApiError::new(
        "AccessDeniedException",
        format!(
            "User: arn:aws:iam::{ACCOUNT}:user/{user} is not authorized to perform: {action} on resource: {resource}"
        ),
    ))
}

fn arn(service: &Service, key_id: &str) -> String {
    let region = &service.config.region;
    if key_id.starts_with("arn:") {
        key_id.to_owned()
    } else if key_id.starts_with("alias/") {
        format!("arn:aws:kms:{region}:{ACCOUNT}:{key_id}")
    } else {
        format!("arn:aws:kms:{region}:{ACCOUNT}:key/{key_id}")
    }
}
