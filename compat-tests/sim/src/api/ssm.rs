//! AmazonSSM: sessions.

use std::sync::Arc;

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::account::ACCOUNT;
use super::error::ApiError;
use crate::config::ResumePolicy;
use crate::documents::{self, DEFAULT_DOCUMENT, Parameters};
use crate::report::SessionState;
use crate::service::Service;
use crate::session::{Opening, Session};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct StartSession {
    target: Option<String>,
    document_name: Option<String>,
    parameters: Option<Parameters>,
}

pub(super) fn start_session(service: &Arc<Service>, request: &StartSession) -> Result<Value, ApiError> {
    if let Some((kind, message)) = service.refusal() {
        return Err(ApiError::new(kind, message));
    }
    let target = request.target.as_deref().ok_or_else(|| ApiError::missing("target"))?;
    let name = request.document_name.as_deref().unwrap_or(DEFAULT_DOCUMENT);
    let parameters = request.parameters.clone().unwrap_or_default();
    if service.config.missing_documents.iter().any(|missing| missing == name) {
        let message = format!("Document with name {name} does not exist.");
        return Err(ApiError::new("InvalidDocument", message));
    }
    let document = documents::resolve(name, &parameters, &service.config.documents)?;
    if !service.is_connected(target) {
        return Err(ApiError::new("TargetNotConnected", format!("{target} is not connected.")));
    }
    Ok(answer(&service.start_session(target, name, document)))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SessionId {
    session_id: Option<String>,
}

pub(super) fn resume_session(service: &Arc<Service>, request: &SessionId) -> Result<Value, ApiError> {
    let session = find(service, request)?;
    session.note(|r| r.resumes += 1);
    match service.resume_policy() {
        ResumePolicy::Deny => Err(ApiError {
            status: StatusCode::BAD_REQUEST,
            kind: "AccessDeniedException",
            message: format!(
                "User: arn:aws:iam::{ACCOUNT}:user/{} is not authorized to perform: ssm:ResumeSession on resource: \
                 arn:aws:ssm:{}:{ACCOUNT}:session/{} because no identity-based policy allows the ssm:ResumeSession \
                 action",
                service.config.user, service.config.region, session.id
            ),
        }),
        ResumePolicy::Fail => {
            Err(ApiError::server("InternalServerError", "An error occurred on the server side."))
        }
        ResumePolicy::TimedOut => Ok(json!({ "SessionId": session.id })),
        ResumePolicy::Allow if session.state() == SessionState::Ended => {
            Ok(json!({ "SessionId": session.id }))
        }
        ResumePolicy::Allow => {
            let mut opening = service.renew(&session);
            if let Some(url) = &service.config.resume_url {
                url.clone_into(&mut opening.url);
            }
            Ok(answer(&opening))
        }
    }
}

pub(super) fn terminate_session(service: &Arc<Service>, request: &SessionId) -> Result<Value, ApiError> {
    let session = find(service, request)?;
    session.note(|r| r.terminates += 1);
    let id = session.id.clone();
    tokio::spawn(async move { session.end("", true).await });
    Ok(json!({ "SessionId": id }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DescribeSessions {
    state: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct GetDocument {
    name: Option<String>,
}

/// The preferences of the account, which name the key of encrypted shells. Others are not kept as text.
pub(super) fn get_document(service: &Service, request: &GetDocument) -> Result<Value, ApiError> {
    let name = request.name.as_deref().ok_or_else(|| ApiError::missing("name"))?;
    if name != DEFAULT_DOCUMENT {
        return Err(ApiError::new("InvalidDocument", format!("Document with name {name} does not exist.")));
    }
    let key = service.config.kms.encrypt_shell.as_deref().unwrap_or_default();
    let content = json!({
        "schemaVersion": "1.0",
        "sessionType": "Standard_Stream",
        "inputs": {"kmsKeyId": key},
    });
    Ok(json!({
        "Name": name,
        "DocumentVersion": "1",
        "DocumentFormat": "JSON",
        "DocumentType": "Session",
        "Content": content.to_string(),
    }))
}

pub(super) fn describe_sessions(
    service: &Arc<Service>,
    request: &DescribeSessions,
) -> Result<Value, ApiError> {
    let over = match request.state.as_deref() {
        Some("Active") => false,
        Some("History") => true,
        _ => return Err(ApiError::missing("state")),
    };
    let owner = format!("arn:aws:iam::{ACCOUNT}:user/{}", service.config.user);
    let sessions = service.reports().into_iter().filter(|r| (r.state == SessionState::Ended) == over);
    let sessions: Vec<Value> = sessions
        .map(|r| {
            let status = match r.state {
                SessionState::Started | SessionState::Connected => "Connected",
                SessionState::Disconnected => "Disconnected",
                SessionState::Ended => "Terminated",
            };
            json!({
                "SessionId": r.id, "Target": r.target, "Status": status, "DocumentName": r.document, "Owner": owner,
            })
        })
        .collect();
    Ok(json!({ "Sessions": sessions }))
}

fn find(service: &Service, request: &SessionId) -> Result<Arc<Session>, ApiError> {
    let id = request.session_id.as_deref().ok_or_else(|| ApiError::missing("sessionId"))?;
    service
        .session(id)
        .ok_or_else(|| ApiError::new("DoesNotExistException", format!("Session {id} does not exist.")))
}

fn answer(opening: &Opening) -> Value {
    json!({ "SessionId": opening.session_id, "StreamUrl": opening.url, "TokenValue": opening.token })
}
