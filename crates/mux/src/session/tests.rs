use std::time::Duration;

use bytes::Bytes;

use super::*;

const LIMIT: usize = usize::MAX;

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Two ends, and the time.
struct Pair {
    client: Session,
    server: Session,
    now: Duration,
}

impl Pair {
    /// Without a connection.
    fn apart(client: Config, server: Config) -> Self {
        let id = SessionId(9);
        Self {
            client: Session::client(client, id, Incarnation(1)),
            server: Session::server(server, id, Incarnation(2)),
            now: ms(1000),
        }
    }

    fn new() -> Self {
        let mut pair = Self::apart(Config::default(), Config::default());
        pair.attach();
        pair.events();
        pair
    }

    fn attach(&mut self) {
        self.server.attach(self.now, &self.client.hello()).unwrap();
        self.client.attach(self.now, &self.server.hello()).unwrap();
    }

    /// Everything arrives until there is nothing more; then what happened at both.
    fn settle(&mut self) -> (Vec<Event>, Vec<Event>) {
        loop {
            let up = carry(&mut self.client, &mut self.server, self.now);
            let down = carry(&mut self.server, &mut self.client, self.now);
            if up + down == 0 {
                return self.events();
            }
        }
    }

    fn events(&mut self) -> (Vec<Event>, Vec<Event>) {
        (events(&mut self.client), events(&mut self.server))
    }
}

fn carry(from: &mut Session, to: &mut Session, now: Duration) -> usize {
    let mut out = Vec::new();
    let bytes = from.transmit(now, LIMIT, &mut out);
    for part in out {
        to.receive(now, part).unwrap();
    }
    bytes
}

fn events(session: &mut Session) -> Vec<Event> {
    std::iter::from_fn(|| session.next_event()).collect()
}

fn chunk(id: StreamId, bytes: &'static [u8]) -> Event {
    Event::Chunk {
        id,
        bytes: Bytes::from_static(bytes),
        last: true,
    }
}

fn open(pair: &mut Pair) -> StreamId {
    let id = pair.client.open(Bytes::from_static(b"target")).unwrap();
    pair.settle();
    id
}

#[test]
fn a_failure_comes_after_what_was_sent_before_it() {
    let mut pair = Pair::new();
    let id = open(&mut pair);
    pair.server.send(id, Bytes::from_static(b"one")).unwrap();
    pair.server.fail(id, Bytes::from_static(b"broken"));
    let reset = Event::Reset {
        id,
        error: Bytes::from_static(b"broken"),
    };
    assert_eq!(pair.settle().0, [chunk(id, b"one"), reset]);
    assert_eq!((pair.client.streams(), pair.server.streams()), (0, 0));
}

#[test]
fn a_half_that_has_ended_can_still_fail() {
    let mut pair = Pair::new();
    for finish_arrives in [false, true] {
        let id = open(&mut pair);
        pair.client.send(id, Bytes::from_static(b"one")).unwrap();
        pair.client.finish(id);
        let mut server = match finish_arrives {
            true => pair.settle().1,
            false => vec![],
        };
        pair.client.fail(id, Bytes::from_static(b"broken"));
        server.extend(pair.settle().1);
        let mut expected = vec![chunk(id, b"one")];
        expected.extend(finish_arrives.then_some(Event::Finished { id }));
        expected.push(Event::Reset {
            id,
            error: Bytes::from_static(b"broken"),
        });
        assert_eq!(server, expected);
    }
    assert_eq!((pair.client.streams(), pair.server.streams()), (0, 0));
}

#[test]
fn ten_thousand_streams_come_and_go() {
    let mut pair = Pair::new();
    for _ in 0..2 {
        let ids: Vec<_> = (0..10_000)
            .map(|_| pair.client.open(Bytes::from_static(b"target")).unwrap())
            .collect();
        assert_eq!(pair.settle().1.len(), 10_000);
        for &id in &ids {
            pair.server.send(id, Bytes::from_static(b"x")).unwrap();
            pair.server.finish(id);
            pair.client.finish(id);
        }
        let (client, server) = pair.settle();
        assert_eq!((client.len(), server.len()), (20_000, 10_000));
        assert_eq!((pair.client.streams(), pair.server.streams()), (0, 0));
    }
}

