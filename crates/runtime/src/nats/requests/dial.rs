use std::sync::Arc;
use std::time::Duration;

use forebay_mux::session::{DetachCause, Hello, Incarnation, Preface, Refusal, SessionId};
use futures::future;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::address::Address;
use super::config::NatsPlaneConfig;
use super::hub::{End, Hub, Inbound, subject};
use super::instance_subject;
use super::link::PacketLink;
use super::message::Message;
use crate::request_plane::session::{Dial, Dialler, NoLink};

/// How long a hello waits for its answer before it is said again.
const AGAIN: Duration = Duration::from_millis(250);
/// A pause after a hello that nobody read.
const PAUSE: Duration = Duration::from_millis(50);

/// How this process reaches others.
pub(super) struct NatsDialler {
    pub(super) config: Arc<NatsPlaneConfig>,
    pub(super) hub: Arc<Hub>,
}

impl Dialler for NatsDialler {
    type Address = Address;
    type Peer = Incarnation;
    type Dial = NatsDial;

    const TASK: &'static str = "nats_session";

    fn peer(address: &Address) -> Incarnation {
        address.process
    }

    fn expected(address: &Address) -> Option<Incarnation> {
        Some(address.process)
    }

    fn dial(&self, address: &Address, session: SessionId) -> NatsDial {
        NatsDial {
            config: self.config.clone(),
            hub: self.hub.clone(),
            address: address.clone(),
            session,
            began: Instant::now(),
            was_away: false,
        }
    }
}

/// Finds the peer of one session, which is heard by the hub until this is dropped.
pub(super) struct NatsDial {
    config: Arc<NatsPlaneConfig>,
    hub: Arc<Hub>,
    address: Address,
    session: SessionId,
    began: Instant,
    /// The server was, since then.
    was_away: bool,
}

/// Why a hello had no answer to go on with.
enum Unanswered {
    /// Nobody reads where it went.
    Nobody,
    /// The peer does not want the session.
    Refused(Refusal),
    /// Nothing yet.
    Yet,
}

impl Dial for NatsDial {
    type Link = PacketLink;

    /// The first hello goes to whoever serves the address, a later one to the session's process.
    async fn attempt(&mut self, hello: Hello, _: usize) -> Result<(Hello, PacketLink), NoLink> {
        self.was_away |= !*self.hub.connection.connected().borrow();
        let to = match hello.resumes {
            true => subject(self.address.process, End::Server, self.session).to_string(),
            false => instance_subject(&self.address.target),
        };
        match self.shake(to, hello).await {
            Ok((peer, inbound)) => Ok((peer, self.link(&peer, inbound))),
            Err(Unanswered::Refused(refusal)) => Err(refusal.into()),
            Err(Unanswered::Nobody) if self.hub.connection.is_steady() => {
                Err(no_answer(Some(DetachCause::Unreachable)))
            }
            // The session's grace is what bounds that.
            Err(_) if hello.resumes => Err(no_answer(None)),
            Err(_) => {
                let patience = match self.was_away {
                    true => self.config.grace,
                    false => self.config.connect_timeout,
                };
                let is_over = self.began.elapsed() >= patience;
                Err(no_answer(is_over.then_some(DetachCause::Unreachable)))
            }
        }
    }
}

impl NatsDial {
    /// Says hello once the server is there, and waits a moment for the answer.
    async fn shake(
        &self,
        to: String,
        hello: Hello,
    ) -> Result<(Hello, mpsc::Receiver<Inbound>), Unanswered> {
        let mut inbound = self.hub.listen_as_client(self.session);
        let reply = subject(self.hub.incarnation, End::Client, self.session);
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
            Ok(Some(Preface::Refused(refusal))) => Err(Unanswered::Refused(refusal)),
            Ok(None) => {
                sleep(PAUSE).await;
                Err(Unanswered::Nobody)
            }
            Err(_) => Err(Unanswered::Yet),
        }
    }

    fn link(&self, peer: &Hello, inbound: mpsc::Receiver<Inbound>) -> PacketLink {
        let to = subject(peer.incarnation, End::Server, peer.session);
        let reply = subject(self.hub.incarnation, End::Client, peer.session);
        PacketLink::new(&self.hub.connection, to, Some(reply), inbound)
    }
}

impl Drop for NatsDial {
    fn drop(&mut self) {
        self.hub.forget(End::Client, self.session);
    }
}

fn no_answer(cause: Option<DetachCause>) -> NoLink {
    NoLink {
        cause,
        diagnostic: "no answer to a hello over nats".to_owned(),
    }
}
