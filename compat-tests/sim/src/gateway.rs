//! The message gateway: a client's websocket between its upgrade and its end.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{Method, StatusCode};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tracing::debug;

use crate::agent::FromGateway;
use crate::config::{Cut, Faults, Way};
use crate::pump::{self, LOOK_AGAIN};
use crate::report::OpenReport;
use crate::service::Service;
use crate::session::{Attached, Session};
use crate::shaper::Shaper;
use crate::signature::{Signature, Signed};
use crate::stream::Stream;

type Socket = WebSocketStream<Stream>;

/// Serves one data channel, from its HTTP request on.
pub(crate) async fn serve(service: Arc<Service>, stream: Stream) {
    service.count(|c| c.opens += 1);
    let mut found = None;
    #[expect(clippy::result_large_err, reason = "the type of tungstenite's callback")]
    let callback = |request: &Request, response: Response| {
        let (session, open) = admit(&service, request)?;
        found = Some((session, open));
        Ok(response)
    };
    let config = WebSocketConfig::default()
        .max_message_size(Some(LARGEST_MESSAGE))
        .max_frame_size(Some(LARGEST_MESSAGE));
    let accepting = tokio_tungstenite::accept_hdr_async_with_config(stream, callback, Some(config));
    let mut socket = match timeout(OPENING, accepting).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(error)) => return debug!(%error, "upgrade refused"),
        Err(_) => return debug!("no upgrade in time"),
    };
    let Some((session, mut open)) = found else { return };
    let first = timeout(OPENING, first_message(&mut socket)).await;
    if let Err(refusal) = check_open(&service, &session, first.ok().flatten(), &mut open) {
        debug!(session = session.id, refusal, "data channel refused");
        refusal.clone_into(&mut open.refusal);
        session.note_open(open);
        return refuse(socket, &refusal).await;
    }
    open.accepted = true;
    session.note_open(open);
    match session.attach() {
        Some(attached) => run(&service, &session, socket, attached).await,
        None => {
            let (mut sink, source) = socket.split();
            let _ = timeout(CLOSING, sink.send(Message::Binary(session.closed_frame()))).await;
            close(sink, source, CloseCode::Normal, "").await;
        }
    }
}

/// End of a connection.
enum End {
    /// The client has closed it, or it broke.
    Gone,
    /// We cut it.
    Cut(Cut),
}

async fn run(service: &Arc<Service>, session: &Arc<Session>, socket: Socket, attached: Attached) {
    let Attached { number, frames, mut kill, agent } = attached;
    // An outage cuts whom it finds attached; this client may have come in between.
    if service.in_outage() {
        session.cut(Cut::Reset);
    }
    if let Some((spec, inbound)) = agent {
        tokio::spawn(pump::run(Arc::clone(session), spec, inbound, service.faults.subscribe()));
    }
    let (mut sink, mut source) = socket.split();
    let mut over = session.over.subscribe();
    // Fair, or one way would use up the task's budget and starve the other.
    let end = tokio::select! {
        cut = kill.recv() => End::Cut(cut.unwrap_or_default()),
        cut = cut_time(service.faults.subscribe()) => End::Cut(cut),
        () = read(session, &mut source, service.faults.subscribe(), number) => End::Gone,
        () = write(session, &mut sink, frames) => End::Gone,
        () = async { let _ = over.wait_for(|over| *over).await; sleep(AFTER_CLOSED).await } => End::Cut(Cut::Close),
    };
    if session.detach(number) {
        let session = Arc::clone(session);
        tokio::spawn(async move { session.to_agent.send(FromGateway::ClientDisconnected).await });
    }
    match end {
        End::Gone => {
            let _ = timeout(CLOSING, sink.close()).await;
        }
        End::Cut(Cut::Close) => close(sink, source, CloseCode::Normal, "Bye").await,
        End::Cut(Cut::Reset) => {
            if let Ok(socket) = sink.reunite(source) {
                socket.get_ref().reset();
            }
        }
    }
}

