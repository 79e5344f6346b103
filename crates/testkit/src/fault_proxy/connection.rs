use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;

/// How much one direction keeps before it stops reading, in bytes.
const KEPT_BYTES: usize = 256 << 10;

/// The client's end of a connection, and the target's once there is one.
pub(super) struct Connection {
    pub(super) client: TcpStream,
    pub(super) target: Option<TcpStream>,
    pub(super) to_target: Way,
    pub(super) to_client: Way,
    /// It leads nowhere any more, and the client is not told.
    pub(super) half_open: bool,
}

impl Connection {
    pub(super) fn new(client: TcpStream, half_open: bool) -> Self {
        Self {
            client,
            target: None,
            to_target: Way::default(),
            to_client: Way::default(),
            half_open,
        }
    }

    /// Both directions have ended.
    pub(super) fn is_over(&self) -> bool {
        self.to_target.over && self.to_client.over
    }
}

/// Closes a socket so that its peer gets a reset.
pub(super) fn reset(socket: TcpStream) {
    // A socket that is reset already cannot be told.
    let _ = set_socket_linger(&socket, Some(Duration::ZERO));
    drop(socket);
}

/// One direction of a connection: what has been read and not written.
#[derive(Default)]
pub(super) struct Way {
    chunks: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    ended: Option<Instant>,
    over: bool,
}

impl Way {
    pub(super) fn reads(&self) -> bool {
        self.ended.is_none() && self.bytes < KEPT_BYTES
    }

    /// When the next of what it keeps is due.
    pub(super) fn due(&self, delay: Duration) -> Option<Instant> {
        let next = self.chunks.front().map(|(came, _)| *came);
        let end = self.ended.filter(|_| !self.over);
        Some(next.or(end)? + delay)
    }

    /// Takes what there is to read; the first `lost` bytes of it vanish.
    ///
    /// # Errors
    ///
    /// If the connection is broken.
    pub(super) fn read(&mut self, mut from: &TcpStream, lost: &mut usize) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        while self.reads() {
            match from.read(&mut buffer) {
                Ok(0) => self.ended = Some(Instant::now()),
                Ok(count) => {
                    let gone = count.min(*lost);
                    *lost -= gone;
                    self.bytes += count - gone;
                    if gone < count {
                        let chunk = buffer[gone..count].to_vec();
                        self.chunks.push_back((Instant::now(), chunk));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes what is due, and the end after it.
    ///
    /// # Errors
    ///
    /// If the connection is broken.
    pub(super) fn write(&mut self, mut to: &TcpStream, delay: Duration) -> io::Result<()> {
        while self.due(delay).is_some_and(|due| due <= Instant::now()) {
            let Some((_, chunk)) = self.chunks.front_mut() else {
                to.shutdown(Shutdown::Write)?;
                self.over = true;
                break;
            };
            match to.write(chunk) {
                Ok(count) => {
                    self.bytes -= count;
                    chunk.drain(..count);
                    if chunk.is_empty() {
                        self.chunks.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
