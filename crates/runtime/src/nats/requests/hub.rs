//! Where a process's messages come in, and which session each is for.

use std::collections::HashMap;
use std::sync::Arc;

use async_nats::{Message as NatsMessage, StatusCode, Subject, Subscriber};
use forebay_mux::session::{Hello, Incarnation, Packet, Preface, Refusal, SessionId};
use futures::stream::{AbortHandle, Abortable, SelectAll};
use futures::{FutureExt as _, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::message::Message;
use crate::nats::connection::NatsConnection;

/// What the subjects of processes begin with.
const PROCESS_SUBJECT: &str = "forebay.rp";
/// Packets of a session that may wait for it; what comes then is lost, and sent again.
const INBOUND: usize = 256;
/// Connections of a session that may wait for it.
const HELLOS: usize = 2;
/// Subscriptions on their way to the hub.
const NEW_INSTANCES: usize = 64;

/// Which end of a session a message goes to. A process may talk to itself, so the session's id
/// alone does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Client,
    Server,
}

/// Where an end of a session reads: `forebay.rp.<incarnation>.<c or s>.<session>`.
pub(super) fn subject(process: Incarnation, end: End, session: SessionId) -> Subject {
    let end = match end {
        End::Client => 'c',
        End::Server => 's',
    };
    format!(
        "{PROCESS_SUBJECT}.{:016x}.{end}.{:016x}",
        process.0, session.0
    )
    .into()
}

/// What [`subject`] says of the end and the session.
fn parse(subject: &str) -> Option<(End, SessionId)> {
    let of_process = subject.strip_prefix(PROCESS_SUBJECT)?.strip_prefix('.')?;
    let (_, of_end) = of_process.split_once('.')?;
    let (end, session) = of_end.split_once('.')?;
    let end = match end {
        "c" => End::Client,
        "s" => End::Server,
        _ => return None,
    };
    let session = u64::from_str_radix(session, 16).ok()?;
    Some((end, SessionId(session)))
}

/// What comes for an end of a session.
#[derive(Debug)]
pub(super) enum Inbound {
    Preface(Preface),
    Packet(Packet),
    /// The server has no link for the session, and waits for a hello.
    Unattached,
    /// Nobody reads where the last hello went.
    Nobody,
}

/// Takes messages to the sessions that they are for.
pub(super) struct Hub {
    pub(super) connection: NatsConnection,
    pub(super) incarnation: Incarnation,
    max_sessions: usize,
    routes: Mutex<Routes>,
    instances: mpsc::Sender<Abortable<Subscriber>>,
}

#[derive(Default)]
struct Routes {
    clients: HashMap<SessionId, mpsc::Sender<Inbound>>,
    servers: HashMap<SessionId, ServerRoute>,
}

/// A session at its server's end.
struct ServerRoute {
    /// A client that (again) has a connection.
    hellos: mpsc::Sender<Hello>,
    /// As long as it has one.
    packets: Option<mpsc::Sender<Inbound>>,
}

/// What comes to be served.
pub(super) struct Sources {
    inbox: Subscriber,
    instances: mpsc::Receiver<Abortable<Subscriber>>,
}

/// A session that a client begins.
pub(super) struct Begun {
    pub(super) id: SessionId,
    /// The first is the one that begins it.
    pub(super) hellos: mpsc::Receiver<Hello>,
}

impl Hub {
    /// A hub whose process reads `inbox`.
    pub(super) fn new(
        connection: NatsConnection,
        incarnation: Incarnation,
        max_sessions: usize,
        inbox: Subscriber,
    ) -> (Arc<Self>, Sources) {
        let (sender, instances) = mpsc::channel(NEW_INSTANCES);
        let hub = Self {
            connection,
            incarnation,
            max_sessions,
            routes: Mutex::default(),
            instances: sender,
        };
        (Arc::new(hub), Sources { inbox, instances })
    }

    /// The subjects that a process reads.
    pub(super) fn inbox(process: Incarnation) -> String {
        format!("{PROCESS_SUBJECT}.{:016x}.*.*", process.0)
    }

    /// Takes messages for as long as there are any, and begins the sessions that clients want.
    pub(super) async fn run(self: Arc<Self>, sources: Sources, begin: impl Fn(Begun) + Send) {
        let Sources {
            mut inbox,
            mut instances,
        } = sources;
        let mut hellos = SelectAll::new();
        loop {
            let message = tokio::select! {
                biased;
                Some(served) = instances.recv() => {
                    hellos.push(served);
                    continue;
                }
                Some(message) = hellos.next(), if !hellos.is_empty() => message,
                message = inbox.next() => match message {
                    Some(message) => message,
                    None => return,
                },
            };
            if let Some(begun) = self.take(message) {
                begin(begun);
            }
        }
    }

