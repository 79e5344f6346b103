use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use forebay_observability::Registry;
use forebay_protocols::{Error, ErrorClass};
use forebay_runtime::{
    EndpointId, InProcessPlane, Instance, PeerState, PeerWatch, PlaneError, RequestPlane,
    ResponseStream, Served, StreamHandler, StreamRequest, TaskKind, Tasks,
};
use forebay_tokens::WorkerId;
use futures::channel::mpsc;
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt, future, stream};
use parking_lot::Mutex;

use crate::catches;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bug {
    CallsEveryFailureInternal,
    CutsLargeFrames,
    DropsEmptyFrames,
    EndsInSilenceWithItsServer,
    ForgetsStops,
    ForgetsTheField,
    KeepsWhatTheClientLeft,
    LosesAFrame,
    MissesThePeersEnd,
    NeverClosesHalf,
    ReadsAhead,
    ReadsStreamsInTurn,
    SendsTheFirstFrameOnly,
    ServesAnyone,
    TakesMoreWhileItDrains,
}

struct Buggy {
    inner: InProcessPlane,
    /// The stream that got a frame and has not asked for the next.
    turn: Turn,
    next: AtomicU64,
    left: Arc<Mutex<Vec<ResponseStream>>>,
    bug: Bug,
}

type Turn = Arc<Mutex<Option<u64>>>;

fn buggy(bug: Bug) -> Buggy {
    Buggy {
        inner: InProcessPlane::new(),
        turn: Turn::default(),
        next: AtomicU64::new(0),
        left: Arc::default(),
        bug,
    }
}

impl Buggy {
    /// A number that is different each time.
    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

impl RequestPlane for Buggy {
    fn serve(
        &self,
        endpoint: &EndpointId,
        worker: WorkerId,
        handler: Arc<dyn StreamHandler>,
    ) -> BoxFuture<'_, Result<Box<dyn Served>, PlaneError>> {
        let worker = match self.bug {
            Bug::ServesAnyone => WorkerId(self.number()),
            _ => worker,
        };
        let served = self.inner.serve(endpoint, worker, handler);
        let drains = self.bug != Bug::TakesMoreWhileItDrains;
        async move {
            let inner = served.await?;
            Ok(Box::new(BuggyServed { inner, drains }) as Box<dyn Served>)
        }
        .boxed()
    }

    fn open(&self, address: &str, mut request: StreamRequest) -> ResponseStream {
        request.rest = match self.bug {
            Bug::NeverClosesHalf => request.rest.chain(stream::pending()).boxed(),
            Bug::SendsTheFirstFrameOnly => stream::empty().boxed(),
            _ => request.rest,
        };
        if self.bug == Bug::ForgetsStops {
            request.stop = future::pending().boxed();
        }
        let answer = self.inner.open(address, request);
        match self.bug {
            Bug::CallsEveryFailureInternal => answer
                .map(|frame| frame.map_err(|_| Error::internal("it failed")))
                .boxed(),
            Bug::CutsLargeFrames => answer
                .map(|frame| frame.map(|frame| frame.slice(..frame.len().min(1 << 20))))
                .boxed(),
            Bug::DropsEmptyFrames => answer
                .filter(|frame| future::ready(frame.as_ref().map_or(true, |f| !f.is_empty())))
                .boxed(),
            Bug::EndsInSilenceWithItsServer => answer
                .take_while(|frame| {
                    let stopped = |error: &Error| error.class == ErrorClass::Unavailable;
                    future::ready(!frame.as_ref().is_err_and(stopped))
                })
                .boxed(),
            Bug::ForgetsTheField => answer
                .map(|frame| frame.map_err(|e| Error::new(e.class, e.reason, e.message)))
                .boxed(),
            Bug::KeepsWhatTheClientLeft => Leaving(Some(answer), self.left.clone()).boxed(),
            Bug::LosesAFrame => answer
                .enumerate()
                .filter_map(|(at, frame)| future::ready((at != 1234).then_some(frame)))
                .boxed(),
            Bug::ReadsAhead => read_ahead(answer),
            Bug::ReadsStreamsInTurn => InTurn {
                answer,
                number: self.number(),
                turn: self.turn.clone(),
            }
            .boxed(),
            _ => answer,
        }
    }

