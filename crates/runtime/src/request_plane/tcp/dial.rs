use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use forebay_mux::session::{
    DetachCause, Hello, Incarnation, Preface, PrefaceError, Refusal, SessionId,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::address::{Address, Process};
use super::config::TcpConfig;
use super::tls::{Tls, TlsError, server_name};
use crate::request_plane::session::{Connection, Dial, Dialler, Io, NoLink};

/// Waits before attempts to reattach a session, in turn, in milliseconds; the last stays.
const BACK_OFF: [u64; 5] = [0, 25, 50, 100, 250];

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// Nobody listens there.
    #[error("the connection was refused")]
    Unreachable,
    /// The peer does not want this session.
    #[error("{0}")]
    Refused(Refusal),
    /// Maybe another try succeeds.
    #[error("{0}")]
    Failed(String),
}

/// How this process connects to others.
pub(super) struct TcpDialler {
    pub(super) config: Arc<TcpConfig>,
    pub(super) tls: Option<Arc<Tls>>,
}

impl Dialler for TcpDialler {
    type Address = Address;
    type Peer = Process;
    type Dial = TcpDial;

    const TASK: &'static str = "session";

    fn peer(address: &Address) -> Process {
        address.process.clone()
    }

    fn expected(_: &Address) -> Option<Incarnation> {
        None
    }

    fn dial(&self, address: &Address, _: SessionId) -> TcpDial {
        TcpDial {
            process: address.process.clone(),
            config: self.config.clone(),
            tls: self.tls.clone(),
        }
    }
}

/// Connects to one process.
pub(super) struct TcpDial {
    process: Process,
    config: Arc<TcpConfig>,
    tls: Option<Arc<Tls>>,
}

impl Dial for TcpDial {
    type Link = Connection;

    async fn attempt(
        &mut self,
        hello: Hello,
        number: usize,
    ) -> Result<(Hello, Connection), NoLink> {
        let wait = BACK_OFF[number.min(BACK_OFF.len() - 1)];
        sleep(Duration::from_millis(wait)).await;
        let dialled = match hello.resumes {
            // One that stalls must not take the grace that others could have.
            true => timeout(self.patience(number), self.dial(hello))
                .await
                .unwrap_or_else(|_| Err(DialError::Failed("no answer in time".to_owned()))),
            false => self.dial(hello).await,
        };
        let failure = match dialled {
            Ok(dialled) => return Ok(dialled),
            Err(failure) => failure,
        };
        let diagnostic = failure.to_string();
        let cause = match failure {
            DialError::Refused(refusal) => DetachCause::Refused(refusal),
            DialError::Unreachable => DetachCause::Unreachable,
            DialError::Failed(_) if hello.resumes => DetachCause::Cut,
            DialError::Failed(_) => DetachCause::Unreachable,
        };
        Err(NoLink {
            cause: Some(cause),
            diagnostic,
        })
    }
}

impl TcpDial {
    /// How long an attempt to reattach may take, handshake included: a quarter of the grace, then
    /// twice as long each time, for peers that are far away.
    fn patience(&self, number: usize) -> Duration {
        (self.config.grace / 4).saturating_mul(1 << number.min(8))
    }

    /// Connects, and says hello both ways.
    async fn dial(&self, hello: Hello) -> Result<(Hello, Connection), DialError> {
        let connecting = TcpStream::connect(&self.process.authority);
        let socket = match timeout(self.config.connect_timeout, connecting).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Err(DialError::Unreachable);
            }
            Ok(Err(error)) => return Err(failed(&error)),
            Err(_) => return Err(DialError::Failed("no answer to the connect".to_owned())),
        };
        let shaking = async {
            let mut io = secure(socket, &self.process, self.tls.as_deref()).await?;
            let hello = Preface::Hello(hello).encode();
            io.write_all(&hello).await.map_err(|e| failed(&e))?;
            io.flush().await.map_err(|e| failed(&e))?;
            let (preface, input) = read_preface(&mut *io).await?;
            match preface {
                Preface::Hello(peer) => Ok((peer, Connection::new(io, input, None))),
                Preface::Refused(refusal) => Err(DialError::Refused(refusal)),
            }
        };
        match timeout(self.config.handshake_timeout, shaking).await {
            Ok(shaken) => shaken,
            Err(_) => Err(DialError::Failed("no answer to the handshake".to_owned())),
        }
    }
}

async fn secure(
    socket: TcpStream,
    process: &Process,
    tls: Option<&Tls>,
) -> Result<Box<dyn Io>, DialError> {
    socket.set_nodelay(true).map_err(|e| failed(&e))?;
    match (tls, &process.identity) {
        (None, None) => Ok(Box::new(socket)),
        (Some(tls), identity) => {
            let name = identity.as_deref().unwrap_or_else(|| process.host());
            let name = server_name(name).map_err(|error| DialError::Failed(chain(&error)))?;
            let secured = tls.connector().connect(name, socket).await;
            let secured = secured.map_err(|error| DialError::Failed(format!("TLS: {error}")))?;
            if !tls.admits(secured.get_ref().1.peer_certificates()) {
                return Err(no_member());
            }
            Ok(Box::new(secured))
        }
        (None, Some(_)) => Err(DialError::Failed(
            "the peer wants TLS, which is off here".to_owned(),
        )),
    }
}

/// Reads what a peer says first; and what came after it.
pub(super) async fn read_preface(io: &mut dyn Io) -> Result<(Preface, BytesMut), DialError> {
    let mut input = BytesMut::with_capacity(1024);
    loop {
        match Preface::decode(&mut input) {
            Ok(Some(preface)) => return Ok((preface, input)),
            Ok(None) => {}
            Err(PrefaceError::Version(_)) => return Err(DialError::Refused(Refusal::Version)),
            Err(error) => return Err(DialError::Failed(error.to_string())),
        }
        let read = io.read_buf(&mut input).await.map_err(|e| failed(&e))?;
        if read == 0 {
            return Err(DialError::Failed("closed during the handshake".to_owned()));
        }
    }
}

/// Tells a peer that it is not wanted, if it still listens.
pub(super) async fn refuse(io: &mut dyn Io, refusal: Refusal) -> io::Result<()> {
    let bytes: Bytes = Preface::Refused(refusal).encode();
    io.write_all(&bytes).await?;
    io.shutdown().await
}

/// The peer's certificate is good, and none of the names in it is a member's.
pub(super) fn no_member() -> DialError {
    DialError::Failed("TLS: the peer's certificate has no name that may be a member".to_owned())
}

fn failed(error: &io::Error) -> DialError {
    DialError::Failed(error.to_string())
}

fn chain(error: &TlsError) -> String {
    forebay_observability::ErrorChain(error).to_string()
}