    /// Reads the hellos of an instance, too, until the handle says not to.
    pub(super) async fn add_instance(&self, messages: Subscriber) -> AbortHandle {
        let (handle, registration) = AbortHandle::new_pair();
        // If it fails the process ends, and nobody is served.
        let _ = self
            .instances
            .send(Abortable::new(messages, registration))
            .await;
        handle
    }

    /// What comes for a client's end from now on.
    pub(super) fn listen_as_client(&self, session: SessionId) -> mpsc::Receiver<Inbound> {
        let (sender, receiver) = mpsc::channel(INBOUND);
        self.routes.lock().clients.insert(session, sender);
        receiver
    }

    /// The packets that come for a server's end from now on.
    pub(super) fn listen_as_server(&self, session: SessionId) -> mpsc::Receiver<Inbound> {
        let (sender, receiver) = mpsc::channel(INBOUND);
        if let Some(route) = self.routes.lock().servers.get_mut(&session) {
            route.packets = Some(sender);
        }
        receiver
    }

    /// Nothing comes for this end any more.
    pub(super) fn forget(&self, end: End, session: SessionId) {
        let mut routes = self.routes.lock();
        match end {
            End::Client => drop(routes.clients.remove(&session)),
            End::Server => drop(routes.servers.remove(&session)),
        }
    }

    /// Takes a message to its session; gives what is to be begun.
    fn take(&self, message: NatsMessage) -> Option<Begun> {
        let metrics = self.connection.metrics();
        metrics.received_bytes.inc_by(message.payload.len() as u64);
        let inbound = match message.status {
            Some(StatusCode::NO_RESPONDERS) => Inbound::Nobody,
            _ => match Message::decode(message.payload)? {
                Message::Preface(preface) => Inbound::Preface(preface),
                Message::Packet(packet) => Inbound::Packet(packet),
                Message::Unattached => Inbound::Unattached,
            },
        };
        match (parse(&message.subject), inbound) {
            (Some((End::Client, session)), inbound) => {
                let routes = self.routes.lock();
                if let Some(client) = routes.clients.get(&session) {
                    // One that finds no room is asked for again.
                    let _ = client.try_send(inbound);
                }
                None
            }
            (Some((End::Server, session)), inbound @ Inbound::Packet(_)) => {
                let client = message.reply?;
                let routes = self.routes.lock();
                let route = routes.servers.get(&session);
                let packets = route.and_then(|route| route.packets.as_ref());
                let is_attached = packets.is_some_and(|packets| {
                    let taken = packets.try_send(inbound);
                    !matches!(taken, Err(TrySendError::Closed(_)))
                });
                drop(routes);
                if !is_attached {
                    self.say(client, &Message::Unattached);
                }
                None
            }
            // To this process, or to an instance that it serves.
            (_, Inbound::Preface(Preface::Hello(hello))) => self.welcome(hello),
            _ => None,
        }
    }

    /// Takes a client's hello to its session, or begins one.
    fn welcome(&self, hello: Hello) -> Option<Begun> {
        let id = hello.session;
        let mut routes = self.routes.lock();
        if let Some(known) = routes.servers.get(&id) {
            let _ = known.hellos.try_send(hello);
            return None;
        }
        let refusal = match hello.resumes {
            true => Some(Refusal::UnknownSession),
            false if routes.servers.len() >= self.max_sessions => Some(Refusal::TooManyConnections),
            false => None,
        };
        if let Some(refusal) = refusal {
            drop(routes);
            self.refuse(&hello, refusal);
            return None;
        }
        let (sender, hellos) = mpsc::channel(HELLOS);
        let _ = sender.try_send(hello);
        let route = ServerRoute {
            hellos: sender,
            packets: None,
        };
        routes.servers.insert(id, route);
        Some(Begun { id, hellos })
    }

    /// Tells a client that its session is not wanted.
    pub(super) fn refuse(&self, hello: &Hello, refusal: Refusal) {
        let client = subject(hello.incarnation, End::Client, hello.session);
        self.say(client, &Message::Preface(Preface::Refused(refusal)));
    }

    /// Says something if there is room for it at once; whoever needs it asks again.
    fn say(&self, to: Subject, message: &Message) {
        let publish = self.connection.client().publish(to, message.encode());
        let _ = publish.now_or_never();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_says_whom_it_is_for() {
        for end in [End::Client, End::Server] {
            let subject = subject(Incarnation(0xab), end, SessionId(u64::MAX));
            assert_eq!(parse(&subject), Some((end, SessionId(u64::MAX))));
        }
        for other in [
            "",
            "forebay.rq.a.b.c.000000000000001f",
            "forebay.rp.1.x.1",
            "forebay.rp.1.c.g",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
