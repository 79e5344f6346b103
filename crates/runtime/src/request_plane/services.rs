//! What a process serves.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::pin::Pin;
#[cfg(any(feature = "tcp", feature = "nats"))]
use std::sync::Weak;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use forebay_protocols::Error;
use futures::future::BoxFuture;
use futures::stream::{AbortHandle, AbortRegistration, Abortable};
use futures::{FutureExt as _, Stream, StreamExt as _, stream};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

#[cfg(any(feature = "tcp", feature = "nats"))]
use super::session::SharedSession;
use super::{
    PeerState, PeerWatch, ResponseStream, Served, StreamHandler, StreamRequest, worker_stopped,
    worker_unreachable,
};
use crate::planes::PlaneError;

/// Cards of an instance that are known to be its own: more changes than an outage of discovery, in
/// which an old record stays, is likely to see.
const MOST_CARDS: usize = 64;

/// What is served in this process, by target. Clones are handles on the same.
///
/// It has no task and no buffer: who polls an answer polls the handler's stream.
#[derive(Clone, Default)]
pub(crate) struct Services {
    by_target: Arc<RwLock<HashMap<String, Entry>>>,
    /// Those of clients in other processes.
    #[cfg(any(feature = "tcp", feature = "nats"))]
    sessions: Arc<Mutex<Vec<Weak<SharedSession>>>>,
}

/// A target, as long as it is served or watched.
struct Entry {
    state: watch::Sender<PeerState>,
    service: Option<Arc<Service>>,
}

/// What is served at a target.
struct Service {
    address: String,
    handler: Arc<dyn StreamHandler>,
    /// What it says about itself, once it does, and said before: the newest last.
    cards: Mutex<VecDeque<Bytes>>,
    streams: Mutex<Streams>,
    /// How many streams run; sent when the last one of a draining service has ended.
    running: watch::Sender<usize>,
    /// Why it ended, if there is more to say than that.
    failure: OnceLock<Error>,
}

#[derive(Default)]
struct Streams {
    is_closed: bool,
    next: u64,
    running: HashMap<u64, AbortHandle>,
}

impl Services {
    /// Serves a target, which clients know by `address`.
    pub(crate) fn serve(
        &self,
        target: String,
        address: String,
        handler: Arc<dyn StreamHandler>,
    ) -> Result<Box<dyn Served>, PlaneError> {
        let mut by_target = self.by_target.write();
        let entry = entry(&mut by_target, &target);
        if entry.service.is_some() {
            return Err(PlaneError::InUse(address));
        }
        let service = Arc::new(Service {
            address,
            handler,
            cards: Mutex::default(),
            streams: Mutex::default(),
            running: watch::Sender::new(0),
            failure: OnceLock::new(),
        });
        entry.service = Some(service.clone());
        let state = entry.state.clone();
        state.send_replace(PeerState::Reachable);
        Ok(Box::new(ServedHere {
            services: self.clone(),
            target,
            service,
            state,
        }))
    }

    /// Serves what a plane has of its own, first of all.
    #[cfg(any(feature = "tcp", feature = "nats"))]
    pub(crate) fn serve_internal(
        &self,
        target: &str,
        handler: impl StreamHandler,
    ) -> Box<dyn Served> {
        let served = self.serve(target.to_owned(), target.to_owned(), Arc::new(handler));
        served.expect("nobody else serves what is the plane's own")
    }

