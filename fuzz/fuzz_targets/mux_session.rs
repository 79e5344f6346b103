//! One end of a session whose peer sends any bytes, while the program at this end goes on with its
//! streams: nothing panics, and what is held is bounded by what came.

#![no_main]

use std::time::Duration;

use bytes::Bytes;
use forebay_mux::session::{
    CHUNK_COST, Config, Event, Hello, Incarnation, Mode, Packet, Session, SessionId, StreamId,
};
use libfuzzer_sys::fuzz_target;

const MAX_STREAMS: u32 = 8;
const WINDOW_BYTES: u32 = 1024;

/// An end with a connection, as the first byte says.
fn session(what: u8) -> Session {
    let mode = if what & 1 == 0 {
        Mode::Bytes
    } else {
        Mode::Packets
    };
    let config = Config {
        mode,
        window_bytes: WINDOW_BYTES,
        max_streams: MAX_STREAMS,
        ..Config::default()
    };
    let id = SessionId(1);
    let mut client = Session::client(config.clone(), id, Incarnation(1));
    let mut server = Session::server(config, id, Incarnation(2));
    // Each says to the other that it takes anything, if the first byte says so.
    let boast = |mut hello: Hello| {
        if what & 4 != 0 {
            hello.window_bytes = u32::MAX;
        }
        hello
    };
    let attached = server.attach(Duration::ZERO, &boast(client.hello()));
    attached.expect("they fit together");
    let attached = client.attach(Duration::ZERO, &boast(server.hello()));
    attached.expect("they fit together");
    if what & 2 == 0 { client } else { server }
}

fuzz_target!(|data: &[u8]| {
    let Some((&what, mut data)) = data.split_first() else {
        return;
    };
    let is_packets = what & 1 != 0;
    let mut session = session(what);
    let mut now = Duration::ZERO;
    let mut ids: Vec<StreamId> = Vec::new();
    // Each step is a byte: what to do, and how much of it or with which stream.
    while let Some((&step, rest)) = data.split_first() {
        data = rest;
        let much = usize::from(step >> 3);
        let id = ids.get(much % ids.len().max(1)).copied();
        match (step & 7, id) {
            (0..4, _) => {
                let (part, rest) = data.split_at(data.len().min(much * 4));
                data = rest;
                let bytes = Bytes::copy_from_slice(part);
                let first_sequence = u64::from(step & 3);
                let _ = match is_packets {
                    false => session.receive(now, bytes),
                    true => session.receive_packet(
                        now,
                        Packet {
                            first_sequence,
                            bytes,
                        },
                    ),
                };
            }
            (4, _) => ids.extend(session.open(Bytes::from_static(b"target"))),
            (5, Some(id)) => {
                let mut queued = 0;
                while session.is_writable(id) {
                    assert!(queued < WINDOW_BYTES as usize);
                    let sent = session.send(id, vec![0; much * 40].into());
                    sent.expect("it is writable");
                    queued += much * 40 + CHUNK_COST;
                }
            }
            (6, Some(id)) => match much % 4 {
                0 => session.finish(id),
                1 => session.fail(id, Bytes::new()),
                2 => session.reset(id, Bytes::new()),
                _ => session.consumed(id, much),
            },
            (7, _) => {
                now += Duration::from_millis(much as u64 * 10);
                session.handle_timeout(now);
            }
            _ => {}
        }
        match is_packets {
            false => drop(session.transmit(now, 4096, &mut Vec::new())),
            true => drop(session.transmit_packet(now, 70_000)),
        }
        let mut chunks_bytes = 0;
        while let Some(event) = session.next_event() {
            match event {
                Event::Opened { id, .. } => ids.push(id),
                Event::Chunk { bytes, .. } => chunks_bytes += bytes.len(),
                _ => {}
            }
        }
        assert!(chunks_bytes <= 31 * 4 + (1 << 16));
        assert!(session.streams() <= MAX_STREAMS as usize);
    }
});
