//! Credentials: the configured key pair, and temporary credentials from the sources that AWS has.
//!
//! | source | endpoint | access keys begin with |
//! |---|---|---|
//! | STS AssumeRole | `POST /` with a form, signed | `ASIAROLE` |
//! | STS GetCallerIdentity | `POST /` with a form, signed | |
//! | STS AssumeRoleWithWebIdentity | `POST /` with a form | `ASIAWEB` |
//! | SSO GetRoleCredentials | `GET /federation/credentials` | `ASIASSO` |
//! | SSO OIDC CreateToken | `POST /token` | |
//! | instance metadata | `/latest/…` | `ASIAIMDS` |
//! | containers | `GET /container/credentials` | `ASIATASK` |

mod metadata;
mod sso;
mod store;
mod sts;
mod timestamp;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post, put};

use crate::service::Service;

pub(crate) use store::{Identities, Refusal};
pub(crate) use sts::handle as handle_sts;

/// Routes of the credential sources with dedicated paths.
pub(crate) fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/latest/api/token", put(metadata::token))
        .route("/latest/meta-data/iam/security-credentials/", get(metadata::role))
        .route("/latest/meta-data/iam/security-credentials/{role}", get(metadata::role_credentials))
        .route("/container/credentials", get(metadata::container))
        .route("/federation/credentials", get(sso::role_credentials))
        .route("/token", post(sso::create_token))
}