    /// Opens a stream to a target.
    pub(crate) fn open(&self, target: &str, request: StreamRequest) -> ResponseStream {
        let opened = match self.find(target) {
            Some(service) => service.open(request),
            None => Err(worker_unreachable(target)),
        };
        match opened {
            Ok(stream) => stream.boxed(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    /// How things stand with a target.
    pub(crate) fn peer(&self, target: &str) -> PeerWatch {
        let states = entry(&mut self.by_target.write(), target).state.subscribe();
        let states = stream::unfold((states, true), |(mut states, is_first)| async move {
            // Without anyone who could serve, it stays as it is.
            if !is_first && states.changed().await.is_err() {
                return None;
            }
            let state = *states.borrow_and_update();
            Some((state, (states, false)))
        });
        states.chain(stream::pending()).boxed()
    }

    /// Whether this is a card that a target announced; none, as long as there is none.
    #[cfg(any(feature = "tcp", feature = "nats"))]
    pub(crate) fn has_announced(&self, target: &str, card: &[u8]) -> Option<bool> {
        let service = self.find(target)?;
        let announced = service.cards.lock();
        (!announced.is_empty()).then(|| announced.iter().any(|announced| announced == card))
    }

    /// Whether anything is served that takes new requests, now or once it is resumed.
    #[cfg(any(feature = "tcp", feature = "nats"))]
    pub(crate) fn takes_streams(&self) -> bool {
        let by_target = self.by_target.read();
        let mut asked_for = (by_target.iter())
            .filter(|(target, _)| !super::session::is_internal(target.as_bytes()));
        asked_for.any(|(_, entry)| {
            let state = *entry.state.borrow();
            matches!(state, PeerState::Reachable | PeerState::Paused)
        })
    }

    /// Tells a session's client, as long as there is one, when something drains.
    #[cfg(any(feature = "tcp", feature = "nats"))]
    pub(crate) fn tell(&self, session: &Arc<SharedSession>) {
        let mut sessions = self.sessions.lock();
        sessions.retain(|session| session.strong_count() > 0);
        sessions.push(Arc::downgrade(session));
    }

    /// A target drains.
    #[cfg(any(feature = "tcp", feature = "nats"))]
    fn go_away(&self, target: &str) {
        let sessions: Vec<_> = self
            .sessions
            .lock()
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        for session in sessions {
            session.go_away(Some(target));
        }
    }

    fn find(&self, target: &str) -> Option<Arc<Service>> {
        self.by_target.read().get(target)?.service.clone()
    }
}

/// The entry of a target, and none of those that nobody uses any more if it is a new one.
fn entry<'a>(by_target: &'a mut HashMap<String, Entry>, target: &str) -> &'a mut Entry {
    if !by_target.contains_key(target) {
        by_target.retain(|_, entry| entry.service.is_some() || entry.state.receiver_count() > 0);
    }
    by_target.entry(target.to_owned()).or_insert_with(|| Entry {
        state: watch::Sender::new(PeerState::Lost),
        service: None,
    })
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_target.read().keys()).finish()
    }
}

impl Service {
    fn open(self: Arc<Self>, request: StreamRequest) -> Result<Running, Error> {
        let (number, registration) = self.begin()?;
        // Before the handler's part, so that the place is given back if that panics.
        let mut running = Running {
            answer: None,
            service: self,
            number: Some(number),
        };
        let answer = running.service.handler.handle(request);
        running.answer = Some(Abortable::new(answer, registration));
        Ok(running)
    }

    fn begin(&self) -> Result<(u64, AbortRegistration), Error> {
        let mut streams = self.streams.lock();
        if streams.is_closed {
            return Err(self.ended());
        }
        let number = streams.next;
        streams.next += 1;
        let (handle, registration) = AbortHandle::new_pair();
        streams.running.insert(number, handle);
        Ok((number, registration))
    }

    fn end(&self, number: u64) {
        let mut streams = self.streams.lock();
        streams.running.remove(&number);
        if streams.is_closed {
            self.running.send_replace(streams.running.len());
        }
    }

    /// Refuses new streams.
    fn close(&self) {
        let mut streams = self.streams.lock();
        streams.is_closed = true;
        self.running.send_replace(streams.running.len());
    }

    /// Why it takes nothing any more.
    fn ended(&self) -> Error {
        let failure = self.failure.get().cloned();
        failure.unwrap_or_else(|| worker_stopped(&self.address))
    }

    /// Ends the streams that run.
    fn abort(&self) {
        let running: Vec<_> = self.streams.lock().running.values().cloned().collect();
        for handle in running {
            handle.abort();
        }
    }
}

/// The server's end.
struct ServedHere {
    services: Services,
    target: String,
    service: Arc<Service>,
    state: watch::Sender<PeerState>,
}

impl Served for ServedHere {
    fn address(&self) -> &str {
        &self.service.address
    }

    fn announce(&self, card: Bytes) {
        let mut cards = self.service.cards.lock();
        cards.retain(|known| *known != card);
        if cards.len() == MOST_CARDS {
            cards.pop_front();
        }
        cards.push_back(card);
    }

