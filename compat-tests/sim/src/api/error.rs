//! Errors as AWS's JSON services answer them.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// `__type`, `message` and status of a refused request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub status: StatusCode,
    pub kind: &'static str,
    pub message: String,
}

impl ApiError {
    /// A client's mistake: status 400.
    pub fn new(kind: &'static str, message: impl Into<String>) -> ApiError {
        ApiError { status: StatusCode::BAD_REQUEST, kind, message: message.into() }
    }

    /// A service's mistake: status 500.
    pub fn server(kind: &'static str, message: impl Into<String>) -> ApiError {
        ApiError { status: StatusCode::INTERNAL_SERVER_ERROR, kind, message: message.into() }
    }

    /// A required member is missing.
    pub fn missing(member: &str) -> ApiError {
        ApiError::new(
            "ValidationException",
            format!(
                "1 validation error detected: Value null at '{member}' failed to satisfy constraint: Member must \
                 not be null"
            ),
        )
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Json(json!({ "__type": self.kind, "message": self.message }));
        (self.status, [(header::CONTENT_TYPE, JSON_1_1)], body).into_response()
    }
}

/// Content type of requests and answers.
pub(super) const JSON_1_1: &str = "application/x-amz-json-1.1";
