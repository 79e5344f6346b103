//! The contract of [`RequestPlane`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use forebay_protocols::{Error, ErrorClass};
use forebay_tokens::WorkerId;
use futures::{FutureExt as _, StreamExt as _, future, stream};
use tokio::sync::{oneshot, watch};

use super::in_time;
use crate::{
    EndpointId, PeerState, PlaneError, RequestPlane, ResponseStream, Served, StreamHandler,
    StreamRequest,
};

/// A handler from a function.
struct Handler<F>(F);

impl<F> StreamHandler for Handler<F>
where
    F: Fn(StreamRequest) -> ResponseStream + Send + Sync + 'static,
{
    fn handle(&self, request: StreamRequest) -> ResponseStream {
        (self.0)(request)
    }
}

fn endpoint() -> EndpointId {
    EndpointId::new("suite", "worker", "engine").expect("proper names")
}

async fn serve<F>(plane: &dyn RequestPlane, worker: u64, handler: F) -> Box<dyn Served>
where
    F: Fn(StreamRequest) -> ResponseStream + Send + Sync + 'static,
{
    let served = plane.serve(&endpoint(), WorkerId(worker), Arc::new(Handler(handler)));
    in_time(served).await.expect("an endpoint can be served")
}

/// A numbered frame.
fn frame(number: u64) -> Bytes {
    Bytes::from(number.to_string())
}

fn request(text: &'static str) -> StreamRequest {
    StreamRequest::of(Bytes::from_static(text.as_bytes()))
}

async fn next(answer: &mut ResponseStream) -> Option<Result<Bytes, Error>> {
    in_time(answer.next()).await
}

async fn next_frame(answer: &mut ResponseStream) -> Bytes {
    let item = next(answer).await.expect("an answer ended early");
    item.expect("an answer failed")
}

async fn ends(mut answer: ResponseStream) {
    assert_eq!(next(&mut answer).await, None, "the answer is over");
}

/// The error that ends an answer of no other frame.
async fn failure(mut answer: ResponseStream) -> Error {
    let item = next(&mut answer).await.expect("an answer without an end");
    let error = item.expect_err("an answer that must fail");
    ends(answer).await;
    error
}

/// Frames that never stop, each after every other task had its turn.
fn endless() -> ResponseStream {
    stream::unfold(0, |number| async move {
        tokio::task::yield_now().await;
        Some((Ok(frame(number)), number + 1))
    })
    .boxed()
}

/// Counts what exists of something.
#[derive(Clone, Debug)]
struct Alive(Arc<watch::Sender<usize>>);

impl Alive {
    fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    fn one(&self) -> OneAlive {
        self.0.send_modify(|count| *count += 1);
        OneAlive(self.clone())
    }

    async fn none(&self) {
        let mut count = self.0.subscribe();
        let none = in_time(count.wait_for(|count| *count == 0)).await;
        none.expect("the sender is here");
    }
}

struct OneAlive(Alive);

impl Drop for OneAlive {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

/// An answer has the frames of the handler's stream, and its end.
pub async fn carries_frames_in_order_and_once(plane: &dyn RequestPlane) {
    const FRAMES: u64 = 2_000;
    let served = serve(plane, 1, |request| {
        assert_eq!(request.first, "go");
        stream::iter((0..FRAMES).map(|number| Ok(frame(number)))).boxed()
    })
    .await;
    let mut answer = plane.open(served.address(), request("go"));
    for number in 0..FRAMES {
        assert_eq!(next_frame(&mut answer).await, frame(number));
    }
    ends(answer).await;
}

/// Frames of no byte and of millions.
pub async fn carries_frames_of_any_size(plane: &dyn RequestPlane) {
    let served = serve(plane, 1, |request| {
        let frames = stream::once(async { request.first }).chain(request.rest);
        frames.map(Ok).boxed()
    })
    .await;
    let frames = [0, 1, 100_000, 0, 8 << 20, 3].map(|size: usize| {
        let byte = u8::try_from(size % 251).expect("below 251");
        Bytes::from(vec![byte; size])
    });
    let request = StreamRequest {
        rest: stream::iter(frames[1..].to_vec()).boxed(),
        ..StreamRequest::of(frames[0].clone())
    };
    let mut answer = plane.open(served.address(), request);
    for frame in frames {
        assert!(next_frame(&mut answer).await == frame, "{}", frame.len());
    }
    ends(answer).await;
}

/// What the client sends later arrives while the answer runs.
pub async fn carries_frames_both_ways(plane: &dyn RequestPlane) {
    let served = serve(plane, 1, |request| {
        stream::once(async { request.first })
            .chain(request.rest)
            .map(Ok)
            .boxed()
    })
    .await;
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let rest = stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|frame| (frame, receiver))
    });
    let request = StreamRequest {
        rest: rest.boxed(),
        ..StreamRequest::of(frame(0))
    };
    let mut answer = plane.open(served.address(), request);
    assert_eq!(next_frame(&mut answer).await, frame(0));
    for number in 1..100 {
        let (sent, echoed) = future::join(sender.send(frame(number)), answer.next()).await;
        sent.expect("the stream runs");
        let echoed = echoed.expect("the stream runs");
        assert_eq!(echoed.expect("the stream runs"), frame(number));
    }
    drop(sender);
    ends(answer).await;
}

