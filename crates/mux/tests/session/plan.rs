//! What two ends do, and under which limits.

use bytes::Bytes;
use forebay_mux::session::{Config, Mode};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// How a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Both halves do, when all is sent.
    Finish,
    /// The server fails it when all of its own is sent.
    ServerFails,
    /// The client resets it, with so many of its messages handed over.
    ClientResets(usize),
    /// The server does.
    ServerResets(usize),
    /// The client stops it, with so many of its messages handed over; the server finishes then, and
    /// not before.
    ClientStops(usize),
}

/// Lengths of a stream's messages, and its end.
#[derive(Debug, Clone)]
pub(crate) struct StreamPlan {
    pub(crate) up: Vec<usize>,
    pub(crate) down: Vec<usize>,
    pub(crate) ending: Ending,
}

/// All of a run; the same plan runs the same.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) client: Config,
    pub(crate) server: Config,
    pub(crate) streams: Vec<StreamPlan>,
    /// Bytes on their way in one direction, at which nothing more is sent.
    pub(crate) pipe_bytes: usize,
    /// Cuts of the connection, at most.
    pub(crate) cuts: u32,
    /// Packets lost or repeated, at most.
    pub(crate) mishaps: u32,
    /// Of the order of all that happens.
    pub(crate) seed: u64,
}

/// Message `n` of a stream, in one direction: as long as it is planned, and like no other.
pub(crate) fn message(stream: usize, up: bool, n: usize, length: usize) -> Bytes {
    let seed = stream * 7919 + n * 104_729 + usize::from(up) * 31;
    (0..length).map(|at| (seed + at * (at + 3)) as u8).collect()
}

fn config(mode: Mode) -> impl Strategy<Value = Config> {
    (
        select(vec![256, 300, 1000, 4096, 65_536, 400_000]),
        select(vec![7, 100, 1000, 16_384, 65_535]),
        select(vec![128 << 10, 4 << 20]),
    )
        .prop_map(
            move |(window_bytes, chunk_bytes, max_unacknowledged_bytes)| Config {
                mode,
                window_bytes,
                chunk_bytes,
                max_unacknowledged_bytes,
                max_streams: 64,
                silence: std::time::Duration::from_secs(1 << 30),
                grace: std::time::Duration::from_secs(1 << 30),
                ..Config::default()
            },
        )
}

fn stream() -> impl Strategy<Value = StreamPlan> {
    let length = || {
        prop_oneof![
            6 => 0..100_usize,
            3 => 0..3000_usize,
            1 => 0..200_000_usize,
        ]
    };
    let ending = prop_oneof![
        3 => Just(Ending::Finish),
        1 => Just(Ending::ServerFails),
        1 => (0..6_usize).prop_map(Ending::ClientResets),
        1 => (0..6_usize).prop_map(Ending::ServerResets),
        1 => (0..6_usize).prop_map(Ending::ClientStops),
    ];
    (vec(length(), 0..6), vec(length(), 0..12), ending).prop_map(|(up, down, ending)| StreamPlan {
        up,
        down,
        ending,
    })
}

/// Plans over one kind of link.
pub(crate) fn plan(mode: Mode) -> impl Strategy<Value = Plan> {
    (
        config(mode),
        config(mode),
        vec(stream(), 1..12),
        select(vec![1, 500, 65_536, 1 << 20]),
        0..6_u32,
        0..30_u32,
        any::<u64>(),
    )
        .prop_map(
            |(client, server, streams, pipe_bytes, cuts, mishaps, seed)| Plan {
                client,
                server,
                streams,
                pipe_bytes,
                cuts,
                mishaps,
                seed,
            },
        )
}