    fn set_paused(&self, is_paused: bool) {
        let (before, now) = match is_paused {
            true => (PeerState::Reachable, PeerState::Paused),
            false => (PeerState::Paused, PeerState::Reachable),
        };
        self.state.send_if_modified(|state| {
            let is_news = *state == before;
            if is_news {
                *state = now;
            }
            is_news
        });
    }

    fn drain(&self) -> BoxFuture<'_, ()> {
        self.service.close();
        self.state.send_if_modified(|state| {
            let is_news = *state != PeerState::Draining;
            *state = PeerState::Draining;
            is_news
        });
        // After that, so that who asks again because of it is told the same.
        #[cfg(any(feature = "tcp", feature = "nats"))]
        self.services.go_away(&self.target);
        async {
            let mut running = self.service.running.subscribe();
            let drained = running.wait_for(|running| *running == 0).await;
            drained.expect("the service owns the sender");
        }
        .boxed()
    }

    fn fail(&self, error: Error) {
        self.service.failure.get_or_init(|| error);
        self.service.close();
        self.service.abort();
    }
}

impl Drop for ServedHere {
    fn drop(&mut self) {
        let mut by_target = self.services.by_target.write();
        if let Some(entry) = by_target.get_mut(&self.target) {
            entry.service = None;
        }
        self.service.close();
        self.state.send_replace(PeerState::Lost);
        drop(by_target);
        self.service.abort();
    }
}

/// The client's end of a stream, with the handler's part in it.
struct Running {
    /// None before it has begun, and when it has ended.
    answer: Option<Abortable<ResponseStream>>,
    service: Arc<Service>,
    /// Its place among the service's streams; taken when it has ended.
    number: Option<u64>,
}

impl Running {
    /// Drops the handler's part first, so that a drained service has none.
    fn end(&mut self) {
        drop(self.answer.take());
        if let Some(number) = self.number.take() {
            self.service.end(number);
        }
    }
}

impl Stream for Running {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(answer) = &mut self.answer else {
            return Poll::Ready(None);
        };
        let item = match answer.poll_next_unpin(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Ok(frame))) => return Poll::Ready(Some(Ok(frame))),
            Poll::Ready(Some(Err(error))) => Some(Err(error)),
            Poll::Ready(None) if answer.is_aborted() => Some(Err(self.service.ended())),
            Poll::Ready(None) => None,
        };
        self.end();
        Poll::Ready(item)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    struct Echo;

    impl StreamHandler for Echo {
        fn handle(&self, request: StreamRequest) -> ResponseStream {
            stream::iter([Ok(request.first)]).boxed()
        }
    }

    #[tokio::test]
    async fn nothing_is_kept_of_what_has_ended() {
        let services = Services::default();
        let target = || "target".to_owned();
        let served = services.serve(target(), target(), Arc::new(Echo)).unwrap();
        let open = || services.open("target", StreamRequest::of(Bytes::from("frame")));
        let service = services.find("target").unwrap();
        drop(open());
        let mut read = open();
        assert_eq!(service.streams.lock().running.len(), 1);
        assert_eq!(read.next().await.unwrap().unwrap(), "frame");
        assert!(read.next().await.is_none());
        assert_eq!(service.streams.lock().running.len(), 0);
        drop(served);
        for number in 0..10 {
            drop(services.peer(&number.to_string()));
        }
        assert_eq!(services.by_target.read().len(), 1);
    }

    struct Panics;

    impl StreamHandler for Panics {
        fn handle(&self, _: StreamRequest) -> ResponseStream {
            panic!("a handler's own fault");
        }
    }

    #[tokio::test]
    async fn a_handler_that_panics_leaves_nothing_that_a_drain_waits_for() {
        let services = Services::default();
        let target = || "target".to_owned();
        let served = services
            .serve(target(), target(), Arc::new(Panics))
            .unwrap();
        let open = || drop(services.open("target", StreamRequest::of(Bytes::new())));
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(open)).unwrap_err();
        assert!(served.drain().now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_target_that_is_served_again_is_seen_again() {
        let services = Services::default();
        let target = || "target".to_owned();
        let mut peer = services.peer("target");
        assert_eq!(peer.next().await, Some(PeerState::Lost));
        for _ in 0..2 {
            let served = services.serve(target(), target(), Arc::new(Echo)).unwrap();
            assert_eq!(peer.next().await, Some(PeerState::Reachable));
            drop(served);
            assert_eq!(peer.next().await, Some(PeerState::Lost));
        }
    }
}
