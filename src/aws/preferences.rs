//! The account's preferences for sessions, and whether their key may be used: for `doctor`.

use std::time::Duration;

use aws_sdk_kms::types::DataKeySpec;
use serde_json::Value;

use super::client::{Client, contained};
use super::error::AwsError;

impl Client {
    /// The KMS key that the account's shells are encrypted with; `None` if there is none.
    ///
    /// # Errors
    /// See [`AwsError`].
    pub async fn session_key(&self) -> Result<Option<String>, AwsError> {
        const CALL: &str = "ssm:GetDocument";
        let answer = contained(CALL, async {
            let (ssm, key) = self.ssm(CALL, TIMEOUT).await?;
            let answer = Box::pin(ssm.get_document().name(PREFERENCES).send()).await;
            let is_absent = answer.as_ref().is_err_and(|error| {
                error.as_service_error().is_some_and(|error| error.is_invalid_document())
            });
            // An account that has never opened the preferences has none.
            if is_absent { Ok(None) } else { self.answer(CALL, &key, answer).await.map(Some) }
        })
        .await?;
        let content = answer.and_then(|answer| answer.content).unwrap_or_default();
        let document: Value = serde_json::from_str(&content).unwrap_or_default();
        let key = document["inputs"]["kmsKeyId"].as_str().filter(|key| !key.is_empty());
        Ok(key.map(str::to_owned))
    }

    /// Checks by a dry run that these credentials may make a data key for sessions on `target`.
    ///
    /// # Errors
    /// See [`AwsError`].
    pub async fn check_data_key(&self, key_id: &str, target: Option<&str>) -> Result<(), AwsError> {
        const CALL: &str = "kms:GenerateDataKey";
        contained(CALL, async {
            let (config, key) = self.config(CALL, TIMEOUT).await?;
            let generate = aws_sdk_kms::Client::new(&config)
                .generate_data_key()
                .dry_run(true)
                .key_id(key_id)
                .key_spec(DataKeySpec::Aes256)
                .encryption_context("aws:ssm:SessionId", "doctor");
            let generate = match target {
                Some(target) => generate.encryption_context("aws:ssm:TargetId", target),
                None => generate,
            };
            let answer = Box::pin(generate.send()).await;
            let would_succeed = answer.as_ref().is_err_and(|error| {
                error.as_service_error().is_some_and(|error| error.is_dry_run_operation_exception())
            });
            if would_succeed { Ok(()) } else { self.answer(CALL, &key, answer).await.map(drop) }
        })
        .await
    }
}

/// The document of the account's preferences, which is also that of shells.
const PREFERENCES: &str = "SSM-SessionManagerRunShell";
const TIMEOUT: Duration = Duration::from_secs(10);
