use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use forebay_engine::remote::{CardDigest, RemoteEngine, WorkerCard};
use forebay_tokens::WorkerId;

use super::ServedModel;
use super::follower::NewerCards;

/// Which version of which model: workers of one key can take one another's place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct VersionKey {
    pub(super) name: String,
    pub(super) digest: CardDigest,
}

impl VersionKey {
    pub(super) fn of(card: &WorkerCard) -> Self {
        Self {
            name: card.model.clone(),
            digest: card.digest(),
        }
    }
}

impl fmt::Display for VersionKey {
    /// The name, and enough of the digest to tell it from others.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = self.digest.to_string();
        write!(f, "{} ({})", self.name, &digest[..8])
    }
}

/// A version of a model, and its workers.
pub(super) struct Version {
    /// The card of its first worker: what it says of the version all others say, too.
    pub(super) card: WorkerCard,
    pub(super) workers: BTreeMap<WorkerId, Arc<RemoteEngine>>,
    /// What workers that may come back said last, where discovery has not heard.
    pub(super) newer_cards: NewerCards,
    pub(super) state: State,
    /// Changes when workers come, so that an end that was near is not one any more.
    pub(super) arrivals: u64,
}

pub(super) enum State {
    /// Its text is still to come.
    Starting(Start),
    /// Requests go there.
    Serving(Box<ServedModel>),
    /// What its workers name cannot be used, for this reason.
    Unusable(String),
}

/// How far a version's text is.
#[derive(Default)]
pub(super) struct Start {
    /// Whether a worker is being asked, or will be after a wait.
    pub(super) is_under_way: bool,
    /// Who was asked last.
    pub(super) asked: Option<WorkerId>,
    /// How often a worker did not answer.
    pub(super) failures: u32,
    /// Workers that do not give what their card names.
    pub(super) refused: HashSet<WorkerId>,
}

impl Version {
    pub(super) fn new(card: WorkerCard) -> Self {
        Self {
            card,
            workers: BTreeMap::new(),
            newer_cards: NewerCards::default(),
            state: State::Starting(Start::default()),
            arrivals: 0,
        }
    }

    /// What keeps requests from it, if something does that is to be told.
    pub(super) fn problem(&self) -> Option<&str> {
        match &self.state {
            State::Unusable(reason) => Some(reason),
            State::Starting(start) if !start.is_under_way => {
                Some("its workers do not give what their cards name")
            }
            State::Starting(start) if start.failures > 0 => Some("its workers do not answer"),
            State::Starting(_) | State::Serving(_) => None,
        }
    }

    /// Every name that its workers have for it.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        [self.card.model.clone()].into_iter().chain(self.aliases())
    }

    /// Every other name that its workers have for it, each once and in order.
    pub(super) fn aliases(&self) -> Vec<String> {
        let workers = self.workers.values();
        let aliases = workers.flat_map(|engine| engine.card().aliases.clone());
        let mut aliases: Vec<_> = aliases.filter(|alias| !alias.is_empty()).collect();
        aliases.sort_unstable();
        aliases.dedup();
        aliases
    }
}
