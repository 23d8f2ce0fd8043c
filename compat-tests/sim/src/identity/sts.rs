//! STS: roles.

use std::sync::Arc;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::store::Refusal;
use super::timestamp::timestamp;
use crate::service::Service;
use crate::signature::{Signature, Signed};

/// Answers a form of the query protocol.
pub(crate) fn handle(service: &Arc<Service>, request: &Signed<'_>) -> Response {
    let form = String::from_utf8_lossy(request.body).into_owned();
    let field = |name: &str| form.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    if field("Action").is_some_and(|action| action.starts_with("AssumeRole")) {
        service.count(|requests| requests.assume_role += 1);
    }
    let has_code = field("SerialNumber").is_some() && field("TokenCode") == Some(MFA_CODE);
    let needs_code = field("RoleArn").is_some_and(|arn| arn.ends_with(MFA_ROLE));
    match field("Action") {
        Some("AssumeRole") => match signed(service, request) {
            Ok(()) if needs_code && !has_code => {
                error("AccessDenied", "not authorized to perform: sts:AssumeRole")
            }
            Ok(()) => credentials(service, "AssumeRole", "ASIAROLE"),
            Err((code, message)) => error(code, message),
        },
        Some("GetCallerIdentity") => match signed(service, request) {
            Ok(()) => caller(),
            Err((code, message)) => error(code, message),
        },
        Some("AssumeRoleWithWebIdentity") if field("WebIdentityToken") == Some(WEB_IDENTITY) => {
            credentials(service, "AssumeRoleWithWebIdentity", "ASIAWEB")
        }
        Some("AssumeRoleWithWebIdentity") => error("InvalidIdentityToken", "the token is not valid"),
        _ => error("InvalidAction", "no such action"),
    }
}

fn signed(service: &Service, request: &Signed<'_>) -> Result<(), (&'static str, &'static str)> {
    let signature = Signature::parse(request.headers).ok().flatten();
    let signature =
        signature.ok_or(("MissingAuthenticationToken", "Request is missing Authentication Token"))?;
    match service.identities.check(&signature, request) {
        Ok(_) => Ok(()),
        Err(Refusal::Expired) => {
            Err(("ExpiredToken", "The security token included in the request is expired"))
        }
        Err(Refusal::Unknown) => Err(("InvalidClientTokenId", "The security token is invalid.")),
        Err(Refusal::Mismatch) => Err(("SignatureDoesNotMatch", "The signature does not match.")),
    }
}

fn caller() -> Response {
    let xml = "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
        <Arn>arn:aws:iam::123456789012:user/sim</Arn><UserId>AIDASIM</UserId><Account>123456789012</Account>\
        </GetCallerIdentityResult><ResponseMetadata><RequestId>sim</RequestId></ResponseMetadata></GetCallerIdentityResponse>";
    ([(header::CONTENT_TYPE, XML)], xml).into_response()
}

fn credentials(service: &Service, action: &str, prefix: &str) -> Response {
    let issued = service.identities.issue(prefix);
    let xml = format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><Credentials>\
         <AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey><SessionToken>{}</SessionToken>\
         <Expiration>{}</Expiration></Credentials><AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/r/s</Arn>\
         <AssumedRoleId>AROASIM:s</AssumedRoleId></AssumedRoleUser></{action}Result>\
         <ResponseMetadata><RequestId>sim</RequestId></ResponseMetadata></{action}Response>",
        issued.credentials.access_key,
        issued.credentials.secret_key,
        issued.token,
        timestamp(issued.expires),
    );
    ([(header::CONTENT_TYPE, XML)], xml).into_response()
}

fn error(code: &str, message: &str) -> Response {
    let xml = format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
         <Code>{code}</Code><Message>{message}</Message></Error><RequestId>sim</RequestId></ErrorResponse>"
    );
    (StatusCode::FORBIDDEN, [(header::CONTENT_TYPE, XML)], xml).into_response()
}

const XML: &str = "text/xml";
/// The end of the ARN of roles that need an MFA code, in a form.
const MFA_ROLE: &str = "role%2Fmfa";
/// The code that is right at any time.
const MFA_CODE: &str = "123456";
/// The one that is taken.
const WEB_IDENTITY: &str = "sim-web-identity";
