use std::sync::Arc;

use forebay_mux::session::{Hello, Preface, Refusal, Session, SessionId};
use tokio::sync::mpsc;

use super::config::NatsPlaneConfig;
use super::hub::{Begun, End, Hub, subject};
use super::link::PacketLink;
use super::message::Message;
use crate::request_plane::services::Services;
use crate::request_plane::session::{
    Driven, Driver, Metrics, Serving, SharedSession, keep_serving,
};
use crate::tasks::{TaskKind, Tasks};

/// What this process serves to others: a session for each of them.
pub(super) struct Server {
    pub(super) config: NatsPlaneConfig,
    pub(super) hub: Arc<Hub>,
    pub(super) tasks: Tasks,
    pub(super) metrics: Metrics,
    pub(super) services: Services,
}

impl Server {
    /// Takes up a session that a client begins.
    pub(super) fn begin(self: &Arc<Self>, begun: Begun) {
        let run = self.clone().run(begun);
        self.tasks.spawn(TaskKind::Request, "nats_session", run);
    }

    /// A session from its first hello to its end.
    async fn run(self: Arc<Self>, begun: Begun) {
        let Begun { id, mut hellos } = begun;
        let _listed = Listed { server: &self, id };
        let session = Session::server(self.config.session(), id, self.hub.incarnation);
        let session = SharedSession::new(session, self.metrics.clone(), self.config.limits());
        self.services.tell(&session);
        let limit_bytes = self.config.max_frame_bytes;
        let serving = Serving::new(session.clone(), self.services.clone(), limit_bytes);
        let mut driver = Driver::new(session.clone(), Some(serving));
        let upkeep = keep_serving(&session, &self.services, &self.tasks);
        let drive = async {
            let Some(first) = self.next_hello(&mut hellos).await else {
                return;
            };
            let attached = match self.tasks.is_shutting_down() {
                true => Err(Refusal::Stopping),
                false => self.attach(id, &session, &mut driver, &first),
            };
            if let Err(refusal) = attached {
                self.metrics.refused.inc();
                tracing::debug!(%refusal, "a session was refused");
                self.hub.refuse(&first, refusal);
                return;
            }
            loop {
                tokio::select! {
                    driven = driver.drive() => {
                        if driven == Driven::Over {
                            return;
                        }
                    }
                    Some(hello) = self.next_hello(&mut hellos) => {
                        // One that comes too late does not fit any more, and changes nothing.
                        let _ = self.attach(id, &session, &mut driver, &hello);
                    }
                }
            }
        };
        tokio::select! {
            () = drive => {}
            () = upkeep => {}
        }
    }

    /// A hello that can be answered: one that came just before it was noticed that the server is
    /// back waits for that. One that is lost with this future is said again.
    async fn next_hello(&self, hellos: &mut mpsc::Receiver<Hello>) -> Option<Hello> {
        let hello = hellos.recv().await?;
        let mut connected = self.hub.connection.connected();
        connected.wait_for(|connected| *connected).await.ok()?;
        Some(hello)
    }

    /// Gives a session its link, and answers the hello.
    fn attach(
        &self,
        id: SessionId,
        session: &SharedSession,
        driver: &mut Driver,
        hello: &Hello,
    ) -> Result<(), Refusal> {
        driver.attach(hello)?;
        let inbound = self.hub.listen_as_server(id);
        let to = subject(hello.incarnation, End::Client, id);
        let mut link = PacketLink::new(&self.hub.connection, to, None, inbound);
        link.say_first(&Message::Preface(Preface::Hello(session.hello())));
        driver.connect(link);
        Ok(())
    }
}

/// A session that can be found.
struct Listed<'a> {
    server: &'a Server,
    id: SessionId,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.server.hub.forget(End::Server, self.id);
    }
}
