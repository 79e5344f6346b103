//! What a peer sends that does not keep to the protocol: a typed error at most, and never more
//! memory than the limits allow.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use forebay_mux::session::{
    CHUNK_COST, Config, Event, Hello, Incarnation, LostCause, Mode, Packet, Preface, ProtocolError,
    Session, SessionId,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

const NOW: Duration = Duration::from_secs(1);

fn config(mode: Mode) -> Config {
    Config {
        mode,
        max_streams: 8,
        window_bytes: 4096,
        ..Config::default()
    }
}

/// Two ends that have a connection.
fn ends(mode: Mode) -> (Session, Session) {
    let id = SessionId(1);
    let mut client = Session::client(config(mode), id, Incarnation(1));
    let mut server = Session::server(config(mode), id, Incarnation(2));
    server.attach(NOW, &client.hello()).unwrap();
    client.attach(NOW, &server.hello()).unwrap();
    for session in [&mut client, &mut server] {
        assert_eq!(
            session.next_event(),
            Some(Event::Attached { resumed: false })
        );
    }
    (client, server)
}

/// A frame as it is on the wire.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind, flags];
    frame.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

const OPEN: u8 = 1;
const DATA: u8 = 2;
const FINISH: u8 = 3;
const CREDIT: u8 = 5;
const STOP: u8 = 7;
const ACK: u8 = 16;

/// What a session makes of these bytes.
fn verdict(session: &mut Session, frames: &[Vec<u8>]) -> Result<(), ProtocolError> {
    session.receive(NOW, frames.concat().into())
}

fn at_server(frames: &[Vec<u8>]) -> ProtocolError {
    let (_, mut server) = ends(Mode::Bytes);
    let error = verdict(&mut server, frames).unwrap_err();
    let last = std::iter::from_fn(|| server.next_event()).last();
    assert_eq!(last, Some(Event::Lost(LostCause::Protocol(error))));
    assert!(server.is_over());
    error
}

#[test]
fn each_violation_has_its_name() {
    let open = |stream| frame(OPEN, 0, stream, b"target");
    let unknown_kind = at_server(&[frame(99, 0, 0, b"")]);
    assert_eq!(unknown_kind, ProtocolError::UnknownKind(99));
    let unknown_flags = at_server(&[open(1), frame(DATA, 0x02, 1, b"")]);
    assert_eq!(unknown_flags, ProtocolError::UnknownFlags(0x02));
    let unknown_stream = at_server(&[frame(DATA, 0, 5, b"")]);
    assert_eq!(unknown_stream, ProtocolError::UnknownStream(5));
    let backwards = at_server(&[open(4), open(3)]);
    assert_eq!(backwards, ProtocolError::IdBackwards(3));
    let too_many: Vec<_> = (1..10).map(open).collect();
    assert_eq!(at_server(&too_many), ProtocolError::TooManyStreams(8));
    let over_credit = at_server(&[open(1), frame(DATA, 0, 1, &[0; 4096])]);
    assert_eq!(over_credit, ProtocolError::OverCredit(1));
    let over_window = at_server(&[open(1), frame(CREDIT, 0, 1, &1_u32.to_be_bytes())]);
    assert_eq!(over_window, ProtocolError::OverWindow(1));
    let after_finish = at_server(&[open(1), frame(FINISH, 0, 1, b""), frame(DATA, 0, 1, b"")]);
    assert_eq!(after_finish, ProtocolError::AfterFinish(1));
    let never_sent = at_server(&[frame(ACK, 0, 0, &7_u64.to_be_bytes())]);
    assert_eq!(never_sent, ProtocolError::Sequence(7));
    let short = at_server(&[frame(ACK, 0, 0, b"7")]);
    assert_eq!(short, ProtocolError::Length(1));
    for frame in [open(1), frame(STOP, 0, 1, b"")] {
        let (mut client, _) = ends(Mode::Bytes);
        assert_eq!(verdict(&mut client, &[frame]), Err(ProtocolError::Role));
    }
}

#[test]
fn a_stop_that_is_said_again_is_told_once() {
    let (_, mut server) = ends(Mode::Bytes);
    let stop = || frame(STOP, 0, 1, b"");
    let frames = [frame(OPEN, 0, 1, b"t"), stop(), stop(), stop()];
    assert_eq!(verdict(&mut server, &frames), Ok(()));
    let events: Vec<_> = std::iter::from_fn(|| server.next_event()).collect();
    let stops = events
        .iter()
        .filter(|event| matches!(event, Event::Stopped { .. }));
    assert_eq!(stops.count(), 1);
}

#[test]
fn a_flag_that_may_be_ignored_is() {
    let (_, mut server) = ends(Mode::Bytes);
    let frames = [frame(OPEN, 0x80, 1, b"t"), frame(DATA, 0x41, 1, b"m")];
    assert_eq!(verdict(&mut server, &frames), Ok(()));
    assert!(matches!(server.next_event(), Some(Event::Opened { .. })));
    assert!(matches!(
        server.next_event(),
        Some(Event::Chunk { last: true, .. })
    ));
}

#[test]
fn empty_chunks_cost_credit() {
    let (_, mut server) = ends(Mode::Bytes);
    let mut frames = vec![frame(OPEN, 0, 1, b"")];
    frames.resize(4096 / CHUNK_COST + 1, frame(DATA, 1, 1, b""));
    assert_eq!(verdict(&mut server, &frames), Ok(()));
    let error = verdict(&mut server, &[frame(DATA, 1, 1, b"")]);
    assert_eq!(error, Err(ProtocolError::OverCredit(1)));
}

