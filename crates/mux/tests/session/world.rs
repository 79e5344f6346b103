//! Two ends, what is between them, and everything that happens in some order.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use forebay_mux::session::{
    Config, DetachCause, Hello, Incarnation, Mode, Packet, Preface, Session, SessionId,
};

use crate::plan::Plan;
use crate::side::{Failure, Side};

/// Steps in random order, before all goes on to its end.
const STEPS: usize = 3000;
/// So many rounds in which everything gets its turn, and nothing happens, say that nothing will.
const IDLE_ROUNDS: usize = 64;

/// What is wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// The server's program never gives credit back.
    ForgetsCredit,
    /// An end acknowledges a frame at reattachment that it has not got.
    AcknowledgesTooEarly,
    /// An end asks for a frame at reattachment that it has got.
    AsksForTooMuch,
    /// The connection loses a read.
    LosesBytes,
    /// The connection repeats a read.
    RepeatsBytes,
}

/// One direction of the connection.
enum Pipe {
    Bytes(VecDeque<Bytes>),
    Packets(Vec<Packet>),
}

impl Pipe {
    fn new(mode: Mode) -> Self {
        match mode {
            Mode::Bytes => Self::Bytes(VecDeque::new()),
            Mode::Packets => Self::Packets(Vec::new()),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Bytes(parts) => parts.iter().map(Bytes::len).sum(),
            Self::Packets(packets) => packets.iter().map(|packet| packet.bytes.len()).sum(),
        }
    }
}

/// All of it.
pub(crate) struct World<'a> {
    plan: &'a Plan,
    bug: Option<Bug>,
    /// Client, server.
    sides: [Side; 2],
    /// What goes to the client, to the server.
    pipes: [Pipe; 2],
    now: Duration,
    cuts: u32,
    mishaps: u32,
    random: u64,
}

impl<'a> World<'a> {
    /// Runs a plan to its end.
    ///
    /// # Errors
    /// What does not hold.
    pub(crate) fn run(plan: &'a Plan, bug: Option<Bug>) -> Result<(), Failure> {
        let (id, client, server) = (SessionId(5), Incarnation(1), Incarnation(2));
        let client = Session::client(plan.client.clone(), id, client);
        let server = Session::server(plan.server.clone(), id, server);
        let mut server = Side::new(server, false, plan.server.window_bytes);
        server.forgets_credit = bug == Some(Bug::ForgetsCredit);
        let mut world = Self {
            plan,
            bug,
            sides: [Side::new(client, true, plan.client.window_bytes), server],
            pipes: [Pipe::new(plan.client.mode), Pipe::new(plan.client.mode)],
            now: Duration::ZERO,
            cuts: plan.cuts,
            mishaps: plan.mishaps,
            random: plan.seed,
        };
        for _ in 0..STEPS {
            world.step()?;
            world.check()?;
        }
        (world.cuts, world.mishaps) = (0, 0);
        let (mut happened, mut idle_rounds) = (0, 0);
        while !world.is_done() {
            world.round()?;
            world.check()?;
            let before = std::mem::replace(&mut happened, world.happened());
            idle_rounds = if happened > before {
                0
            } else {
                idle_rounds + 1
            };
            if idle_rounds > IDLE_ROUNDS {
                return Err("it does not end".to_owned());
            }
        }
        (world.sides.iter()).try_for_each(|side| side.check_end(plan))
    }

    fn happened(&self) -> u64 {
        self.sides.iter().map(|side| side.happened).sum()
    }