    fn peer(&self, address: &str) -> PeerWatch {
        let states = self.inner.peer(address);
        match self.bug {
            Bug::MissesThePeersEnd => states
                .filter(|state| future::ready(*state != PeerState::Lost))
                .boxed(),
            _ => states,
        }
    }

    fn confirm(&self, instance: &Instance) -> BoxFuture<'static, Result<bool, Error>> {
        self.inner.confirm(instance)
    }
}

struct BuggyServed {
    inner: Box<dyn Served>,
    drains: bool,
}

impl Served for BuggyServed {
    fn address(&self) -> &str {
        self.inner.address()
    }

    fn announce(&self, card: Bytes) {
        self.inner.announce(card);
    }

    fn set_paused(&self, is_paused: bool) {
        self.inner.set_paused(is_paused);
    }

    fn drain(&self) -> BoxFuture<'_, ()> {
        match self.drains {
            true => self.inner.drain(),
            false => future::ready(()).boxed(),
        }
    }

    fn fail(&self, error: Error) {
        self.inner.fail(error);
    }
}

/// Keeps a stream when its client leaves it.
struct Leaving(Option<ResponseStream>, Arc<Mutex<Vec<ResponseStream>>>);

impl Stream for Leaving {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().unwrap().poll_next_unpin(context)
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.1.lock().extend(self.0.take());
    }
}

/// One stream at a time: who got a frame keeps the turn until it asks for the next.
struct InTurn {
    answer: ResponseStream,
    number: u64,
    turn: Turn,
}

impl Stream for InTurn {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let turn = self.turn.clone();
        let mut turn = turn.lock();
        if turn.is_some_and(|number| number != self.number) {
            return Poll::Pending;
        }
        let frame = self.answer.poll_next_unpin(context);
        *turn = matches!(frame, Poll::Ready(Some(_))).then_some(self.number);
        frame
    }
}

/// Takes all there is, whether someone wants it or not.
fn read_ahead(mut answer: ResponseStream) -> ResponseStream {
    let (sender, receiver) = mpsc::unbounded();
    let tasks = Tasks::new(&Registry::new());
    tasks.spawn(TaskKind::Background, "read_ahead", async move {
        while let Some(frame) = answer.next().await {
            if sender.unbounded_send(frame).is_err() {
                return;
            }
        }
    });
    receiver.boxed()
}

#[tokio::test(start_paused = true)]
async fn planted_bugs_are_caught() {
    catches!(
        request_plane::refuses_what_nobody_serves,
        buggy(Bug::CallsEveryFailureInternal)
    );
    catches!(
        request_plane::carries_frames_of_any_size,
        buggy(Bug::CutsLargeFrames)
    );
    catches!(
        request_plane::carries_frames_of_any_size,
        buggy(Bug::DropsEmptyFrames)
    );
    catches!(
        request_plane::ends_with_its_server,
        buggy(Bug::EndsInSilenceWithItsServer)
    );
    catches!(request_plane::carries_stops, buggy(Bug::ForgetsStops));
    catches!(
        request_plane::carries_errors_whole,
        buggy(Bug::ForgetsTheField)
    );
    catches!(
        request_plane::ends_with_its_client,
        buggy(Bug::KeepsWhatTheClientLeft)
    );
    catches!(
        request_plane::ends_with_its_client_before_it_began,
        buggy(Bug::KeepsWhatTheClientLeft)
    );
    catches!(
        request_plane::carries_frames_in_order_and_once,
        buggy(Bug::LosesAFrame)
    );
    catches!(
        request_plane::tells_how_things_stand,
        buggy(Bug::MissesThePeersEnd)
    );
    catches!(
        request_plane::tells_of_the_half_close,
        buggy(Bug::NeverClosesHalf)
    );
    catches!(
        request_plane::holds_back_a_producer_that_nobody_reads,
        buggy(Bug::ReadsAhead)
    );
    catches!(
        request_plane::lets_a_slow_stream_hold_up_nobody,
        buggy(Bug::ReadsStreamsInTurn)
    );
    catches!(
        request_plane::carries_frames_both_ways,
        buggy(Bug::SendsTheFirstFrameOnly)
    );
    catches!(
        request_plane::serves_an_address_once,
        buggy(Bug::ServesAnyone)
    );
    catches!(request_plane::drains, buggy(Bug::TakesMoreWhileItDrains));
}
