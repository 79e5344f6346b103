use std::time::Duration;

use super::fraction;

/// The wait before the first new attempt.
const SHORTEST: Duration = Duration::from_millis(10);
/// The longest wait: what is away is found again that soon after it is back.
const LONGEST: Duration = Duration::from_millis(250);

/// The waits between attempts: each about twice as long as the one before, up to 250 ms. Up to half
/// of each is left out at random, so that the many processes that lose etcd at the same time do not
/// come back at the same moments.
#[derive(Clone, Copy, Debug)]
pub(super) struct BackOff {
    next: Duration,
}

impl BackOff {
    pub(super) const fn new() -> Self {
        Self { next: SHORTEST }
    }

    /// How long to wait before the next attempt.
    pub(super) fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST);
        wait.mul_f64(1.0 - fraction() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_quarter_of_a_second_and_differ() {
        let waits = || {
            let mut back_off = BackOff::new();
            [10, 20, 40, 80, 160, 250, 250].map(|longest| {
                let (wait, longest) = (back_off.wait(), Duration::from_millis(longest));
                assert!(
                    wait <= longest && wait >= longest / 2,
                    "{wait:?} of {longest:?}"
                );
                wait
            })
        };
        assert_ne!(waits(), waits());
    }
}
