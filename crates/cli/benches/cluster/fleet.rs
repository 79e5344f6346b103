//! A fleet: how long until everyone may be routed to, and what each process takes.

use std::thread;
use std::time::{Duration, Instant};

use forebay_testkit::{Etcd, NatsServer, usage};

use crate::cluster::{Cluster, Requests};
use crate::process::Process;
use crate::table::Table;

const WORKER_PROCESSES: usize = 10;
const WORKERS_EACH: usize = 100;
const FRONTENDS: usize = 10;

/// How long CPU time is taken for.
const TIME: Duration = Duration::from_secs(5);

pub(crate) fn run(repeats: usize) {
    let mut tables = [Table::default(), Table::default()];
    for repeat in 1..=repeats {
        eprintln!("{repeat} of {repeats}");
        let (etcd, nats) = (Etcd::start(), NatsServer::start());
        let services = Cluster::new(Requests::Tcp)
            .with_etcd(&etcd.address())
            .with_events(&nats.url());
        measure(&Cluster::new(Requests::Tcp), &mut tables[0]);
        measure(&services, &mut tables[1]);
    }
    let fleet = "1,000 mockers in 10 processes, 10 frontends";
    let [without, with] = tables;
    without.print_spreads(&format!("{fleet}; no services"));
    println!();
    with.print_spreads(&format!("{fleet}; etcd, and NATS for events"));
}

/// Starts a fleet, measures it and ends it.
fn measure(cluster: &Cluster, table: &mut Table) {
    let worker = || cluster.worker(WORKERS_EACH);
    let until = |frontends: &[Process], processes: usize| {
        for frontend in frontends {
            frontend.until_workers(processes * WORKERS_EACH);
        }
    };

    let mut workers: Vec<_> = (1..WORKER_PROCESSES).map(|_| worker()).collect();
    let began = Instant::now();
    let frontends: Vec<_> = (0..FRONTENDS).map(|_| cluster.frontend()).collect();
    until(&frontends, WORKER_PROCESSES - 1);
    table.put(
        "from the frontends' start until each routes to 900 workers, s",
        "<= 5",
        began.elapsed().as_secs_f64(),
    );
    let began = Instant::now();
    workers.push(worker());
    until(&frontends, WORKER_PROCESSES);
    table.put(
        "from the last worker process' start until each routes to its 100, s",
        "<= 2",
        began.elapsed().as_secs_f64(),
    );

    let cpu = |processes: &[Process]| -> Duration {
        let times = processes.iter().map(|p| usage::cpu_time(p.child.id()));
        times.sum()
    };
    let before = (cpu(&frontends), cpu(&workers));
    thread::sleep(TIME);
    let after = (cpu(&frontends), cpu(&workers));
    let percent = |before: Duration, after: Duration, processes: usize| {
        (after - before).as_secs_f64() / TIME.as_secs_f64() * 100.0 / processes as f64
    };
    table.put(
        "CPU of an idle frontend, % of a core",
        "<= 5",
        percent(before.0, after.0, FRONTENDS),
    );
    table.put(
        "CPU of an idle worker process, % of a core",
        "<= 5",
        percent(before.1, after.1, WORKER_PROCESSES),
    );
    let mean = |processes: &[Process], of: fn(u32) -> f64| {
        let each = processes.iter().map(|process| of(process.child.id()));
        each.sum::<f64>() / processes.len() as f64
    };
    let mib = |process| usage::resident_bytes(process) as f64 / f64::from(1 << 20);
    let descriptors = |process| usage::descriptors(process) as f64;
    table.put("memory of a frontend, MiB", "<= 64", mean(&frontends, mib));
    table.put(
        "memory of a worker process, MiB",
        "<= 64",
        mean(&workers, mib),
    );
    table.put(
        "descriptors of a frontend",
        "by processes, not workers",
        mean(&frontends, descriptors),
    );
    table.put(
        "descriptors of a worker process",
        "by processes, not workers",
        mean(&workers, descriptors),
    );
}