#[test]
fn a_reset_overtakes_what_waits_and_drops_it() {
    let mut pair = Pair::new();
    let id = open(&mut pair);
    pair.server.send(id, vec![1; 1 << 20].into()).unwrap();
    pair.server.reset(id, Bytes::from_static(b"enough"));
    let reset = Event::Reset {
        id,
        error: Bytes::from_static(b"enough"),
    };
    assert_eq!(pair.settle().0, [reset]);
    let late = pair.client.send(id, Bytes::from_static(b"late"));
    assert_eq!(late.unwrap_err().kind, SendErrorKind::Ended);
}

#[test]
fn a_stream_that_is_reset_before_it_was_sent_never_was() {
    let mut pair = Pair::new();
    let id = pair.client.open(Bytes::from_static(b"target")).unwrap();
    pair.client.reset(id, Bytes::new());
    assert_eq!(pair.settle(), (vec![], vec![]));
}

#[test]
fn an_error_that_is_too_long_is_cut() {
    let mut pair = Pair::new();
    let id = open(&mut pair);
    pair.server.reset(id, vec![1; MAX_ERROR_BYTES + 1].into());
    let error = Bytes::from(vec![1; MAX_ERROR_BYTES]);
    assert_eq!(pair.settle().0, [Event::Reset { id, error }]);
}

#[test]
fn a_stop_needs_no_credit_and_outlives_a_cut_and_is_said_once() {
    let mut pair = Pair::new();
    // Before the peer has heard of the stream, and while it has no credit.
    let id = pair.client.open(Bytes::from_static(b"target")).unwrap();
    pair.client.send(id, vec![1; 1 << 20].into()).unwrap();
    pair.client.stop(id);
    pair.client.stop(id);
    let _lost = {
        let mut out = Vec::new();
        pair.client.transmit(pair.now, LIMIT, &mut out);
        out
    };
    for session in [&mut pair.client, &mut pair.server] {
        session.detach(pair.now, DetachCause::Cut);
    }
    pair.attach();
    let stopped = Event::Stopped { id };
    let server = pair.settle().1;
    assert_eq!(server.iter().filter(|event| **event == stopped).count(), 1);
    pair.client.stop(id);
    pair.server.stop(id);
    assert_eq!(pair.settle(), (vec![], vec![]));
    // It goes on until the server ends it.
    pair.server.send(id, Bytes::from_static(b"last")).unwrap();
    pair.server.finish(id);
    let client = pair.settle().0;
    assert_eq!(client, [chunk(id, b"last"), Event::Finished { id }]);
}

#[test]
fn small_messages_do_not_wait_behind_a_large_one() {
    let mut pair = Pair::new();
    let (large, small) = (open(&mut pair), open(&mut pair));
    pair.server.send(large, vec![1; 1 << 20].into()).unwrap();
    pair.server.send(small, Bytes::from_static(b"x")).unwrap();
    let mut out = Vec::new();
    let bytes = pair.server.transmit(pair.now, 40_000, &mut out);
    assert!(bytes <= 40_000, "{bytes}");
    for part in out {
        pair.client.receive(pair.now, part).unwrap();
    }
    assert_eq!(events(&mut pair.client)[1], chunk(small, b"x"));
}

#[test]
fn a_consumer_that_takes_nothing_stops_its_own_producer_only() {
    let mut pair = Pair::new();
    let (slow, other) = (open(&mut pair), open(&mut pair));
    while pair.server.is_writable(slow) {
        pair.server.send(slow, vec![1; 5000].into()).unwrap();
        pair.settle();
    }
    pair.server.send(other, Bytes::from_static(b"x")).unwrap();
    assert_eq!(pair.settle().0, [chunk(other, b"x")]);
    // A window's worth is taken.
    for _ in 0..13 {
        pair.client.consumed(slow, 5000);
    }
    assert!(pair.settle().1.contains(&Event::Writable { id: slow }));
    assert!(pair.server.is_writable(slow));
}

#[test]
fn large_payloads_go_by_reference() {
    let mut pair = Pair::new();
    let id = open(&mut pair);
    let message = Bytes::from(vec![1; 16 << 10]);
    pair.server.send(id, message.clone()).unwrap();
    let mut out = Vec::new();
    pair.server.transmit(pair.now, LIMIT, &mut out);
    assert_eq!(out[1].as_ptr(), message.as_ptr());
    let mut out = out.concat();
    out.extend([0; 3]);
    let read = Bytes::from(out).slice(..);
    pair.client.receive(pair.now, read).unwrap();
    assert!(
        matches!(pair.client.next_event(), Some(Event::Chunk { bytes, .. }) if bytes == message)
    );
}

