use std::time::Duration;

/// A claim that lasts until its time to live is over, unless it is renewed: the side of its owner.
///
/// What is granted counts from when it was asked for, not from when the answer came: whoever gave
/// it may have begun to count at any moment between the two, so this side never believes in a
/// lease that the other has ended. A time to live of zero says that there is no such lease any
/// more.
///
/// A third of its time after a lease was asked for it is due to be renewed. One renewal is under
/// way at a time; one that failed may be tried again at once, and how often is the caller's.
///
/// `now` is the time since some start, and does not go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Zero once it is lost.
    ttl: Duration,
    /// When what holds now was asked for.
    since: Duration,
    /// When the renewal that is under way was asked for.
    asked: Option<Duration>,
}

impl Lease {
    /// The largest part of a second that [`Lease::spread`] spreads over.
    const LARGEST_SPREAD: Duration = Duration::from_millis(500);

    /// A lease that was asked for at `asked`, and granted for `ttl`.
    pub fn granted(asked: Duration, ttl: Duration) -> Self {
        Self {
            ttl,
            since: asked,
            asked: None,
        }
    }

    /// Its time to live; zero once the other side has said that it is over.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// When it is due to be renewed.
    pub fn renew_at(&self) -> Duration {
        self.since + self.ttl / 3
    }

    /// When it is over unless it is renewed.
    pub fn ends_at(&self) -> Duration {
        self.since + self.ttl
    }

    /// Whether it is over.
    pub fn is_lost(&self, now: Duration) -> bool {
        now >= self.ends_at()
    }

    /// A renewal is asked for.
    pub fn ask(&mut self, now: Duration) {
        self.asked = Some(now);
    }

    /// The renewal that was asked for is granted for `ttl`; zero says that the lease is lost. An
    /// answer to nothing changes nothing, and a lease that is lost does not come back.
    pub fn answer(&mut self, ttl: Duration) {
        if let Some(asked) = self.asked.take() {
            let is_over = ttl.is_zero() || self.is_lost(asked);
            self.ttl = if is_over { Duration::ZERO } else { ttl };
            self.since = asked;
        }
    }

    /// How long to wait before what a lost lease held is claimed anew, so that the many owners
    /// that lose theirs at the same time do not come back at the same moment. `jitter` is a random
    /// number from 0 to 1.
    pub fn spread(ttl: Duration, jitter: f64) -> Duration {
        (ttl / 10)
            .min(Self::LARGEST_SPREAD)
            .mul_f64(jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(9);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_counts_from_the_asking() {
        let mut lease = Lease::granted(at(10), TTL);
        assert_eq!((lease.renew_at(), lease.ends_at()), (at(13), at(19)));
        lease.ask(at(13));
        assert!(!lease.is_lost(at(18)) && lease.is_lost(at(19)));
        // The answer takes five seconds; they are not given as a present.
        lease.answer(TTL);
        assert_eq!((lease.renew_at(), lease.ends_at()), (at(16), at(22)));
    }

    #[test]
    fn a_time_to_live_of_zero_is_the_end() {
        let mut lease = Lease::granted(at(0), TTL);
        lease.ask(at(3));
        lease.answer(Duration::ZERO);
        assert!(lease.is_lost(at(3)));
        lease.ask(at(4));
        lease.answer(TTL);
        assert!(lease.is_lost(at(4)), "it does not come back");
    }

    #[test]
    fn an_answer_is_taken_once_and_for_the_last_question() {
        let mut lease = Lease::granted(at(0), TTL);
        lease.answer(TTL * 2);
        assert_eq!(lease.ends_at(), at(9));
        lease.ask(at(3));
        lease.ask(at(5));
        lease.answer(TTL);
        lease.answer(TTL * 2);
        assert_eq!(lease.ends_at(), at(14));
    }

    #[test]
    fn owners_come_back_spread_and_soon() {
        assert_eq!(Lease::spread(TTL, 0.0), Duration::ZERO);
        assert_eq!(Lease::spread(TTL, 0.5), Duration::from_millis(250));
        assert_eq!(Lease::spread(at(1), 1.0), Duration::from_millis(100));
        assert_eq!(Lease::spread(TTL, 7.0), Duration::from_millis(500));
    }
}
