use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Error, Iteration, Polynomial, Profile};

/// How long an engine's iterations take.
///
/// In files it is a table with its `kind` (`zero`, `polynomial` or `profile`) and that kind's
/// fields. The default is [`Polynomial::MID_SIZE`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum PerfModel {
    /// No time at all.
    Zero,
    /// By formula.
    Polynomial(Polynomial),
    /// As measured.
    Profile(Profile),
}

impl Default for PerfModel {
    fn default() -> Self {
        Self::Polynomial(Polynomial::MID_SIZE)
    }
}

impl PerfModel {
    /// How long an iteration takes; an empty one, no time at all. More work never takes less.
    pub fn iteration_time(&self, iteration: &Iteration) -> Duration {
        match self {
            Self::Zero => Duration::ZERO,
            Self::Polynomial(polynomial) => polynomial.iteration_time(iteration),
            Self::Profile(profile) => profile.iteration_time(iteration),
        }
    }

    /// The same hardware `speed` times as fast: every time is divided by it.
    ///
    /// # Errors
    ///
    /// [`Error::Speed`] if `speed` is not a finite number above 0.
    pub fn at_speed(self, speed: f64) -> Result<Self, Error> {
        if !(speed.is_finite() && speed > 0.0) {
            return Err(Error::Speed(speed));
        }
        Ok(match self {
            Self::Zero => Self::Zero,
            Self::Polynomial(polynomial) => Self::Polynomial(polynomial.at_speed(speed)),
            Self::Profile(profile) => Self::Profile(profile.at_speed(speed)),
        })
    }
}

/// Seconds, which are not negative, as a duration; the longest there is if they are too many.
pub(crate) fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Grid;

    fn read(json: &str) -> Result<PerfModel, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn files_name_the_kind() {
        assert_eq!(read(r#"{"kind": "zero"}"#), Ok(PerfModel::Zero));
        let fixed = read(r#"{"kind": "polynomial", "fixed_seconds": 2}"#).unwrap();
        let time = fixed.iteration_time(&Iteration::prefill(0..1_000));
        assert_eq!(time, Duration::from_secs(2));
        let default = PerfModel::default();
        let text = serde_json::to_string(&default).unwrap();
        assert!(text.contains(r#""kind":"polynomial""#), "{text}");
        assert_eq!(read(&text), Ok(default));

        let axes = r#""counts": [1, 9], "contexts": [5], "seconds": [[1], [2]]"#;
        let profile =
            format!(r#"{{"kind": "profile", "prefill": {{{axes}}}, "decode": {{{axes}}}}}"#);
        let profile = read(&profile).unwrap();
        assert_eq!(
            profile.iteration_time(&Iteration::decode(5, 25)),
            Duration::from_millis(1_500)
        );
        assert_eq!(read(&serde_json::to_string(&profile).unwrap()), Ok(profile));
    }

    #[test]
    fn files_are_checked() {
        let negative = r#"{"kind": "polynomial", "fixed_seconds": -1,
            "prefill_token_seconds": 0, "prefill_context_token_seconds": 0,
            "decode_sequence_seconds": 0, "decode_context_token_seconds": 0}"#;
        let error = read(negative).unwrap_err();
        assert!(error.contains("fixed_seconds must be"), "{error}");
        let error = read(&negative.replace("-1", r#"1, "fixed": 2"#)).unwrap_err();
        assert!(error.contains("unknown field `fixed`"), "{error}");
        assert!(read(r#"{"kind": "roofline"}"#).is_err());
    }

    #[test]
    fn speed_divides_every_time() {
        let axes = |least| Grid::new(vec![1.0, 2.0], vec![1.0], vec![vec![least], vec![4.0]]);
        let profile = Profile::new(axes(1.0).unwrap(), axes(2.0).unwrap(), 1.0).unwrap();
        let work = Iteration::prefill(0..2) + Iteration::decode(1, 1);
        for model in [PerfModel::default(), PerfModel::Profile(profile)] {
            let usual = model.iteration_time(&work).as_secs_f64();
            let fast = model.clone().at_speed(4.0).unwrap();
            assert!((fast.iteration_time(&work).as_secs_f64() - usual / 4.0).abs() < 1e-8);
            for speed in [0.0, -1.0, f64::NAN, f64::INFINITY] {
                assert!(matches!(
                    model.clone().at_speed(speed),
                    Err(Error::Speed(_))
                ));
            }
        }
        assert_eq!(PerfModel::Zero.at_speed(2.0), Ok(PerfModel::Zero));
    }
}
