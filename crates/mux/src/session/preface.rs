use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::config::{Mode, Role};
use super::error::PrefaceError;

/// Every preface begins so, in every version.
const MAGIC: [u8; 4] = *b"FMUX";
/// The one version there is.
const VERSION: u8 = 1;
/// Magic, version, what it is, length of what follows.
const HEAD_BYTES: usize = 8;
/// What version 1 says in a hello; more may follow, and is passed over.
const HELLO_BYTES: usize = 45;
/// No preface of any version is longer than this.
const MAX_BODY_BYTES: usize = 1024;

const RESUMES: u8 = 0x01;
const SERVER: u8 = 0x02;
const PACKETS: u8 = 0x04;
const EXPECTS: u8 = 0x08;

/// Names a session, at both ends and across its connections. Drawn by the client at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Names one run of a process. Drawn at random at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// Optional parts of the protocol, a bit each. None is defined yet; unknown bits are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Features(pub u32);

/// What one end says first on a connection; see [`Session::hello`](super::Session::hello).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Who says it.
    pub role: Role,
    /// What the connection is.
    pub mode: Mode,
    /// What else it knows.
    pub features: Features,
    /// Which session this is about.
    pub session: SessionId,
    /// Of the process that says it.
    pub incarnation: Incarnation,
    /// The only incarnation of the peer that will do, if it is known.
    pub expects: Option<Incarnation>,
    /// Whether the session had a connection before.
    pub resumes: bool,
    /// Frames of the session that arrived here.
    pub received: u64,
    /// Credit of a new stream, bytes.
    pub window_bytes: u32,
    /// How many streams may be open at once.
    pub max_streams: u32,
}

/// Why a server does not go on with a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The versions, or what the link is, differ.
    #[error("the versions differ")]
    Version,
    /// The process is not the one that was expected.
    #[error("another process has taken the place")]
    Incarnation,
    /// A session to go on with that is not known.
    #[error("the session is unknown")]
    UnknownSession,
    /// What one end has acknowledged does not fit what the other has sent.
    #[error("the ends do not fit together")]
    Sequence,
    /// As many connections as may be.
    #[error("too many connections")]
    TooManyConnections,
    /// The process stops.
    #[error("the server stops")]
    Stopping,
    /// A reason that is newer than this program.
    #[error("reason {0}")]
    Other(u8),
}

impl Refusal {
    fn code(self) -> u8 {
        match self {
            Self::Version => 1,
            Self::Incarnation => 2,
            Self::UnknownSession => 3,
            Self::Sequence => 4,
            Self::TooManyConnections => 5,
            Self::Stopping => 6,
            Self::Other(code) => code,
        }
    }

    fn of(code: u8) -> Self {
        match code {
            1 => Self::Version,
            2 => Self::Incarnation,
            3 => Self::UnknownSession,
            4 => Self::Sequence,
            5 => Self::TooManyConnections,
            6 => Self::Stopping,
            code => Self::Other(code),
        }
    }
}

/// What opens a connection, each way: the client says hello, the server says hello or refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preface {
    /// Here I am.
    Hello(Hello),
    /// No.
    Refused(Refusal),
}

impl Preface {
    /// As bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEAD_BYTES + HELLO_BYTES);
        out.put_slice(&MAGIC);
        out.put_u8(VERSION);
        match self {
            Self::Refused(refusal) => {
                out.put_u8(refusal.code());
                out.put_u16(0);
            }
            Self::Hello(hello) => {
                out.put_u8(0);
                out.put_u16(HELLO_BYTES as u16);
                hello.put(&mut out);
            }
        }
        out.freeze()
    }

    /// Takes a preface from the front of `bytes`, and leaves what follows. `None` as long as there
    /// is only a part of it; `bytes` are then left as they are.
    ///
    /// # Errors
    ///
    /// [`PrefaceError`], as soon as it shows. A refusal is understood in every version.
    pub fn decode(bytes: &mut BytesMut) -> Result<Option<Self>, PrefaceError> {
        let known = bytes.len().min(MAGIC.len());
        if bytes[..known] != MAGIC[..known] {
            return Err(PrefaceError::Magic);
        }
        let Some(&[_, _, _, _, version, what, l0, l1]) = bytes.first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        if length > MAX_BODY_BYTES {
            return Err(PrefaceError::Length(length));
        }
        if what == 0 && version != VERSION {
            return Err(PrefaceError::Version(version));
        }
        if what == 0 && length < HELLO_BYTES {
            return Err(PrefaceError::Length(length));
        }
        if bytes.len() < HEAD_BYTES + length {
            return Ok(None);
        }
        let mut body = bytes.split_to(HEAD_BYTES + length);
        body.advance(HEAD_BYTES);
        Ok(Some(match what {
            0 => Self::Hello(Hello::get(&mut body)),
            code => Self::Refused(Refusal::of(code)),
        }))
    }
}

impl Hello {
    fn put(&self, out: &mut BytesMut) {
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        out.put_u8(
            flag(self.resumes, RESUMES)
                | flag(self.role == Role::Server, SERVER)
                | flag(self.mode == Mode::Packets, PACKETS)
                | flag(self.expects.is_some(), EXPECTS),
        );
        out.put_u32(self.features.0);
        out.put_u64(self.session.0);
        out.put_u64(self.incarnation.0);
        out.put_u64(self.expects.map_or(0, |expected| expected.0));
        out.put_u64(self.received);
        out.put_u32(self.window_bytes);
        out.put_u32(self.max_streams);
    }

    /// `body` has at least [`HELLO_BYTES`].
    fn get(body: &mut BytesMut) -> Self {
        let flags = body.get_u8();
        let features = Features(body.get_u32());
        let session = SessionId(body.get_u64());
        let incarnation = Incarnation(body.get_u64());
        let expects = Incarnation(body.get_u64());
        Self {
            role: if flags & SERVER != 0 {
                Role::Server
            } else {
                Role::Client
            },
            mode: if flags & PACKETS != 0 {
                Mode::Packets
            } else {
                Mode::Bytes
            },
            features,
            session,
            incarnation,
            expects: (flags & EXPECTS != 0).then_some(expects),
            resumes: flags & RESUMES != 0,
            received: body.get_u64(),
            window_bytes: body.get_u32(),
            max_streams: body.get_u32(),
        }
    }
}
