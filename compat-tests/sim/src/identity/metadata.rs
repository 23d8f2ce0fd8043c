//! An instance's and a container's metadata.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::store::Issued;
use super::timestamp::timestamp;
use crate::service::Service;

pub(super) async fn token(headers: HeaderMap) -> Response {
    let Some(life) = headers.get("x-aws-ec2-metadata-token-ttl-seconds") else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    ([("x-aws-ec2-metadata-token-ttl-seconds", life.clone())], IMDS_TOKEN).into_response()
}

pub(super) async fn role(headers: HeaderMap) -> Response {
    if has_token(&headers) { ROLE.into_response() } else { StatusCode::UNAUTHORIZED.into_response() }
}

pub(super) async fn role_credentials(State(service): State<Arc<Service>>, headers: HeaderMap) -> Response {
    if !has_token(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let mut body = json_of(&service.identities.issue("ASIAIMDS"));
    body["Code"] = json!("Success");
    body["Type"] = json!("AWS-HMAC");
    body["LastUpdated"] = json!(timestamp(std::time::SystemTime::now()));
    Json(body).into_response()
}

pub(super) async fn container(State(service): State<Arc<Service>>, headers: HeaderMap) -> Response {
    if headers.get("authorization").is_none_or(|value| value != CONTAINER_TOKEN) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    Json(json_of(&service.identities.issue("ASIATASK"))).into_response()
}

fn has_token(headers: &HeaderMap) -> bool {
    headers.get("x-aws-ec2-metadata-token").is_some_and(|value| value == IMDS_TOKEN)
}

fn json_of(issued: &Issued) -> Value {
    json!({
        "AccessKeyId": issued.credentials.access_key,
        "SecretAccessKey": issued.credentials.secret_key,
        "Token": issued.token,
        "Expiration": timestamp(issued.expires),
    })
}

const IMDS_TOKEN: &str = "sim-imds-token";
const ROLE: &str = "sim-role";
/// Wanted in `Authorization`, as `AWS_CONTAINER_AUTHORIZATION_TOKEN`.
const CONTAINER_TOKEN: &str = "sim-container-token";
