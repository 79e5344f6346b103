use futures::stream::BoxStream;

/// How things stand with what is served at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerState {
    /// It answers: new streams are welcome.
    Reachable,
    /// It keeps what it has, and takes nothing new until it is reachable again.
    Paused,
    /// It finishes what it has, and refuses new streams.
    Draining,
    /// It does not answer, or nothing is served there: new streams fail, and those that ran have
    /// ended.
    Lost,
}

impl PeerState {
    /// A stable name in snake case, for metric labels and log fields.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reachable => "reachable",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Lost => "lost",
        }
    }
}

/// How things stand with a peer: the state as soon as it is known, and then each change, also back
/// to [`PeerState::Reachable`]. It does not end. A consumer that is behind sees the latest state.
pub type PeerWatch = BoxStream<'static, PeerState>;
