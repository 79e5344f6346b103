//! Services that are killed and come back.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use forebay_testkit::{Etcd, NatsServer, http};

use super::index;
use crate::cluster::{Cluster, Requests};
use crate::process::{PATIENCE, each};
use crate::streams::{End, Streams, request};
use crate::table::Table;

/// How long a service is away.
const AWAY: Duration = Duration::from_secs(3);

/// How soon all is as before, since a service takes writes again.
const GOAL: &str = "<= 1,000";

/// Streams that run through an absence.
const STREAMS: usize = 20;

pub(super) fn etcd(repeats: usize, table: &mut Table) {
    let mut etcd = Etcd::start();
    let address = etcd.address();
    let cluster = Cluster::new(Requests::Tcp).with_etcd(&address);
    let _workers = cluster.workers(4);
    let frontends = [cluster.frontend(), cluster.frontend()];
    frontends.iter().for_each(|each| each.until_workers(4));
    let address = address.parse().expect("an address of this machine");
    for _ in 0..repeats {
        etcd.kill();
        let new = cluster.worker_that_waits();
        thread::sleep(AWAY);
        let back = comes_back(|| put(address), || etcd.restart());
        let name = "etcd back: a frontend routes to a worker that started meanwhile";
        let times = each(back, &frontends, |frontend| frontend.workers() == 5);
        table.extend(name, GOAL, times);
        new.kill();
        frontends.iter().for_each(|each| each.until_workers(4));
    }
}

pub(super) fn nats_events(repeats: usize, table: &mut Table) {
    let mut nats = NatsServer::start();
    let cluster = Cluster::new(Requests::Tcp).with_events(&nats.url());
    let workers = cluster.workers(4);
    let frontends = [cluster.frontend(), cluster.frontend()];
    frontends.iter().for_each(|each| each.until_workers(4));
    let address = SocketAddr::from(([127, 0, 0, 1], nats.port()));
    let traffic = || {
        for seen in Streams::open(frontends[0].address, STREAMS, 60).ends() {
            assert_eq!(seen.end, End::Complete);
        }
    };
    for _ in 0..repeats {
        // Everyone follows, so that there is something to lose.
        traffic();
        let truth = index::truth(&workers);
        for frontend in &frontends {
            frontend.until(|| index::is_exact(frontend, truth));
        }
        nats.kill();
        traffic();
        thread::sleep(AWAY);
        let truth = index::truth(&workers);
        let exact = frontends.iter().any(|each| index::is_exact(each, truth));
        assert!(!exact, "events are lost");
        let back = comes_back(|| ping(address), || nats.restart());
        let name = "NATS back: a frontend's index is what the workers hold";
        let times = each(back, &frontends, |frontend| {
            index::is_exact(frontend, truth)
        });
        table.extend(name, GOAL, times);
    }
}

pub(super) fn nats_requests(repeats: usize, table: &mut Table) {
    let mut nats = NatsServer::start();
    let address = SocketAddr::from(([127, 0, 0, 1], nats.port()));
    let cluster = Cluster::new(Requests::Nats(nats.port()));
    let _workers = cluster.workers(4);
    let frontend = cluster.patient_frontend();
    frontend.until_workers(4);
    for _ in 0..repeats {
        let streams = Streams::open(frontend.address, STREAMS, 1000);
        nats.kill();
        thread::sleep(AWAY);
        let (back, answered) = thread::scope(|scope| {
            let ask = || http::post(frontend.address, "/v1/completions", &request(1));
            let waiting = scope.spawn(move || (ask(), Instant::now()));
            let back = comes_back(|| ping(address), || nats.restart());
            let (answer, at) = waiting.join().expect("a client panics at nothing");
            assert_eq!(answer.expect("it is answered").status, 200);
            (back, at)
        });
        let name = "NATS back: a request that waited for it is answered";
        let waited = answered.saturating_duration_since(back);
        table.put(name, GOAL, waited.as_secs_f64() * 1e3);
        for seen in streams.ends() {
            assert_eq!(seen.end, End::Complete);
            let on = seen.goes_on_after(back).expect("it was not over before");
            table.put("NATS back: a stream in flight goes on", GOAL, on);
        }
    }
}

/// Starts a service, and tells when the first write from outside succeeded.
fn comes_back(write: impl Fn() -> io::Result<()> + Sync, restart: impl FnOnce()) -> Instant {
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let deadline = Instant::now() + PATIENCE;
            while write().is_err() {
                assert!(Instant::now() < deadline, "it does not come back");
                thread::sleep(Duration::from_millis(2));
            }
            Instant::now()
        });
        restart();
        writer.join().expect("it comes back")
    })
}

/// Writes a key, by etcd's gateway for JSON.
fn put(etcd: SocketAddr) -> io::Result<()> {
    // Base 64 of "bench" and of nothing.
    let answer = http::post(etcd, "/v3/kv/put", r#"{"key": "YmVuY2g=", "value": ""}"#)?;
    match answer.status {
        200 => Ok(()),
        _ => Err(io::Error::other(answer.body)),
    }
}

/// Publishes a message, and waits until the server has taken it.
fn ping(nats: SocketAddr) -> io::Result<()> {
    let mut socket = TcpStream::connect(nats)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.write_all(b"CONNECT {\"verbose\":false}\r\nPUB bench 0\r\n\r\nPING\r\n")?;
    let mut lines = BufReader::new(socket).lines();
    match lines.any(|line| line.is_ok_and(|line| line == "PONG")) {
        true => Ok(()),
        false => Err(io::ErrorKind::ConnectionReset.into()),
    }
}