/// A peer that says to take anything, and takes nothing.
#[test]
fn a_window_without_end_is_no_leave_to_queue_without_end() {
    let id = SessionId(1);
    let mut client = Session::client(config(Mode::Bytes), id, Incarnation(1));
    let mut server = Session::server(config(Mode::Bytes), id, Incarnation(2));
    let hello = Hello {
        window_bytes: u32::MAX,
        ..client.hello()
    };
    server.attach(NOW, &hello).unwrap();
    client.attach(NOW, &server.hello()).unwrap();
    let id = client.open(Bytes::from_static(b"target")).unwrap();
    let mut out = Vec::new();
    client.transmit(NOW, usize::MAX, &mut out);
    verdict(&mut server, &[out.concat()]).unwrap();
    while server.next_event().is_some() {}
    let mut queued = 0;
    while server.is_writable(id) {
        server.send(id, Bytes::from_static(&[7; 100])).unwrap();
        queued += 100 + CHUNK_COST;
        assert!(queued < 2 * 4096, "{queued} bytes are queued");
    }
    // What has gone makes room, without any credit.
    server.transmit(NOW, usize::MAX, &mut out);
    assert_eq!(server.next_event(), Some(Event::Writable { id }));
    assert!(server.is_writable(id));
}

/// Two ends that have four streams.
fn talking(mode: Mode) -> [Session; 2] {
    let (mut client, mut server) = ends(mode);
    for _ in 0..4 {
        client.open(Bytes::from_static(b"target")).unwrap();
    }
    let mut out = Vec::new();
    match mode {
        Mode::Bytes => {
            client.transmit(NOW, usize::MAX, &mut out);
            server.receive(NOW, out.concat().into()).unwrap();
        }
        Mode::Packets => {
            let packet = client.transmit_packet(NOW, usize::MAX).unwrap();
            server.receive_packet(NOW, packet).unwrap();
        }
    }
    while server.next_event().is_some() {}
    [client, server]
}

/// A conversation of the client's, as it is on the wire.
fn conversation(mode: Mode) -> (Session, Vec<u8>) {
    let (mut client, server) = ends(mode);
    for n in 0..4_usize {
        let id = client.open(Bytes::from(vec![b't'; n])).unwrap();
        client.send(id, Bytes::from(vec![7; n * 700])).unwrap();
        client.send(id, Bytes::new()).unwrap();
        if n % 2 == 0 {
            client.finish(id);
        }
    }
    let mut out = Vec::new();
    match mode {
        Mode::Bytes => drop(client.transmit(NOW, usize::MAX, &mut out)),
        Mode::Packets => out.push(client.transmit_packet(NOW, usize::MAX).unwrap().bytes),
    }
    (server, out.concat())
}

/// What a session holds after an attack: events, which are bounded by what came, and streams.
fn check_holdings(session: &mut Session, came: usize) {
    assert!(session.streams() <= 8);
    assert!(session.unacknowledged_bytes() <= 4 * 70);
    let mut events = 0;
    let mut bytes = 0;
    while let Some(event) = session.next_event() {
        events += 1;
        if let Event::Chunk { bytes: chunk, .. } = event {
            bytes += chunk.len();
        }
    }
    assert!(events <= 1 + came / 8 && bytes <= came);
}

/// Frames that are nearly right.
fn nearly_frames() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![8 => 1..7_u8, 3 => 16..19_u8, 1 => any::<u8>()];
    let one = (kind, 0..2_u8, 0..12_u32, vec(any::<u8>(), 0..12));
    let one = one.prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload));
    vec(one, 0..40).prop_map(|frames| frames.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_are_survived(
        bytes in prop_oneof![vec(any::<u8>(), 0..2000), nearly_frames()],
        part in 1..300_usize,
        first_sequence in prop_oneof![Just(0), Just(4), any::<u64>()],
    ) {
        for mut session in talking(Mode::Bytes) {
            for part in bytes.chunks(part) {
                let _ = session.receive(NOW, Bytes::copy_from_slice(part));
            }
            check_holdings(&mut session, bytes.len());
        }
        for mut session in talking(Mode::Packets) {
            for part in bytes.chunks(part) {
                let bytes = Bytes::copy_from_slice(part);
                let _ = session.receive_packet(NOW, Packet { first_sequence, bytes });
            }
            check_holdings(&mut session, bytes.len());
        }
    }

    #[test]
    fn a_changed_conversation_is_survived(
        changes in vec((any::<Index>(), any::<u8>()), 1..6),
        part in 1..3000_usize,
        packets: bool,
    ) {
        let mode = if packets { Mode::Packets } else { Mode::Bytes };
        let (mut server, mut bytes) = conversation(mode);
        for (at, to) in changes {
            *at.get_mut(&mut bytes) = to;
        }
        for part in bytes.chunks(if packets { bytes.len() } else { part }) {
            let bytes = Bytes::copy_from_slice(part);
            let _ = match mode {
                Mode::Bytes => server.receive(NOW, bytes),
                Mode::Packets => server.receive_packet(NOW, Packet { first_sequence: 0, bytes }),
            };
        }
        check_holdings(&mut server, bytes.len());
    }

    #[test]
    fn any_preface_is_survived(
        bytes in vec(any::<u8>(), 0..80),
        magic: bool,
        expects: bool,
        received: u64,
    ) {
        let mut bytes = BytesMut::from(bytes.as_slice());
        if magic && bytes.len() >= 6 {
            bytes[..6].copy_from_slice(b"FMUX\x01\x00");
        }
        let _ = Preface::decode(&mut bytes);
        let (client, mut server) = ends(Mode::Bytes);
        let hello = Hello {
            received,
            window_bytes: 0,
            max_streams: 0,
            expects: expects.then_some(Incarnation(received)),
            ..client.hello()
        };
        let _ = server.attach(NOW, &hello);
        server.transmit(NOW, usize::MAX, &mut Vec::new());
    }
}
