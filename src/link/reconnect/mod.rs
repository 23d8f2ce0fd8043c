//! Policy of connecting: first attempts, reconnecting, giving up.
//!
//! ```text
//!            opened                 lost
//!  Opening ─────────▶ Open ──────────────────▶ Waiting (backoff)
//!     ▲                                            │
//!     └────────────────────────────────────────────┘     … until the deadline
//! ```
//!
//! A websocket counts as proven to work when the service has sent a frame of the data channel or has answered a ping on
//! it. One that was closed before that resets neither the deadline nor the backoff, so a service that accepts and closes at
//! once is not asked for ever.
//!
//! An attempt after the first calls ResumeSession, for which the account has a quota. A token bucket for each session
//! holds attempts back when a websocket works for a moment only, again and again: [`RESUME_BURST`] at once, and then one
//! each [`RESUME_INTERVAL`]. The backoff alone stays below that while the network is away.

use std::time::{Duration, Instant};

use super::backoff::{Backoff, TokenBucket};
use super::{Config, GaveUp, LinkEvent, OpenFailure};

/// Decides when a websocket is opened, and when there will be none.
#[derive(Debug)]
pub(super) struct Reconnect {
    host: String,
    open_timeout: Duration,
    reconnect_timeout: Duration,
    phase: Phase,
    backoff: Backoff,
    /// Attempts that call ResumeSession.
    resumes: TokenBucket,
    /// Until when a websocket must be proven.
    deadline: Option<Instant>,
    /// Error of the last attempt, or the reason that the last websocket was lost.
    last_failure: Option<String>,
    /// True if any websocket was open, and proven.
    was_open: bool,
    was_proven: bool,
    /// Opening of the last websocket that was lost, in case it recovers.
    lost_since: Option<Instant>,
    /// Attempts since the last websocket opened that were started over because the network had changed.
    restarts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting { until: Instant },
    Opening { since: Instant },
    Open { since: Instant, is_proven: bool },
    Over,
}

/// An attempt to make now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    /// The session's first token has been used: a new one is needed.
    pub is_again: bool,
    /// When the attempt should have failed, so that there is a failure to tell when all time is over. Only the first:
    /// later attempts may be cut off.
    pub fail_by: Option<Instant>,
}

impl Reconnect {
    /// For a link that starts at `now`; `seed` is for the backoff's jitter.
    pub(super) fn new(now: Instant, config: &Config, host: String, seed: u64) -> Reconnect {
        Reconnect {
            host,
            open_timeout: config.open_timeout,
            reconnect_timeout: config.reconnect_timeout,
            phase: Phase::Waiting { until: now },
            backoff: Backoff::new(seed),
            resumes: TokenBucket::new(RESUME_BURST, RESUME_INTERVAL),
            deadline: Some(now + config.open_timeout),
            last_failure: None,
            was_open: false,
            was_proven: false,
            lost_since: None,
            restarts: 0,
        }
    }

    /// The attempt that is due now. It ends with [`Reconnect::handle_opened`] or [`Reconnect::handle_failed`].
    #[must_use]
    pub(super) fn poll_attempt(&mut self, now: Instant) -> Option<Attempt> {
        match self.phase {
            Phase::Waiting { until } if until <= now => {
                self.phase = Phase::Opening { since: now };
                if self.was_open {
                    self.resumes.take(now);
                }
                let fail_by = self.deadline.filter(|_| self.last_failure.is_none());
                Some(Attempt { is_again: self.was_open, fail_by })
            }
            _ => None,
        }
    }

    /// Returns whether an attempt is under way.
    pub(super) fn is_opening(&self) -> bool {
        matches!(self.phase, Phase::Opening { .. })
    }

    /// Start of the attempt under way.
    pub(super) fn opening_since(&self) -> Option<Instant> {
        match self.phase {
            Phase::Opening { since } => Some(since),
            _ => None,
        }
    }

    /// The attempt has opened a websocket. When that is to be pinged first, if not after the usual interval: an idle
    /// session has nothing else to tell by that it has come back.
    pub(super) fn handle_opened(&mut self, now: Instant) -> Option<Instant> {
        self.phase = Phase::Open { since: now, is_proven: false };
        self.lost_since = None;
        self.restarts = 0;
        if std::mem::replace(&mut self.was_open, true) {
            return Some(now + STEADY_AFTER);
        }
        self.deadline = None;
        None
    }

    /// The attempt has failed, with what else did not work on the way.
    pub(super) fn handle_failed(
        &mut self,
        now: Instant,
        failure: OpenFailure,
        warning: Option<String>,
    ) -> Option<LinkEvent> {
        if matches!(failure, OpenFailure::SessionGone) {
            return Some(self.give_up(GaveUp::SessionGone));
        }
        if !self.was_open && failure.is_permanent() {
            return Some(self.give_up(GaveUp::Open(failure)));
        }
        let with_warning = |reason: String| match &warning {
            Some(warning) => format!("{reason} ({warning})"),
            None => reason,
        };
        let reason = with_warning(failure.to_string());
        let brief = with_warning(failure.brief(&self.host));
        let event = if self.was_open {
            // The loss has been reported already.
            warning
        } else {
            // Said once, while there is time for further attempts; the warning is a part of it.
            let is_over = self.deadline.is_some_and(|at| at <= now + NEARLY_OVER);
            let is_news = self.last_failure.is_none() && !is_over;
            is_news.then(|| format!("not connected yet: {reason}"))
        };
        self.retry(now, brief);
        event.map(LinkEvent::Warning)
    }

