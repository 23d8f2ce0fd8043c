use super::*;
use crate::link::OpenError;
use crate::link::backoff::MAX_STEP;

const SECOND: Duration = Duration::from_secs(1);

fn reconnect(start: Instant) -> Reconnect {
    Reconnect::new(start, &Config::default(), "host".into(), 1)
}

/// One with a websocket that has worked.
fn open(start: Instant) -> Reconnect {
    let mut reconnect = reconnect(start);
    assert!(reconnect.poll_attempt(start).is_some());
    assert_eq!(reconnect.handle_opened(start), None);
    assert!(reconnect.handle_proof().is_none(), "nothing was lost");
    reconnect
}

fn refused(status: u16) -> OpenFailure {
    OpenFailure::Websocket(OpenError::Status { host: "host".into(), status, reason: None })
}

fn unreachable() -> OpenFailure {
    OpenFailure::Websocket(OpenError::TimedOut { host: "host".into(), timeout: SECOND })
}

#[track_caller]
fn warning(event: Option<LinkEvent>) -> String {
    match event {
        Some(LinkEvent::Warning(warning)) => warning,
        other => panic!("{other:?}"),
    }
}

/// Fails every attempt until it gives up; when the attempts were made, and the end.
fn fail_until_over(reconnect: &mut Reconnect, mut now: Instant) -> (Vec<Instant>, Instant, GaveUp) {
    let mut attempts = Vec::new();
    loop {
        if reconnect.poll_attempt(now).is_some() {
            attempts.push(now);
            reconnect.handle_failed(now, unreachable(), None);
        }
        let Some((at, _)) = reconnect.poll_timeout() else { panic!("it waits for nothing") };
        now = now.max(at);
        if let Some(LinkEvent::GaveUp(reason)) = reconnect.handle_timeout(now) {
            assert_eq!(reconnect.poll_timeout(), None);
            return (attempts, now, reason);
        }
    }
}

#[test]
fn the_first_opening_is_given_up_after_its_time_with_what_it_met() {
    let start = Instant::now();
    let mut reconnect = reconnect(start);
    let (attempts, end, reason) = fail_until_over(&mut reconnect, start);
    assert_eq!(end, start + SECOND * 30);
    assert!((6..20).contains(&attempts.len()), "{attempts:?}");
    assert_eq!(reason.to_string(), "no websocket to host after 30 s (last error: no answer within 1 s)");
}

#[test]
fn only_the_first_attempt_ends_before_the_time_for_all() {
    let start = Instant::now();
    let mut reconnect = reconnect(start);
    let attempt = reconnect.poll_attempt(start).unwrap();
    assert_eq!(attempt, Attempt { is_again: false, fail_by: Some(start + SECOND * 30) });
    assert_eq!(reconnect.poll_attempt(start), None, "one at a time");
    reconnect.handle_failed(start, unreachable(), None);
    let attempt = reconnect.poll_attempt(start).unwrap();
    assert_eq!(attempt, Attempt { is_again: false, fail_by: None });
}

#[test]
fn a_first_failure_is_reported_once_with_its_warning() {
    let start = Instant::now();
    let mut reconnect = reconnect(start);
    assert!(reconnect.poll_attempt(start).is_some());
    let told = warning(reconnect.handle_failed(start, unreachable(), Some("no profile".into())));
    assert_eq!(told, "not connected yet: host did not open a websocket within 1 s (no profile)");
    assert!(reconnect.poll_attempt(start).is_some());
    assert!(reconnect.handle_failed(start, unreachable(), None).is_none());
}

#[test]
fn a_refusal_of_the_first_opening_is_final_and_later_ones_are_not() {
    let start = Instant::now();
    let mut first = reconnect(start);
    assert!(first.poll_attempt(start).is_some());
    let event = first.handle_failed(start, refused(403), None);
    assert!(matches!(event, Some(LinkEvent::GaveUp(GaveUp::Open(_)))), "{event:?}");
    assert_eq!((first.poll_attempt(start + SECOND * 99), first.poll_timeout()), (None, None));

    let mut later = open(start);
    later.handle_lost(start + SECOND, "cut".into());
    assert!(later.poll_attempt(start + SECOND).is_some());
    let told = warning(later.handle_failed(start + SECOND, refused(403), Some("no new token".into())));
    assert_eq!(told, "no new token");
    assert!(later.poll_timeout().is_some());
}

