//! What a process has open to others.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_mux::session::{
    self, DetachCause, Hello, Incarnation, Refusal, Session, SessionId, StreamId,
};
use forebay_protocols::Error;
use futures::future;
use parking_lot::Mutex;
use tokio::time::sleep;

use super::driver::{Driven, Driver, Link};
use super::metrics::Metrics;
use super::shared::{OpenFailure, SessionLimits, SharedSession};
use super::upkeep::until_quiet;
use crate::random::random;
use crate::request_plane::worker_unreachable;
use crate::tasks::{TaskKind, Tasks};

/// How sessions get their links: what differs between the things that carry them.
pub(crate) trait Dialler: Send + Sync + 'static {
    /// Where something is served.
    type Address: Clone + fmt::Display + Send + Sync;
    /// The process at an address: what there is one session for.
    type Peer: Clone + Eq + Hash + Send + Sync;
    /// What finds links for one session.
    type Dial: Dial;

    /// What the tasks of sessions are called.
    const TASK: &'static str;

    /// Which process an address is of.
    fn peer(address: &Self::Address) -> Self::Peer;

    /// The one incarnation that will do, if the address says so.
    fn expected(address: &Self::Address) -> Option<Incarnation>;

    /// What finds links for a session that is to begin. It lives as long as that.
    fn dial(&self, address: &Self::Address, session: SessionId) -> Self::Dial;
}

/// Finds links for one session.
pub(crate) trait Dial: Send {
    /// What it finds.
    type Link: Link + 'static;

    /// Says hello to the peer, and waits a bounded time for its answer. `number` counts the attempts
    /// from 0 since there was a link last, or since the beginning.
    fn attempt(
        &mut self,
        hello: Hello,
        number: usize,
    ) -> impl Future<Output = Result<(Hello, Self::Link), NoLink>> + Send;
}

/// Why an attempt found no link.
#[derive(Debug)]
pub(crate) struct NoLink {
    /// What that means for the session; none, nothing yet.
    pub(crate) cause: Option<DetachCause>,
    /// For an operator.
    pub(crate) diagnostic: String,
}

impl From<Refusal> for NoLink {
    fn from(refusal: Refusal) -> Self {
        Self {
            cause: Some(DetachCause::Refused(refusal)),
            diagnostic: refusal.to_string(),
        }
    }
}

/// The sessions that a process has with others as their client, one for each.
pub(crate) struct Sessions<D: Dialler> {
    pub(crate) dialler: D,
    /// Of each session.
    pub(crate) session: session::Config,
    pub(crate) incarnation: Incarnation,
    /// What each of them may take.
    pub(crate) limits: SessionLimits,
    /// A session without streams ends after so long.
    pub(crate) idle: Duration,
    pub(crate) tasks: Tasks,
    pub(crate) metrics: Metrics,
    pub(crate) by_peer: Mutex<HashMap<D::Peer, Arc<SharedSession>>>,
}

impl<D: Dialler> Sessions<D> {
    /// Opens a stream, over the session with the address's process, or a new one.
    pub(crate) fn open(
        self: &Arc<Self>,
        address: &D::Address,
        target: &str,
        first: Bytes,
    ) -> Result<(Arc<SharedSession>, StreamId), Error> {
        // A session that is there may end just now, or have no more ids; one that is made does not.
        for _ in 0..2 {
            let session = self.session(address);
            match session.open(target, first.clone()) {
                Ok(id) => return Ok((session, id)),
                Err(OpenFailure::Error(error)) => return Err(error),
                Err(OpenFailure::Ended) => self.unlist(&D::peer(address), &session),
            }
        }
        Err(worker_unreachable(&address.to_string()))
    }

    /// Sees to it that a session is not found any more. The streams that it has go on.
    fn unlist(&self, peer: &D::Peer, session: &Arc<SharedSession>) {
        let mut by_peer = self.by_peer.lock();
        let listed = by_peer.get(peer);
        if listed.is_some_and(|listed| Arc::ptr_eq(listed, session)) {
            by_peer.remove(peer);
        }
    }

    fn session(self: &Arc<Self>, address: &D::Address) -> Arc<SharedSession> {
        let peer = D::peer(address);
        let mut by_peer = self.by_peer.lock();
        let known = by_peer.get(&peer).filter(|session| !session.is_over());
        if let Some(session) = known {
            return session.clone();
        }
        let id = SessionId(random());
        let mut session = Session::client(self.session.clone(), id, self.incarnation);
        if let Some(expected) = D::expected(address) {
            session.expect(expected);
        }
        let session = SharedSession::new(session, self.metrics.clone(), self.limits);
        by_peer.insert(peer, session.clone());
        drop(by_peer);
        let run = self.clone().run(address.clone(), id, session.clone());
        self.tasks.spawn(TaskKind::Request, D::TASK, run);
        session
    }

    async fn run(self: Arc<Self>, address: D::Address, id: SessionId, session: Arc<SharedSession>) {
        let _listed = Listed {
            sessions: &self,
            peer: D::peer(&address),
            session: &session,
        };
        let mut dial = self.dialler.dial(&address, id);
        let mut driver = Driver::new(session.clone(), None);
        let drive = async {
            while attach(&address, &session, &mut dial, &mut driver).await
                && driver.drive().await == Driven::Cut
            {}
        };
        tokio::select! {
            () = drive => {}
            () = self.upkeep(&session) => {}
        }
    }

    /// Closes the session when nobody needs it: a request that goes on may need any.
    async fn upkeep(&self, session: &SharedSession) {
        let idle = async {
            while let Some(left) = session.close_if_idle(self.idle) {
                sleep(left).await;
            }
        };
        let is_quiet = || session.is_quiet() && !self.tasks.has_requests();
        let quiet = until_quiet(&self.tasks, is_quiet);
        tokio::select! {
            () = idle => {}
            () = quiet => session.close(),
        }
        // The driver tells the peer, and ends.
        future::pending().await
    }
}

/// Finds a link for the session; false if that is over before.
async fn attach<D: Dial>(
    address: &impl fmt::Display,
    session: &SharedSession,
    dial: &mut D,
    driver: &mut Driver,
) -> bool {
    for number in 0_usize.. {
        let dialled = tokio::select! {
            dialled = dial.attempt(session.hello(), number) => dialled,
            // Without a link there is only its end to be told.
            _ = driver.drive() => return false,
        };
        let attached = dialled.and_then(|(hello, link)| {
            driver.attach(&hello)?;
            driver.connect(link);
            Ok(())
        });
        let NoLink { cause, diagnostic } = match attached {
            Ok(()) => return true,
            Err(failure) => failure,
        };
        tracing::debug!(peer = %address, diagnostic, "no connection");
        if let Some(cause) = cause {
            driver.detach(cause, diagnostic);
        }
    }
    false
}

/// A session that can be found.
struct Listed<'a, D: Dialler> {
    sessions: &'a Sessions<D>,
    peer: D::Peer,
    session: &'a Arc<SharedSession>,
}

impl<D: Dialler> Drop for Listed<'_, D> {
    fn drop(&mut self) {
        self.sessions.unlist(&self.peer, self.session);
    }
}
