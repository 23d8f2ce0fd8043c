//! The identity behind the credentials, as STS knows it.

use std::time::Duration;

use super::client::{Client, contained};
use super::error::{AwsError, ErrorKind};

/// The account and principal that credentials belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its number.
    pub account: String,
    /// `arn:aws:iam::123456789012:user/jane`
    pub arn: String,
}

impl Client {
    /// Tests the credentials: every valid pair may make this call.
    ///
    /// # Errors
    /// See [`AwsError`]; [`ErrorKind::BadCredentials`] for a key that does not exist, is expired, or has another secret.
    pub async fn caller(&self) -> Result<Caller, AwsError> {
        const CALL: &str = "sts:GetCallerIdentity";
        let answer = contained(CALL, async {
            let (config, key) = self.config(CALL, TIMEOUT).await?;
            let answer = aws_sdk_sts::Client::new(&config).get_caller_identity().send().await;
            self.answer(CALL, &key, answer).await
        })
        .await?;
        match (answer.account, answer.arn) {
            (Some(account), Some(arn)) => Ok(Caller { account, arn }),
            _ => Err(AwsError::new(CALL, ErrorKind::Refused, "the response is incomplete")),
        }
    }

    /// The command line that makes the same call with the AWS CLI.
    pub fn check_command(&self) -> String {
        match self.profile() {
            Some(profile) => format!("`aws sts get-caller-identity --profile {profile}`"),
            None => "`aws sts get-caller-identity`".to_owned(),
        }
    }
}

const TIMEOUT: Duration = Duration::from_secs(8);