#[test]
fn a_session_that_is_gone_is_over_at_once() {
    let start = Instant::now();
    let mut reconnect = open(start);
    reconnect.handle_lost(start + SECOND, "cut".into());
    assert!(reconnect.poll_attempt(start + SECOND).is_some());
    let event = reconnect.handle_failed(start + SECOND, OpenFailure::SessionGone, None);
    assert!(matches!(event, Some(LinkEvent::GaveUp(GaveUp::SessionGone))), "{event:?}");
}

#[test]
fn a_lost_connection_is_tried_at_once_then_at_growing_intervals_until_the_deadline() {
    let start = Instant::now();
    let mut reconnect = open(start);
    let lost = start + SECOND * 3600;
    assert!(matches!(reconnect.handle_lost(lost, "cut".into()), Some(LinkEvent::Lost(_))));
    let (attempts, end, reason) = fail_until_over(&mut reconnect, lost);
    assert_eq!(end, lost + SECOND * 300);
    assert_eq!(attempts[0], lost);
    let gaps: Vec<_> = attempts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap <= MAX_STEP), "{gaps:?}");
    assert!(attempts.len() >= 40, "a network that comes back is noticed soon: {}", attempts.len());
    assert!(reason.to_string().starts_with("no connection for 300 s (last error: "), "{reason}");
}

#[test]
fn a_websocket_that_works_again_is_reported_once_and_ends_the_deadline() {
    let start = Instant::now();
    let mut reconnect = open(start);
    reconnect.handle_lost(start + SECOND, "cut".into());
    let attempt = reconnect.poll_attempt(start + SECOND).unwrap();
    assert_eq!(attempt, Attempt { is_again: true, fail_by: None });
    let opened = start + SECOND * 2;
    assert_eq!(reconnect.handle_opened(opened), Some(opened + STEADY_AFTER), "it is pinged soon");
    assert_eq!(reconnect.poll_timeout().map(|(_, why)| why), Some("giving up"), "it is not proven");
    assert!(matches!(reconnect.handle_proof(), Some(LinkEvent::Resumed)));
    assert!(reconnect.handle_proof().is_none());
    assert_eq!(reconnect.poll_timeout(), None);
}

/// A gateway that accepts and closes at once: no line for each, no busy loop, and an end.
#[test]
fn websockets_that_bring_nothing_are_not_opened_for_ever() {
    let start = Instant::now();
    let mut reconnect = open(start);
    let (mut now, mut opened) = (start + SECOND * 60, 0);
    assert!(matches!(reconnect.handle_lost(now, "cut".into()), Some(LinkEvent::Lost(_))));
    let end = loop {
        if reconnect.poll_attempt(now).is_some() {
            opened += 1;
            reconnect.handle_opened(now);
            assert!(reconnect.handle_lost(now, "closed".into()).is_none(), "it had not worked");
        }
        now = now.max(reconnect.poll_timeout().unwrap().0);
        if let Some(event) = reconnect.handle_timeout(now) {
            break event;
        }
    };
    assert!(matches!(end, LinkEvent::GaveUp(GaveUp::Reconnect { .. })), "{end:?}");
    assert_eq!(now, start + SECOND * 360);
    assert!(opened < 100, "{opened} attempts");
}

/// One that works for a moment each time: attempts continue at the pace of the backoff.
#[test]
fn a_flapping_connection_backs_off_and_never_gives_up() {
    let start = Instant::now();
    let mut reconnect = open(start);
    let (mut now, mut opened) = (start + SECOND * 60, 0);
    while now < start + SECOND * 3600 {
        reconnect.handle_lost(now, "cut".into());
        now = now.max(reconnect.poll_timeout().unwrap().0);
        assert!(reconnect.poll_attempt(now).is_some());
        opened += 1;
        reconnect.handle_opened(now);
        now += Duration::from_millis(100);
        assert!(matches!(reconnect.handle_proof(), Some(LinkEvent::Resumed)));
        assert!(reconnect.handle_timeout(now).is_none());
    }
    assert!((3600 / 9..3600 / 3).contains(&opened), "{opened} attempts in an hour");
}

/// Opens whenever it may, and loses the websocket after `life`, in which it has worked. The times of the attempts
/// within `span`.
fn flap(life: Duration, span: Duration) -> Vec<Duration> {
    let start = Instant::now();
    let mut reconnect = open(start);
    let mut now = start + SECOND * 60;
    let (end, begin, mut attempts) = (now + span, now, Vec::new());
    loop {
        reconnect.handle_lost(now, "cut".into());
        now = now.max(reconnect.poll_timeout().unwrap().0);
        if now > end {
            return attempts;
        }
        assert!(reconnect.poll_attempt(now).is_some());
        attempts.push(now - begin);
        reconnect.handle_opened(now);
        assert!(matches!(reconnect.handle_proof(), Some(LinkEvent::Resumed)));
        now += life;
    }
}

