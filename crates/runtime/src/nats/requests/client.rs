use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_mux::session::{
    DetachCause, Hello, Incarnation, Preface, Refusal, Session, SessionId, StreamId,
};
use forebay_protocols::Error;
use futures::future;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::address::Address;
use super::config::NatsPlaneConfig;
use super::hub::{End, Hub, Inbound, subject};
use super::instance_subject;
use super::link::PacketLink;
use super::message::Message;
use crate::request_plane::session::{
    Driven, Driver, Metrics, OpenFailure, SharedSession, random, until_quiet,
};
use crate::request_plane::worker_unreachable;
use crate::tasks::{TaskKind, Tasks};

/// How long a hello waits for its answer before it is said again.
const AGAIN: Duration = Duration::from_millis(250);
/// A pause after a hello that nobody read.
const PAUSE: Duration = Duration::from_millis(50);

/// What this process has open to others: one session for each.
pub(super) struct Client {
    pub(super) config: NatsPlaneConfig,
    pub(super) hub: Arc<Hub>,
    pub(super) tasks: Tasks,
    pub(super) metrics: Metrics,
    pub(super) sessions: Mutex<HashMap<Incarnation, Arc<SharedSession>>>,
}

/// Why a session has no link.
enum NoLink {
    /// Nobody reads where the hello went.
    Nobody,
    /// The peer does not want the session.
    Refused(Refusal),
    /// No answer yet.
    NoAnswer,
}

impl Client {
    /// Opens a stream, over the session with the address's process, or a new one.
    pub(super) fn open(
        self: &Arc<Self>,
        address: &Address,
        target: &str,
        first: Bytes,
    ) -> Result<(Arc<SharedSession>, StreamId), Error> {
        // A session that is there may end just now, or have no more ids; one that is made does not.
        for _ in 0..2 {
            let session = self.session(address);
            match session.open(target, first.clone()) {
                Ok(id) => return Ok((session, id)),
                Err(OpenFailure::Error(error)) => return Err(error),
                Err(OpenFailure::Ended) => self.unlist(address.process, &session),
            }
        }
        Err(worker_unreachable(&address.to_string()))
    }

    /// Sees to it that a session is not found any more. The streams that it has go on.
    fn unlist(&self, process: Incarnation, session: &Arc<SharedSession>) {
        let mut sessions = self.sessions.lock();
        let listed = sessions.get(&process);
        if listed.is_some_and(|listed| Arc::ptr_eq(listed, session)) {
            sessions.remove(&process);
        }
    }

    fn session(self: &Arc<Self>, address: &Address) -> Arc<SharedSession> {
        let mut sessions = self.sessions.lock();
        let known = sessions.get(&address.process);
        if let Some(session) = known.filter(|session| !session.is_over()) {
            return session.clone();
        }
        let id = SessionId(random());
        let mut session = Session::client(self.config.session(), id, self.hub.incarnation);
        session.expect(address.process);
        let session = SharedSession::new(session, self.metrics.clone(), self.config.max_streams);
        sessions.insert(address.process, session.clone());
        drop(sessions);
        let run = self.clone().run(address.clone(), id, session.clone());
        self.tasks.spawn(TaskKind::Request, "nats_session", run);
        session
    }

    async fn run(self: Arc<Self>, address: Address, id: SessionId, session: Arc<SharedSession>) {
        let _listed = Listed {
            client: &self,
            address: &address,
            id,
            session: &session,
        };
        let mut driver = Driver::new(session.clone(), None);
        let drive = async {
            if self.attach_first(&address, id, &session, &mut driver).await {
                while driver.drive().await == Driven::Cut
                    && self.reattach(&address, id, &session, &mut driver).await
                {}
            }
        };
        tokio::select! {
            () = drive => {}
            () = self.upkeep(&session) => {}
        }
    }

