use std::io;
use std::mem;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::connection::{Connection, reset};
use super::{Direction, Fault, Order};
use crate::reserved_port::ReservedPort;

/// What can be asked about a relay from outside.
#[derive(Default)]
pub(super) struct Counts {
    open: AtomicUsize,
    accepted: AtomicUsize,
}

impl Counts {
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Acquire)
    }
}

/// All connections of a proxy. One thread owns them, so that whatever is done to them happens at
/// one moment.
pub(super) struct Relay {
    port: ReservedPort,
    listener: Option<TcpListener>,
    target: Option<SocketAddr>,
    connections: Vec<Connection>,
    delay: Duration,
    stalled: [bool; 2],
    lost: [usize; 2],
    half_open: bool,
    wake: Arc<OwnedFd>,
    orders: Receiver<Order>,
    counts: Arc<Counts>,
}

impl Relay {
    pub(super) fn new(
        port: ReservedPort,
        wake: Arc<OwnedFd>,
        orders: Receiver<Order>,
        counts: Arc<Counts>,
    ) -> io::Result<Self> {
        Ok(Self {
            listener: Some(listen(port.address())?),
            port,
            target: None,
            connections: Vec::new(),
            delay: Duration::ZERO,
            stalled: [false; 2],
            lost: [0; 2],
            half_open: false,
            wake,
            orders,
            counts,
        })
    }

    pub(super) fn run(mut self) {
        loop {
            self.wait();
            while let Ok((fault, done)) = self.orders.try_recv() {
                if matches!(fault, Fault::End) {
                    return;
                }
                self.begin(fault);
                self.counts
                    .open
                    .store(self.connections.len(), Ordering::Release);
                // Whoever asked is waiting.
                let _ = done.send(());
            }
            self.accept();
            self.relay();
            self.counts
                .open
                .store(self.connections.len(), Ordering::Release);
        }
    }

    fn begin(&mut self, fault: Fault) {
        match fault {
            Fault::Target(target) => {
                self.target = Some(target);
                let connections = mem::take(&mut self.connections);
                let waiting = |c: &Connection| c.target.is_none() && !c.half_open;
                let connected = connections.into_iter().filter_map(|mut connection| {
                    if waiting(&connection) {
                        connection.target = Some(connect(target)?);
                    }
                    Some(connection)
                });
                self.connections = connected.collect();
            }
            Fault::Pass => {
                self.delay = Duration::ZERO;
                self.stalled = [false; 2];
                self.lost = [0; 2];
                self.half_open = false;
                if self.listener.is_none() {
                    let listener = listen(self.port.address());
                    self.listener = Some(listener.expect("the port has been kept"));
                }
            }
            Fault::Delay(time) => self.delay = time,
            Fault::Stall(direction) => self.stalled[direction as usize] = true,
            Fault::Drop(direction, count) => self.lost[direction as usize] = count,
            Fault::Cut => self.cut(),
            Fault::Refuse => {
                // What waits to be accepted is reset by the system.
                self.listener = None;
                self.cut();
            }
            Fault::HalfOpen => {
                self.half_open = true;
                for connection in &mut self.connections {
                    connection.half_open = true;
                    if let Some(target) = connection.target.take() {
                        reset(target);
                    }
                }
            }
            Fault::End => {}
        }
    }

    fn cut(&mut self) {
        for connection in self.connections.drain(..) {
            reset(connection.client);
            if let Some(target) = connection.target {
                reset(target);
            }
        }
    }

    fn accept(&mut self) {
        while let Some(listener) = &self.listener
            && let Ok((client, _)) = listener.accept()
        {
            self.counts.accepted.fetch_add(1, Ordering::Release);
            if prepare(&client).is_err() {
                continue;
            }
            let mut connection = Connection::new(client, self.half_open);
            if let Some(target) = self.target
                && !self.half_open
            {
                let Some(target) = connect(target) else {
                    reset(connection.client);
                    continue;
                };
                connection.target = Some(target);
            }
            self.connections.push(connection);
        }
    }

    /// Reads and writes what can be. A connection that breaks at one end is reset at the other.
    fn relay(&mut self) {
        let (delay, stalled) = (self.delay, self.stalled);
        let mut kept = Vec::with_capacity(self.connections.len());
        for mut connection in self.connections.drain(..) {
            if connection.half_open {
                kept.push(connection);
                continue;
            }
            let moved = move_bytes(&mut connection, delay, stalled, &mut self.lost);
            if moved.is_err() {
                reset(connection.client);
                if let Some(target) = connection.target {
                    reset(target);
                }
            } else if !connection.is_over() {
                kept.push(connection);
            }
        }
        self.connections = kept;
    }

    /// Waits for something to do.
    fn wait(&self) {
        let now = Instant::now();
        let mut due: Option<Instant> = None;
        let mut descriptors = vec![PollFd::new(&*self.wake, PollFlags::IN)];
        if let Some(listener) = &self.listener {
            descriptors.push(PollFd::new(listener, PollFlags::IN));
        }
        for connection in self.connections.iter().filter(|c| !c.half_open) {
            let mut client = PollFlags::empty();
            let mut target = PollFlags::empty();
            client.set(PollFlags::IN, connection.to_target.reads());
            target.set(PollFlags::IN, connection.to_client.reads());
            let ways = [
                (Direction::ToTarget, &connection.to_target, &mut target),
                (Direction::ToClient, &connection.to_client, &mut client),
            ];
            for (direction, way, to) in ways {
                let Some(at) = way.due(self.delay) else {
                    continue;
                };
                let connected = connection.target.is_some();
                if self.stalled[direction as usize] || !connected {
                    continue;
                }
                if at <= now {
                    *to |= PollFlags::OUT;
                } else {
                    due = Some(due.map_or(at, |due| due.min(at)));
                }
            }
            // Without anything to wait for, a socket that is reset would wake all the time.
            if !client.is_empty() {
                descriptors.push(PollFd::new(&connection.client, client));
            }
            if let Some(socket) = &connection.target
                && !target.is_empty()
            {
                descriptors.push(PollFd::new(socket, target));
            }
        }
        // Rounded up: a poll that returns a little early finds nothing due.
        let timeout = due.map(|due| due - now + Duration::from_micros(100));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut descriptors, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("cannot wait for sockets: {error}"),
        }
        let mut count = [0; 8];
        // It has nothing to say if something else happened.
        let _ = rustix::io::read(&*self.wake, &mut count);
    }
}

fn move_bytes(
    connection: &mut Connection,
    delay: Duration,
    stalled: [bool; 2],
    lost: &mut [usize; 2],
) -> io::Result<()> {
    let [to_target, to_client] = lost;
    connection.to_target.read(&connection.client, to_target)?;
    let Some(target) = &connection.target else {
        return Ok(());
    };
    connection.to_client.read(target, to_client)?;
    if !stalled[Direction::ToTarget as usize] {
        connection.to_target.write(target, delay)?;
    }
    if !stalled[Direction::ToClient as usize] {
        connection.to_client.write(&connection.client, delay)?;
    }
    Ok(())
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A connection to the target, if someone is there.
fn connect(target: SocketAddr) -> Option<TcpStream> {
    let socket = TcpStream::connect(target).ok()?;
    prepare(&socket).ok()?;
    Some(socket)
}

fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_nonblocking(true)
}
