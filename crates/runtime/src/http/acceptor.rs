use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// How long to wait when the system has no descriptor or memory for another connection.
const RECOVERY: Duration = Duration::from_millis(200);

/// How many connections may wait to be accepted; the system may allow fewer. A crowd that comes
/// at once is then late by microseconds, and not by the second after which a client tries again.
const BACKLOG: u32 = 4096;

/// A socket that listens, and the one place where connections come from: each has `TCP_NODELAY`
/// set, without which a token waits for the acknowledgement of the one before.
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
}

impl Acceptor {
    /// Listens; connections wait until they are accepted.
    ///
    /// # Errors
    ///
    /// If the address is not to be had.
    pub fn listen(address: SocketAddr) -> io::Result<Self> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // On Windows this would let others take the port.
        #[cfg(not(windows))]
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        Ok(Self { listener })
    }

    /// Where it listens, with the port that was taken.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next connection; where the system has no room for one, it goes on trying. Cancel-safe.
    pub async fn accept(&self) -> TcpStream {
        let mut recovering = false;
        loop {
            match self.listener.accept().await {
                // A client that is gone already is none.
                Ok((stream, _)) => match stream.set_nodelay(true) {
                    Ok(()) => return stream,
                    Err(error) => tracing::debug!(%error, "connection lost before it was used"),
                },
                Err(error) if is_of_the_connection(&error) => {
                    tracing::debug!(%error, "connection lost before it was accepted");
                }
                Err(error) => {
                    if !std::mem::replace(&mut recovering, true) {
                        tracing::error!(%error, "cannot accept connections");
                    }
                    tokio::time::sleep(RECOVERY).await;
                }
            }
        }
    }
}

fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[tokio::test]
    async fn every_accepted_socket_has_nodelay() {
        let acceptor = Acceptor::listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = acceptor.local_addr().unwrap();
        for _ in 0..3 {
            let (client, accepted) = tokio::join!(TcpStream::connect(address), acceptor.accept());
            assert!(!client.unwrap().nodelay().unwrap(), "not the default");
            // This asks the system (getsockopt).
            assert!(accepted.nodelay().unwrap());
        }
    }
}
