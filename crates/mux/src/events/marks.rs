use std::time::Duration;

/// When a publisher repeats where it is, so that a lost last batch is noticed: 100 ms after the last
/// change, and then after gaps that double up to 5 s, for as long as nothing changes.
///
/// Batches say themselves where the publisher is, so there are no marks between them.
#[derive(Clone, Copy, Debug)]
pub struct KvMarks {
    due: Duration,
    gap: Duration,
}

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

impl KvMarks {
    /// Something was published, or a publisher begins.
    pub fn after_change(now: Duration) -> Self {
        Self {
            due: now + FIRST,
            gap: FIRST,
        }
    }

    /// When the next mark is to be published.
    pub fn due(&self) -> Duration {
        self.due
    }

    /// Whether to publish a mark now; if so, it is taken as done.
    pub fn take(&mut self, now: Duration) -> bool {
        let is_due = now >= self.due;
        if is_due {
            self.gap = LONGEST.min(2 * self.gap);
            self.due = now + self.gap;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_grow_from_the_last_change() {
        let start = Duration::from_secs(7);
        let mut marks = KvMarks::after_change(start);
        assert!(!marks.take(start));
        let mut times = Vec::new();
        for _ in 0..9 {
            let due = marks.due();
            assert!(marks.take(due));
            assert!(!marks.take(due));
            times.push((due - start).as_millis());
        }
        let expected = [100, 300, 700, 1500, 3100, 6300, 11_300, 16_300, 21_300];
        assert_eq!(times, expected);
    }
}
