use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;

use crate::clock::Clock;
use crate::failure::{Failure, FailureClass};

/// Bytes read at a time.
const READ_BYTES: usize = 64 << 10;

thread_local! {
    /// Bytes are taken out of it before anything waits, so that one for a thread is enough: ten
    /// thousand connections need no buffers of their own.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// What makes sense of the bytes that come back.
pub(crate) trait Receive {
    /// Takes bytes that arrived at `now`; true when the response is complete.
    fn read(&mut self, now: Duration, bytes: &[u8]) -> Result<bool, Failure>;

    /// The connection ended at `now`.
    fn closed(&mut self, now: Duration) -> Result<(), Failure>;

    /// Whether the connection can take another request after the response.
    fn keep_alive(&self) -> bool;
}

/// Connections to one server; those not in use are kept, the last used first.
#[derive(Debug)]
pub(crate) struct Connections {
    address: SocketAddr,
    idle: Mutex<Vec<TcpStream>>,
}

impl Connections {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            idle: Mutex::default(),
        }
    }

    /// Opens one connection and keeps it.
    pub(crate) async fn open(&self) -> io::Result<()> {
        let stream = self.connect().await?;
        self.idle.lock().push(stream);
        Ok(())
    }

    /// Sends a request and reads until the response is complete. Dropped halfway, it takes the
    /// connection with it.
    pub(crate) async fn exchange(
        &self,
        request: &[u8],
        clock: Clock,
        receiver: &mut impl Receive,
    ) -> Result<(), Failure> {
        let mut stream = match self.take() {
            Some(stream) => stream,
            None => self
                .connect()
                .await
                .map_err(|error| connect_failure(&error))?,
        };
        stream
            .write_all(request)
            .await
            .map_err(|error| connect_failure(&error))?;
        loop {
            let read = poll_fn(|cx| {
                BUFFER.with_borrow_mut(|buffer| {
                    let mut buffer = ReadBuf::new(buffer);
                    let polled = Pin::new(&mut stream).poll_read(cx, &mut buffer);
                    let now = || clock.now();
                    Poll::Ready(match ready!(polled) {
                        Ok(()) if buffer.filled().is_empty() => {
                            receiver.closed(now()).map(|()| true)
                        }
                        Ok(()) => receiver.read(now(), buffer.filled()),
                        Err(error) => Err(Failure::new(
                            FailureClass::Truncated,
                            format!("the connection broke: {}", error.kind()),
                        )),
                    })
                })
            });
            if read.await? {
                break;
            }
        }
        if receiver.keep_alive() {
            self.idle.lock().push(stream);
        }
        Ok(())
    }

    /// An idle connection that the server has not closed meanwhile.
    fn take(&self) -> Option<TcpStream> {
        loop {
            let stream = self.idle.lock().pop()?;
            // Nothing may come without a request: not an end, and no bytes.
            match stream.try_read(&mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some(stream),
                _ => drop(stream),
            }
        }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

fn connect_failure(error: &io::Error) -> Failure {
    Failure::new(FailureClass::Connect, error.kind().to_string())
}
