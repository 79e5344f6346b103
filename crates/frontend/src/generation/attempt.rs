use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use forebay_engine::{Capabilities, Engine, GenerateOutput, GenerateRequest, GenerateStream};
use forebay_pipeline::AttemptId;
use forebay_protocols::Error;
use futures::Stream;
use futures::future::BoxFuture;
use futures::stream::{SelectAll, StreamExt};

use super::remainder::Remainder;
use crate::pool::{Booking, Place, Placed};

/// One attempt at one choice: a worker is waited for, takes the request, and generates. Dropping it
/// ends it there, and what is booked for it.
pub(super) struct Attempt {
    id: AttemptId,
    state: State,
}

enum State {
    /// There is no worker yet.
    Waiting(BoxFuture<'static, Result<(Placed, GenerateRequest), Error>>),
    /// A worker has it.
    Offered {
        accepted: BoxFuture<'static, Result<GenerateStream, Error>>,
        engine: Arc<dyn Engine>,
        at: Place,
        booking: Booking,
    },
    /// A worker has accepted it.
    Running {
        outputs: GenerateStream,
        engine: Arc<dyn Engine>,
        booking: Booking,
    },
    Over,
}

/// What becomes of an attempt.
pub(super) enum Event {
    /// No worker was there in time.
    Unplaced(Error),
    /// A worker took it...
    Accepted(Place),
    /// ... or did not.
    Refused(Place, Error),
    Output(GenerateOutput),
    /// It broke off.
    Failed(Error),
    /// The end of its stream.
    Ended,
}

impl Attempt {
    /// An attempt whose worker is still to come.
    pub(super) fn waiting(
        id: AttemptId,
        placed: BoxFuture<'static, Result<(Placed, GenerateRequest), Error>>,
    ) -> Self {
        Self {
            id,
            state: State::Waiting(placed),
        }
    }

    /// An attempt at a worker.
    pub(super) fn offered(id: AttemptId, placed: Placed, request: GenerateRequest) -> Self {
        Self {
            id,
            state: State::offered(placed, request),
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        loop {
            match &mut self.state {
                State::Waiting(placed) => match ready!(placed.as_mut().poll(cx)) {
                    Ok((placed, request)) => self.state = State::offered(placed, request),
                    Err(error) => return self.over(Event::Unplaced(error)),
                },
                State::Offered { accepted, at, .. } => {
                    let at = *at;
                    return match ready!(accepted.as_mut().poll(cx)) {
                        Ok(outputs) => {
                            self.run(outputs);
                            Poll::Ready(Some(Event::Accepted(at)))
                        }
                        Err(error) => self.over(Event::Refused(at, error)),
                    };
                }
                State::Running {
                    outputs, booking, ..
                } => {
                    return match ready!(outputs.as_mut().poll_next(cx)) {
                        Some(Ok(output)) => {
                            booking.generated(output.token_ids.len());
                            Poll::Ready(Some(Event::Output(output)))
                        }
                        Some(Err(error)) => self.over(Event::Failed(error)),
                        None => self.over(Event::Ended),
                    };
                }
                State::Over => return Poll::Ready(None),
            }
        }
    }

    fn run(&mut self, outputs: GenerateStream) {
        if let State::Offered {
            engine, booking, ..
        } = mem::replace(&mut self.state, State::Over)
        {
            self.state = State::Running {
                outputs,
                engine,
                booking,
            };
        }
    }

    fn over(&mut self, event: Event) -> Poll<Option<Event>> {
        self.state = State::Over;
        Poll::Ready(Some(event))
    }
}

impl State {
    fn offered(placed: Placed, request: GenerateRequest) -> Self {
        let engine = placed.engine.clone();
        Self::Offered {
            accepted: Box::pin(async move { engine.generate(request).await }),
            engine: placed.engine,
            at: placed.place,
            booking: placed.booking,
        }
    }
}

impl Stream for Attempt {
    type Item = (AttemptId, Event);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let event = ready!(self.poll_event(cx));
        Poll::Ready(event.map(|event| (self.id, event)))
    }
}

/// The attempts of one request that go on.
pub(super) enum Attempts {
    /// Of a single choice, as most requests are: it is polled as it is.
    One(Option<Attempt>),
    Many(SelectAll<Attempt>),
}

impl Attempts {
    /// None yet, of a request with so many choices.
    pub(super) fn new(choices: u32) -> Self {
        match choices {
            1 => Self::One(None),
            _ => Self::Many(SelectAll::new()),
        }
    }

    /// One more; of a choice, the one before has ended.
    pub(super) fn push(&mut self, attempt: Attempt) {
        match self {
            Self::One(one) => *one = Some(attempt),
            Self::Many(many) => many.push(attempt),
        }
    }

    /// Whether one of them has no worker yet.
    pub(super) fn any_waits(&self) -> bool {
        let waits = |attempt: &Attempt| matches!(attempt.state, State::Waiting(_));
        match self {
            Self::One(one) => one.as_ref().is_some_and(waits),
            Self::Many(many) => many.iter().any(waits),
        }
    }

    /// Ends an attempt, if it goes on.
    pub(super) fn end(&mut self, id: AttemptId) {
        drop(self.take(id));
    }

    /// Ends an attempt whose choice is complete, if it goes on; gives what is left of it where the
    /// engine can be asked for the end. What is booked for it is given back.
    pub(super) fn complete(&mut self, id: AttemptId) -> Option<Remainder> {
        match self.take(id)? {
            State::Running {
                engine, outputs, ..
            } if engine.info().capabilities.contains(Capabilities::STOP) => {
                Some(Remainder { engine, outputs })
            }
            _ => None,
        }
    }

    /// What an attempt was, if it goes on; it is over then.
    fn take(&mut self, id: AttemptId) -> Option<State> {
        let attempt = match self {
            Self::One(one) => one.as_mut().filter(|attempt| attempt.id == id),
            Self::Many(many) => many.iter_mut().find(|attempt| attempt.id == id),
        };
        Some(mem::replace(&mut attempt?.state, State::Over))
    }

    /// Ends them all.
    pub(super) fn clear(&mut self) {
        match self {
            Self::One(one) => *one = None,
            Self::Many(many) => many.clear(),
        }
    }

    /// What becomes of the next one that something becomes of. `None` if there is none.
    pub(super) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<(AttemptId, Event)>> {
        match self {
            Self::One(None) => Poll::Ready(None),
            Self::One(Some(one)) => one.poll_next_unpin(cx),
            Self::Many(many) => many.poll_next_unpin(cx),
        }
    }
}
