//! The measurements.

use std::process;
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_testkit::{Child, usage};
use futures::future::join_all;
use futures::stream::{BoxStream, StreamExt as _, select_all};

use crate::answers;
use crate::carriers::{Carrier, Connected, Kind, ROWS, connect};

/// How long round trips are measured.
const TIME: Duration = Duration::from_secs(2);

/// Requests at a time, where their cost is measured.
const CONCURRENCY: usize = 64;

/// Streams of tokens, and tokens of each.
const TOKEN_STREAMS: usize = 64;
const TOKENS: u32 = 2000;

/// Streams that only are there.
const IDLE_STREAMS: usize = 10_000;

/// What both sides used, the server's in the second place; where there is one process, all of it
/// is in the first.
#[derive(Clone, Copy)]
struct Sides(f64, Option<f64>);

/// What a line begins with that tells a number.
pub(crate) const MEASURED: &str = "measured ";

/// Measures a row, in a process that has done nothing else: each number is a line of the column and
/// what each side used.
pub(crate) async fn run(name: &str) {
    let row = ROWS.iter().find(|row| row.name == name);
    let row = row.expect("there is such a row");
    let connected = connect(row).await;
    let put = |column: usize, sides: Sides| match sides.1 {
        Some(server) => println!("{MEASURED}{column} {} {server}", sides.0),
        None => println!("{MEASURED}{column} {}", sides.0),
    };
    if row.kind == Kind::Streams {
        // First, for memory that was in use before is there to be used again.
        let idle = idle(&connected).await;
        put(3, idle.descriptors);
        put(4, idle.bytes);
        put(2, token_cpu(&connected).await);
    }
    put(0, Sides(latency(&*connected.carrier).await, None));
    put(1, request_cpu(&connected).await);
}

/// The median of round trips one after the other, in microseconds.
async fn latency(carrier: &dyn Carrier) -> f64 {
    let mut times = Vec::new();
    let began = Instant::now();
    while began.elapsed() < TIME {
        let sent = Instant::now();
        round_trip(carrier).await;
        times.push(sent.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

async fn round_trip(carrier: &dyn Carrier) {
    let mut answer = carrier.open(answers::echo());
    assert_eq!(answer.next().await, Some(answers::echo()));
    assert_eq!(answer.next().await, None);
}

/// CPU time per request, in microseconds, with many at a time.
async fn request_cpu(connected: &Connected) -> Sides {
    let before = cpu(connected.server.as_ref());
    let began = Instant::now();
    let client = async || {
        let mut count = 0_usize;
        while began.elapsed() < TIME {
            round_trip(&*connected.carrier).await;
            count += 1;
        }
        count
    };
    let counts = join_all((0..CONCURRENCY).map(|_| client())).await;
    let requests = counts.iter().sum::<usize>();
    per(before, cpu(connected.server.as_ref()), requests)
}

/// CPU time per token, in microseconds, where an engine has one for each stream at a time.
async fn token_cpu(connected: &Connected) -> Sides {
    let mut streams: Vec<_> = (0..TOKEN_STREAMS)
        .map(|_| connected.carrier.open(answers::tokens(TOKENS)))
        .collect();
    // The streams are open, and what opening costs is over.
    for stream in &mut streams {
        assert!(stream.next().await.is_some());
    }
    let before = cpu(connected.server.as_ref());
    let counts = join_all(streams.into_iter().map(|stream| stream.count())).await;
    let tokens = counts.iter().sum::<usize>();
    assert_eq!(
        tokens,
        TOKEN_STREAMS * (TOKENS as usize - 1),
        "a token is lost"
    );
    per(before, cpu(connected.server.as_ref()), tokens)
}

/// Descriptors with many streams open, and memory of each in bytes.
struct Idle {
    descriptors: Sides,
    bytes: Sides,
}

/// What streams cost that only are there.
async fn idle(connected: &Connected) -> Idle {
    let server = connected.server.as_ref();
    round_trip(&*connected.carrier).await;
    let before = resident(server);
    let open = |_| connected.carrier.open(answers::idle());
    let streams: Vec<BoxStream<'static, Bytes>> = (0..IDLE_STREAMS).map(open).collect();
    // Every one of them has said that it is open.
    let mut streams = select_all(streams);
    for _ in 0..IDLE_STREAMS {
        assert!(streams.next().await.is_some());
    }
    let after = resident(server);
    let each = |before: u64, after: u64| after.saturating_sub(before) as f64 / IDLE_STREAMS as f64;
    let idle = Idle {
        descriptors: Sides(
            usage::descriptors(process::id()) as f64,
            server.map(|server| usage::descriptors(server.id()) as f64),
        ),
        bytes: Sides(
            each(before.0, after.0),
            server.map(|_| each(before.1, after.1)),
        ),
    };
    drop(streams);
    idle
}

fn cpu(server: Option<&Child>) -> (Duration, Duration) {
    let of_server = server.map(|server| usage::cpu_time(server.id()));
    (
        usage::cpu_time(process::id()),
        of_server.unwrap_or_default(),
    )
}

fn resident(server: Option<&Child>) -> (u64, u64) {
    let of_server = server.map(|server| usage::resident_bytes(server.id()));
    (
        usage::resident_bytes(process::id()),
        of_server.unwrap_or_default(),
    )
}

fn per(before: (Duration, Duration), after: (Duration, Duration), count: usize) -> Sides {
    let each = |time: Duration| time.as_secs_f64() * 1e6 / count as f64;
    let server = after.1 - before.1;
    Sides(
        each(after.0 - before.0),
        (server > Duration::ZERO).then(|| each(server)),
    )
}
