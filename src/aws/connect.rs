//! EC2 Instance Connect: a public key that an instance accepts for a minute. One call of AWS's JSON protocol, signed here,
//! since its SDK would be larger than all the rest of this module.

use std::time::{Duration, SystemTime};

use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, OrchestratorError};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::timeout::TimeoutConfig;
use serde_json::{Value, json};
use url::Url;

use super::client::Client;
use super::error::{AwsError, ErrorKind};
use super::sign;

impl Client {
    /// Sends a public key, in the form of `authorized_keys`, for `user` of an instance.
    ///
    /// # Errors
    /// See [`AwsError`].
    pub async fn push_key(&self, instance: &str, user: &str, key: &str) -> Result<(), AwsError> {
        let refused = |reason: String| AwsError::new(CALL, ErrorKind::Refused, reason);
        let (config, credentials) = self.for_signing(CALL, TIMEOUT).await?;
        let region = config.region().map(|region| region.as_ref().to_owned()).unwrap_or_default();
        let dual_stack = config.use_dual_stack() == Some(true);
        let url = match self.endpoint_for(ENDPOINT_VARIABLE) {
            Some(endpoint) => endpoint,
            None => endpoint(&region, config.use_fips() == Some(true), dual_stack),
        };
        let url = Url::parse(&url).map_err(|error| refused(format!("{url}: {error}")))?;
        let body = json!({"InstanceId": instance, "InstanceOSUser": user, "SSHPublicKey": key}).to_string();
        let headers = [("content-type", CONTENT_TYPE), ("x-amz-target", TARGET)];
        let signed =
            sign::post(&url, &region, SERVICE, &headers, body.as_bytes(), &credentials, SystemTime::now());
        let mut request =
            http::Request::post(url.as_str()).header("host", sign::host(&url).map_err(refused)?);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        for (name, value) in &signed.map_err(refused)? {
            request = request.header(name, value);
        }
        let request = request.body(SdkBody::from(body)).map_err(|error| refused(error.to_string()))?;
        let request = HttpRequest::try_from(request).map_err(|error| refused(error.to_string()))?;
        let timeouts = TimeoutConfig::builder().operation_timeout(TIMEOUT).build();
        let mut operation = Operation::builder()
            .service_name("EC2InstanceConnect")
            .operation_name("SendSSHPublicKey")
            .endpoint_url(url.as_str())
            .no_auth()
            .no_retry()
            .timeout_config(timeouts)
            .serializer(Ok)
            .deserializer(|response: &HttpResponse| {
                let body = response.body().bytes().unwrap_or_default().to_vec();
                Ok::<_, OrchestratorError<std::convert::Infallible>>((response.status().as_u16(), body))
            });
        if let Some(http) = config.http_client() {
            operation = operation.http_client(http);
        }
        if let Some(sleep) = config.sleep_impl() {
            operation = operation.sleep_impl(sleep);
        }
        let answer = operation.build().invoke(request).await;
        let (status, body) = answer.map_err(|error| AwsError::unreachable(CALL, &error))?;
        if status == 200 {
            return Ok(());
        }
        let error: Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
        let code = text("__type").rsplit('#').next().unwrap_or_default();
        let message = [text("message"), text("Message")].concat();
        Err(AwsError::answered(CALL, code, status, &message))
    }
}

fn endpoint(region: &str, is_fips: bool, is_dual_stack: bool) -> String {
    let service = if is_fips { "ec2-instance-connect-fips" } else { "ec2-instance-connect" };
    let is_china = region.starts_with("cn-");
    let domain = match (is_dual_stack, is_china) {
        (false, false) => "amazonaws.com",
        (false, true) => "amazonaws.com.cn",
        (true, false) => "api.aws",
        (true, true) => "api.amazonwebservices.com.cn",
    };
    format!("https://{service}.{region}.{domain}/")
}

const CALL: &str = "ec2-instance-connect:SendSSHPublicKey";
const SERVICE: &str = "ec2-instance-connect";
const TARGET: &str = "AWSEC2InstanceConnectService.SendSSHPublicKey";
const CONTENT_TYPE: &str = "application/x-amz-json-1.1";
/// The service's own variable for an endpoint, as in all AWS SDKs.
const ENDPOINT_VARIABLE: &str = "AWS_ENDPOINT_URL_EC2_INSTANCE_CONNECT";
const TIMEOUT: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for (region, is_fips, is_dual_stack, host) in [
            ("eu-west-1", false, false, "ec2-instance-connect.eu-west-1.amazonaws.com"),
            ("us-east-1", true, false, "ec2-instance-connect-fips.us-east-1.amazonaws.com"),
            ("eu-west-1", false, true, "ec2-instance-connect.eu-west-1.api.aws"),
            ("cn-north-1", false, false, "ec2-instance-connect.cn-north-1.amazonaws.com.cn"),
        ] {
            assert_eq!(endpoint(region, is_fips, is_dual_stack), format!("https://{host}/"));
        }
    }
}