    /// splitmix64.
    fn draw(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    fn step(&mut self) -> Result<(), Failure> {
        let at = self.draw(2) as usize;
        match self.draw(64) {
            0..12 => {
                let random = self.draw(1 << 32);
                if let Some(id) = self.sides[at].pick(random) {
                    self.sides[at].produce(id, self.plan);
                }
            }
            12..24 => {
                let random = self.draw(1 << 32);
                if let Some(id) = self.sides[at].pick(random) {
                    self.sides[at].consume(id, self.plan)?;
                }
            }
            24..40 => {
                let limit = 1 + self.draw(40_000) as usize;
                self.transmit(at, limit);
            }
            40..56 => {
                let most = 1 + self.draw(20_000) as usize;
                self.deliver(at, most)?;
            }
            56..60 => self.sides[at].open(self.plan),
            60 => self.pass(Duration::from_millis(10)),
            61 => self.pass(Duration::from_millis(200)),
            62 if self.cuts > 0 => {
                self.cuts -= 1;
                self.cut();
            }
            _ => self.attach()?,
        }
        Ok(())
    }

    /// Everything once.
    fn round(&mut self) -> Result<(), Failure> {
        self.attach()?;
        for at in [0, 1] {
            self.sides[at].open(self.plan);
            for id in self.sides[at].ids() {
                self.sides[at].produce(id, self.plan);
                self.sides[at].consume_all(id, self.plan)?;
            }
            self.transmit(at, 65_536);
            self.deliver(1 - at, usize::MAX)?;
            self.sides[at].listen()?;
        }
        self.pass(Duration::from_millis(100));
        Ok(())
    }

    fn check(&mut self) -> Result<(), Failure> {
        self.sides[0].listen()?;
        self.sides[1].listen()?;
        let [client, server] = &self.sides;
        client.check_backlog(server, self.plan)?;
        server.check_backlog(client, self.plan)?;
        let bounds = [&self.plan.client, &self.plan.server].map(most_unacknowledged);
        for (side, bound) in self.sides.iter().zip(bounds) {
            if side.session.unacknowledged_bytes() > bound {
                return Err("too much is kept for the peer".to_owned());
            }
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.sides.iter().all(Side::is_done)
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        for side in &mut self.sides {
            if side.session.next_timeout().is_some_and(|at| at <= self.now) {
                side.session.handle_timeout(self.now);
            }
        }
    }

    fn transmit(&mut self, at: usize, limit: usize) {
        let session = &mut self.sides[at].session;
        let pipe = &mut self.pipes[1 - at];
        if pipe.bytes() >= self.plan.pipe_bytes {
            return;
        }
        match pipe {
            Pipe::Bytes(parts) => {
                let mut out = Vec::new();
                let bytes = session.transmit(self.now, limit, &mut out);
                assert_eq!(bytes, out.iter().map(Bytes::len).sum());
                parts.extend(out);
            }
            Pipe::Packets(packets) => packets.extend(session.transmit_packet(self.now, limit)),
        }
    }

    /// Some of what is under way arrives at an end.
    fn deliver(&mut self, at: usize, most: usize) -> Result<(), Failure> {
        let (draw, fate) = (self.draw(1 << 32) as usize, self.draw(8));
        let now = self.now;
        let session = &mut self.sides[at].session;
        let taken = match &mut self.pipes[at] {
            Pipe::Bytes(parts) => {
                let mut read = BytesMut::new();
                while let Some(part) = parts.front_mut()
                    && read.len() < most
                {
                    let length = part.len().min(most - read.len());
                    read.extend_from_slice(&part.split_to(length));
                    if part.is_empty() {
                        parts.pop_front();
                    }
                }
                let read = read.freeze();
                let times = match self.bug {
                    Some(Bug::LosesBytes) if fate == 0 => 0,
                    Some(Bug::RepeatsBytes) if fate == 0 => 2,
                    _ => 1,
                };
                (0..times).try_for_each(|_| session.receive(now, read.clone()))
            }
            Pipe::Packets(packets) if packets.is_empty() => Ok(()),
            Pipe::Packets(packets) => {
                let mishap = self.mishaps > 0;
                let which = if mishap { draw % packets.len() } else { 0 };
                let packet = packets[which].clone();
                let (stays, arrives) = match fate {
                    0 if mishap => (true, true),
                    1 if mishap => (false, false),
                    _ => (false, true),
                };
                if !stays {
                    packets.remove(which);
                }
                self.mishaps -= u32::from(mishap && fate < 2);
                match arrives {
                    true => session.receive_packet(now, packet),
                    false => Ok(()),
                }
            }
        };
        taken.map_err(|error| error.to_string())
    }

    /// The connection goes, and what was under way with it; one end may notice later.
    fn cut(&mut self) {
        self.pipes = [(); 2].map(|()| Pipe::new(self.plan.client.mode));
        let both = self.draw(2) == 0;
        self.sides[0].session.detach(self.now, DetachCause::Cut);
        if both {
            self.sides[1].session.detach(self.now, DetachCause::Cut);
        }
    }

    /// The client makes a connection, if it has none; that may be cut at any point.
    fn attach(&mut self) -> Result<(), Failure> {
        if self.sides[0].session.is_attached() {
            return Ok(());
        }
        self.pipes = [(); 2].map(|()| Pipe::new(self.plan.client.mode));
        for (from, to) in [(0, 1), (1, 0)] {
            let hello = self.hello(from);
            if self.cuts > 0 && self.draw(4) == 0 {
                self.cuts -= 1;
                return Ok(());
            }
            let attached = self.sides[to].session.attach(self.now, &hello);
            attached.map_err(|refusal| refusal.to_string())?;
        }
        Ok(())
    }

    /// What an end says, after its way over the wire.
    fn hello(&mut self, at: usize) -> Hello {
        let mut hello = self.sides[at].session.hello();
        match self.bug {
            Some(Bug::AcknowledgesTooEarly) => hello.received += u64::from(hello.resumes),
            Some(Bug::AsksForTooMuch) => hello.received = hello.received.saturating_sub(1),
            _ => {}
        }
        let mut bytes = BytesMut::from(Preface::Hello(hello).encode().as_ref());
        match Preface::decode(&mut bytes) {
            Ok(Some(Preface::Hello(hello))) if bytes.is_empty() => hello,
            other => panic!("a hello became {other:?}"),
        }
    }
}

fn most_unacknowledged(config: &Config) -> usize {
    2 * config.max_unacknowledged_bytes + (64 << 10) + 64
}
