//! A lane by itself: from StartSession to its end.

use std::io::Read as _;
use std::task::Waker;

use tokio::sync::mpsc;

use super::super::proxy::{Protocol, encode};
use super::super::tests::{Agent, budget, connection, proxied, settle};
use super::*;
use crate::aws::{AwsError, ErrorKind};

/// All that the lane has to tell now.
fn events(lane: &mut Lane) -> Vec<LaneEvent> {
    let mut cx = Context::from_waker(Waker::noop());
    lane.transmit();
    let mut events = Vec::new();
    while let Poll::Ready(event) = lane.poll_event(&mut cx) {
        events.push(event);
        lane.transmit();
    }
    events
}

fn started(session: LiveSession) -> Lane {
    Lane::starting(Box::pin(async { Ok(session) }), &budget())
}

#[tokio::test(start_paused = true)]
async fn a_lane_is_ready_after_the_handshake_and_ends_with_its_session() {
    let (agent, session) = Agent::ready("further");
    let mut lane = started(session);
    assert!(!lane.is_ready() && !lane.may_open() && lane.lived().is_none());
    assert!(matches!(events(&mut lane)[..], [LaneEvent::Ready, ..]));
    assert!(lane.may_open());
    assert_eq!(lane.session().unwrap().0, "further");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(lane.lived().unwrap() >= Duration::from_secs(5));
    agent.close("Session idle\r\nfor too long\n");
    let told = events(&mut lane);
    let [.., LaneEvent::Ended(end)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(end.reason, "Session idle  for too long");
    assert!(end.is_over(), "there is nothing to be ended at the service");
    assert!(matches!(lane.give_up(end.is_over()), Some(Remains::Over(_))));
    assert!(lane.give_up(false).is_none(), "once");
    assert!(events(&mut lane).is_empty());
}

/// The sessions that a lane leaves behind depend on its state.
#[tokio::test(start_paused = true)]
async fn what_is_to_be_ended_at_the_service() {
    let mut never = Lane::starting(Box::pin(std::future::pending()), &budget());
    assert!(events(&mut never).is_empty());
    assert!(matches!(never.give_up(false), Some(Remains::Starting(_))), "when it comes");
    let (_silent, session) = Agent::silent("opening");
    let mut opening = started(session);
    assert!(events(&mut opening).is_empty());
    assert!(matches!(opening.give_up(false), Some(Remains::Open(_))));
    let refused = AwsError::new("ssm:StartSession", ErrorKind::Denied, "no");
    let mut failed = Lane::starting(Box::pin(async { Err(StartError::Aws(refused)) }), &budget());
    let told = events(&mut failed);
    assert!(
        matches!(&told[..], [LaneEvent::Ended(LaneEnd { start_error: Some(_), reason, .. })] if reason.contains("no")),
        "{told:?}"
    );
    assert!(failed.give_up(false).is_none());
}

#[tokio::test(start_paused = true)]
async fn connections_are_closed_with_their_lane_and_socks_clients_are_told() {
    let (reports, _received) = mpsc::channel(64);
    let (agent, session) = Agent::ready("s");
    let mut lane = started(session);
    events(&mut lane);
    let (plain, mut plain_client) = connection(1, &reports);
    let (socks, mut socks_client) = proxied(Protocol::Socks5, 2, &reports);
    lane.open(1, plain, b"", true);
    lane.open(2, socks, b"", true);
    lane.answer(2);
    assert_eq!(lane.len(), 2);
    agent.close("");
    let told = events(&mut lane);
    assert!(
        matches!(&told[..], [.., LaneEvent::Ended(end)] if end.reason == "closed by the service"),
        "{told:?}"
    );
    lane.give_up(true);
    settle().await;
    let error = plain_client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "what has come is not the whole");
    let mut answer = [0; 10];
    socks_client.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..], encode(Protocol::Socks5, Reply::HostUnreachable));
    assert_eq!(socks_client.read(&mut [0]).unwrap(), 0);
}

/// Reports of a connection that is another lane's, or of one that has gone, are none of its business.
#[tokio::test(start_paused = true)]
async fn reports_belong_to_the_lane_of_their_connection() {
    let (reports, _received) = mpsc::channel(64);
    let (_agent, session) = Agent::ready("s");
    let mut lane = started(session);
    events(&mut lane);
    let (connection, _client) = connection(7, &reports);
    lane.open(7, connection, b"", true);
    assert!(!lane.handle_report(8, &FromConnection::Closed));
    assert!(lane.handle_report(7, &FromConnection::HungUp) && lane.len() == 1);
    assert!(lane.handle_report(7, &FromConnection::Closed) && lane.len() == 0);
    assert!(!lane.handle_report(7, &FromConnection::Closed));
}