#[test]
fn as_many_streams_as_both_allow() {
    let few = Config {
        max_streams: 2,
        ..Config::default()
    };
    let mut pair = Pair::apart(Config::default(), few);
    // Before the client knows of the limit.
    let ids: Vec<_> = (0..3)
        .map(|_| pair.client.open(Bytes::new()).unwrap())
        .collect();
    pair.attach();
    let (client, server) = pair.settle();
    assert!(client.contains(&Event::Refused { id: ids[2] }));
    assert_eq!(server.len(), 1 + 2);
    assert_eq!(
        pair.client.open(Bytes::new()),
        Err(OpenError::TooManyStreams(2))
    );
    // One ends; there is room again.
    pair.client.finish(ids[0]);
    pair.server.finish(ids[0]);
    pair.settle();
    pair.client.open(Bytes::new()).unwrap();
    assert_eq!(pair.settle().1.len(), 1);
}

#[test]
fn a_server_that_goes_away_takes_what_crossed_its_word() {
    let mut pair = Pair::new();
    let target = Some(Bytes::from_static(b"target"));
    pair.server.go_away(target.clone());
    assert_eq!(pair.settle().0, [Event::GoAway { target }]);
    pair.server.go_away(None);
    pair.client.open(Bytes::new()).unwrap();
    let (client, server) = pair.settle();
    assert_eq!(client, [Event::GoAway { target: None }]);
    assert!(matches!(server[..], [Event::Opened { .. }]));
    assert_eq!(pair.client.open(Bytes::new()), Err(OpenError::GoingAway));
}

#[test]
fn what_waits_to_be_said_is_not_said_twice() {
    let mut pair = Pair::apart(Config::default(), Config::default());
    let target = |name: &'static [u8]| Some(Bytes::from_static(name));
    for _ in 0..100 {
        pair.server.go_away(target(b"one"));
        pair.server.go_away(target(b"other"));
    }
    pair.attach();
    pair.events();
    let told = [b"one".as_slice(), b"other"].map(|name| Event::GoAway {
        target: target(name),
    });
    assert_eq!(pair.settle().0, told);
}

#[test]
fn streams_beyond_a_sessions_ids_need_another_and_those_that_are_go_on() {
    let config = Config {
        max_opened: 2,
        ..Config::default()
    };
    let mut pair = Pair::apart(config.clone(), config);
    pair.attach();
    let ids: Vec<_> = (0..2).map(|_| open(&mut pair)).collect();
    pair.client.reset(ids[0], Bytes::new());
    pair.settle();
    assert_eq!(pair.client.open(Bytes::new()), Err(OpenError::UsedUp(2)));
    assert!(!pair.client.is_over());
    let one = Bytes::from_static(b"one");
    pair.client.send(ids[1], one).unwrap();
    assert_eq!(pair.settle().1, [chunk(ids[1], b"one")]);
}

#[test]
fn the_idle_say_that_they_are_there() {
    let mut pair = Pair::new();
    for _ in 0..100 {
        let at = pair.client.next_timeout().unwrap();
        pair.now = at.min(pair.server.next_timeout().unwrap());
        pair.client.handle_timeout(pair.now);
        pair.server.handle_timeout(pair.now);
        assert_eq!(pair.settle(), (vec![], vec![]));
    }
    assert!(pair.now >= ms(1000 + 100 * 250 / 2), "{:?}", pair.now);
}

#[test]
fn a_silent_peer_is_lost() {
    let mut pair = Pair::new();
    let mut said = Vec::new();
    while let Some(at) = pair.client.next_timeout() {
        said.clear();
        pair.client.handle_timeout(at);
        pair.client.transmit(at, LIMIT, &mut said);
        pair.now = at;
    }
    assert_eq!(pair.now, ms(1000 + 1200));
    assert_eq!(pair.events().0, [Event::Lost(LostCause::Silent)]);
    assert_eq!(pair.client.open(Bytes::new()), Err(OpenError::Ended));
    // If only one direction is cut, the peer learns that it is not heard.
    for part in said {
        pair.server.receive(pair.now, part).unwrap();
    }
    assert_eq!(pair.events().1, [Event::Lost(LostCause::Closed)]);
}

