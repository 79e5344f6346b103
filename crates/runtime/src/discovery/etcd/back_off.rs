use std::time::Duration;

/// The wait before the first new attempt.
const SHORTEST: Duration = Duration::from_millis(10);
/// The longest wait: what is away is found again that soon after it is back.
const LONGEST: Duration = Duration::from_millis(250);

/// The waits between attempts: each twice as long as the one before, up to 250 ms.
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
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_quarter_of_a_second() {
        let mut back_off = BackOff::new();
        let waits: Vec<_> = (0..7).map(|_| back_off.wait().as_millis()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 250, 250]);
    }
}
