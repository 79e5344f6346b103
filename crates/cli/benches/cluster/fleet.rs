//! A fleet: how long until everyone may be routed to, and what each process takes.

use std::thread;
use std::time::{Duration, Instant};

use forebay_testkit::usage;

use crate::process::Process;
use crate::table::Table;

const WORKER_PROCESSES: usize = 10;
const WORKERS_EACH: usize = 100;
const FRONTENDS: usize = 10;

/// How long CPU time is taken for.
const TIME: Duration = Duration::from_secs(5);

pub(crate) fn run(repeats: usize) {
    let mut table = Table::default();
    for repeat in 1..=repeats {
        eprintln!("{repeat} of {repeats}");
        measure(&mut table);
    }
    table.print("1,000 mockers in 10 processes, 10 frontends");
}

/// Starts a fleet, measures it and ends it.
fn measure(table: &mut Table) {
    let directory = tempfile::tempdir().expect("a directory");
    let worker = || Process::worker(directory.path(), WORKERS_EACH);
    let frontend = |_| Process::frontend(directory.path());
    let until = |frontends: &[Process], processes: usize| {
        for frontend in frontends {
            frontend.until_workers(processes * WORKERS_EACH);
        }
    };

    let mut workers: Vec<_> = (1..WORKER_PROCESSES).map(|_| worker()).collect();
    let began = Instant::now();
    let frontends: Vec<_> = (0..FRONTENDS).map(frontend).collect();
    until(&frontends, WORKER_PROCESSES - 1);
    table.put(
        "from the frontends' start until each routes to 900 workers, s",
        began.elapsed().as_secs_f64(),
    );
    let began = Instant::now();
    workers.push(worker());
    until(&frontends, WORKER_PROCESSES);
    table.put(
        "from the last worker process' start until each routes to its 100, s",
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
        percent(before.0, after.0, FRONTENDS),
    );
    table.put(
        "CPU of an idle worker process, % of a core",
        percent(before.1, after.1, WORKER_PROCESSES),
    );
    let mean = |processes: &[Process], of: fn(u32) -> f64| {
        let each = processes.iter().map(|process| of(process.child.id()));
        each.sum::<f64>() / processes.len() as f64
    };
    let mib = |process| usage::resident_bytes(process) as f64 / f64::from(1 << 20);
    let descriptors = |process| usage::descriptors(process) as f64;
    table.put("memory of a frontend, MiB", mean(&frontends, mib));
    table.put("memory of a worker process, MiB", mean(&workers, mib));
    table.put("descriptors of a frontend", mean(&frontends, descriptors));
    table.put(
        "descriptors of a worker process",
        mean(&workers, descriptors),
    );
}
