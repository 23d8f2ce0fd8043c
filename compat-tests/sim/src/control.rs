//! `/sim/…`: looking at a simulator and changing it from another process.
//!
//! `GET sessions`, `GET requests`; `POST cut`, `pause`, `stall`, `close`, `outage`, `resume` with a query, and
//! `POST faults` with JSON (durations in milliseconds).

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;

use crate::config::{Cut, Faults, ResumePolicy, Way};
use crate::frame;
use crate::report::{RequestCounts, SessionReport};
use crate::service::Service;
use crate::session::Session;

/// The routes.
pub(crate) fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/sim/sessions", get(sessions))
        .route("/sim/requests", get(requests))
        .route("/sim/cut", post(cut))
        .route("/sim/pause", post(pause))
        .route("/sim/stall", post(stall))
        .route("/sim/close", post(close))
        .route("/sim/outage", post(outage))
        .route("/sim/resume", post(resume))
        .route("/sim/faults", post(faults))
}

type Shared = State<Arc<Service>>;

/// Without a session, all of them are meant.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
struct Control {
    session: Option<String>,
    kind: Option<Cut>,
    on: Option<bool>,
    way: Option<Way>,
    ms: Option<u64>,
    output: Option<String>,
    policy: Option<ResumePolicy>,
}

impl Control {
    fn sessions(&self, service: &Service) -> Result<Vec<Arc<Session>>, StatusCode> {
        match &self.session {
            Some(id) => service.session(id).map(|s| vec![s]).ok_or(StatusCode::NOT_FOUND),
            None => Ok(service.sessions()),
        }
    }

    fn time(&self) -> Duration {
        Duration::from_millis(self.ms.unwrap_or(DEFAULT_MS))
    }
}

async fn sessions(State(service): Shared) -> Json<Vec<SessionReport>> {
    Json(service.reports())
}

async fn requests(State(service): Shared) -> Json<RequestCounts> {
    Json(service.requests())
}

async fn cut(State(service): Shared, Query(control): Query<Control>) -> Result<(), StatusCode> {
    control.sessions(&service)?.iter().for_each(|s| s.cut(control.kind.unwrap_or_default()));
    Ok(())
}

async fn pause(State(service): Shared, Query(control): Query<Control>) -> Result<(), StatusCode> {
    for session in control.sessions(&service)? {
        session.deliver(frame::publication(control.on.unwrap_or(true))).await;
    }
    Ok(())
}

async fn stall(State(service): Shared, Query(control): Query<Control>) -> Result<(), StatusCode> {
    let way = control.way.unwrap_or(Way::Both);
    control.sessions(&service)?.iter().for_each(|s| s.stall(way, control.time()));
    Ok(())
}

async fn close(State(service): Shared, Query(control): Query<Control>) -> Result<(), StatusCode> {
    for session in control.sessions(&service)? {
        session.end(control.output.as_deref().unwrap_or_default(), false).await;
    }
    Ok(())
}

async fn outage(State(service): Shared, Query(control): Query<Control>) {
    service.outage(control.time());
}

async fn resume(State(service): Shared, Query(control): Query<Control>) {
    service.set_resume(control.policy.unwrap_or_default());
}

async fn faults(State(service): Shared, Json(faults): Json<Faults>) {
    service.faults.send_replace(faults);
}

/// Length of a stall or an outage without `ms`.
const DEFAULT_MS: u64 = 1000;
