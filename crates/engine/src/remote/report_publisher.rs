use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use forebay_protocols::worker;
use forebay_runtime::Publisher;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::card::WorkerCard;
use super::frames::encode;
use crate::{Engine, Load};

/// The time between two looks at a busy engine, and so between two reports.
const SHORTEST: Duration = Duration::from_millis(50);
/// The longest time without a report; and, of a card that has changed, without the card.
const LONGEST: Duration = Duration::from_secs(2);

/// Publishes an engine's load, and what changes of its worker's card, to the worker's
/// [`report_topic`](super::report_topic); made by
/// [`EngineHandler::report_publisher`](super::EngineHandler::report_publisher).
///
/// It looks at the engine every 50 ms while the engine has something to do, and publishes what has
/// changed. An engine that has nothing to do is left alone until a generation begins, but for a
/// report every 2 seconds. A card that has changed is published at once, and every 2 seconds from
/// then on: who subscribes later, or missed it, has it then. The first card is discovery's to tell.
pub struct ReportPublisher {
    engine: Arc<dyn Engine>,
    publisher: Box<dyn Publisher>,
    card: watch::Receiver<Arc<WorkerCard>>,
    /// A generation has begun.
    begun: Arc<Notify>,
}

impl ReportPublisher {
    pub(super) fn new(
        engine: Arc<dyn Engine>,
        publisher: Box<dyn Publisher>,
        card: watch::Receiver<Arc<WorkerCard>>,
        begun: Arc<Notify>,
    ) -> Self {
        Self {
            engine,
            publisher,
            card,
            begun,
        }
    }

    /// Publishes for as long as it is polled. Cancel-safe.
    pub async fn run(&mut self) -> Infallible {
        let mut told: Option<(Load, Instant)> = None;
        let mut told_card: Option<(u64, Instant)> = None;
        loop {
            let (load, now) = (self.engine.load(), Instant::now());
            let card = self.card.borrow_and_update().clone();
            let card_is_due = card.revision > 0 && is_due(card.revision, told_card, now);
            let card = card_is_due.then_some(card);
            if let Some(card) = &card {
                told_card = Some((card.revision, now));
            }
            if is_due(load, told, now) || card.is_some() {
                self.publisher.publish(encode(&worker::WorkerReport {
                    load: Some(load),
                    card: card.map(|card| card.message()),
                }));
                told = Some((load, now));
            }
            let look = async {
                sleep(SHORTEST).await;
                if is_idle(&load) {
                    // Either way there is something to say, or nothing has changed.
                    let _ = timeout(LONGEST - SHORTEST, self.begun.notified()).await;
                }
            };
            tokio::select! {
                () = look => {}
                // Nobody may be left to change it.
                Ok(()) = self.card.changed() => {}
            }
        }
    }
}

/// Whether what is so now is to be told, after this was told at that time.
fn is_due<T: PartialEq>(now_is: T, told: Option<(T, Instant)>, now: Instant) -> bool {
    told.is_none_or(|(known, at)| known != now_is || now >= at + LONGEST)
}

/// Whether nothing changes before a generation begins.
fn is_idle(load: &Load) -> bool {
    load.running_requests == 0 && load.waiting_requests == 0 && load.prefill_tokens_pending == 0
}

impl fmt::Debug for ReportPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReportPublisher")
            .field("engine", self.engine.info())
            .finish_non_exhaustive()
    }
}
