use std::collections::BTreeMap;
use std::iter;
use std::mem;
use std::sync::{Arc, Weak};
use std::time::Duration;

use forebay_mux::view::Lease;
use forebay_observability::ErrorChain;
use forebay_protocols::discovery::InstanceRecord;
use forebay_tokens::WorkerId;
use prost::Message as _;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::super::metrics::Metrics;
use super::super::{Instance, record};
use super::access::{Access, EtcdError};
use super::availability::{Availability, Away};
use super::back_off::BackOff;
use super::seen::Seen;
use super::{ROOT, fraction, key};
use crate::names::EndpointId;

/// How long the goodbye of a process that ends may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// Whom to tell how an order was carried out.
pub(super) type Told = oneshot::Sender<Result<(), EtcdError>>;

/// What the keeper is asked to do.
pub(super) enum Order {
    Register {
        instance: Instance,
        owner: u64,
        registration: Weak<()>,
        done: Told,
    },
    Leave {
        key: (EndpointId, WorkerId),
        owner: u64,
        done: Told,
    },
}

/// Keeps this process's instances in etcd, all by one lease.
pub(super) struct Keeper {
    access: Access,
    availability: Availability,
    metrics: Metrics,
    ttl: Duration,
    start: Instant,
    lease: Option<(i64, Lease)>,
    /// Where etcd was when the lease was granted or renewed, and up to where it had records of ours.
    seen: Option<Seen>,
    kept: BTreeMap<(EndpointId, WorkerId), Kept>,
    back_off: BackOff,
    away: Option<Away>,
}

struct Kept {
    record: InstanceRecord,
    /// What etcd has in its place until it is put: it stays where etcd refuses this one.
    before: Option<Box<Kept>>,
    /// Gone when the registration was dropped.
    registration: Weak<()>,
    state: State,
}

enum State {
    /// It is to be put, by the lease of now.
    ToPut(Option<Told>),
    Put,
    /// It is to say goodbye and go.
    ToLeave(Option<Told>),
}

impl Keeper {
    /// Keeps nothing yet.
    pub(super) fn new(
        access: Access,
        availability: Availability,
        metrics: Metrics,
        ttl: Duration,
    ) -> Self {
        Self {
            access,
            availability,
            metrics,
            ttl,
            start: Instant::now(),
            lease: None,
            seen: None,
            kept: BTreeMap::new(),
            back_off: BackOff::new(),
            away: None,
        }
    }

