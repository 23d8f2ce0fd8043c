//! The AWS endpoints: SSM, ECS and KMS behind one URL, told apart by `X-Amz-Target`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracing::debug;

use crate::identity::{self, Refusal};
use crate::service::Service;
use crate::signature::{Signature, Signed};

mod account;
mod connect;
mod ecs;
mod error;
mod instances;
mod kms;
mod ssm;

pub(crate) use error::ApiError;
use error::JSON_1_1;

/// Content type of STS requests.
const FORM: &[u8] = b"application/x-www-form-urlencoded";

/// Answers one API request.
pub(crate) async fn handle(
    State(service): State<Arc<Service>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let target = headers.get("x-amz-target").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let request = Signed { method: &method, uri: &uri, headers: &headers, body: &body };
    let form = headers.get(header::CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(FORM));
    if target.is_empty() && form {
        return identity::handle_sts(&service, &request);
    }
    let answer = authenticate(&service, &request).and_then(|()| call(&service, &target, &body));
    debug!(target, answer = answer.as_ref().map_or_else(|e| e.kind, |_| "ok"), "request");
    let request_id = uuid::Uuid::new_v4().to_string();
    let mut response = match answer {
        Ok(value) => (StatusCode::OK, [(header::CONTENT_TYPE, JSON_1_1)], value.to_string()).into_response(),
        Err(error) => error.into_response(),
    };
    if let Ok(value) = request_id.parse() {
        response.headers_mut().insert("x-amzn-requestid", value);
    }
    response
}

/// Makes a request without a signature.
pub(crate) fn call(service: &Arc<Service>, target: &str, body: &[u8]) -> Result<Value, ApiError> {
    authorize(service, target).and_then(|()| dispatch(service, target, body))
}

/// StartSession for the simulator's owner.
pub(crate) fn start_session(service: &Arc<Service>, request: &Value) -> anyhow::Result<Value> {
    let answer =
        parse(request.to_string().as_bytes()).and_then(|request| ssm::start_session(service, &request));
    answer.map_err(|error| anyhow::anyhow!("{}: {}", error.kind, error.message))
}

/// Refuses the actions that the simulator's owner denies, as IAM does.
fn authorize(service: &Service, target: &str) -> Result<(), ApiError> {
    let (service_name, operation) = target.split_once('.').unwrap_or_default();
    let prefix = match service_name {
        "AmazonSSM" => "ssm",
        "AWSEC2InstanceConnectService" => "ec2-instance-connect",
        "TrentService" => "kms",
        _ => "ecs",
    };
    let action = format!("{prefix}:{operation}");
    if !service.is_denied(&action) {
        return Ok(());
    }
    Err(ApiError::new(
        "AccessDeniedException",
        format!(
            "User: arn:aws:iam::{}:user/{} is not authorized to perform: {action} because no identity-based policy \
             allows the {action} action",
            account::ACCOUNT,
            service.config.user
        ),
    ))
}

fn authenticate(service: &Service, request: &Signed<'_>) -> Result<(), ApiError> {
    if request.method != Method::POST {
        return Err(ApiError::new("UnknownOperationException", ""));
    }
    let signature =
        Signature::parse(request.headers).map_err(|e| ApiError::new("IncompleteSignatureException", e))?;
    let signature = signature.ok_or_else(|| {
        ApiError::new("MissingAuthenticationTokenException", "Missing Authentication Token")
    })?;
    match service.identities.check(&signature, request) {
        Ok(_) if !service.config.expired_token => Ok(()),
        Ok(_) | Err(Refusal::Expired) => Err(ApiError::new(
            "ExpiredTokenException",
            "The security token included in the request is expired",
        )),
        Err(Refusal::Unknown) => Err(ApiError::new(
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        )),
        Err(Refusal::Mismatch) => Err(ApiError::new(
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
             Access Key and signing method. Consult the service documentation for details.",
        )),
    }
}

fn dispatch(service: &Arc<Service>, target: &str, body: &[u8]) -> Result<Value, ApiError> {
    match target {
        "AmazonSSM.StartSession" => {
            service.count(|c| c.start += 1);
            ssm::start_session(service, &parse(body)?)
        }
        "AmazonSSM.ResumeSession" => {
            service.count(|c| c.resume += 1);
            ssm::resume_session(service, &parse(body)?)
        }
        "AmazonSSM.TerminateSession" => {
            service.count(|c| c.terminate += 1);
            ssm::terminate_session(service, &parse(body)?)
        }
        "AmazonSSM.DescribeInstanceInformation" => {
            service.count(|c| c.describe_instances += 1);
            instances::describe_instance_information(service, &parse(body)?)
        }
        "AWSEC2InstanceConnectService.SendSSHPublicKey" => {
            service.count(|c| c.push_key += 1);
            connect::send_ssh_public_key(service, &parse(body)?)
        }
        "AmazonSSM.GetDocument" => ssm::get_document(service, &parse(body)?),
        "AmazonSSM.DescribeSessions" => ssm::describe_sessions(service, &parse(body)?),
        "AmazonEC2ContainerServiceV20141113.ExecuteCommand" => {
            service.count(|c| c.execute_command += 1);
            ecs::execute_command(service, &parse(body)?)
        }
        "AmazonEC2ContainerServiceV20141113.DescribeTasks" => ecs::describe_tasks(service, &parse(body)?),
        "TrentService.GenerateDataKey" => {
            service.count(|c| c.generate_data_key += 1);
            kms::generate_data_key(service, &parse(body)?)
        }
        "TrentService.Decrypt" => kms::decrypt(service, &parse(body)?),
        _ => Err(ApiError::new("UnknownOperationException", "")),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|e| ApiError::new("SerializationException", e.to_string()))
}
