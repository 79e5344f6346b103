use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use forebay_testkit::{Child, http};

/// Long enough for anything that is going to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The workers that a frontend routes to.
const READY: &str = r#"forebay_frontend_workers{model="mocker",state="ready"}"#;

/// A worker process or a frontend.
pub(crate) struct Process {
    pub(crate) child: Child,
    /// Its HTTP surface.
    pub(crate) address: SocketAddr,
}

impl Process {
    /// A component, whose surface is the first HTTP address of its banner.
    pub(crate) fn of(child: Child) -> Self {
        let address = child.wait_line(PATIENCE, |line| {
            let (_, url) = line.split_once("http://")?;
            url.split(' ').next()?.parse().ok()
        });
        Self { child, address }
    }

    /// The sum of all series whose name, with its labels, begins so.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let metrics = http::get(self.address, "/metrics").expect("it answers");
        let series = metrics.body.lines().filter(|line| line.starts_with(name));
        let values = series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        values.sum()
    }

    /// How many workers a frontend routes to.
    pub(crate) fn workers(&self) -> usize {
        self.metric(READY) as usize
    }

    /// Waits until a frontend routes to so many workers.
    pub(crate) fn until_workers(&self, count: usize) {
        self.until(|| self.workers() == count);
    }

    /// Waits until none of so many workers is routed to any more: for each, when it was not, in
    /// milliseconds since `began`.
    pub(crate) fn losses(&self, began: Instant, mut left: usize) -> Vec<f64> {
        let mut times = Vec::new();
        self.until(|| {
            let now = self.workers();
            let elapsed = milliseconds(began);
            times.extend((now..left).map(|_| elapsed));
            left = left.min(now);
            left == 0
        });
        times
    }

    /// Waits until something holds.
    pub(crate) fn until(&self, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < deadline, "{:?} waits in vain", self.child);
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Waits until something holds for each process: when it did, in milliseconds since `began`.
pub(crate) fn each(
    began: Instant,
    processes: &[Process],
    holds: impl Fn(&Process) -> bool,
) -> Vec<f64> {
    let mut left: Vec<_> = processes.iter().collect();
    let mut times = Vec::new();
    processes[0].until(|| {
        left.retain(|process| {
            let holds = holds(process);
            times.extend(holds.then(|| milliseconds(began)));
            !holds
        });
        left.is_empty()
    });
    times
}

/// Since `began`.
pub(crate) fn milliseconds(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}
