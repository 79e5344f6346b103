//! A session's packets on their way.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_nats::message::OutboundMessage;
use async_nats::{Client, Subject};
use futures::future::BoxFuture;
use futures::{FutureExt as _, Sink as _};
use tokio::sync::mpsc;

use super::hub::Inbound;
use super::message::{HEADER_BYTES, Message};
use crate::nats::connection::NatsConnection;
use crate::request_plane::session::{Link, SharedSession, Wakers};

/// The largest message, if the server takes it.
const MAX_MESSAGE_BYTES: usize = 128 << 10;
/// The smallest that a server must take: all of a frame, and what packets have beside frames.
pub(super) const MIN_MESSAGE_BYTES: usize = 32 << 10;
/// What a packet may have beyond its limit.
const SLACK_BYTES: usize = 64;
/// Packets that are taken in a row; then something is sent.
const RECEIVED_AT_ONCE: usize = 32;

/// The way of a session's packets from and to the peer, for as long as the server is there.
pub(super) struct PacketLink {
    inbound: mpsc::Receiver<Inbound>,
    /// Over when the server is away.
    away: BoxFuture<'static, ()>,
    client: Client,
    /// Where the peer reads.
    subject: Subject,
    /// Where this end reads, for a peer that does not know it.
    reply: Option<Subject>,
    packet_bytes: usize,
    /// A message that the client has not taken yet.
    unsent: Option<OutboundMessage>,
}

impl PacketLink {
    /// A link to the peer that reads at `subject`, with what comes from it. Packets say where to
    /// `reply`, if that is given.
    pub(super) fn new(
        connection: &NatsConnection,
        subject: Subject,
        reply: Option<Subject>,
        inbound: mpsc::Receiver<Inbound>,
    ) -> Self {
        let mut connected = connection.connected();
        let away = async move {
            // Without anyone who knows, it is away.
            let _ = connected.wait_for(|connected| !connected).await;
        };
        let client = connection.client().clone();
        let message_bytes = client
            .max_payload()
            .clamp(MIN_MESSAGE_BYTES, MAX_MESSAGE_BYTES);
        Self {
            inbound,
            away: away.boxed(),
            client,
            subject,
            reply,
            packet_bytes: message_bytes - HEADER_BYTES - SLACK_BYTES,
            unsent: None,
        }
    }

    /// Sends `message` before anything else.
    pub(super) fn say_first(&mut self, message: &Message) {
        self.queue(message);
    }

    fn queue(&mut self, message: &Message) {
        self.unsent = Some(OutboundMessage {
            subject: self.subject.clone(),
            reply: self.reply.clone(),
            payload: message.encode(),
            headers: None,
        });
    }
}

impl Link for PacketLink {
    fn poll_receive(
        &mut self,
        session: &SharedSession,
        wakers: &mut Wakers,
        context: &mut Context<'_>,
    ) -> io::Result<bool> {
        if self.away.poll_unpin(context).is_ready() {
            let message = "the nats server is away";
            return Err(io::Error::new(io::ErrorKind::NotConnected, message));
        }
        for _ in 0..RECEIVED_AT_ONCE {
            match self.inbound.poll_recv(context) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Some(Inbound::Packet(packet))) => session
                    .receive_packet(packet, wakers)
                    .map_err(io::Error::other)?,
                Poll::Ready(Some(Inbound::Unattached)) => {
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                // Late answers to a hello that was answered before.
                Poll::Ready(Some(Inbound::Preface(_) | Inbound::Nobody)) => {}
                Poll::Ready(None) => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        Ok(true)
    }

    fn poll_send(
        &mut self,
        session: &SharedSession,
        wakers: &mut Wakers,
        context: &mut Context<'_>,
    ) -> io::Result<()> {
        loop {
            if self.unsent.is_none() {
                let Some(packet) = session.transmit_packet(self.packet_bytes, wakers) else {
                    return Ok(());
                };
                self.queue(&Message::Packet(packet));
            }
            match Pin::new(&mut self.client).poll_ready(context) {
                Poll::Pending => return Ok(()),
                Poll::Ready(ready) => ready.map_err(io::Error::other)?,
            }
            if let Some(message) = self.unsent.take() {
                let sent = Pin::new(&mut self.client).start_send(message);
                sent.map_err(io::Error::other)?;
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.unsent.is_none()
    }
}
