//! How long until a frontend notices what happens to the others, and what a stream sees of it.
//!
//! There are many workers, and a fault happens to all of them at once: each is noticed by itself, so
//! that every round has as many samples.

mod busy;
mod cut;
mod deaths;
mod index;
mod outages;
mod silence;

use forebay_testkit::NatsServer;

use crate::cluster::Requests;
use crate::table::Table;

/// Workers of a cluster, a process each.
const WORKERS: usize = 20;

pub(crate) fn run(repeats: usize) {
    let nats = NatsServer::start();
    let planes = [Requests::Tcp, Requests::Nats(nats.port())];
    let mut table = Table::default();
    for requests in planes {
        eprintln!("silence, over {}", requests.name());
        silence::measure(requests, repeats, &mut table);
    }
    for requests in planes {
        eprintln!("deaths, over {}", requests.name());
        deaths::measure(requests, repeats, &mut table);
    }
    eprintln!("connections cut");
    cut::measure(repeats, &mut table);
    eprintln!("etcd away");
    outages::etcd(repeats, &mut table);
    eprintln!("NATS away, as event plane");
    outages::nats_events(repeats, &mut table);
    eprintln!("NATS away, as request plane");
    outages::nats_requests(repeats, &mut table);
    eprintln!("events lost");
    index::lossy(repeats, &mut table);
    eprintln!("a busy machine");
    busy::measure(planes, repeats, &mut table);
    table.print_tails("what happens, ms until it is so");
}
