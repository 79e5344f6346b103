mod connection;
mod relay;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};

use crate::reserved_port::ReservedPort;
use relay::{Counts, Relay};

/// A way that bytes go through a [`FaultProxy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From who connects to the target.
    ToTarget,
    /// From the target to who connected.
    ToClient,
}

/// A TCP proxy on a free port of 127.0.0.1 that does to connections what networks do, at the
/// moment it is told to.
///
/// Each method has taken effect when it returns, and holds until [`FaultProxy::pass`] or its
/// opposite. All connections end with the value.
pub struct FaultProxy {
    address: SocketAddr,
    orders: Mutex<Sender<Order>>,
    wake: Arc<OwnedFd>,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

/// What the relay is told, and where it says that it is done.
type Order = (Fault, Sender<()>);

/// What happens to connections from now on.
enum Fault {
    Target(SocketAddr),
    Pass,
    Delay(Duration),
    Stall(Direction),
    Drop(Direction, usize),
    Cut,
    Refuse,
    HalfOpen,
    End,
}

impl FaultProxy {
    /// A proxy before `target`.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    pub fn to(target: SocketAddr) -> io::Result<Self> {
        let proxy = Self::to_nowhere()?;
        proxy.set_target(target);
        Ok(proxy)
    }

    /// A proxy whose target is not known yet: until [`FaultProxy::set_target`] it accepts
    /// connections and keeps what they say for the target.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    pub fn to_nowhere() -> io::Result<Self> {
        // It stays ours while nobody listens there.
        let port = ReservedPort::any()?;
        let address = port.address();
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK)?);
        let counts = Arc::new(Counts::default());
        let (orders, incoming) = mpsc::channel();
        let relay = Relay::new(port, wake.clone(), incoming, counts.clone())?;
        let thread = thread::Builder::new()
            .name("fault-proxy".into())
            .spawn(move || relay.run())?;
        Ok(Self {
            address,
            orders: Mutex::new(orders),
            wake,
            counts,
            thread: Some(thread),
        })
    }

    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where connections go that come from now on, and those that came while there was no target.
    pub fn set_target(&self, target: SocketAddr) {
        self.order(Fault::Target(target));
    }

    /// Everything passes at once, what was held back first; connections are accepted again. What
    /// was lost stays lost.
    pub fn pass(&self) {
        self.order(Fault::Pass);
    }

    /// Bytes take this much longer, each way; what is on its way already, too.
    pub fn delay(&self, time: Duration) {
        self.order(Fault::Delay(time));
    }

    /// Bytes of this direction are held back; so is their end. For a silent network call it for
    /// both.
    pub fn stall(&self, direction: Direction) {
        self.order(Fault::Stall(direction));
    }

    /// The next `count` bytes of this direction vanish, on whatever connection they come: what no
    /// network does to TCP, but a broken middlebox.
    pub fn drop_bytes(&self, direction: Direction, count: usize) {
        self.order(Fault::Drop(direction, count));
    }

    /// Both ends of every connection get a reset, and what is on its way is lost. New connections
    /// are accepted.
    pub fn cut(&self) {
        self.order(Fault::Cut);
    }

    /// [`FaultProxy::cut`], and new connections are refused, as where nobody listens.
    pub fn refuse(&self) {
        self.order(Fault::Refuse);
    }

    /// Every connection loses its target, which gets a reset, and whoever connected is not told.
    /// New connections are accepted and never answered. None of them ever passes anything again.
    pub fn half_open(&self) {
        self.order(Fault::HalfOpen);
    }

    /// How many clients are connected.
    pub fn connections(&self) -> usize {
        self.counts.open()
    }

    /// How many connections there ever were.
    pub fn accepted(&self) -> usize {
        self.counts.accepted()
    }

    fn order(&self, fault: Fault) {
        let (done, until) = mpsc::channel();
        let sent = self.orders.lock().send((fault, done));
        sent.expect("the relay runs until it is dropped");
        wake(&self.wake);
        until.recv().expect("the relay does what it is told");
    }
}

/// Makes the relay look at its orders.
fn wake(descriptor: &OwnedFd) {
    let written = rustix::io::write(descriptor.as_fd(), &1u64.to_ne_bytes());
    written.expect("a counter takes one more");
}

impl fmt::Debug for FaultProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultProxy")
            .field("address", &self.address)
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        let (done, _) = mpsc::channel();
        // The relay is gone already if it panicked.
        if self.orders.lock().send((Fault::End, done)).is_ok() {
            wake(&self.wake);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
