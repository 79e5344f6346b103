use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use forebay_chat::{TextDecoder, Tokenizer};
use forebay_engine::GenerateRequest;
use forebay_pipeline::{AttemptId, Command, Finish, Outcome, Request, Step};
use forebay_protocols::openai::Usage;
use forebay_protocols::worker::TokenLogprobs;
use forebay_protocols::{Error, ErrorClass};
use forebay_runtime::{CancelCause, Context as RequestContext, TaskKind, Tasks};
use forebay_tokens::TokenId;
use futures::future::{BoxFuture, FutureExt};

use super::attempt::{Attempts, Event};
use super::carried::{Carried, Unstarted};
use super::echo::Echo;
use super::placing::Placing;
use super::prepare::Prepared;
use crate::WorkerPool;
use crate::app::App;
use crate::models::ServedModel;
use crate::record::Record;

/// The most events that are taken together; more are ready only if the client reads slowly.
const MOST_EVENTS: usize = 256;

/// What came of one choice: the next part of its text.
pub(crate) struct Part {
    pub(crate) choice: u32,
    pub(crate) text: String,
    /// The tokens of the part with their log probabilities, if they were asked for. A text may
    /// come later than its tokens: while it may be the beginning of a stop string or a character.
    pub(crate) logprobs: Vec<(TokenId, TokenLogprobs)>,
    /// In the choice's last part.
    pub(crate) finish: Option<Finish>,
}

/// A request that workers are working on: its attempts, the ledger of its life, and its text.
///
/// It goes on while it is asked for the next parts, and dropping it ends everything in the engines.
/// Only an engine whose choice is complete before it knows is let to end by itself, in a task. Its
/// record ends with it, whatever its end.
pub(crate) struct Answering {
    request: Request,
    placing: Placing,
    tokenizer: Tokenizer,
    decoders: Vec<TextDecoder>,
    echo: Echo,
    attempts: Attempts,
    /// How many attempts no worker has accepted yet.
    unaccepted: usize,
    /// Whether any token has come, or any choice's end.
    begun: bool,
    /// Parts that came before the answer was begun.
    early: Vec<Part>,
    /// Resolves if the request is killed. Kept, so that a token need not register anew.
    killed: BoxFuture<'static, CancelCause>,
    /// The field of the client's request that the prompt came from.
    prompt_field: &'static str,
    /// What outlives it: the ends of choices that are complete.
    tasks: Tasks,
    /// Until the end.
    record: Option<Record>,
}