/// Client to agent, until the socket ends.
async fn read(
    session: &Arc<Session>,
    source: &mut SplitStream<Socket>,
    faults: watch::Receiver<Faults>,
    number: u64,
) {
    let mut link = Shaper::new(faults, true, number);
    let mut stalls = session.stalls.subscribe();
    if session.to_agent.send(FromGateway::ClientConnected).await.is_err() {
        // The session is over, and the connection will be soon.
        return std::future::pending().await;
    }
    loop {
        let now = Instant::now();
        let due = link.next_due();
        let stalled = stalls.borrow_and_update()[0].filter(|until| *until > now);
        let room = link.has_room(now);
        tokio::select! {
            // First, so that a stall holds what comes after it.
            biased;
            _ = stalls.changed() => {}
            message = source.next(), if room && stalled.is_none() => {
                if take(session, &mut link, message).is_break() {
                    return deliver_rest(session, link).await;
                }
            }
            () = sleep_until(due.unwrap_or(now).into()), if due.is_some() => {}
            () = sleep_until(stalled.unwrap_or(now).into()), if stalled.is_some() => {}
            () = sleep(LOOK_AGAIN), if !room => {}
        }
        while let Some(frame) = link.pop(Instant::now()) {
            if session.to_agent.send(FromGateway::Frame(frame)).await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

/// Delivers what is still on its way: TCP brings all that was sent before a connection was closed.
async fn deliver_rest(session: &Session, mut link: Shaper) {
    while let Some(due) = link.next_due() {
        sleep_until(due.into()).await;
        let Some(frame) = link.pop(Instant::now()) else { continue };
        if session.to_agent.send(FromGateway::Frame(frame)).await.is_err() {
            return;
        }
    }
}

fn take(
    session: &Arc<Session>,
    link: &mut Shaper,
    message: Option<Result<Message, Error>>,
) -> ControlFlow<()> {
    match message {
        Some(Ok(Message::Binary(frame))) => {
            let (_, exceeded) = session.record(Way::Up, &frame);
            if exceeded {
                session.exceed();
            }
            if !link.push(frame, Instant::now()) {
                session.lost(Way::Up);
            }
        }
        Some(Ok(Message::Ping(_))) => session.note(|report| report.pings += 1),
        Some(Ok(_)) => {}
        Some(Err(_)) | None => return ControlFlow::Break(()),
    }
    ControlFlow::Continue(())
}

/// Agent to client, until the socket fails.
async fn write(session: &Session, sink: &mut SplitSink<Socket, Message>, mut frames: mpsc::Receiver<Bytes>) {
    let mut stalls = session.stalls.subscribe();
    loop {
        let now = Instant::now();
        let stalled = stalls.borrow_and_update()[1].filter(|until| *until > now);
        let frame = tokio::select! {
            biased;
            _ = stalls.changed() => continue,
            frame = frames.recv(), if stalled.is_none() => frame,
            () = sleep_until(stalled.unwrap_or(now).into()), if stalled.is_some() => continue,
        };
        // The session has another client now, which has thrown this one out.
        let Some(frame) = frame else { return std::future::pending().await };
        let mut next = Some(frame);
        for _ in 0..BURST {
            let Some(frame) = next else { break };
            if sink.feed(Message::Binary(frame)).await.is_err() {
                return;
            }
            next = frames.try_recv().ok();
        }
        let rest = match next {
            Some(frame) => sink.send(Message::Binary(frame)).await,
            None => sink.flush().await,
        };
        if rest.is_err() {
            return;
        }
    }
}

/// Resolves when the faults say that the link is cut, counted from now.
async fn cut_time(mut faults: watch::Receiver<Faults>) -> Cut {
    let opened = Instant::now();
    loop {
        let (every, cut) = {
            let faults = faults.borrow_and_update();
            (faults.cut_every, faults.cut)
        };
        tokio::select! {
            () = sleep_until((opened + every.unwrap_or_default()).into()), if every.is_some() => return cut,
            changed = faults.changed() => if changed.is_err() {
                return std::future::pending().await;
            },
        }
    }
}

/// Returns the session that an upgrade request is for, or the refusal.
#[expect(clippy::result_large_err, reason = "the type of tungstenite's callback")]
fn admit(service: &Service, request: &Request) -> Result<(Arc<Session>, OpenReport), ErrorResponse> {
    let refuse = |status: StatusCode, text: &str| {
        let mut response = ErrorResponse::new(Some(text.to_owned()));
        *response.status_mut() = status;
        response
    };
    let session = request.uri().path().strip_prefix(DATA_CHANNEL).and_then(|id| service.session(id));
    let session = session.ok_or_else(|| refuse(StatusCode::NOT_FOUND, "no such session"))?;
    let query = request.uri().query().unwrap_or_default();
    let field = |name: &str| query.split('&').find_map(|f| f.strip_prefix(name)?.strip_prefix('='));
    if field("role") != Some("publish_subscribe")
        || !field("cell-number").is_some_and(|c| session.knows_cell(c))
    {
        return Err(refuse(StatusCode::FORBIDDEN, "this stream URL is not valid any more"));
    }
    let headers = request.headers();
    let signature = Signature::parse(headers).map_err(|e| refuse(StatusCode::FORBIDDEN, &e))?;
    let signature = match signature {
        Some(signature) => {
            let signed = Signed { method: &Method::GET, uri: request.uri(), headers, body: b"" };
            let verified = service.identities.check(&signature, &signed).map_err(|refusal| {
                refuse(StatusCode::FORBIDDEN, &format!("the signature is not accepted: {refusal:?}"))
            })?;
            Some(signature.report(headers, verified))
        }
        None if service.config.require_signed_open => {
            return Err(refuse(StatusCode::FORBIDDEN, "the request is not signed"));
        }
        None => None,
    };
    let user_agent = headers.get("user-agent").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    Ok((session, OpenReport { user_agent, signature, ..OpenReport::default() }))
}

/// The first message; the official plugin's first ping may come before it.
async fn first_message(socket: &mut Socket) -> Option<Result<Message, Error>> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            other => return other,
        }
    }
}

