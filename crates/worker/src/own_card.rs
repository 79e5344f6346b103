use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use forebay_engine::remote::{CardChangeError, WorkerCard};
use forebay_runtime::Served;
use parking_lot::Mutex;
use tokio::sync::watch;

/// Earlier cards that are kept: with the one of now, as many as are announced.
const EARLIER: usize = 63;

/// What a worker says about itself, for all who tell it on. Clones are handles on the same one.
#[derive(Clone, Debug)]
pub(crate) struct OwnCard {
    now: watch::Sender<Arc<WorkerCard>>,
    /// What it was before, the oldest first.
    earlier: Arc<Mutex<VecDeque<Arc<WorkerCard>>>>,
}

impl OwnCard {
    /// The first one, whatever its revision was.
    pub(crate) fn new(mut card: WorkerCard) -> Self {
        card.revision = 0;
        Self {
            now: watch::Sender::new(Arc::new(card)),
            earlier: Arc::default(),
        }
    }

    pub(crate) fn get(&self) -> Arc<WorkerCard> {
        self.now.borrow().clone()
    }

    /// Changes it, and gives its revision.
    pub(crate) fn update(
        &self,
        change: impl FnOnce(&mut WorkerCard),
    ) -> Result<u64, CardChangeError> {
        let mut outcome = Ok(());
        self.now.send_if_modified(|card| {
            let mut next = WorkerCard::clone(card);
            change(&mut next);
            next.revision = card.revision;
            outcome = card.check_change(&next);
            if outcome.is_err() || next == **card {
                return false;
            }
            next.revision += 1;
            let before = mem::replace(card, Arc::new(next));
            let mut earlier = self.earlier.lock();
            if earlier.len() == EARLIER {
                earlier.pop_front();
            }
            earlier.push_back(before);
            true
        });
        outcome.map(|()| self.now.borrow().revision)
    }

    /// Announces for what is served anew what it was, and is: discovery may have any of that for a
    /// while yet.
    pub(crate) fn announce_all(&self, served: &dyn Served) {
        let now = self.get();
        for card in self.earlier.lock().iter().chain([&now]) {
            served.announce(card.encode());
        }
    }

    /// Each change, from what it is now on.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<WorkerCard>> {
        self.now.subscribe()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn each_change_has_a_revision_of_its_own() {
        let card = OwnCard::new(sample::card());
        let mut changes = card.changes();
        assert_eq!(card.update(|card| card.weight = 0.5), Ok(1));
        assert_eq!(card.update(|card| card.weight = 0.5), Ok(1), "the same");
        let place = |card: &mut WorkerCard| {
            card.topology.insert("zone".into(), "a".into());
            card.revision = 7;
        };
        assert_eq!(card.update(place), Ok(2));
        assert_eq!(changes.borrow_and_update().revision, 2);
        assert_eq!(card.get().weight, 0.5);
    }

    #[test]
    fn what_cannot_be_changes_nothing() {
        let card = OwnCard::new(sample::card());
        let error = card.update(|card| {
            card.weight = 0.5;
            card.weights.push('x');
        });
        assert_eq!(error, Err(CardChangeError::OtherVersion));
        let error = card.update(|card| card.weight = f64::NAN);
        assert_eq!(error, Err(CardChangeError::Weight));
        assert!(!card.changes().has_changed().unwrap());
        assert_eq!((card.get().revision, card.get().weight), (0, 1.0));
    }
}
