//! How long until a frontend notices what happens to a worker, and what a stream sees of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use forebay_testkit::http::{self, Streaming};
use forebay_testkit::{Direction, FaultProxy};

use crate::process::Process;
use crate::table::Table;

pub(crate) fn run(repeats: usize) {
    let mut table = Table::default();
    for repeat in 1..=repeats {
        eprintln!("{repeat} of {repeats}");
        measure(&mut table);
    }
    table.print("fault, ms");
}

fn measure(table: &mut Table) {
    let directory = tempfile::tempdir().expect("a directory");
    let frontend = Process::frontend(directory.path());
    let proxy = FaultProxy::to_nowhere().expect("a port");
    let worker = Process::worker_behind(directory.path(), &proxy);
    frontend.until_workers(1);

    let (usual, cut) = pauses(frontend.address, || proxy.cut());
    table.put("longest pause between tokens at 6 ms each", usual);
    table.put("the same over a cut connection", cut);

    let mut noticed = |name, fault: &dyn Fn(), mend: &dyn Fn()| {
        let began = Instant::now();
        fault();
        frontend.until_workers(0);
        table.put(name, began.elapsed().as_secs_f64() * 1e3);
        mend();
        frontend.until_workers(1);
    };
    let pass = || proxy.pass();
    noticed(
        "SIGSTOP of a worker until it is out",
        &|| worker.child.stop(),
        &|| worker.child.resume(),
    );
    noticed(
        "silence towards the frontend until the worker is out",
        &|| proxy.stall(Direction::ToClient),
        &pass,
    );
    noticed(
        "silence towards the worker until it is out",
        &|| proxy.stall(Direction::ToTarget),
        &pass,
    );

    // Its port refuses connections then, and the proxy's would not.
    let direct = Process::worker(directory.path(), 1);
    frontend.until_workers(2);
    let began = Instant::now();
    direct.child.kill();
    frontend.until_workers(1);
    table.put(
        "kill -9 of a worker until it is out",
        began.elapsed().as_secs_f64() * 1e3,
    );
}

/// The longest pauses of an undisturbed half of an answer, and of the half that begins with a
/// fault, in milliseconds.
fn pauses(frontend: SocketAddr, fault: impl FnOnce()) -> (f64, f64) {
    let body = r#"{"model": "mocker", "prompt": "ba", "max_tokens": 200, "stream": true}"#;
    let mut answer = http::stream(frontend, "/v1/completions", body).expect("an answer");
    // What comes before the first token is no pause.
    token(&mut answer);
    let usual = longest_pause(&mut answer, 90);
    fault();
    (usual, longest_pause(&mut answer, 90))
}

fn longest_pause(answer: &mut Streaming, tokens: usize) -> f64 {
    let mut longest = Duration::ZERO;
    for _ in 0..tokens {
        let began = Instant::now();
        token(answer);
        longest = longest.max(began.elapsed());
    }
    longest.as_secs_f64() * 1e3
}

fn token(answer: &mut Streaming) {
    let event = answer.event().expect("it goes on").expect("there is more");
    assert!(event.contains(r#""choices""#), "{event}");
}
