use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket, sockopt};

/// A port of 127.0.0.1 that nobody else gets by asking for any, and where whoever is told of it may
/// listen: most servers, ours among them, bind with `SO_REUSEADDR`.
#[derive(Debug)]
pub struct ReservedPort {
    address: SocketAddr,
    /// Bound and never listening.
    _socket: OwnedFd,
}

impl ReservedPort {
    /// A free one.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn any() -> io::Result<Self> {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        Ok(Self {
            address: SocketAddr::try_from(getsockname(&socket)?)?,
            _socket: socket,
        })
    }

    /// Where to listen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn whoever_knows_it_listens_there_again_and_again() -> io::Result<()> {
        let port = ReservedPort::any()?;
        for _ in 0..3 {
            assert!(TcpStream::connect(port.address()).is_err());
            let listener = TcpListener::bind(port.address())?;
            let client = TcpStream::connect(port.address())?;
            drop((listener.accept()?, client));
        }
        Ok(())
    }
}