/// The handler sees the end of what the client sends, and may answer after it.
pub async fn tells_of_the_half_close(plane: &dyn RequestPlane) {
    let served = serve(plane, 1, |request| {
        let count = request.rest.fold(1, |count, _| async move { count + 1 });
        stream::once(count.map(|count| Ok(frame(count)))).boxed()
    })
    .await;
    for frames in [1, 2, 300] {
        let request = StreamRequest {
            rest: stream::iter(1..frames).map(frame).boxed(),
            ..StreamRequest::of(frame(0))
        };
        let mut answer = plane.open(served.address(), request);
        assert_eq!(next_frame(&mut answer).await, frame(frames));
        ends(answer).await;
    }
}

/// A client's wish for the end of an answer arrives, whether what it sends has ended or not; the
/// answer goes on until the handler ends it, and others know nothing of it.
pub async fn carries_stops(plane: &dyn RequestPlane) {
    let served = serve(plane, 1, |request| {
        let last = stream::once(future::ready(Ok(frame(u64::MAX))));
        endless().take_until(request.stop).chain(last).boxed()
    })
    .await;
    let mut other = plane.open(served.address(), request("go"));
    for rest in [stream::empty().boxed(), stream::pending().boxed()] {
        let (ask, asked) = oneshot::channel();
        let stop = async {
            let _: Result<(), _> = asked.await;
        };
        let request = StreamRequest {
            rest,
            stop: stop.boxed(),
            ..request("go")
        };
        let mut answer = plane.open(served.address(), request);
        for number in 0..10 {
            assert_eq!(next_frame(&mut answer).await, frame(number));
        }
        ask.send(()).expect("the answer runs");
        let last = async {
            let frames = answer.by_ref().map(|item| item.expect("an answer failed"));
            frames
                .fold(Bytes::new(), |_, frame| future::ready(frame))
                .await
        };
        assert_eq!(in_time(last).await, frame(u64::MAX));
        for _ in 0..100 {
            assert_ne!(next_frame(&mut other).await, frame(u64::MAX));
        }
    }
}

/// A handler's error arrives as it is, after what came before it, and ends the answer.
pub async fn carries_errors_whole(plane: &dyn RequestPlane) {
    let served = serve(plane, 1, |request| {
        let all = ErrorClass::ALL.map(|class| {
            Error::new(class, "some_reason", "what the client sees")
                .with_param("stop[3]")
                .with_diagnostic("what the operator sees")
                .with_retry_after(Duration::from_millis(1500))
        });
        let which: usize = std::str::from_utf8(&request.first)
            .ok()
            .and_then(|text| text.parse().ok())
            .expect("a number");
        let error = all[which].clone();
        stream::iter([Ok(frame(1)), Err(error)]).boxed()
    })
    .await;
    for (number, class) in (0..).zip(ErrorClass::ALL) {
        let mut answer = plane.open(served.address(), StreamRequest::of(frame(number)));
        assert_eq!(next_frame(&mut answer).await, frame(1));
        let error = failure(answer).await;
        assert_eq!(error.class, class);
        assert_eq!(error.reason, "some_reason");
        assert_eq!(error.message, "what the client sees");
        assert_eq!(error.param.as_deref(), Some("stop[3]"));
        assert_eq!(error.diagnostic.as_deref(), Some("what the operator sees"));
        assert_eq!(error.retry_after, Some(Duration::from_millis(1500)));
    }
}

/// Addresses that nobody serves, or no longer, are `Unavailable`.
pub async fn refuses_what_nobody_serves(plane: &dyn RequestPlane) {
    let served = serve(plane, 1, |_| stream::empty().boxed()).await;
    let address = served.address().to_owned();
    ends(plane.open(&address, request("go"))).await;
    drop(served);
    for address in [&address, "nowhere", ""] {
        let error = failure(plane.open(address, request("go"))).await;
        assert_eq!(error.class, ErrorClass::Unavailable, "{address}");
    }
    let served = serve(plane, 1, |_| stream::empty().boxed()).await;
    ends(plane.open(served.address(), request("go"))).await;
}

