use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use forebay_mux::session::{Config, Incarnation, Session, SessionId};
use forebay_observability::Registry;
use tokio::time::{Instant, timeout};

use super::driver::{Driven, Driver, FAREWELL, Link};
use super::{Metrics, SessionLimits, SharedSession};

/// A client's session, attached to a server that gives each stream a window of so many bytes.
fn attached(window_bytes: u32) -> Arc<SharedSession> {
    let own = Session::client(Config::default(), SessionId(1), Incarnation(1));
    let config = Config {
        window_bytes,
        ..Config::default()
    };
    let mut server = Session::server(config, SessionId(1), Incarnation(2));
    server.attach(Duration::ZERO, &own.hello()).unwrap();
    let limits = SessionLimits {
        requests: 8,
        assembly_bytes: 1 << 20,
    };
    let session = SharedSession::new(own, Metrics::client("test", &Registry::new()), limits);
    session.attach(&server.hello(), &mut Vec::new()).unwrap();
    session
}

/// A link to a peer that takes nothing.
struct Full;

impl Link for Full {
    fn poll_receive(
        &mut self,
        _: &SharedSession,
        _: &mut Vec<Waker>,
        _: &mut Context<'_>,
    ) -> io::Result<bool> {
        Ok(false)
    }

    fn poll_send(
        &mut self,
        _: &SharedSession,
        _: &mut Vec<Waker>,
        _: &mut Context<'_>,
    ) -> io::Result<()> {
        Ok(())
    }

    fn is_empty(&self) -> bool {
        false
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_is_waited_for_so_long() {
    let session = attached(1 << 16);
    let mut driver = Driver::new(session.clone(), None);
    driver.connect(Full);
    session.close();
    let began = Instant::now();
    let driven = timeout(10 * FAREWELL, driver.drive()).await;
    assert_eq!(driven.unwrap(), Driven::Over);
    assert!(began.elapsed() >= FAREWELL);
}

#[cfg(feature = "tcp")]
#[tokio::test]
async fn what_was_sent_makes_room_at_once() {
    let session = attached(1 << 20);
    let id = session.open("target", Bytes::new()).unwrap();
    let mut context = Context::from_waker(Waker::noop());
    while session.poll_writable(id, &mut context).is_ready() {
        session.send(id, Bytes::from(vec![7; 5000])).unwrap();
    }
    let mut wakers = Vec::new();
    session.transmit(1 << 20, &mut Vec::new(), &mut wakers);
    assert_eq!(wakers.len(), 1, "nothing that the peer says is waited for");
    assert_eq!(
        session.poll_writable(id, &mut context),
        Poll::Ready(true),
        "there is room"
    );
}

#[cfg(feature = "tcp")]
#[tokio::test]
async fn what_is_not_flushed_is_on_its_way() {
    use bytes::BytesMut;
    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    use super::Connection;

    /// Takes everything, and passes on nothing, as TLS over a full socket.
    struct Keeping;

    impl AsyncRead for Keeping {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Keeping {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    let session = attached(1 << 16);
    let mut connection = Connection::new(Box::new(Keeping), BytesMut::new(), None);
    session.close();
    let mut context = Context::from_waker(Waker::noop());
    let sent = connection.poll_send(&session, &mut Vec::new(), &mut context);
    sent.unwrap();
    assert!(!connection.is_empty(), "the peer has not been told");
}
