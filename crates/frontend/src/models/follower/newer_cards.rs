use std::collections::BTreeMap;

use bytes::Bytes;
use forebay_engine::remote::WorkerCard;
use forebay_runtime::Instance;
use forebay_tokens::WorkerId;

/// Cards that are kept. For one more, the one of the smallest worker id goes.
const MOST_CARDS: usize = 1024;

/// Cards of workers that are away for a while, where discovery has an older one: it may be away,
/// too, and a worker that comes back does not say at once what it has said before.
#[derive(Debug, Default)]
pub(in crate::models) struct NewerCards {
    cards: BTreeMap<WorkerId, Kept>,
}

#[derive(Debug)]
struct Kept {
    address: String,
    card: Bytes,
}

impl NewerCards {
    /// Keeps the newest card of a worker that is going away, if the one of its record is older.
    pub(super) fn keep(&mut self, record: &Instance, newest: &WorkerCard) {
        let recorded = WorkerCard::decode(record.card.clone());
        if !recorded.is_ok_and(|recorded| recorded.revision < newest.revision) {
            return;
        }
        let kept = Kept {
            address: record.address.clone(),
            card: newest.encode(),
        };
        self.cards.insert(record.worker, kept);
        if self.cards.len() > MOST_CARDS {
            self.cards.pop_first();
        }
    }

    /// What is kept of a worker that is back, at the address that it had.
    pub(super) fn take(&mut self, record: &Instance) -> Option<Bytes> {
        let kept = self.cards.remove(&record.worker)?;
        (kept.address == record.address).then_some(kept.card)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use forebay_engine::remote::engine_endpoint;

    use super::*;
    use crate::sample;

    fn card(revision: u64) -> WorkerCard {
        let engine = sample::engine_info("own");
        WorkerCard {
            revision,
            ..WorkerCard::new("served", engine)
        }
    }

    fn record(worker: u64, address: &str, revision: u64) -> Instance {
        Instance {
            endpoint: engine_endpoint("test").unwrap(),
            worker: WorkerId(worker),
            address: address.into(),
            card: card(revision).encode(),
        }
    }

    #[test]
    fn a_card_is_given_once_to_the_worker_that_had_it() {
        let mut cards = NewerCards::default();
        let here = record(1, "here", 1);
        cards.keep(&here, &card(1));
        assert_eq!(cards.take(&here), None, "discovery has it");

        cards.keep(&here, &card(2));
        assert_eq!(cards.take(&record(2, "here", 1)), None);
        assert_eq!(cards.take(&here), Some(card(2).encode()));
        assert_eq!(cards.take(&here), None);

        cards.keep(&here, &card(2));
        assert_eq!(cards.take(&record(1, "there", 1)), None);
        assert_eq!(cards.take(&here), None, "it has moved");
    }

    #[test]
    fn they_are_bounded() {
        let mut cards = NewerCards::default();
        let workers = 0..MOST_CARDS as u64 + 10;
        for worker in workers.clone() {
            cards.keep(&record(worker, "here", 0), &card(1));
        }
        let kept = workers.filter(|worker| cards.take(&record(*worker, "here", 0)).is_some());
        assert_eq!(kept.count(), MOST_CARDS);
    }
}
