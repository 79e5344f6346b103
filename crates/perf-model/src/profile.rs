use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Error, Grid, Iteration};

/// Iteration time from two measured grids, one of iterations that only prefill and one of those
/// that only decode.
///
/// An iteration that does both takes the sum of the two, less what both have measured and it pays
/// only once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct Profile {
    parts: Parts,
}

/// The form in files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    prefill: Grid,
    decode: Grid,
    #[serde(default)]
    shared_seconds: f64,
}

impl Profile {
    /// Takes measurements: `prefill` over prompt tokens of an iteration and the tokens that each of
    /// them attends to on average; `decode` over sequences and the context of each in tokens.
    /// `shared_seconds` is the part of every value that an iteration of both kinds pays once.
    ///
    /// # Errors
    ///
    /// [`Error::Seconds`] if `shared_seconds` is no time, [`Error::Shared`] if it is more than a
    /// value of a grid.
    pub fn new(prefill: Grid, decode: Grid, shared_seconds: f64) -> Result<Self, Error> {
        Self::try_from(Parts {
            prefill,
            decode,
            shared_seconds,
        })
    }

    /// How long an iteration takes; an empty one, no time at all.
    pub fn iteration_time(&self, iteration: &Iteration) -> Duration {
        let at = |grid: &Grid, count: u64, context: u64| {
            (count > 0).then(|| grid.at(count as f64, context as f64 / count as f64))
        };
        let prefill = at(
            &self.parts.prefill,
            iteration.prefill_tokens,
            iteration.prefill_context_tokens,
        );
        let decode = at(
            &self.parts.decode,
            iteration.decode_sequences,
            iteration.decode_context_tokens,
        );
        crate::perf_model::duration(match (prefill, decode) {
            (Some(prefill), Some(decode)) => prefill + decode - self.parts.shared_seconds,
            (one, other) => one.or(other).unwrap_or(0.0),
        })
    }

    /// The same with every time divided by `speed`, which is a finite number above 0.
    pub(crate) fn at_speed(self, speed: f64) -> Self {
        let Parts {
            prefill,
            decode,
            shared_seconds,
        } = self.parts;
        Self {
            parts: Parts {
                prefill: prefill.at_speed(speed),
                decode: decode.at_speed(speed),
                shared_seconds: shared_seconds / speed,
            },
        }
    }
}

impl TryFrom<Parts> for Profile {
    type Error = Error;

    fn try_from(parts: Parts) -> Result<Self, Error> {
        let shared = parts.shared_seconds;
        if !(shared.is_finite() && shared >= 0.0) {
            return Err(Error::Seconds {
                field: "shared_seconds",
                value: shared,
            });
        }
        let least = parts
            .prefill
            .least_seconds()
            .min(parts.decode.least_seconds());
        if shared > least {
            return Err(Error::Shared { shared, least });
        }
        Ok(Self { parts })
    }
}

impl From<Profile> for Parts {
    fn from(profile: Profile) -> Self {
        profile.parts
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn profile(shared_seconds: f64) -> Result<Profile, Error> {
        let line = |counts: [f64; 2], seconds: [f64; 2]| {
            let rows = seconds.iter().map(|value| vec![*value]).collect();
            Grid::new(counts.to_vec(), vec![1_000.0], rows).unwrap()
        };
        let prefill = line([0.0, 1_000.0], [2.0, 12.0]);
        Profile::new(prefill, line([0.0, 10.0], [3.0, 4.0]), shared_seconds)
    }

    #[test]
    fn a_mixed_iteration_pays_once_what_both_have() {
        let profile = profile(2.0).unwrap();
        let (prefill, decode) = (Iteration::prefill(0..500), Iteration::decode(10, 9_999));
        let seconds = |work| profile.iteration_time(&work).as_secs_f64();
        assert_eq!((seconds(prefill), seconds(decode)), (7.0, 4.0));
        assert_eq!(seconds(prefill + decode), 9.0);
        assert_eq!(seconds(Iteration::default()), 0.0);
    }

    #[test]
    fn a_fixed_part_is_part_of_every_value() {
        let shared = 2.5;
        let least = 2.0;
        assert_eq!(profile(shared), Err(Error::Shared { shared, least }));
        assert!(matches!(profile(-1.0), Err(Error::Seconds { .. })));
    }
}