    /// Does what is ordered until it is cancelled, and then says goodbye for everyone. `dropped`
    /// says that a registration was dropped.
    pub(super) async fn run(
        mut self,
        mut orders: mpsc::Receiver<Order>,
        dropped: Arc<Notify>,
        cancel: CancellationToken,
    ) {
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                () = self.work() => {}
            }
            let due = self.lease.map(|(_, lease)| self.start + lease.renew_at());
            let is_due = sleep_until(due.unwrap_or(self.start));
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                order = orders.recv() => match order {
                    Some(order) => self.take(order),
                    None => break,
                },
                () = dropped.notified() => {}
                () = is_due, if due.is_some() => {}
            }
        }
        for kept in self.kept.values_mut() {
            kept.leave(None);
        }
        // What is left then goes with the lease.
        if timeout(GOODBYE, self.end()).await.is_err() {
            warn!("no goodbye to etcd: it does not answer");
        }
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Register {
                instance,
                owner,
                registration,
                done,
            } => {
                let record = record::record(&instance, owner, 0);
                let key = (instance.endpoint, instance.worker);
                // It is put, for no order is taken before all that is kept is.
                let before = self.kept.remove(&key).map(Box::new);
                let kept = Kept {
                    record,
                    before,
                    registration,
                    state: State::ToPut(Some(done)),
                };
                self.kept.insert(key, kept);
            }
            Order::Leave { key, owner, done } => match self.kept.get_mut(&key) {
                Some(kept) if kept.record.owner == owner => kept.leave(Some(done)),
                // Another registration has replaced it.
                _ => tell(Some(done), Ok(())),
            },
        }
    }

    /// Tries until everything is as it should be. May be dropped at any await.
    async fn work(&mut self) {
        loop {
            match self.attempt().await {
                Ok(()) => {
                    self.back_off = BackOff::new();
                    self.away = None;
                    // What was refused may have left another one to put or to take away.
                    if self.kept.values().all(Kept::is_as_it_should_be) {
                        return;
                    }
                }
                Err(EtcdError::LeaseEnded) => {
                    self.lose();
                    sleep(Lease::spread(self.ttl, fraction())).await;
                }
                Err(error) => {
                    if self.away.is_none() {
                        self.away = Some(self.availability.away(&error));
                    }
                    sleep(self.back_off.wait()).await;
                }
            }
        }
    }

    async fn attempt(&mut self) -> Result<(), EtcdError> {
        for kept in self.kept.values_mut() {
            if kept.registration.strong_count() == 0 {
                kept.leave(None);
            }
        }
        if self.kept.is_empty() {
            // It ends by itself.
            self.lease = None;
            return Ok(());
        }
        let lease = self.lease().await?;
        let (mut left, mut refused) = (Vec::new(), None);
        for ((endpoint, worker), kept) in &mut self.kept {
            let key = key(endpoint, *worker);
            match &mut kept.state {
                State::Put => {}
                State::ToPut(done) => {
                    let value = kept.record.encode_to_vec();
                    let now = match self.access.put(&key, &value, lease).await {
                        Ok(now) => now,
                        // No reason to keep the others waiting.
                        Err(error @ EtcdError::Refused(_)) => {
                            match done.take() {
                                Some(told) => {
                                    tell(Some(told), Err(error));
                                    match kept.before.take() {
                                        Some(before) => *kept = *before,
                                        None => left.push((endpoint.clone(), *worker)),
                                    }
                                }
                                None => refused = Some(error),
                            }
                            continue;
                        }
                        Err(error) => return Err(error),
                    };
                    self.seen = Some(self.seen.map_or(now, |seen| seen.with(now)));
                    tell(done.take(), Ok(()));
                    kept.state = State::Put;
                    kept.before = None;
                }
                State::ToLeave(done) => {
                    // Whichever of them etcd has.
                    let before = kept.before.iter().map(|before| &before.record);
                    for record in iter::once(&kept.record).chain(before) {
                        let old = record.encode_to_vec();
                        let leaving = InstanceRecord {
                            leaving: true,
                            ..record.clone()
                        };
                        self.access
                            .retire(&key, &old, &leaving.encode_to_vec())
                            .await?;
                    }
                    tell(done.take(), Ok(()));
                    left.push((endpoint.clone(), *worker));
                }
            }
        }
        for key in left {
            self.kept.remove(&key);
        }
        refused.map_or(Ok(()), Err)
    }

    /// A lease that has just been renewed, if it was time to.
    async fn lease(&mut self) -> Result<i64, EtcdError> {
        let now = self.start.elapsed();
        let Some((id, mut lease)) = self.lease else {
            let (id, ttl) = self.access.grant(self.ttl).await?;
            self.seen = Some(self.access.probe(ROOT).await?);
            self.lease = Some((id, Lease::granted(now, ttl)));
            return Ok(id);
        };
        if lease.is_lost(now) {
            return Err(EtcdError::LeaseEnded);
        }
        if now >= lease.renew_at() {
            let ttl = lease.ttl();
            lease.ask(now);
            self.access.renew(id).await?;
            lease.answer(ttl);
            self.lease = Some((id, lease));
            self.metrics.renewals.inc();
            self.look_back().await?;
            self.repair(id).await?;
        }
        Ok(id)
    }

    /// After a restart etcd may have older data, where the lease is but not every record: then all
    /// are put again.
    async fn look_back(&mut self) -> Result<(), EtcdError> {
        let now = self.access.probe(ROOT).await?;
        let before = self.seen.replace(now);
        if before.is_some_and(|before| !before.goes_on_at(&now)) {
            self.put_again();
        }
        Ok(())
    }

    /// Has records that were taken away put again, and lets go of those that another process has
    /// replaced.
    async fn repair(&mut self, lease: i64) -> Result<(), EtcdError> {
        let there = self.access.keys_of(lease).await?;
        let mut replaced = Vec::new();
        for ((endpoint, worker), kept) in &mut self.kept {
            let key = key(endpoint, *worker);
            if !matches!(kept.state, State::Put) || there.contains(key.as_bytes()) {
                continue;
            }
            let found = self.access.get(&key).await?;
            let found = found.and_then(|value| record::read(&value, endpoint, *worker).ok());
            match found {
                Some(found) if found.owner == kept.record.owner => {}
                Some(_) => replaced.push((endpoint.clone(), *worker)),
                None => kept.state = State::ToPut(None),
            }
        }
        for key in replaced {
            warn!(endpoint = %key.0, worker = key.1.0, "another process is this worker now");
            self.kept.remove(&key);
        }
        Ok(())
    }

    /// Everything is to be put again, by a new lease.
    fn lose(&mut self) {
        warn!("the lease with etcd has ended; its instances are registered again");
        self.metrics.losses.inc();
        self.lease = None;
        self.put_again();
    }

    fn put_again(&mut self) {
        for kept in self.kept.values_mut() {
            kept.put_again();
        }
    }

    async fn end(&mut self) {
        self.work().await;
        if let Some((id, _)) = self.lease.take()
            && let Err(error) = self.access.revoke(id).await
        {
            warn!(error = %ErrorChain(&error), "the lease with etcd is not given back");
        }
    }
}

impl Kept {
    fn is_as_it_should_be(&self) -> bool {
        matches!(self.state, State::Put) && self.registration.strong_count() > 0
    }

    fn put_again(&mut self) {
        if matches!(self.state, State::Put) {
            self.state = State::ToPut(None);
        }
        if let Some(before) = &mut self.before {
            before.put_again();
        }
    }

    /// It is to go; `done` is told when it has.
    fn leave(&mut self, done: Option<Told>) {
        match &mut self.state {
            State::ToLeave(waiting) => {
                if done.is_some() {
                    *waiting = done;
                }
            }
            state => drop(mem::replace(state, State::ToLeave(done))),
        }
    }
}

/// Whoever waits may have gone.
fn tell(told: Option<Told>, how: Result<(), EtcdError>) {
    if let Some(told) = told {
        let _ = told.send(how);
    }
}
