use std::num::NonZeroUsize;

use forebay_protocols::worker::SamplingDefaults;
use serde::{Deserialize, Serialize};

use super::error::Error;

/// How many engines a process has, and of which kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EnginesConfig {
    /// How many engines there are, 1 to 4096. Default 1.
    pub count: NonZeroUsize,
    /// Of which kind they are: `native`, a model on the CPU, or `mocker`, which imitates the time
    /// that an accelerator takes and says meaningless words. Default `native`.
    pub engine: EngineKind,
}

/// One process carries no more engines.
const MOST_ENGINES: usize = 4096;

impl Default for EnginesConfig {
    fn default() -> Self {
        Self {
            count: NonZeroUsize::MIN,
            engine: EngineKind::default(),
        }
    }
}

impl EnginesConfig {
    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for the first that is out of its range.
    pub fn check(&self) -> Result<(), Error> {
        match self.count.get() {
            ..=MOST_ENGINES => Ok(()),
            _ => Err(Error::Setting {
                setting: "workers.count",
                expected: "from 1 to 4096",
            }),
        }
    }
}

/// A kind of engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "command", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// A model on the CPU
    #[cfg(feature = "native")]
    #[default]
    Native,
    /// Imitates an accelerator's time, and says meaningless words
    #[cfg(feature = "mocker")]
    #[cfg_attr(not(feature = "native"), default)]
    Mocker,
}

impl EngineKind {
    /// Its name, as settings have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            #[cfg(feature = "native")]
            Self::Native => "native",
            #[cfg(feature = "mocker")]
            Self::Mocker => "mocker",
        }
    }
}

/// How tokens are drawn where a client does not say; what is `None` here is what the catalog
/// recommends for the model, else the API's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingConfig {
    /// 0 (greedy) to 2.
    pub temperature: Option<f32>,
    /// Above 0, at most 1.
    pub top_p: Option<f32>,
}

impl SamplingConfig {
    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for the first that is out of its range.
    pub fn check(&self) -> Result<(), Error> {
        let out_of_range = |setting, expected| Err(Error::Setting { setting, expected });
        if self.temperature.is_some_and(|t| !(0.0..=2.0).contains(&t)) {
            return out_of_range("sampling.temperature", "from 0 to 2");
        }
        if self.top_p.is_some_and(|p| !(p > 0.0 && p <= 1.0)) {
            return out_of_range("sampling.top_p", "above 0 and at most 1");
        }
        Ok(())
    }

    /// As a card has them, with what is recommended where nothing is set.
    pub(super) fn or(self, temperature: Option<f32>, top_p: Option<f32>) -> SamplingDefaults {
        SamplingDefaults {
            temperature: self.temperature.or(temperature),
            top_p: self.top_p.or(top_p),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_named() {
        let is_valid = |count: usize| {
            let config = EnginesConfig {
                count: NonZeroUsize::MIN.saturating_add(count - 1),
                ..Default::default()
            };
            config.check().is_ok()
        };
        assert!(is_valid(1) && is_valid(4096) && !is_valid(4097));
        let check = |temperature, top_p| SamplingConfig { temperature, top_p }.check().is_ok();
        assert!(check(None, None) && check(Some(0.0), Some(1.0)));
        for wrong in [-0.1, 2.1, f32::NAN] {
            assert!(!check(Some(wrong), None), "{wrong}");
        }
        for wrong in [0.0, 1.1, f32::NAN] {
            assert!(!check(None, Some(wrong)), "{wrong}");
        }
    }
}