impl Answering {
    /// Sends the request to workers and waits until every choice is accepted and the first token of
    /// any has come: until then an error can be the whole answer, and the request can go over to
    /// another version of its model, with all its choices.
    ///
    /// # Errors
    ///
    /// What failed, or where it goes over.
    pub(crate) async fn start(
        mut prepared: Prepared,
        carried: Carried,
        context: RequestContext,
        app: &App,
    ) -> Result<Self, Unstarted> {
        let Carried {
            record,
            place,
            attempts,
            mut tried,
        } = carried;
        prepared.plan.max_attempts = attempts;
        // The record's clock is the ledger's.
        let request = match Request::new(prepared.plan, Duration::ZERO) {
            Ok(request) => request,
            Err(error) => {
                let error = error.with_param(prepared.prompt_field);
                record.failed(&error);
                return Err(Unstarted::Failed(error));
            }
        };
        let (model, name) = (prepared.model, prepared.asked_model);
        tried.push(model.pool().clone());
        let is_version = model.version().is_some();
        let choices = request.plan().choices();
        let decoder = TextDecoder::new(model.tokenizer(), &prepared.text);
        let mut answering = Self {
            request,
            placing: Placing::new(
                model.pool().clone(),
                prepared.routed,
                choices,
                app.waiting.clone(),
                place,
            ),
            tokenizer: model.tokenizer().clone(),
            decoders: vec![decoder; choices as usize],
            echo: prepared.echo,
            attempts: Attempts::new(choices),
            unaccepted: 0,
            begun: false,
            early: Vec::new(),
            killed: async move { context.killed().await }.boxed(),
            prompt_field: prepared.prompt_field,
            tasks: app.tasks.clone(),
            record: Some(record),
        };
        answering.carry_out();
        let mut early = Vec::new();
        while answering.unaccepted > 0 || !answering.begun {
            let may_leave = is_version && !answering.begun;
            let advanced = tokio::select! {
                biased;
                advanced = poll_fn(|cx| answering.poll_advance(cx, &mut early)) => advanced,
                other = app.models.another_version(&name, &tried),
                    if may_leave && answering.attempts.any_waits() =>
                {
                    return Err(answering.go_over(other, tried));
                }
            };
            match advanced {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    let may_leave = is_version && !answering.begun && lacks_worker(&error);
                    let other = may_leave.then(|| app.models.other_version(&name, &tried));
                    return Err(match other.flatten() {
                        Some(other) => answering.go_over(other, tried),
                        None => Unstarted::Failed(answering.failed(error)),
                    });
                }
            }
        }
        answering.early = early;
        // Nothing is committed yet: what failed by now is the whole answer.
        match answering.request.outcome() {
            Some(Outcome::Failed(error)) => {
                let error = error.clone();
                Err(Unstarted::Failed(answering.failed(error)))
            }
            _ => Ok(answering),
        }
    }

    /// Ends what workers of its version do for it, for another version to take it.
    fn go_over(mut self, other: Arc<ServedModel>, tried: Vec<WorkerPool>) -> Unstarted {
        let place = self.placing.present_place();
        let attempts = self.request.attempts_left();
        let record = self.record.take();
        let mut record = record.expect("a request that has not begun has its record");
        record.goes_over(other.name(), other.version());
        let carried = Carried {
            record,
            place,
            attempts,
            tried,
        };
        Unstarted::Over(other, Box::new(carried))
    }

    /// Adds the next parts to `parts`: all that are ready together, at least one. Whether the answer
    /// goes on; at its end nothing is added.
    ///
    /// # Errors
    ///
    /// What ended the answer early.
    pub(crate) fn poll_parts(
        &mut self,
        cx: &mut Context<'_>,
        parts: &mut Vec<Part>,
    ) -> Poll<Result<bool, Error>> {
        parts.append(&mut self.early);
        while parts.is_empty() {
            match ready!(self.poll_advance(cx, parts)) {
                Ok(true) => {}
                Ok(false) => {
                    self.end(Record::answered);
                    return Poll::Ready(Ok(false));
                }
                Err(error) => return Poll::Ready(Err(self.failed(error))),
            }
        }
        Poll::Ready(Ok(true))
    }

    /// What it took so far.
    pub(crate) fn usage(&self) -> Usage {
        self.request.usage()
    }

    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Takes the events that are ready together, at least one, and adds what came of them to
    /// `parts`. Whether the request goes on; if not, it has ended well.
    fn poll_advance(
        &mut self,
        cx: &mut Context<'_>,
        parts: &mut Vec<Part>,
    ) -> Poll<Result<bool, Error>> {
        match self.request.outcome() {
            None => {}
            Some(Outcome::Failed(error)) => return Poll::Ready(Err(error.clone())),
            Some(Outcome::Finished | Outcome::Cancelled) => return Poll::Ready(Ok(false)),
        }
        for taken in 0..MOST_EVENTS {
            match self.attempts.poll_event(cx) {
                Poll::Ready(Some((attempt, event))) => {
                    parts.extend(self.take(attempt, event)?);
                    self.carry_out();
                }
                Poll::Ready(None) if taken == 0 => {
                    return Poll::Ready(Err(Error::internal("no attempt, and no end")));
                }
                Poll::Pending if taken == 0 => {
                    let cause = ready!(self.killed.as_mut().poll(cx));
                    return Poll::Ready(Err(cancelled(cause)));
                }
                Poll::Pending | Poll::Ready(None) => break,
            }
        }
        Poll::Ready(Ok(true))
    }

    fn take(&mut self, attempt: AttemptId, event: Event) -> Result<Option<Part>, Error> {
        match event {
            Event::Accepted(at) => {
                self.unaccepted -= 1;
                self.placing.accepted(attempt.choice, at);
                if let Some(record) = &mut self.record
                    && self.unaccepted == 0
                {
                    record.routed();
                }
            }
            Event::Refused(at, error) => {
                self.unaccepted -= 1;
                self.placing.placed(attempt.choice, at);
                self.fail(attempt, error);
            }
            Event::Unplaced(error) => {
                self.unaccepted -= 1;
                self.request.unplaceable(attempt, error);
            }
            Event::Failed(error) => self.fail(attempt, error),
            Event::Ended => self.request.ended(attempt),
            Event::Output(output) => {
                let now = self.now();
                if let Some(step) = self.request.output(attempt, output, now) {
                    self.begun |= !step.tokens.is_empty() || step.finish.is_some();
                    return self.decode(attempt.choice, step);
                }
            }
        }
        Ok(None)
    }

    /// A worker refused the request, or ended it.
    fn fail(&mut self, attempt: AttemptId, error: Error) {
        if takes_none(&error) {
            self.request.declined(attempt, error);
        } else {
            let error = in_api_terms(error, self.prompt_field);
            self.request.failed(attempt, error);
        }
    }

    /// A step's text, up to a stop string.
    fn decode(&mut self, choice: u32, step: Step) -> Result<Option<Part>, Error> {
        if let Some(record) = &mut self.record {
            record.step(&self.request, &step);
        }
        let by_token = step.finish.is_some_and(Finish::is_by_token);
        let answer = &step.tokens[..step.tokens.len() - usize::from(by_token)];
        let decoder = &mut self.decoders[choice as usize];
        let mut delta = decoder.push(answer)?;
        let mut finish = step.finish;
        if let Some(stop) = delta.stopped {
            self.request
                .stop_string(choice, stop, delta.consumed_tokens);
            finish = self.request.finish(choice);
        } else if finish.is_some() {
            delta.text.push_str(&decoder.finish()?);
        }
        delta.text.insert_str(0, self.echo.before(choice));
        let answer = answer[..delta.consumed_tokens].iter().copied();
        let part = Part {
            choice,
            text: delta.text,
            logprobs: answer.zip(step.logprobs).collect(),
            finish,
        };
        let is_empty = part.text.is_empty() && part.logprobs.is_empty() && part.finish.is_none();
        Ok((!is_empty).then_some(part))
    }

    /// Does what the ledger wants done.
    fn carry_out(&mut self) {
        while let Some(command) = self.request.next_command() {
            match command {
                Command::Dispatch { attempt, request } => self.dispatch(attempt, *request),
                Command::Abort(attempt) if self.request.finish(attempt.choice).is_some() => {
                    self.complete(attempt);
                }
                Command::Abort(attempt) => self.attempts.end(attempt),
            }
        }
    }

    /// A choice is complete, and its engine does not know: it is asked for the end beside the answer.
    fn complete(&mut self, attempt: AttemptId) {
        if let Some(remainder) = self.attempts.complete(attempt) {
            let end = remainder.end(self.request.plan().id.clone(), attempt.choice);
            self.tasks.spawn(TaskKind::Request, "remainder", end);
        }
    }

    fn dispatch(&mut self, id: AttemptId, request: GenerateRequest) {
        let prompt = self.request.plan().prompt_of(id.choice);
        let failure = self.request.failure(id.choice);
        let failed_at = self.placing.failed(id.choice);
        match self.placing.place(id, prompt, request, failure) {
            Ok(attempt) => {
                if let (Some(failure), Some(record)) = (failure, &self.record) {
                    record.retried(failed_at, failure);
                }
                self.unaccepted += 1;
                self.attempts.push(attempt);
            }
            Err(error) => self.request.unplaceable(id, error),
        }
    }

    fn now(&self) -> Duration {
        self.record.as_ref().map_or(Duration::ZERO, Record::elapsed)
    }

    fn failed(&mut self, error: Error) -> Error {
        self.end(|record| record.failed(&error));
        error
    }

    /// Frees everything in the engine, and tells.
    fn end(&mut self, tell: impl FnOnce(Record)) {
        self.request.cancel();
        self.attempts.clear();
        if let Some(mut record) = self.record.take() {
            record.used(self.request.usage());
            tell(record);
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        // The client left: the record tells that by itself.
        self.end(drop);
    }
}