/// A gateway that delivers one frame on each websocket and lets it die.
#[test]
fn websockets_that_work_for_a_moment_spend_few_calls() {
    let attempts = flap(Duration::from_millis(600), SECOND * 30);
    assert_eq!(attempts.len(), 12 + 6, "{attempts:?}");
    let hour = flap(Duration::from_millis(600), SECOND * 3600);
    assert!(hour.len() <= 12 + 720, "{} attempts", hour.len());
}

/// Interfaces of containers come and go, while websockets die.
#[test]
fn changes_of_the_network_spend_no_more_calls() {
    let start = Instant::now();
    let mut reconnect = open(start);
    let mut attempts = 0;
    for second in 0..60 {
        let now = start + SECOND * second;
        reconnect.handle_lost(now, "cut".into());
        reconnect.handle_network_change(now);
        if reconnect.poll_attempt(now).is_some() {
            attempts += 1;
            reconnect.handle_opened(now);
            reconnect.handle_proof();
        }
    }
    assert_eq!(attempts, 12 + 59 / 5);
}

#[test]
fn an_attempt_that_hangs_starts_over_when_the_network_changes() {
    let start = Instant::now();
    let mut reconnect = open(start);
    let lost = start + SECOND * 60;
    reconnect.handle_lost(lost, "silent".into());
    assert!(reconnect.poll_attempt(lost).is_some());
    reconnect.handle_network_change(lost + SECOND);
    assert!(reconnect.is_opening(), "it is young");
    reconnect.handle_network_change(lost + SECOND * 5);
    assert!(!reconnect.is_opening());
    assert!(reconnect.poll_attempt(lost + SECOND * 5).is_some(), "at once");
}

#[test]
fn a_network_that_keeps_changing_lets_a_slow_attempt_end() {
    let start = Instant::now();
    let mut reconnect = open(start);
    let mut now = start + SECOND * 60;
    reconnect.handle_lost(now, "silent".into());
    let mut began = now;
    // Each attempt takes ten seconds, and a container comes or goes each second.
    while now - began < SECOND * 10 {
        if reconnect.poll_attempt(now).is_some() {
            began = now;
        }
        now += SECOND;
        reconnect.handle_network_change(now);
    }
    assert!(now < start + SECOND * 90, "{:?}", now - start);
}

#[test]
fn ten_cuts_in_five_seconds_wait_for_nothing() {
    let attempts = flap(STEADY_AFTER, STEADY_AFTER * 9);
    let expected: Vec<Duration> = (0..10).map(|cut| STEADY_AFTER * cut).collect();
    assert_eq!(attempts, expected);
}

/// The deadline of a user with little patience does not run while an attempt is held back.
#[test]
fn an_attempt_that_is_held_back_is_made() {
    let start = Instant::now();
    let config = Config { reconnect_timeout: SECOND, ..Config::default() };
    let mut reconnect = Reconnect::new(start, &config, "host".into(), 1);
    assert!(reconnect.poll_attempt(start).is_some());
    reconnect.handle_opened(start);
    reconnect.handle_proof();
    let mut now = start;
    for _ in 0..20 {
        now += STEADY_AFTER;
        reconnect.handle_lost(now, "cut".into());
        now = now.max(reconnect.poll_timeout().unwrap().0);
        assert!(reconnect.handle_timeout(now).is_none());
        assert!(reconnect.poll_attempt(now).is_some());
        reconnect.handle_opened(now);
        reconnect.handle_proof();
    }
    assert!(now > start + SECOND * 35, "{:?}", now - start);
}

#[test]
fn a_service_that_closes_each_hour_is_taken_up_again_at_once() {
    let start = Instant::now();
    let mut reconnect = open(start);
    for hour in 1..=24 {
        let now = start + SECOND * 3600 * hour;
        assert!(matches!(reconnect.handle_lost(now, "closed".into()), Some(LinkEvent::Lost(_))));
        assert!(reconnect.poll_attempt(now).is_some(), "without waiting");
        reconnect.handle_opened(now);
        assert!(matches!(reconnect.handle_proof(), Some(LinkEvent::Resumed)));
    }
}