#[test]
fn a_check_that_is_late_looks_again() {
    let mut pair = Pair::new();
    pair.client.handle_timeout(ms(9000));
    assert_eq!(pair.events().0, []);
    // What was there all the time is read now.
    pair.now = ms(9001);
    pair.server.handle_timeout(ms(2000));
    pair.settle();
    pair.client.handle_timeout(ms(9250));
    assert_eq!(pair.events().0, []);
    // And this time there was nothing.
    pair.client.handle_timeout(ms(9001 + 1200));
    assert_eq!(pair.events().0, [Event::Lost(LostCause::Silent)]);
}

#[test]
fn a_late_check_of_the_grace_leaves_time_for_a_connection() {
    let mut pair = Pair::new();
    for session in [&mut pair.client, &mut pair.server] {
        session.detach(pair.now, DetachCause::Cut);
    }
    // This process was held up, and its peer's connection is there untaken.
    pair.now += ms(1000 + 101);
    pair.server.handle_timeout(pair.now);
    pair.attach();
    let resumed = Event::Attached { resumed: true };
    assert_eq!(pair.events().1, [Event::Detached, resumed]);
    // Without one, a heartbeat later is the end.
    pair.server.detach(pair.now, DetachCause::Cut);
    pair.server.handle_timeout(pair.now + ms(1000 + 101));
    pair.server.handle_timeout(pair.now + ms(1000 + 101 + 250));
    let lost = Event::Lost(LostCause::Grace);
    assert_eq!(pair.events().1, [Event::Detached, lost]);
}

#[test]
fn a_cut_session_is_lost_after_its_grace() {
    let mut pair = Pair::new();
    let id = open(&mut pair);
    pair.server.detach(pair.now, DetachCause::Cut);
    // A second failure does not begin the grace anew.
    pair.server.detach(pair.now + ms(700), DetachCause::Cut);
    assert_eq!(pair.server.next_timeout(), Some(pair.now + ms(1000)));
    pair.server.handle_timeout(pair.now + ms(999));
    assert_eq!(pair.events().1, [Event::Detached]);
    pair.server.handle_timeout(pair.now + ms(1000));
    assert_eq!(pair.events().1, [Event::Lost(LostCause::Grace)]);
    assert_eq!(pair.server.streams(), 0);
    pair.server.consumed(id, 1);
    let late = pair.server.attach(pair.now, &pair.client.hello());
    assert_eq!(late, Err(Refusal::UnknownSession));
}

#[test]
fn nobody_there_and_a_refusal_end_it_at_once() {
    for (cause, lost) in [
        (DetachCause::Unreachable, LostCause::Unreachable),
        (
            DetachCause::Refused(Refusal::Stopping),
            LostCause::Refused(Refusal::Stopping),
        ),
    ] {
        let mut pair = Pair::new();
        pair.client.detach(pair.now, cause);
        assert_eq!(pair.events().0, [Event::Lost(lost)]);
    }
}

#[test]
fn another_process_is_refused() {
    let mut pair = Pair::new();
    let (id, config) = (pair.client.id(), Config::default());
    let mut other = Session::server(config.clone(), id, Incarnation(3));
    let refused = other.attach(pair.now, &pair.client.hello());
    assert_eq!(refused, Err(Refusal::Incarnation));
    let refused = pair.client.attach(pair.now, &other.hello());
    assert_eq!(refused, Err(Refusal::Incarnation));
    let mut client = Session::client(config, id, Incarnation(1));
    client.expect(Incarnation(4));
    let refused = other.attach(pair.now, &client.hello());
    assert_eq!(refused, Err(Refusal::Incarnation));
}

#[test]
fn a_peer_that_lost_its_memory_is_refused() {
    let mut pair = Pair::new();
    open(&mut pair);
    pair.now += ms(300);
    // The server acknowledges the stream, and the client forgets it was kept.
    pair.server.handle_timeout(pair.now);
    pair.settle();
    assert_eq!(pair.client.unacknowledged_bytes(), 0);
    let forgetful = Hello {
        received: 0,
        ..pair.server.hello()
    };
    let refused = pair.client.attach(pair.now, &forgetful);
    assert_eq!(refused, Err(Refusal::Sequence));
}

#[test]
fn what_is_not_acknowledged_is_bounded() {
    let config = Config {
        window_bytes: 1 << 20,
        max_unacknowledged_bytes: 128 << 10,
        ..Config::default()
    };
    let mut pair = Pair::apart(config.clone(), config);
    pair.attach();
    let id = open(&mut pair);
    pair.server.send(id, vec![1; 1 << 20].into()).unwrap();
    // Nothing of it arrives.
    let mut out = Vec::new();
    while pair.server.transmit(pair.now, 1 << 14, &mut out) > 0 {}
    let kept = pair.server.unacknowledged_bytes();
    assert!(
        (128 << 10..(128 << 10) + (17 << 10)).contains(&kept),
        "{kept}"
    );
    for part in out {
        pair.client.receive(pair.now, part).unwrap();
    }
    // The word that it has lets the rest go.
    pair.settle();
    assert!(!pair.server.is_writable(id));
    assert!(pair.server.unacknowledged_bytes() < 70 << 10);
}

