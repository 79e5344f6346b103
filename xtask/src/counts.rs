//! Test counts, read from the closing lines of cargo's harness and of pytest.

use std::fmt;
use std::ops::AddAssign;

/// How many tests ran, and how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Counts {
    /// One check that either passed or failed.
    pub(crate) fn one(passed: bool) -> Self {
        Self {
            passed: u64::from(passed),
            failed: u64::from(!passed),
            skipped: 0,
        }
    }

    /// Reads a closing line; `None` for every other line.
    ///
    /// Two forms: libtest's `test result: ok. 3 passed; 0 failed; 1 ignored; ...`
    /// and pytest's `==== 3 passed, 1 skipped in 0.12s ====` (also without bars).
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("test result: ") {
            let (_, rest) = rest.split_once(". ")?;
            return Some(Self::from_parts(rest.split("; ")));
        }
        let line = line.trim_matches('=').trim();
        let (parts, time) = line.rsplit_once(" in ")?;
        let time = time.split(' ').next()?;
        time.strip_suffix('s')?.parse::<f64>().ok()?;
        let counts = Self::from_parts(parts.split(", "));
        (counts != Self::default()).then_some(counts)
    }

    fn from_parts<'a>(parts: impl Iterator<Item = &'a str>) -> Self {
        let mut counts = Self::default();
        for part in parts {
            let mut words = part.split(' ');
            let Some(Ok(number)) = words.next().map(str::parse::<u64>) else {
                continue;
            };
            match words.next() {
                Some("passed") => counts.passed += number,
                Some("failed" | "error" | "errors") => counts.failed += number,
                Some("ignored" | "skipped" | "xfailed") => counts.skipped += number,
                _ => {}
            }
        }
        counts
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_closing_lines_of_both_runners() {
        let libtest = "test result: FAILED. 12 passed; 1 failed; 2 ignored; 0 measured; 7 filtered out; finished in 0.01s";
        assert_eq!(
            Counts::parse(libtest),
            Some(Counts {
                passed: 12,
                failed: 1,
                skipped: 2
            })
        );
        let pytest = "=========== 1 failed, 20 passed, 3 skipped, 1 error in 4.21s ===========";
        assert_eq!(
            Counts::parse(pytest),
            Some(Counts {
                passed: 20,
                failed: 2,
                skipped: 3
            })
        );
        assert_eq!(
            Counts::parse("3 passed in 65.02s (0:01:05)")
                .unwrap()
                .passed,
            3
        );
    }

    #[test]
    fn other_lines_are_not_counts() {
        for line in [
            "",
            "running 3 tests",
            "test a ... ok",
            "built in 3s",
            "2 apples in 3s",
        ] {
            assert_eq!(Counts::parse(line), None, "{line}");
        }
    }
}
