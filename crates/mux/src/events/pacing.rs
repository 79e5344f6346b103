use std::time::Duration;

use super::digest::mix;

/// How long after a first sign of loss a range is asked for, at most.
const RANGE_SPREAD: Duration = Duration::from_millis(20);
/// The same for what will be a snapshot.
const SNAPSHOT_SPREAD: Duration = Duration::from_millis(100);
/// The wait after a repair that did not help; each one after it waits twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest such wait.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Draws the moments of repairs, so that many followers do not ask one worker in one instant, and
/// none asks forever in a hurry.
#[derive(Debug)]
pub(super) struct Pacing {
    random: u64,
    /// Repairs in succession that did not help.
    strain: u32,
}

impl Pacing {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: seed,
            strain: 0,
        }
    }

    /// How long to wait before asking for what will probably be a range.
    pub(super) fn range(&mut self) -> Duration {
        self.spread(RANGE_SPREAD)
    }

    /// How long to wait before asking for what will be a snapshot.
    pub(super) fn snapshot(&mut self) -> Duration {
        self.spread(SNAPSHOT_SPREAD)
    }

    /// How long to wait after a repair that did not help.
    pub(super) fn strained(&mut self) -> Duration {
        let wait = FIRST_WAIT * 2_u32.pow(self.strain.min(8));
        self.strain += 1;
        let wait = wait.min(LONGEST_WAIT);
        wait / 2 + self.draw(wait / 2)
    }

    /// What was repaired is right.
    pub(super) fn eased(&mut self) {
        self.strain = 0;
    }

    /// Somewhere in `most`, or later after repairs that did not help.
    fn spread(&mut self, most: Duration) -> Duration {
        match self.strain {
            0 => self.draw(most),
            _ => self.strained(),
        }
    }

    /// From 0 to `most`.
    fn draw(&mut self, most: Duration) -> Duration {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        // 32 bits are more than precise enough.
        let share = f64::from((mix(self.random) >> 32) as u32) / f64::from(u32::MAX);
        most.mul_f64(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_spread_and_grow_while_repairs_do_not_help() {
        let mut some = Pacing::new(1);
        let mut other = Pacing::new(2);
        assert_ne!(some.range(), other.range());
        assert!((0..100).all(|_| some.range() <= RANGE_SPREAD));
        for doubled in 0..20 {
            let wait = LONGEST_WAIT.min(FIRST_WAIT * 2_u32.pow(doubled.min(8)));
            let drawn = some.strained();
            assert!(drawn >= wait / 2 && drawn <= wait, "{drawn:?} of {wait:?}");
        }
        assert!(some.range() > RANGE_SPREAD);
        some.eased();
        assert!(some.range() <= RANGE_SPREAD);
    }
}
