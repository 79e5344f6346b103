use std::fmt;

use serde::{Deserialize, Serialize};

/// How a worker is chosen among those that are eligible. Ties are drawn, each with the same
/// chance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Mode {
    /// One after the other, in the order of their ids.
    RoundRobin,
    /// Any, each with the same chance.
    Random,
    /// Of two that are drawn, the one with fewer requests.
    PowerOfTwo,
    /// The one with the fewest requests; among these, with the fewest tokens to prefill, then
    /// with the fewest blocks in use.
    LeastLoaded,
    /// The one the request names.
    Direct,
    /// The one with the least [`Cost`](crate::Cost), for what it has cached and what it has to do.
    #[default]
    Kv,
}

impl fmt::Display for Mode {
    /// As it is written in settings.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RoundRobin => "round-robin",
            Self::Random => "random",
            Self::PowerOfTwo => "power-of-two",
            Self::LeastLoaded => "least-loaded",
            Self::Direct => "direct",
            Self::Kv => "kv",
        })
    }
}