    /// The websocket works: the service has sent something on it, or has answered a ping and not closed it for our
    /// token. Says so where one had been lost.
    pub(super) fn handle_proof(&mut self) -> Option<LinkEvent> {
        match &mut self.phase {
            Phase::Open { is_proven, .. } if !*is_proven => *is_proven = true,
            _ => return None,
        }
        self.was_proven = true;
        self.last_failure = None;
        self.deadline.take().map(|_| LinkEvent::Resumed)
    }

    /// The websocket is gone. Says so only for one that had worked.
    pub(super) fn handle_lost(&mut self, now: Instant, reason: String) -> Option<LinkEvent> {
        let Phase::Open { since, is_proven } = self.phase else { return None };
        self.lost_since = Some(since);
        // A socket that was closed at once must not be followed by another at once, for ever.
        if is_proven && now.saturating_duration_since(since) >= STEADY_AFTER {
            self.backoff.reset();
        }
        let timeout = if self.was_proven { self.reconnect_timeout } else { self.open_timeout };
        // The time for which the next attempt is held back is not the network's.
        self.deadline.get_or_insert(self.may_resume_at(now) + timeout);
        self.retry(now, reason.clone());
        is_proven.then_some(LinkEvent::Lost(reason))
    }

    /// The websocket that was given up for its silence answers again: no other is needed.
    pub(super) fn handle_recovered(&mut self) -> Option<LinkEvent> {
        let since = self.lost_since.take()?;
        if self.phase == Phase::Over {
            return None;
        }
        let is_proven = std::mem::replace(&mut self.was_proven, true);
        self.phase = Phase::Open { since, is_proven: true };
        self.last_failure = None;
        self.deadline = None;
        self.backoff.reset();
        is_proven.then_some(LinkEvent::Resumed)
    }

    /// The network has changed: an attempt that waits for its turn is due at once, or when there is a token for it. One
    /// that has been under way for a while starts over, since it may wait for answers to an address that is gone; later
    /// each time, so that an attempt on a slow path ends although the network keeps changing.
    pub(super) fn handle_network_change(&mut self, now: Instant) {
        let earliest = self.may_resume_at(now);
        match &mut self.phase {
            Phase::Waiting { until } => *until = earliest.min(*until),
            Phase::Opening { since } if now >= *since + restart_after(self.restarts) => {
                self.restarts += 1;
                self.phase = Phase::Waiting { until: earliest };
            }
            _ => return,
        }
        self.backoff.reset();
    }

    /// When [`Reconnect::poll_attempt`] or [`Reconnect::handle_timeout`] is due, and why.
    #[must_use]
    pub(super) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let attempt = match self.phase {
            Phase::Waiting { until } => Some((until, "next attempt")),
            Phase::Over => return None,
            Phase::Opening { .. } | Phase::Open { .. } => None,
        };
        let deadline = self.deadline.map(|at| (at, "giving up"));
        [attempt, deadline].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Gives up when it is time; may be called at any time.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<LinkEvent> {
        if self.deadline.is_none_or(|at| at > now) {
            return None;
        }
        let reason = self.last_failure.take().unwrap_or_else(|| "no answer".into());
        let reason = if self.was_proven {
            GaveUp::Reconnect { timeout: self.reconnect_timeout, reason }
        } else {
            GaveUp::OpenTimeout { host: self.host.clone(), timeout: self.open_timeout, reason }
        };
        Some(self.give_up(reason))
    }

    fn give_up(&mut self, reason: GaveUp) -> LinkEvent {
        self.phase = Phase::Over;
        self.deadline = None;
        LinkEvent::GaveUp(reason)
    }

    fn retry(&mut self, now: Instant, reason: String) {
        self.last_failure = Some(reason);
        let until = (now + self.backoff.next_delay()).max(self.may_resume_at(now));
        self.phase = Phase::Waiting { until };
    }

    /// The earliest time for the next attempt by the token bucket, which the first token of a session does not need.
    fn may_resume_at(&self, now: Instant) -> Instant {
        self.resumes.next_at().filter(|_| self.was_open).map_or(now, |at| at.max(now))
    }
}

/// Age from which an attempt starts over when the network changes, after so many that did.
fn restart_after(restarts: u32) -> Duration {
    RESTART_AFTER * (1 << restarts.min(MAX_RESTART_DOUBLINGS))
}

/// More than an attempt usually takes.
const RESTART_AFTER: Duration = Duration::from_secs(2);
const MAX_RESTART_DOUBLINGS: u32 = 4;
/// With this little time left for opening, a failure is reported when the time is up, not twice.
const NEARLY_OVER: Duration = Duration::from_millis(200);
/// Calls of ResumeSession that one session may make at once: a transfer that is cut ten times is not slowed down.
const RESUME_BURST: u32 = 12;
const RESUME_INTERVAL: Duration = Duration::from_secs(5);
/// A connection that lasted this long was a good one.
const STEADY_AFTER: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::super::OpenError;
    use super::super::backoff::MAX_STEP;
    use super::*;

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
    fn a_first_failure_is_told_once_with_its_warning() {
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
    fn a_websocket_that_works_again_is_told_once_and_ends_the_deadline() {
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

    /// One that works for a moment each time: it goes on, at the backoff's pace.
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
}
