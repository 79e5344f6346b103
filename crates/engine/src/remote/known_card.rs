use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::sync::watch;

use super::card::WorkerCard;
use super::card_change::CardChangeError;

/// The newest card of a worker, whichever way it came. Clones are handles on the same one.
#[derive(Clone, Debug)]
pub(super) struct KnownCard(Arc<watch::Sender<Arc<WorkerCard>>>);

impl KnownCard {
    /// The worker's first one.
    pub(super) fn new(card: WorkerCard) -> Self {
        Self(Arc::new(watch::Sender::new(Arc::new(card))))
    }

    pub(super) fn get(&self) -> Arc<WorkerCard> {
        self.0.borrow().clone()
    }

    /// Takes a card, if it is newer. One that is newer and not the same worker's is an error, each
    /// time.
    pub(super) fn offer(&self, card: WorkerCard) -> Result<(), CardChangeError> {
        let mut checked = Ok(());
        self.0.send_if_modified(|newest| {
            if card.revision <= newest.revision {
                return false;
            }
            checked = newest.check_change(&card);
            if checked.is_ok() {
                *newest = Arc::new(card);
            }
            checked.is_ok()
        });
        checked
    }

    /// Each newer one, or the newest of several, from now on; ends with the last handle.
    pub(super) fn changes(&self) -> BoxStream<'static, Arc<WorkerCard>> {
        let newest = self.0.subscribe();
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
    fn another_worker_s_card_is_not_taken_however_often_it_comes() {
        let known = KnownCard::new(card(3));
        let mut other = card(4);
        other.weights.push('x');
        let error = Err(CardChangeError::OtherVersion);
        assert_eq!(known.offer(other.clone()), error);
        assert_eq!(known.offer(other.clone()), error);
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
