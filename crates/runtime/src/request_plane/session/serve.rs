use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_mux::session::StreamId;
use forebay_protocols::Error;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, Stream as _, StreamExt as _};

use super::messages::{Messages, NoMessage};
use super::shared::SharedSession;
use super::{error, is_internal};
use crate::request_plane::services::Services;
use crate::request_plane::{ResponseStream, StreamRequest};

/// Frames of an answer that are sent in one go; then other answers have their turn.
const SENT_AT_ONCE: usize = 32;

/// The longest frame of a question to the plane itself: a target, a topic, or a record with its card.
/// There may be many more of those at once than of requests.
const INTERNAL_FRAME_BYTES: usize = 2 << 20;

/// Answers that took longer at one go computed where they should have waited.
const SLOW_POLL: Duration = Duration::from_millis(50);

/// The answers to the streams that a client has open, all polled by its session's driver: many that
/// have a token at the same time send them together.
pub(crate) struct Serving {
    session: Arc<SharedSession>,
    services: Services,
    limit_bytes: usize,
    answers: FuturesUnordered<Serve>,
}

impl Serving {
    pub(crate) fn new(session: Arc<SharedSession>, services: Services, limit_bytes: usize) -> Self {
        Self {
            session,
            services,
            limit_bytes,
            answers: FuturesUnordered::new(),
        }
    }

    /// Takes what was opened, and goes on with every answer that can.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) {
        for (id, target) in self.session.take_opened() {
            let limit_bytes = match is_internal(&target) {
                true => self.limit_bytes.min(INTERNAL_FRAME_BYTES),
                false => self.limit_bytes,
            };
            self.answers.push(Serve {
                session: self.session.clone(),
                services: self.services.clone(),
                id,
                phase: Phase::First {
                    target,
                    messages: Messages::new(self.session.clone(), id, limit_bytes),
                },
            });
        }
        let began = Instant::now();
        while let Poll::Ready(Some(())) = Pin::new(&mut self.answers).poll_next(context) {}
        if began.elapsed() > SLOW_POLL {
            self.session.metrics().slow_polls.inc();
        }
    }
}

/// One stream from its first frame to the end of its answer.
struct Serve {
    session: Arc<SharedSession>,
    services: Services,
    id: StreamId,
    phase: Phase,
}

enum Phase {
    /// The request's first frame has not come.
    First {
        target: Bytes,
        messages: Messages,
    },
    Answering(ResponseStream),
    Ended,
}

impl Future for Serve {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        // A panic is its stream's own, as it would be with a task for each.
        let polled = catch_unwind(AssertUnwindSafe(|| this.poll_outcome(context)));
        let outcome = match polled {
            Ok(outcome) => ready!(outcome),
            Err(_) => {
                tracing::error!("a handler panicked");
                Some(Err(Error::internal("a handler panicked")))
            }
        };
        // The handler's part goes first.
        this.phase = Phase::Ended;
        match outcome {
            Some(outcome) => this.session.end_answer(this.id, outcome),
            None => this.session.leave(this.id),
        }
        Poll::Ready(())
    }
}

impl Serve {
    /// How the answer ended; none if its client has left.
    fn poll_outcome(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<(), Error>>> {
        if let Phase::First { messages, .. } = &mut self.phase {
            match ready!(messages.poll_message(context)) {
                Ok(first) => self.begin(first),
                Err(NoMessage::End(_)) => return Poll::Ready(None),
                Err(NoMessage::TooLarge(error)) => return Poll::Ready(Some(Err(error))),
            }
        }
        let Phase::Answering(answer) = &mut self.phase else {
            return Poll::Ready(None);
        };
        for _ in 0..SENT_AT_ONCE {
            if !ready!(self.session.poll_writable(self.id, context)) {
                return Poll::Ready(None);
            }
            match ready!(answer.poll_next_unpin(context)) {
                Some(Ok(frame)) => {
                    if let Err(error) = self.session.send(self.id, frame) {
                        return Poll::Ready(Some(Err(error)));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(Some(Ok(()))),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn begin(&mut self, first: Bytes) {
        let Phase::First { target, messages } = std::mem::replace(&mut self.phase, Phase::Ended)
        else {
            return;
        };
        let answer = match std::str::from_utf8(&target) {
            Ok(target) => {
                let rest = messages.boxed();
                let (session, id) = (self.session.clone(), self.id);
                let stop = poll_fn(move |context| session.poll_stopped(id, context)).boxed();
                let request = StreamRequest { first, rest, stop };
                self.services.open(target, request)
            }
            Err(_) => {
                let error = error::broken("a target that is no text");
                futures::stream::iter([Err(error)]).boxed()
            }
        };
        self.phase = Phase::Answering(answer);
    }
}
