use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_mux::session::{self, DetachCause, Incarnation, Session, SessionId, StreamId};
use forebay_protocols::Error;
use parking_lot::Mutex;
use tokio::time::sleep;

use super::address::{Address, Process};
use super::config::TcpConfig;
use super::dial::{DialError, dial};
use super::tls::Tls;
use super::{random, until_quiet};
use crate::request_plane::session::{Driven, Driver, Metrics, OpenFailure, SharedSession};
use crate::request_plane::worker_unreachable;
use crate::tasks::{TaskKind, Tasks};

/// Waits before attempts to reattach a session, in turn, in milliseconds; the last stays.
const BACK_OFF: [u64; 5] = [0, 25, 50, 100, 250];

/// What this process has open to others: one session, and one connection at a time, for each.
pub(super) struct Client {
    pub(super) config: TcpConfig,
    /// Of each session.
    pub(super) session: session::Config,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) tasks: Tasks,
    pub(super) incarnation: Incarnation,
    pub(super) metrics: Metrics,
    pub(super) sessions: Mutex<HashMap<Process, Arc<SharedSession>>>,
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
            let session = self.session(&address.process);
            match session.open(target, first.clone()) {
                Ok(id) => return Ok((session, id)),
                Err(OpenFailure::Error(error)) => return Err(error),
                Err(OpenFailure::Ended) => self.unlist(&address.process, &session),
            }
        }
        Err(worker_unreachable(&address.to_string()))
    }

    /// Sees to it that a session is not found any more. The streams that it has go on.
    fn unlist(&self, process: &Process, session: &Arc<SharedSession>) {
        let mut sessions = self.sessions.lock();
        let listed = sessions.get(process);
        if listed.is_some_and(|listed| Arc::ptr_eq(listed, session)) {
            sessions.remove(process);
        }
    }

    fn session(self: &Arc<Self>, process: &Process) -> Arc<SharedSession> {
        let mut sessions = self.sessions.lock();
        let known = sessions.get(process).filter(|session| !session.is_over());
        if let Some(session) = known {
            return session.clone();
        }
        let id = SessionId(random());
        let session = Session::client(self.session.clone(), id, self.incarnation);
        let session = SharedSession::new(session, self.metrics.clone(), self.config.max_streams);
        sessions.insert(process.clone(), session.clone());
        drop(sessions);
        let run = self.clone().run(process.clone(), session.clone());
        self.tasks.spawn(TaskKind::Request, "session", run);
        session
    }

    async fn run(self: Arc<Self>, process: Process, session: Arc<SharedSession>) {
        let _listed = Listed {
            client: &self,
            process: &process,
            session: &session,
        };
        let mut driver = Driver::new(session.clone(), None);
        let upkeep = self.upkeep(&session);
        let drive = async {
            if self.attach(&process, &session, &mut driver, true).await {
                while driver.drive().await == Driven::Cut
                    && self.attach(&process, &session, &mut driver, false).await
                {}
            }
        };
        tokio::select! {
            () = drive => {}
            () = upkeep => {}
        }
    }

    /// Finds a connection for the session; false if that is over before.
    async fn attach(
        &self,
        process: &Process,
        session: &SharedSession,
        driver: &mut Driver,
        is_first: bool,
    ) -> bool {
        for attempt in 0_usize.. {
            let dialling = async {
                let wait = BACK_OFF[attempt.min(BACK_OFF.len() - 1)];
                sleep(Duration::from_millis(wait)).await;
                dial(process, &self.config, self.tls.as_deref(), session.hello()).await
            };
            let dialled = tokio::select! {
                dialled = dialling => dialled,
                // Without a connection there is only its end to be told.
                _ = driver.drive() => return false,
            };
            let failure = match dialled {
                Ok((connection, hello)) => match driver.attach(&hello) {
                    Ok(()) => {
                        driver.connect(connection);
                        return true;
                    }
                    Err(refusal) => DialError::Refused(refusal),
                },
                Err(failure) => failure,
            };
            let diagnostic = failure.to_string();
            let cause = match failure {
                DialError::Refused(refusal) => DetachCause::Refused(refusal),
                DialError::Unreachable => DetachCause::Unreachable,
                DialError::Failed(_) if is_first => DetachCause::Unreachable,
                DialError::Failed(_) => DetachCause::Cut,
            };
            tracing::debug!(peer = process.authority, diagnostic, "no connection");
            driver.detach(cause, diagnostic);
        }
        false
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
        // The driver tells the peer, and ends; one that does not take it is waited for no longer.
        sleep(self.config.handshake_timeout).await;
    }
}

/// A session that can be found.
struct Listed<'a> {
    client: &'a Client,
    process: &'a Process,
    session: &'a Arc<SharedSession>,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.client.unlist(self.process, self.session);
    }
}
