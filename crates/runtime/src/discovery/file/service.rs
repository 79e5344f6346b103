use std::collections::HashMap;
use std::mem;
use std::sync::Weak;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use forebay_observability::ErrorChain;
use forebay_tokens::WorkerId;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::super::board::Board;
use super::super::metrics::Metrics;
use super::super::{Instance, Watch};
use super::directory::{Directory, FileError};
use super::keeper::Keeper;
use super::leases::Leases;
use super::reader::Reader;
use crate::names::EndpointId;

/// The most that one look adds to the time in which others are believed to be silent.
const LONGEST_LOOK: Duration = Duration::from_secs(1);
/// How often traces of dead processes are looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// What the service is asked to do.
pub(super) enum Order {
    Register {
        instance: Instance,
        owner: u64,
        registration: Weak<()>,
        done: oneshot::Sender<Result<(), FileError>>,
    },
    Leave {
        key: (EndpointId, WorkerId),
        owner: u64,
        done: oneshot::Sender<Result<(), FileError>>,
    },
    List {
        endpoint: EndpointId,
        done: oneshot::Sender<Result<Vec<Instance>, FileError>>,
    },
    Watch {
        endpoint: EndpointId,
        done: oneshot::Sender<Result<Watch, FileError>>,
    },
}

/// A thread's work: it alone reads and writes the directory for this process.
pub(super) struct Service {
    pub(super) directory: Directory,
    pub(super) poll: Duration,
    pub(super) keeper: Keeper,
    pub(super) leases: Leases,
    pub(super) readers: HashMap<EndpointId, Reader>,
    pub(super) board: Board,
    pub(super) metrics: Metrics,
    /// Tells of each look whether it went well.
    pub(super) looks: watch::Sender<bool>,
    pub(super) clock: Clock,
}

/// Time in which the directory was looked at.
pub(super) struct Clock {
    time: Duration,
    looked: Instant,
    swept: Duration,
    is_well: bool,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self {
            time: Duration::ZERO,
            looked: Instant::now(),
            swept: Duration::ZERO,
            is_well: true,
        }
    }
}

impl Service {
    /// Works until it is cancelled, or nobody can order anything any more; then says goodbye.
    pub(super) fn run(mut self, orders: &Receiver<Order>, cancel: &CancellationToken) {
        let mut next = Instant::now();
        while !cancel.is_cancelled() {
            match orders.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(order) => self.carry_out(order),
                Err(RecvTimeoutError::Timeout) => {
                    next = Instant::now() + self.poll;
                    let outcome = self.look();
                    self.take_stock(outcome);
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let closed = self.keeper.close(Instant::now()).and_then(|read| {
            thread::sleep(read.saturating_duration_since(Instant::now()));
            self.keeper.vanish()
        });
        if let Err(error) = closed {
            warn!(error = %ErrorChain(&error), "no goodbye to the directory of discovery");
        }
    }

    fn carry_out(&mut self, order: Order) {
        // Whoever asked may have gone.
        match order {
            Order::Register {
                instance,
                owner,
                registration,
                done,
            } => {
                let now = Instant::now();
                let _ = done.send(self.keeper.register(now, &instance, owner, registration));
            }
            Order::Leave { key, owner, done } => {
                let _ = done.send(self.keeper.leave(Instant::now(), &key, owner));
            }
            Order::List { endpoint, done } => {
                let _ = done.send(self.list(endpoint));
            }
            Order::Watch { endpoint, done } => {
                let _ = done.send(self.watch(endpoint));
            }
        }
    }

    fn list(&mut self, endpoint: EndpointId) -> Result<Vec<Instance>, FileError> {
        let now = self.clock.time;
        if let Some(reader) = self.readers.get_mut(&endpoint) {
            reader.look(now, true)?;
            return Ok(reader.present(&mut self.leases, now));
        }
        let mut reader = Reader::new(self.directory.clone(), endpoint);
        reader.look(now, true)?;
        Ok(reader.present(&mut self.leases, now))
    }

    fn watch(&mut self, endpoint: EndpointId) -> Result<Watch, FileError> {
        let now = self.clock.time;
        let directory = &self.directory;
        let reader = self
            .readers
            .entry(endpoint.clone())
            .or_insert_with(|| Reader::new(directory.clone(), endpoint.clone()));
        reader.look(now, true)?;
        reader.tell(&mut self.leases, now, &self.board);
        Ok(self.board.watch(&endpoint))
    }

    fn look(&mut self) -> Result<(), FileError> {
        let now = Instant::now();
        self.directory.check()?;
        self.keeper.upkeep(now)?;
        let board = &self.board;
        self.readers.retain(|endpoint, _| !board.forget(endpoint));
        let passed = now.saturating_duration_since(self.clock.looked);
        // After an outage nothing has been seen of the others for a while.
        let passed = match self.clock.is_well {
            true => passed.min(LONGEST_LOOK),
            false => Duration::ZERO,
        };
        self.clock.time += passed;
        let time = self.clock.time;
        for reader in self.readers.values_mut() {
            reader.look(time, false)?;
            reader.tell(&mut self.leases, time, board);
        }
        if time - self.clock.swept >= SWEEP {
            self.clock.swept = time;
            self.leases.tidy(time);
            for reader in self.readers.values() {
                reader.sweep(&mut self.leases, time)?;
            }
            let folders = self.readers.values().filter_map(Reader::folder);
            self.leases.sweep(folders, time)?;
        }
        Ok(())
    }

    /// Says what has become of the directory.
    fn take_stock(&mut self, outcome: Result<(), FileError>) {
        self.clock.looked = Instant::now();
        let was_well = mem::replace(&mut self.clock.is_well, outcome.is_ok());
        match outcome {
            Ok(()) if !was_well => {
                info!("the directory of discovery is back");
                self.metrics.resyncs.inc();
            }
            Err(error) if was_well => {
                warn!(error = %ErrorChain(&error), "the directory of discovery is away");
            }
            Ok(()) | Err(_) => {}
        }
        self.looks.send_replace(self.clock.is_well);
    }
}