/// The client's first frame.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OpenDataChannel {
    message_schema_version: String,
    request_id: String,
    token_value: String,
    client_id: String,
    client_version: String,
}

fn check_open(
    service: &Service,
    session: &Session,
    first: Option<Result<Message, Error>>,
    open: &mut OpenReport,
) -> Result<(), String> {
    let Some(Ok(Message::Text(text))) = first else { return Err("expected a text frame".to_owned()) };
    let request: OpenDataChannel =
        serde_json::from_str(&text).map_err(|e| format!("not an OpenDataChannel request: {e}"))?;
    request.client_version.clone_into(&mut open.client_version);
    request.client_id.clone_into(&mut open.client_id);
    if request.message_schema_version != "1.0" {
        return Err("MessageSchemaVersion is not 1.0".to_owned());
    }
    if uuid::Uuid::parse_str(&request.request_id).is_err() {
        return Err("RequestId must be a UUID".to_owned());
    }
    // Clients other than the official one send the session's id here, which AWS accepts.
    if request.client_id.is_empty() {
        return Err("ClientId is missing".to_owned());
    }
    if !session.knows_token(&request.token_value) {
        return Err("TokenValue is not valid".to_owned());
    }
    let version = version(&request.client_version).ok_or("ClientVersion is not a version")?;
    match service.config.min_client_version.as_deref() {
        Some(least) if Some(version) < self::version(least) => {
            Err("ClientVersion is not supported".to_owned())
        }
        _ => Ok(()),
    }
}

fn version(text: &str) -> Option<[u32; 4]> {
    let mut parts = text.split('.').map(str::parse);
    let mut out = [0; 4];
    for part in &mut out {
        *part = parts.next()?.ok()?;
    }
    parts.next().is_none().then_some(out)
}

async fn refuse(socket: Socket, reason: &str) {
    let (sink, source) = socket.split();
    close(sink, source, CloseCode::Policy, reason).await;
}

/// Says goodbye and waits a moment for the answer, so that unread data does not turn the goodbye into a reset.
async fn close(
    mut sink: SplitSink<Socket, Message>,
    mut source: SplitStream<Socket>,
    code: CloseCode,
    reason: &str,
) {
    let reason: String = reason.chars().take(LONGEST_REASON / 4).collect();
    let goodbye = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
    let closing = async {
        if sink.send(goodbye).await.is_ok() {
            while let Some(Ok(_)) = source.next().await {}
        }
    };
    let _ = timeout(CLOSING, closing).await;
}

/// Path of a session's data channel.
pub(crate) const DATA_CHANNEL: &str = "/v1/data-channel/";

/// Bound of one websocket message.
const LARGEST_MESSAGE: usize = 64 << 20;

/// Bytes of a close frame's reason (RFC 6455, section 5.5).
const LONGEST_REASON: usize = 123;

/// Frames written before a flush.
const BURST: usize = 32;

/// For the upgrade, and for the first frame after it.
const OPENING: Duration = Duration::from_secs(10);

/// For a goodbye.
const CLOSING: Duration = Duration::from_secs(1);

/// Time that a client may stay after `channel_closed`.
const AFTER_CLOSED: Duration = Duration::from_secs(5);