/// Whether a worker refused a request, or ended it, because it takes none any more, whatever it is: an
/// operator has paused it, or it stops. It is not asked again before it is up anew.
fn takes_none(error: &Error) -> bool {
    matches!(&*error.reason, "worker_paused" | "worker_stopped")
}

/// Whether a request failed for want of workers, or of a place to wait for them.
fn lacks_worker(error: &Error) -> bool {
    matches!(&*error.reason, "no_worker_ready" | "too_many_waiting")
}

/// An engine names the fields of what it was sent; a client knows those of what it sent.
fn in_api_terms(mut error: Error, prompt_field: &str) -> Error {
    let Some(field) = error.param.take() else {
        return error;
    };
    let known = match &*field {
        "prompt_token_ids" => prompt_field,
        field => ["sampling.", "stop.", "output."]
            .iter()
            .find_map(|part| field.strip_prefix(part))
            .unwrap_or(field),
    };
    if let Some(rest) = error.message.strip_prefix(&*field) {
        error.message = format!("{known}{rest}");
    }
    error.param = Some(known.to_owned());
    error
}

/// What a request ends with that was killed.
pub(super) fn cancelled(cause: CancelCause) -> Error {
    match cause {
        CancelCause::Shutdown => Error::new(
            ErrorClass::Unavailable,
            "shutting_down",
            "the server is shutting down",
        ),
        CancelCause::Deadline => Error::new(
            ErrorClass::Deadline,
            "deadline_exceeded",
            "the time for the request is over",
        ),
        cause => Error::new(
            ErrorClass::Cancelled,
            "request_cancelled",
            "the request was cancelled",
        )
        .with_diagnostic(cause.as_str()),
    }
}