/// A worker serves an endpoint once.
pub async fn serves_an_address_once(plane: &dyn RequestPlane) {
    let served = serve(plane, 1, |_| stream::iter([Ok(frame(1))]).boxed()).await;
    let handler = Handler(|_| stream::empty().boxed());
    let again = in_time(plane.serve(&endpoint(), WorkerId(1), Arc::new(handler))).await;
    assert!(matches!(again, Err(PlaneError::InUse(_))));
    let mut answer = plane.open(served.address(), request("go"));
    assert_eq!(next_frame(&mut answer).await, frame(1));
}

/// Each worker has an address of its own.
pub async fn keeps_workers_apart(plane: &dyn RequestPlane) {
    let mut workers = Vec::new();
    for worker in 0..5 {
        let handler = move |_| stream::iter([Ok(frame(worker))]).boxed();
        workers.push(serve(plane, worker, handler).await);
    }
    for (worker, served) in (0..).zip(&workers) {
        let mut answer = plane.open(served.address(), request("go"));
        assert_eq!(next_frame(&mut answer).await, frame(worker));
        ends(answer).await;
    }
}

/// A handler is not asked for more than the client's credit, both ways.
pub async fn holds_back_a_producer_that_nobody_reads(plane: &dyn RequestPlane) {
    /// More than any plane's credit.
    const MOST: usize = 20_000;
    let produced = Arc::new(AtomicUsize::new(0));
    let count = produced.clone();
    let served = serve(plane, 1, move |_| {
        let count = count.clone();
        endless()
            .inspect(move |_| {
                count.fetch_add(1, Ordering::Relaxed);
            })
            .boxed()
    })
    .await;
    let mut unread = plane.open(served.address(), request("go"));
    next_frame(&mut unread).await;
    // Another stream goes a long way meanwhile.
    let mut other = plane.open(served.address(), request("go"));
    for number in 0..2 * MOST {
        assert_eq!(next_frame(&mut other).await, frame(number as u64));
    }
    let ahead = produced.load(Ordering::Relaxed) - 2 * MOST;
    assert!(ahead < MOST, "{ahead} frames that nobody read");
    for number in 1..100 {
        assert_eq!(next_frame(&mut unread).await, frame(number));
    }
}

/// A client that does not read for now is the only one that waits.
pub async fn lets_a_slow_stream_hold_up_nobody(plane: &dyn RequestPlane) {
    let served = serve(plane, 1, |_| endless().take(50).boxed()).await;
    let open = || plane.open(served.address(), request("go"));
    let mut slow: Vec<_> = (0..20).map(|_| open()).collect();
    for answer in &mut slow {
        next_frame(answer).await;
    }
    let fast = (0..20).map(|_| open().count());
    let counts = in_time(future::join_all(fast)).await;
    assert_eq!(counts, [50; 20]);
    for answer in slow {
        assert_eq!(in_time(answer.count()).await, 49);
    }
}

/// Dropping the answer drops the handler's stream, and what the client still had to send.
pub async fn ends_with_its_client(plane: &dyn RequestPlane) {
    let (handlers, clients) = (Alive::new(), Alive::new());
    let alive = handlers.clone();
    let served = serve(plane, 1, move |request| {
        let alive = alive.one();
        endless()
            .inspect(move |_| {
                let _: (&OneAlive, &StreamRequest) = (&alive, &request);
            })
            .boxed()
    })
    .await;
    for _ in 0..10 {
        let alive = clients.one();
        let rest = stream::pending().inspect(move |_: &Bytes| {
            let _: &OneAlive = &alive;
        });
        let request = StreamRequest {
            rest: rest.boxed(),
            ..StreamRequest::of(frame(0))
        };
        let mut answer = plane.open(served.address(), request);
        next_frame(&mut answer).await;
        drop(answer);
    }
    handlers.none().await;
    clients.none().await;
}

/// A client may leave before the first frame.
pub async fn ends_with_its_client_before_it_began(plane: &dyn RequestPlane) {
    let handlers = Alive::new();
    let alive = handlers.clone();
    let served = serve(plane, 1, move |_| {
        let alive = alive.one();
        stream::pending()
            .inspect(move |_| {
                let _: &OneAlive = &alive;
            })
            .boxed()
    })
    .await;
    for _ in 0..10 {
        drop(plane.open(served.address(), request("go")));
        let mut answer = plane.open(served.address(), request("go"));
        assert!(answer.next().now_or_never().is_none());
    }
    handlers.none().await;
}

