use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forebay_runtime::{TaskHandle, TaskKind, Tasks};
use tokio::sync::{Semaphore, mpsc};

use crate::Error;
use crate::request::Prepared;
use crate::samples::Samples;
use crate::session::{Endpoint, Session};

/// When a phase stops sending; both may be set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) requests: Option<u64>,
    pub(crate) duration: Option<Duration>,
}

impl Limits {
    /// How long after its duration an open loop may still send what was due within it.
    const OVERRUN: Duration = Duration::from_secs(1);

    fn allow(&self, sent: u64, now: Duration) -> bool {
        self.requests.is_none_or(|requests| sent < requests)
            && self.duration.is_none_or(|duration| now < duration)
    }

    /// How long what was due can still be sent.
    fn left(&self, now: Duration) -> Duration {
        self.duration.map_or(Duration::MAX, |duration| {
            (duration + Self::OVERRUN).saturating_sub(now)
        })
    }
}

/// Writes the request of a number.
pub(crate) type Write = fn(&Endpoint, u64, &mut Prepared);

/// Keeps `concurrency` requests under way and returns when the last one has ended.
pub(crate) async fn closed_loop(
    session: &Arc<Session>,
    concurrency: usize,
    limits: Limits,
    write: Write,
    tasks: &Tasks,
) {
    let next = Arc::new(AtomicU64::new(0));
    let lane = |_| {
        let (session, next) = (session.clone(), next.clone());
        tasks.spawn(TaskKind::Request, "bench lane", async move {
            let mut prepared = Prepared::default();
            while !session.cancel.is_cancelled() {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if !limits.allow(number, session.clock.now()) {
                    break;
                }
                write(&session.endpoint, number, &mut prepared);
                if !session.send(number, None, &prepared).await {
                    // A server that is not there is not asked a hundred thousand times a second.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        })
    };
    let lanes: Vec<TaskHandle> = (0..concurrency).map(lane).collect();
    for mut lane in lanes {
        lane.ended().await;
    }
}

/// A request whose time has come.
struct Due {
    number: u64,
    scheduled: Duration,
    prepared: Prepared,
}

/// Sends each request when it is due, whatever the server does, over at most `max_connections`
/// connections, and returns when the last one has ended. What cannot be sent in time is counted.
pub(crate) async fn open_loop(
    session: &Arc<Session>,
    due_times: Box<dyn Iterator<Item = Duration> + Send>,
    max_connections: usize,
    limits: Limits,
    tasks: &Tasks,
) -> Result<(), Error> {
    // What is due and not taken yet; beyond that, the pacer itself falls behind.
    const DUE: usize = 1024;
    let (sender, mut due) = mpsc::channel(DUE);
    let pacing = session.clone();
    // A thread of its own: a runtime's timer knows only whole milliseconds.
    tasks
        .spawn_thread(TaskKind::Background, "bench pacer", move |_| {
            pace(&pacing, due_times, limits, &sender);
        })
        .map_err(Error::Thread)?;
    let connections = u32::try_from(max_connections).unwrap_or(u32::MAX);
    let free = Arc::new(Semaphore::new(max_connections));
    while let Some(Some(due)) = session.cancel.run_until_cancelled(due.recv()).await {
        let left = limits.left(session.clock.now());
        let permit = tokio::time::timeout(left, free.clone().acquire_owned());
        let Some(permit) = session.cancel.run_until_cancelled(permit).await else {
            break;
        };
        let permit = match permit {
            // One that is free too late is no use.
            Ok(permit) if !limits.left(session.clock.now()).is_zero() => permit,
            _ => {
                session.count_unsent(1);
                continue;
            }
        };
        let session = session.clone();
        tasks.spawn(TaskKind::Request, "bench request", async move {
            let _permit = permit;
            session
                .send(due.number, Some(due.scheduled), &due.prepared)
                .await;
        });
    }
    // All of them are back when the last request has ended.
    let _ = free.acquire_many(connections).await;
    Ok(())
}

/// Writes each request ahead of its time, sleeps until it is due, and hands it over; counts what
/// is left when the time is over.
fn pace(
    session: &Session,
    due_times: Box<dyn Iterator<Item = Duration> + Send>,
    limits: Limits,
    sender: &mpsc::Sender<Due>,
) {
    // How soon a cancel is seen.
    const LONGEST_SLEEP: Duration = Duration::from_millis(50);
    let mut requests = (0..)
        .zip(due_times)
        .take_while(|&(number, scheduled)| limits.allow(number, scheduled));
    while let Some((number, scheduled)) = requests.next() {
        if limits.left(session.clock.now()).is_zero() {
            let left = requests.take_while(|_| !session.cancel.is_cancelled());
            session.count_unsent(1 + left.count() as u64);
            return;
        }
        let mut prepared = Prepared::default();
        session.endpoint.write(number, &mut prepared);
        loop {
            if session.cancel.is_cancelled() {
                return;
            }
            let left = scheduled.saturating_sub(session.clock.now());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(LONGEST_SLEEP));
        }
        let due = Due {
            number,
            scheduled,
            prepared,
        };
        if sender.blocking_send(due).is_err() {
            return;
        }
    }
}

/// Measures how late this runtime's timer is, until it is cancelled: so late it may see what
/// arrives. The timer's own resolution, a millisecond, is in it.
pub(crate) async fn watch_timer(lag: &mut Samples) {
    const EVERY: Duration = Duration::from_millis(20);
    let mut due = tokio::time::Instant::now();
    loop {
        due += EVERY;
        tokio::time::sleep_until(due).await;
        let now = tokio::time::Instant::now();
        lag.record(now.saturating_duration_since(due));
        due = now;
    }
}
