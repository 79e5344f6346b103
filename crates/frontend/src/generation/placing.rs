use std::sync::{Arc, Weak};

use forebay_engine::GenerateRequest;
use forebay_pipeline::AttemptId;
use forebay_protocols::{Error, ErrorClass};
use forebay_tokens::RoutingSeed;

use super::attempt::Attempt;
use super::waiting::{Waiting, WaitingPlace};
use crate::pool::{Place, RoutedPrompt, WorkerPool};

/// Where the attempts of one request go: no worker that failed a choice is asked for it again.
pub(super) struct Placing {
    pool: WorkerPool,
    /// By prompt.
    prompts: Vec<RoutedPrompt>,
    /// By choice, who has its present attempt.
    at: Vec<Option<Place>>,
    /// By choice, who failed it.
    failed: Vec<Vec<Place>>,
    waiting: Arc<Waiting>,
    /// Held by those choices that wait.
    waiting_place: Weak<WaitingPlace>,
    /// The same, where the request has waited before: until a worker has accepted it.
    kept_place: Option<Arc<WaitingPlace>>,
}

impl Placing {
    pub(super) fn new(
        pool: WorkerPool,
        prompts: Vec<RoutedPrompt>,
        choices: u32,
        waiting: Arc<Waiting>,
        kept_place: Option<Arc<WaitingPlace>>,
    ) -> Self {
        Self {
            pool,
            prompts,
            at: vec![None; choices as usize],
            failed: vec![Vec::new(); choices as usize],
            waiting,
            waiting_place: kept_place.as_ref().map_or_else(Weak::new, Arc::downgrade),
            kept_place,
        }
    }

    /// Its place among the requests that wait, if it has one.
    pub(super) fn present_place(&self) -> Option<Arc<WaitingPlace>> {
        self.waiting_place.upgrade()
    }

    /// A worker has accepted the attempt at a choice.
    pub(super) fn accepted(&mut self, choice: u32, at: Place) {
        self.placed(choice, at);
        self.kept_place = None;
    }

    /// A worker has had the attempt at a choice.
    pub(super) fn placed(&mut self, choice: u32, at: Place) {
        self.at[choice as usize] = Some(at);
    }

    /// The attempt at a choice failed, if there was one; gives the worker that had it.
    pub(super) fn failed(&mut self, choice: u32) -> Option<Place> {
        let at = self.at[choice as usize].take();
        self.failed[choice as usize].extend(at);
        at
    }

    /// Gives an attempt at the choice of a prompt to a worker, or lets it wait for one. `failure`
    /// is of the attempt before.
    ///
    /// # Errors
    ///
    /// If there is no worker for it and no use in waiting: what the last one said, or that there is
    /// none. If too many requests wait already: that.
    pub(super) fn place(
        &mut self,
        id: AttemptId,
        prompt: usize,
        request: GenerateRequest,
        failure: Option<&Error>,
    ) -> Result<Attempt, Error> {
        let excluded = &self.failed[id.choice as usize];
        let prompt = self.prompt(prompt, &request);
        let max_tokens = request.stop.as_ref().and_then(|stop| stop.max_tokens);
        match self.pool.choose(&prompt, max_tokens, excluded) {
            Ok(placed) => Ok(Attempt::offered(id, placed, request)),
            Err(error) if !self.may_wait(failure) => {
                Err(failure.cloned().unwrap_or_else(|| no_worker(&error)))
            }
            Err(_) => {
                let (pool, excluded) = (self.pool.clone(), excluded.clone());
                let waiting_place = self.waiting_place()?;
                let placed = async move {
                    let placed = waiting_place.for_worker(&pool, &prompt, max_tokens, &excluded);
                    Ok((placed.await?, request))
                };
                Ok(Attempt::waiting(id, Box::pin(placed)))
            }
        }
    }

    /// The place of this request among those that wait, however many of its choices do.
    fn waiting_place(&mut self) -> Result<Arc<WaitingPlace>, Error> {
        if let Some(place) = self.present_place() {
            return Ok(place);
        }
        let place = Arc::new(self.waiting.enter()?);
        self.waiting_place = Arc::downgrade(&place);
        Ok(place)
    }

    /// Whether another worker may come, and is what the choice lacks: those that are there and too
    /// busy are the client's to wait for.
    fn may_wait(&self, failure: Option<&Error>) -> bool {
        let busy = |error: &Error| error.class == ErrorClass::CapacityExhausted;
        !self.pool.is_fixed() && !failure.is_some_and(busy)
    }

    /// What is routed: the prompt, with what earlier attempts emitted.
    fn prompt(&self, prompt: usize, request: &GenerateRequest) -> RoutedPrompt {
        match &*request.emitted_token_ids {
            [] => self.prompts[prompt].clone(),
            emitted => {
                let seed = RoutingSeed::new(&request.lora, &request.cache_salt);
                let tokens = [&request.prompt_token_ids, emitted].concat();
                self.pool.prompt(&tokens, seed)
            }
        }
    }
}

fn no_worker(error: &forebay_router::Error) -> Error {
    let message = "no worker is ready for this model";
    Error::new(ErrorClass::Unavailable, "no_worker_ready", message)
        .with_diagnostic(error.to_string())
}
