use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::card::WorkerCard;
use super::card_change::CardChangeError;

/// The newest card of a worker, whichever way it came. Clones are handles on the same one.
#[derive(Clone, Debug)]
pub(super) struct KnownCard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    newest: watch::Sender<Arc<WorkerCard>>,
    /// The newest revision that was not taken.
    refused: Mutex<Option<u64>>,
}

impl KnownCard {
    /// The worker's first one.
    pub(super) fn new(card: WorkerCard) -> Self {
        Self(Arc::new(Inner {
            newest: watch::Sender::new(Arc::new(card)),
            refused: Mutex::default(),
        }))
    }

    pub(super) fn get(&self) -> Arc<WorkerCard> {
        self.0.newest.borrow().clone()
    }

    /// Takes a card, if it is newer. Each that is not the same worker's is an error once.
    pub(super) fn offer(&self, card: WorkerCard) -> Result<(), CardChangeError> {
        let mut refused = None;
        self.0.newest.send_if_modified(|newest| {
            if card.revision <= newest.revision {
                return false;
            }
            match newest.check_change(&card) {
                Ok(()) => *newest = Arc::new(card),
                Err(error) => refused = Some((card.revision, error)),
            }
            refused.is_none()
        });
        let Some((revision, error)) = refused else {
            return Ok(());
        };
        match self.0.refused.lock().replace(revision) {
            Some(before) if before == revision => Ok(()),
            _ => Err(error),
        }
    }

    /// Each newer one, or the newest of several, from now on; ends with the last handle.
    pub(super) fn changes(&self) -> BoxStream<'static, Arc<WorkerCard>> {
        let newest = self.0.newest.subscribe();
        stream::unfold(newest, |mut newest| async {
            newest.changed().await.ok()?;
            let card = newest.borrow_and_update().clone();
            Some((card, newest))
        })
        .boxed()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::remote::card::tests::bare;

    fn card(revision: u64) -> WorkerCard {
        WorkerCard {
            weight: revision as f64,
            revision,
            ..bare()
        }
    }

    proptest! {
        /// Discovery and the topic are two ways, each late and out of order.
        #[test]
        fn the_largest_revision_wins_in_whatever_order_cards_come(
            offered in prop::collection::vec(0_u64..20, 0..40),
        ) {
            let known = KnownCard::new(card(0));
            let mut newest = 0;
            for revision in offered {
                known.offer(card(revision)).unwrap();
                newest = newest.max(revision);
                prop_assert_eq!(&*known.get(), &card(newest));
            }
        }
    }

    #[test]
    fn another_worker_s_card_is_not_taken_and_told_once() {
        let known = KnownCard::new(card(3));
        let mut other = card(4);
        other.weights.push('x');
        let error = Err(CardChangeError::OtherVersion);
        assert_eq!(known.offer(other.clone()), error);
        assert_eq!(known.offer(other.clone()), Ok(()));
        other.revision = 5;
        assert_eq!(known.offer(other), error);
        assert_eq!(known.get().revision, 3);
        known.offer(card(4)).unwrap();
        assert_eq!(known.get().revision, 4);
    }

    #[tokio::test]
    async fn changes_are_told_until_nobody_has_the_card() {
        let known = KnownCard::new(card(0));
        let mut changes = known.changes();
        for revision in [1, 2] {
            known.offer(card(revision)).unwrap();
        }
        assert_eq!(changes.next().await.unwrap().revision, 2);
        drop(known);
        assert!(changes.next().await.is_none());
    }
}
