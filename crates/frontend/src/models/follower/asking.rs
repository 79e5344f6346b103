//! How the workers of a version are asked for its text, one after another.

use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

use forebay_tokens::WorkerId;
use tokio::time::sleep;
use tracing::warn;

use super::{Done, Follower, State, Version};
use crate::models::text::{Text, TextFailure};
use crate::models::version::{Start, VersionKey};

/// The waits before the next worker is asked after one did not answer: the first, and the longest,
/// after each has been twice the one before.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LONGEST_RETRY: Duration = Duration::from_secs(8);

impl Follower {
    /// Asks the next of its workers for the text of a version that starts, if nobody is asked yet.
    pub(super) fn ask(&mut self, key: &VersionKey) {
        let (tasks, texts) = (self.tasks.clone(), &self.texts);
        let Some(version) = self.versions.get_mut(key) else {
            return;
        };
        let known = texts.of(&version.card);
        let Version { workers, state, .. } = version;
        let State::Starting(start) = state else {
            return;
        };
        if start.is_under_way {
            return;
        }
        // In turn, so that one that does not answer keeps nobody from one that does.
        let after = match start.asked {
            Some(worker) => workers.range((Excluded(worker), Unbounded)),
            None => workers.range(..),
        };
        let mut in_turn = after.chain(workers.iter());
        let willing = in_turn.find(|(worker, _)| !start.refused.contains(worker));
        let Some((&worker, engine)) = willing else {
            return;
        };
        start.is_under_way = true;
        start.asked = Some(worker);
        let (key, engine) = (key.clone(), engine.clone());
        self.work.push(Box::pin(async move {
            let text = known.complete(&engine, &tasks).await;
            Done::Asked(key, worker, text)
        }));
    }

    /// It is time to ask the next one.
    pub(super) fn ask_again(&mut self, key: &VersionKey) {
        if let Some(start) = self.start(key) {
            start.is_under_way = false;
            self.ask(key);
        }
    }

    /// A worker was asked.
    pub(super) fn asked(
        &mut self,
        key: &VersionKey,
        worker: WorkerId,
        text: Result<Text, TextFailure>,
    ) {
        // It may have gone, and come again, in between.
        let Some(start) = self.start(key) else {
            return;
        };
        start.is_under_way = false;
        match text {
            Ok(text) => self.serve(key, text),
            Err(TextFailure::Unreachable(error)) => {
                if start.failures == 0 {
                    let diagnostic = error.diagnostic.as_deref();
                    warn!(
                        worker = worker.0, version = %key, %error, diagnostic,
                        "worker cannot be asked for its model's text"
                    );
                }
                let wait = FIRST_RETRY * 2_u32.pow(start.failures.min(5));
                start.failures += 1;
                start.is_under_way = true;
                let key = key.clone();
                self.work.push(Box::pin(async move {
                    sleep(wait.min(LONGEST_RETRY)).await;
                    Done::AskAgain(key)
                }));
            }
            Err(TextFailure::Worker(error)) => {
                start.refused.insert(worker);
                let diagnostic = error.diagnostic.as_deref();
                warn!(
                    worker = worker.0, version = %key, %error, diagnostic,
                    "worker does not give what its card names"
                );
                self.ask(key);
            }
            Err(TextFailure::Unusable(reason)) => self.refuse(key, reason),
        }
    }

    fn start(&mut self, key: &VersionKey) -> Option<&mut Start> {
        match &mut self.versions.get_mut(key)?.state {
            State::Starting(start) => Some(start),
            State::Serving(_) | State::Unusable(_) => None,
        }
    }
}