/// A server that stops ends its streams with a typed error, read or not.
pub async fn ends_with_its_server(plane: &dyn RequestPlane) {
    let (go, gone) = watch::channel(());
    let served = serve(plane, 1, move |_| {
        stream::iter([Ok(frame(0))])
            .chain(stream::pending())
            .boxed()
    })
    .await;
    let mut waiting = plane.open(served.address(), request("go"));
    assert_eq!(next_frame(&mut waiting).await, frame(0));
    assert!(waiting.next().now_or_never().is_none());
    let unread = plane.open(served.address(), request("go"));
    let mut signal = gone.clone();
    let stop = async move {
        signal.changed().await.expect("the sender is here");
        drop(served);
    };
    let read = async {
        go.send_replace(());
        failure(waiting).await
    };
    let ((), error) = in_time(future::join(stop, read)).await;
    assert_eq!(error.class, ErrorClass::Unavailable);
    let outcome: Vec<_> = in_time(unread.collect()).await;
    let error = outcome.last().expect("an answer has an end");
    let error = error.as_ref().expect_err("the server stopped");
    assert_eq!(error.class, ErrorClass::Unavailable);
}

/// A draining server lets streams go on and takes no more.
pub async fn drains(plane: &dyn RequestPlane) {
    let (finish, finishing) = watch::channel(false);
    let served = serve(plane, 1, move |_| {
        let mut finishing = finishing.clone();
        let last = async move {
            let told = finishing.wait_for(|is_told| *is_told).await;
            told.expect("the sender is here");
            Ok(frame(99))
        };
        endless().take(99).chain(stream::once(last)).boxed()
    })
    .await;
    let mut running = plane.open(served.address(), request("go"));
    next_frame(&mut running).await;
    let mut drained = served.drain();
    assert!((&mut drained).now_or_never().is_none(), "one stream runs");
    let error = failure(plane.open(served.address(), request("go"))).await;
    assert_eq!(error.class, ErrorClass::Unavailable);
    finish.send_replace(true);
    let rest = async { running.count().await };
    let (count, ()) = in_time(future::join(rest, drained)).await;
    assert_eq!(count, 99);
    in_time(served.drain()).await;
}

/// A thousand streams at once, each with its own frames.
pub async fn carries_many_streams(plane: &dyn RequestPlane) {
    const STREAMS: usize = 1_000;
    let handlers = Alive::new();
    let alive = handlers.clone();
    let served = serve(plane, 1, move |request| {
        let alive = alive.one();
        let first = request.first;
        endless()
            .take(10)
            .map(move |_| {
                let _: &OneAlive = &alive;
                Ok(first.clone())
            })
            .boxed()
    })
    .await;
    let streams = (0..STREAMS).map(|number| {
        let own = frame(number as u64);
        let answer = plane.open(served.address(), StreamRequest::of(own.clone()));
        async move {
            let frames: Vec<_> = answer.collect().await;
            assert_eq!(frames, vec![Ok(own); 10]);
        }
    });
    in_time(future::join_all(streams)).await;
    handlers.none().await;
}

/// Whoever watches an address learns whether it is served, is paused, drains or is gone.
pub async fn tells_how_things_stand(plane: &dyn RequestPlane) {
    let served = serve(plane, 1, |_| endless().take(10).boxed()).await;
    let address = served.address().to_owned();
    let mut early = plane.peer(&address);
    assert_eq!(in_time(early.next()).await, Some(PeerState::Reachable));
    assert!(early.next().now_or_never().is_none(), "nothing changed");
    served.set_paused(true);
    assert_eq!(in_time(early.next()).await, Some(PeerState::Paused));
    let late = in_time(plane.peer(&address).next()).await;
    assert_eq!(late, Some(PeerState::Paused));
    // Whoever did not hear of it yet is no worse off.
    next_frame(&mut plane.open(&address, request("go"))).await;
    served.set_paused(false);
    assert_eq!(in_time(early.next()).await, Some(PeerState::Reachable));
    let mut running = plane.open(&address, request("go"));
    next_frame(&mut running).await;
    let drained = served.drain();
    let rest = async {
        assert_eq!(early.next().await, Some(PeerState::Draining));
        let late = plane.peer(&address).next().await;
        assert_eq!(late, Some(PeerState::Draining));
        running.count().await
    };
    let (count, ()) = in_time(future::join(rest, drained)).await;
    assert_eq!(count, 9);
    drop(served);
    assert_eq!(in_time(early.next()).await, Some(PeerState::Lost));
    assert!(
        early.next().now_or_never().is_none(),
        "a watch does not end"
    );
    for address in [&address, "nowhere"] {
        let state = in_time(plane.peer(address).next()).await;
        assert_eq!(state, Some(PeerState::Lost), "{address}");
    }
}
