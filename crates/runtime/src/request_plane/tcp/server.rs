use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use forebay_mux::session::{Hello, Incarnation, Preface, Refusal, Session, SessionId};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep, timeout};

use super::config::TcpConfig;
use super::dial::{DialError, no_member, read_preface, refuse};
use super::tls::{Holder, Tls};
use crate::request_plane::services::Services;
use crate::request_plane::session::{
    Connection, Driven, Driver, Io, Metrics, Serving, SharedSession, keep_serving,
};
use crate::tasks::{TaskKind, Tasks};

/// A wait after the system had no descriptor for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What this process serves to others: a session for each of them, with a connection at a time.
pub(super) struct Server {
    pub(super) config: Arc<TcpConfig>,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) tasks: Tasks,
    pub(super) incarnation: Incarnation,
    pub(super) metrics: Metrics,
    pub(super) services: Services,
    pub(super) sessions: Mutex<HashMap<SessionId, Live>>,
}

/// A session that is there, with or without a connection.
pub(super) struct Live {
    /// Where a new connection for it is brought.
    arrivals: mpsc::Sender<Arrival>,
    /// Who its client is: nobody else may go on with it.
    holder: Option<Holder>,
}

/// A connection whose client has said hello.
struct Arrival {
    connection: Connection,
    hello: Hello,
}

/// A client during the handshake.
struct Guest {
    io: Box<dyn Io>,
    holder: Option<Holder>,
}

impl Server {
    /// Takes connections, for as long as the process lives.
    pub(super) async fn listen(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(self.config.max_connections));
        let mut failures = 0_u64;
        loop {
            let socket = match listener.accept().await {
                Ok((socket, _)) => socket,
                Err(error) => {
                    if failures == 0 {
                        tracing::warn!(%error, "connections cannot be accepted");
                    }
                    failures += 1;
                    self.metrics.accept_failures.inc();
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if failures > 0 {
                tracing::info!(failures, "connections are accepted again");
                failures = 0;
            }
            let Ok(permit) = places.clone().try_acquire_owned() else {
                self.metrics.refused.inc();
                // Told if there is room for it at once; it is closed anyway.
                let told = Preface::Refused(Refusal::TooManyConnections).encode();
                let _ = socket.try_write(&told);
                continue;
            };
            let connection = self.clone().connection(socket, permit);
            self.tasks
                .spawn(TaskKind::Request, "connection", connection);
        }
    }

    /// From the socket to the session that it is for, and on with that if it is new.
    async fn connection(self: Arc<Self>, socket: TcpStream, permit: OwnedSemaphorePermit) {
        let shaking = timeout(self.config.handshake_timeout, self.shake(socket));
        let (holder, hello, connection) = match shaking.await {
            Ok(Ok((guest, hello, input))) => {
                let Guest { io, holder } = guest;
                (holder, hello, Connection::new(io, input, Some(permit)))
            }
            Ok(Err(error)) => {
                self.metrics.refused.inc();
                tracing::debug!(%error, "a connection without a proper handshake");
                return;
            }
            Err(_) => {
                self.metrics.refused.inc();
                tracing::debug!("a connection without a handshake in time");
                return;
            }
        };
        let arrival = Arrival { connection, hello };
        let receiver = {
            let mut sessions = self.sessions.lock();
            match sessions.get(&hello.session) {
                Some(live) if live.holder == holder => {
                    // One that finds no room is late: another is being taken.
                    let _ = live.arrivals.try_send(arrival);
                    return;
                }
                Some(_) => Err(Refusal::UnknownSession),
                None if hello.resumes => Err(Refusal::UnknownSession),
                None if self.tasks.is_shutting_down() => Err(Refusal::Stopping),
                None if sessions.len() >= self.config.max_connections => {
                    Err(Refusal::TooManyConnections)
                }
                None => {
                    let (arrivals, receiver) = mpsc::channel(1);
                    sessions.insert(hello.session, Live { arrivals, holder });
                    Ok(receiver)
                }
            }
        };
        match receiver {
            Ok(receiver) => self.session(arrival, receiver).await,
            Err(refusal) => self.turn_away(arrival.connection, refusal).await,
        }
    }

    async fn shake(&self, socket: TcpStream) -> Result<(Guest, Hello, bytes::BytesMut), DialError> {
        let failed = |error: std::io::Error| DialError::Failed(error.to_string());
        socket.set_nodelay(true).map_err(failed)?;
        let mut guest = match &self.tls {
            None => Guest {
                io: Box::new(socket),
                holder: None,
            },
            Some(tls) => {
                let secured = tls.acceptor().accept(socket).await.map_err(failed)?;
                let shown = secured.get_ref().1.peer_certificates();
                if !tls.admits(shown) {
                    return Err(no_member());
                }
                let holder = Holder::of(shown);
                let io = Box::new(secured);
                Guest { io, holder }
            }
        };
        match read_preface(&mut *guest.io).await {
            Ok((Preface::Hello(hello), input)) => Ok((guest, hello, input)),
            Ok((Preface::Refused(refusal), _)) => Err(DialError::Refused(refusal)),
            Err(DialError::Refused(refusal)) => {
                refuse(&mut *guest.io, refusal).await.map_err(failed)?;
                Err(DialError::Refused(refusal))
            }
            Err(error) => Err(error),
        }
    }

    /// A session from its first connection to its end.
    async fn session(self: Arc<Self>, arrival: Arrival, mut arrivals: mpsc::Receiver<Arrival>) {
        let id = arrival.hello.session;
        let _listed = Listed { server: &self, id };
        let session = Session::server(self.config.session(), id, self.incarnation);
        let session = SharedSession::new(session, self.metrics.clone(), self.config.limits());
        self.services.tell(&session);
        let serving = Serving::new(
            session.clone(),
            self.services.clone(),
            self.config.max_frame_bytes,
        );
        let mut driver = Driver::new(session.clone(), Some(serving));
        let upkeep = keep_serving(&session, &self.services, &self.tasks);
        let drive = async {
            if !self.attach(&session, &mut driver, arrival).await {
                return;
            }
            loop {
                tokio::select! {
                    driven = driver.drive() => {
                        if driven == Driven::Over {
                            return;
                        }
                    }
                    Some(arrival) = arrivals.recv() => {
                        self.attach(&session, &mut driver, arrival).await;
                    }
                }
            }
        };
        tokio::select! {
            () = drive => {}
            () = upkeep => {}
        }
    }

    /// Gives a session its connection; false if they do not fit together. The session goes on over the
    /// connection that it has then; saying so does not hold it up, as a refusal is a few bytes on a
    /// connection that has room for them.
    async fn attach(&self, session: &SharedSession, driver: &mut Driver, arrival: Arrival) -> bool {
        let Arrival {
            mut connection,
            hello,
        } = arrival;
        if let Err(refusal) = driver.attach(&hello) {
            self.turn_away(connection, refusal).await;
            return false;
        }
        connection.say_first(Preface::Hello(session.hello()).encode());
        driver.connect(connection);
        true
    }

    async fn turn_away(&self, connection: Connection, refusal: Refusal) {
        self.metrics.refused.inc();
        tracing::debug!(%refusal, "a session was refused");
        let mut io = connection.into_io();
        let told = refuse(&mut *io, refusal);
        // One that does not take it is closed anyway.
        let _ = timeout(self.config.handshake_timeout, told).await;
    }
}

/// A session that can be found.
struct Listed<'a> {
    server: &'a Server,
    id: SessionId,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.server.sessions.lock().remove(&self.id);
    }
}
