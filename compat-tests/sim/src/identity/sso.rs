//! IAM Identity Center: role credentials for an access token, access tokens for a refresh token.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use crate::service::Service;

pub(super) async fn role_credentials(State(service): State<Arc<Service>>, headers: HeaderMap) -> Response {
    service.count(|requests| requests.role_credentials += 1);
    let token = headers.get("x-amz-sso_bearer_token").and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !service.identities.knows_sso_token(token) {
        let error = [("x-amzn-errortype", "UnauthorizedException")];
        let body = Json(json!({ "message": "Session token not found or invalid" }));
        return (StatusCode::UNAUTHORIZED, error, body).into_response();
    }
    let issued = service.identities.issue("ASIASSO");
    let expires = issued.expires.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    Json(json!({ "roleCredentials": {
        "accessKeyId": issued.credentials.access_key,
        "secretAccessKey": issued.credentials.secret_key,
        "sessionToken": issued.token,
        "expiration": u64::try_from(expires).unwrap_or(u64::MAX),
    }}))
    .into_response()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreateToken {
    grant_type: String,
    refresh_token: Option<String>,
}

pub(super) async fn create_token(
    State(service): State<Arc<Service>>,
    Json(request): Json<CreateToken>,
) -> Response {
    if request.grant_type != "refresh_token" || request.refresh_token.as_deref() != Some(REFRESH_TOKEN) {
        let error = [("x-amzn-errortype", "InvalidGrantException")];
        let body = Json(json!({ "error": "invalid_grant", "error_description": "Invalid refresh token" }));
        return (StatusCode::BAD_REQUEST, error, body).into_response();
    }
    Json(json!({
        "accessToken": service.identities.new_sso_token(),
        "tokenType": "Bearer",
        "expiresIn": 3600,
        "refreshToken": REFRESH_TOKEN,
    }))
    .into_response()
}

/// The one that is taken.
const REFRESH_TOKEN: &str = "sim-refresh-token";