    /// Says the first hello to whoever serves the address; false if the session is over before.
    async fn attach_first(
        &self,
        address: &Address,
        id: SessionId,
        session: &SharedSession,
        driver: &mut Driver,
    ) -> bool {
        let began = Instant::now();
        let mut was_away = false;
        loop {
            was_away |= !*self.hub.connection.connected().borrow();
            let to = instance_subject(&address.target);
            let shaken = tokio::select! {
                shaken = self.shake(to, id, session.hello()) => shaken,
                _ = driver.drive() => return false,
            };
            let cause = match shaken {
                Ok((hello, inbound)) => match self.connect(driver, &hello, inbound) {
                    Ok(()) => return true,
                    Err(refusal) => Some(DetachCause::Refused(refusal)),
                },
                Err(NoLink::Refused(refusal)) => Some(DetachCause::Refused(refusal)),
                Err(NoLink::Nobody) if self.hub.connection.is_steady() => {
                    Some(DetachCause::Unreachable)
                }
                Err(NoLink::Nobody | NoLink::NoAnswer) => {
                    let patience = match was_away {
                        true => self.config.grace,
                        false => self.config.connect_timeout,
                    };
                    (began.elapsed() >= patience).then_some(DetachCause::Unreachable)
                }
            };
            if let Some(cause) = cause {
                let diagnostic = "no answer to the first hello over nats";
                driver.detach(cause, diagnostic.to_owned());
            }
        }
    }

    /// Says hello to the session's process until it answers; false if the session is over before.
    async fn reattach(
        &self,
        address: &Address,
        id: SessionId,
        session: &SharedSession,
        driver: &mut Driver,
    ) -> bool {
        loop {
            let to = subject(address.process, End::Server, id);
            let shaken = tokio::select! {
                shaken = self.shake(to.to_string(), id, session.hello()) => shaken,
                // The grace is over.
                _ = driver.drive() => return false,
            };
            let cause = match shaken {
                Ok((hello, inbound)) => match self.connect(driver, &hello, inbound) {
                    Ok(()) => return true,
                    Err(refusal) => DetachCause::Refused(refusal),
                },
                Err(NoLink::Refused(refusal)) => DetachCause::Refused(refusal),
                Err(NoLink::Nobody) if self.hub.connection.is_steady() => DetachCause::Unreachable,
                Err(NoLink::Nobody | NoLink::NoAnswer) => continue,
            };
            driver.detach(cause, "no way back over nats".to_owned());
        }
    }

    /// Says hello once the server is there, and waits a moment for the answer.
    async fn shake(
        &self,
        to: String,
        id: SessionId,
        hello: Hello,
    ) -> Result<(Hello, mpsc::Receiver<Inbound>), NoLink> {
        let mut inbound = self.hub.listen_as_client(id);
        let reply = subject(self.hub.incarnation, End::Client, id);
        let message = Message::Preface(Preface::Hello(hello)).encode();
        let connection = &self.hub.connection;
        let answer = async {
            let mut connected = connection.connected();
            let there = connected.wait_for(|connected| *connected).await.is_ok();
            let client = connection.client();
            if !there || client.publish_with_reply(to, reply, message).await.is_err() {
                return future::pending().await;
            }
            loop {
                match inbound.recv().await {
                    Some(Inbound::Preface(preface)) => return Some(preface),
                    Some(Inbound::Nobody) => return None,
                    // Of an earlier link.
                    Some(Inbound::Packet(_) | Inbound::Unattached) => {}
                    None => return future::pending().await,
                }
            }
        };
        match timeout(AGAIN, answer).await {
            Ok(Some(Preface::Hello(hello))) => Ok((hello, inbound)),
            Ok(Some(Preface::Refused(refusal))) => Err(NoLink::Refused(refusal)),
            Ok(None) => {
                sleep(PAUSE).await;
                Err(NoLink::Nobody)
            }
            Err(_) => Err(NoLink::NoAnswer),
        }
    }

    fn connect(
        &self,
        driver: &mut Driver,
        hello: &Hello,
        inbound: mpsc::Receiver<Inbound>,
    ) -> Result<(), Refusal> {
        driver.attach(hello)?;
        let to = subject(hello.incarnation, End::Server, hello.session);
        let reply = subject(self.hub.incarnation, End::Client, hello.session);
        let link = PacketLink::new(&self.hub.connection, to, Some(reply), inbound);
        driver.connect(link);
        Ok(())
    }

    /// Closes the session when nobody needs it.
    async fn upkeep(&self, session: &SharedSession) {
        let idle = async {
            while let Some(left) = session.close_if_idle(self.config.idle) {
                sleep(left).await;
            }
        };
        let quiet = until_quiet(&self.tasks, || session.is_quiet());
        tokio::select! {
            () = idle => {}
            () = quiet => session.close(),
        }
        // The driver tells the peer, and ends.
        future::pending().await
    }
}

/// A session that can be found.
struct Listed<'a> {
    client: &'a Client,
    address: &'a Address,
    id: SessionId,
    session: &'a Arc<SharedSession>,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.client.hub.forget(End::Client, self.id);
        self.client.unlist(self.address.process, self.session);
    }
}
