use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use forebay_protocols::Error;
use forebay_tokens::WorkerId;
use futures::future::BoxFuture;
use futures::stream::{AbortHandle, AbortRegistration, Abortable};
use futures::{FutureExt as _, Stream, StreamExt as _, stream};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::{
    PeerState, PeerWatch, RequestPlane, ResponseStream, Served, StreamHandler, StreamRequest,
    worker_stopped, worker_unreachable,
};
use crate::names::EndpointId;
use crate::planes::PlaneError;

/// A request plane within a process. Clones are handles on the same one.
///
/// It has no task and no buffer. The client polls the handler's stream and the handler polls the
/// client's, so there is no frame that nobody asked for; what the client drops is dropped on the
/// spot.
///
/// When the server stops, a stream's client is woken and gets the error; the handler's part is
/// dropped then.
///
/// A peer that is lost stays so: an address that is served again is for a new watch.
#[derive(Clone, Default)]
pub struct InProcessPlane {
    services: Services,
}

type Services = Arc<RwLock<HashMap<String, Arc<Service>>>>;

/// What is served at an address.
struct Service {
    address: String,
    handler: Arc<dyn StreamHandler>,
    streams: Mutex<Streams>,
    /// How many streams run; sent when the last one of a draining service has ended.
    running: watch::Sender<usize>,
    state: watch::Sender<PeerState>,
}

#[derive(Default)]
struct Streams {
    is_closed: bool,
    next: u64,
    running: HashMap<u64, AbortHandle>,
}

impl InProcessPlane {
    /// Nothing is served.
    pub fn new() -> Self {
        Self::default()
    }
}

impl fmt::Debug for InProcessPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.services.read().keys()).finish()
    }
}

impl RequestPlane for InProcessPlane {
    fn serve(
        &self,
        endpoint: &EndpointId,
        worker: WorkerId,
        handler: Arc<dyn StreamHandler>,
    ) -> BoxFuture<'_, Result<Box<dyn Served>, PlaneError>> {
        let address = format!("process:{endpoint}/{worker}");
        async move {
            let mut services = self.services.write();
            if services.contains_key(&address) {
                return Err(PlaneError::InUse(address));
            }
            let service = Arc::new(Service {
                address: address.clone(),
                handler,
                streams: Mutex::default(),
                running: watch::Sender::new(0),
                state: watch::Sender::new(PeerState::Reachable),
            });
            services.insert(address, service.clone());
            let services = self.services.clone();
            Ok(Box::new(ServedHere { services, service }) as Box<dyn Served>)
        }
        .boxed()
    }

    fn open(&self, address: &str, request: StreamRequest) -> ResponseStream {
        let service = self.services.read().get(address).cloned();
        let opened = match service {
            Some(service) => service.open(request),
            None => Err(worker_unreachable(address)),
        };
        match opened {
            Ok(stream) => stream.boxed(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    fn peer(&self, address: &str) -> PeerWatch {
        let states = match self.services.read().get(address) {
            Some(service) => service.state.subscribe(),
            None => watch::Sender::new(PeerState::Lost).subscribe(),
        };
        let states = stream::unfold((states, true), |(mut states, is_first)| async move {
            if !is_first && states.changed().await.is_err() {
                return None;
            }
            let state = *states.borrow_and_update();
            Some((state, (states, false)))
        });
        states.chain(stream::pending()).boxed()
    }
}

impl Service {
    fn open(self: Arc<Self>, request: StreamRequest) -> Result<Running, Error> {
        let (number, registration) = self.begin()?;
        let answer = self.handler.handle(request);
        Ok(Running {
            answer: Some(Abortable::new(answer, registration)),
            service: self,
            number,
        })
    }

    fn begin(&self) -> Result<(u64, AbortRegistration), Error> {
        let mut streams = self.streams.lock();
        if streams.is_closed {
            return Err(worker_stopped(&self.address));
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
        self.state.send_if_modified(|state| {
            let is_news = *state == PeerState::Reachable;
            if is_news {
                *state = PeerState::Draining;
            }
            is_news
        });
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
    service: Arc<Service>,
}

impl Served for ServedHere {
    fn address(&self) -> &str {
        &self.service.address
    }

    fn drain(&self) -> BoxFuture<'_, ()> {
        self.service.close();
        async {
            let mut running = self.service.running.subscribe();
            let drained = running.wait_for(|running| *running == 0).await;
            drained.expect("the service owns the sender");
        }
        .boxed()
    }
}

impl Drop for ServedHere {
    fn drop(&mut self) {
        self.services.write().remove(&self.service.address);
        self.service.close();
        self.service.state.send_replace(PeerState::Lost);
        self.service.abort();
    }
}

/// The client's end of a stream, with the handler's part in it.
struct Running {
    /// Taken when it has ended.
    answer: Option<Abortable<ResponseStream>>,
    service: Arc<Service>,
    number: u64,
}

impl Running {
    /// Drops the handler's part first, so that a drained service has none.
    fn end(&mut self) {
        if let Some(answer) = self.answer.take() {
            drop(answer);
            self.service.end(self.number);
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
            Poll::Ready(None) if answer.is_aborted() => {
                Some(Err(worker_stopped(&self.service.address)))
            }
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

    crate::request_plane_conformance_tests!(InProcessPlane::new());

    #[tokio::test]
    async fn nothing_is_kept_of_what_has_ended() {
        struct Echo;
        impl StreamHandler for Echo {
            fn handle(&self, request: StreamRequest) -> ResponseStream {
                stream::iter([Ok(request.first)]).boxed()
            }
        }

        let plane = InProcessPlane::new();
        let endpoint = EndpointId::new("a", "b", "c").unwrap();
        let served = plane
            .serve(&endpoint, WorkerId(1), Arc::new(Echo))
            .await
            .unwrap();
        let open = || plane.open(served.address(), StreamRequest::of(Bytes::from("frame")));
        let service = plane.services.read()[served.address()].clone();
        drop(open());
        let mut read = open();
        assert_eq!(service.streams.lock().running.len(), 1);
        assert_eq!(read.next().await.unwrap().unwrap(), "frame");
        assert!(read.next().await.is_none());
        assert_eq!(service.streams.lock().running.len(), 0);
        drop(served);
        assert!(plane.services.read().is_empty());
    }
}
