use std::time::Duration;

/// When things happened to a request, on its caller's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timing {
    /// It arrived.
    pub arrived: Duration,
    /// The first token of any choice came.
    pub first_token: Option<Duration>,
    /// The last token so far came.
    pub last_token: Option<Duration>,
}

impl Timing {
    /// TTFT: from arrival to the first token of any choice.
    pub fn time_to_first_token(&self) -> Option<Duration> {
        Some(self.first_token?.saturating_sub(self.arrived))
    }
}