#[test]
fn a_session_that_is_closed_is_lost_at_the_peer() {
    let mut pair = Pair::new();
    let id = open(&mut pair);
    pair.client.close();
    assert_eq!(
        pair.settle(),
        (vec![], vec![Event::Lost(LostCause::Closed)])
    );
    assert!(pair.server.send(id, Bytes::new()).is_err());
    assert_eq!(pair.client.next_timeout(), None);
}

#[test]
fn a_gap_between_packets_is_asked_for_once_in_a_while() {
    let config = Config {
        mode: Mode::Packets,
        ..Config::default()
    };
    let mut pair = Pair::apart(config.clone(), config);
    pair.attach();
    let (now, limit) = (pair.now, 100_000);
    let id = pair.client.open(Bytes::from_static(b"target")).unwrap();
    let _lost = pair.client.transmit_packet(now, limit).unwrap();
    pair.events();
    for at in [now, now + ms(10), now + ms(20)] {
        pair.client.send(id, Bytes::from_static(b"x")).unwrap();
        let packet = pair.client.transmit_packet(at, limit).unwrap();
        pair.server.receive_packet(at, packet).unwrap();
    }
    assert_eq!(pair.events().1, []);
    let ask = pair.server.transmit_packet(now, limit).unwrap();
    assert_eq!(pair.server.transmit_packet(now, limit), None);
    pair.client.receive_packet(now, ask).unwrap();
    let again = pair.client.transmit_packet(now, limit).unwrap();
    pair.server.receive_packet(now, again.clone()).unwrap();
    let server = pair.events().1;
    assert!(matches!(server[0], Event::Opened { .. }));
    assert_eq!(
        server[1..],
        [chunk(id, b"x"), chunk(id, b"x"), chunk(id, b"x")]
    );
    pair.server.receive_packet(now, again).unwrap();
    assert_eq!(pair.events().1, [], "a packet that comes twice");
}

#[test]
fn the_last_packet_is_missed_by_the_next_heartbeat() {
    let config = Config {
        mode: Mode::Packets,
        ..Config::default()
    };
    let mut pair = Pair::apart(config.clone(), config);
    pair.attach();
    pair.client.open(Bytes::new()).unwrap();
    let _lost = pair.client.transmit_packet(pair.now, 1000).unwrap();
    let at = pair.client.next_timeout().unwrap();
    pair.client.handle_timeout(at);
    let heartbeat = pair.client.transmit_packet(at, 1000).unwrap();
    assert_eq!(heartbeat.first_sequence, 1);
    pair.server.receive_packet(at, heartbeat).unwrap();
    let ask = pair.server.transmit_packet(at, 1000).unwrap();
    pair.client.receive_packet(at, ask).unwrap();
    let again = pair.client.transmit_packet(at, 1000).unwrap();
    pair.server.receive_packet(at, again).unwrap();
    assert!(matches!(pair.events().1[1], Event::Opened { .. }));
}

#[test]
fn an_idle_stream_is_small() {
    // Beside it are its entry in a map of ids, and a word if its slot is free.
    let bytes = size_of::<Stream>();
    assert!(bytes <= 256, "{bytes}");
}

#[test]
fn messages_of_many_chunks_and_of_one() {
    let mut assembler = Assembler::default();
    let part = || Bytes::from_static(b"part");
    assert_eq!(assembler.push(part(), true, 4), Ok(Some(part())));
    assert_eq!(assembler.push(part(), false, 8), Ok(None));
    let whole = Bytes::from_static(b"partpart");
    assert_eq!(assembler.push(part(), true, 8), Ok(Some(whole)));
    assert_eq!(assembler.push(part(), false, 8), Ok(None));
    assert_eq!(assembler.push(part(), false, 8), Ok(None));
    let too_long = Err(TooLong { limit_bytes: 8 });
    assert_eq!(assembler.push(part(), false, 8), too_long);
    assert_eq!(assembler.push(part(), true, 8), Ok(Some(part())));
}
