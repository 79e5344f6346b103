//! A preface of any bytes, in two reads, to a session that is asked to attach it.

#![no_main]

use std::time::Duration;

use bytes::BytesMut;
use forebay_mux::session::{Config, Hello, Incarnation, Preface, Session, SessionId};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&at, data)) = data.split_first() else {
        return;
    };
    let mut bytes = BytesMut::from(&data[..data.len().min(at.into())]);
    let preface = match Preface::decode(&mut bytes) {
        Ok(None) => {
            bytes.extend_from_slice(&data[bytes.len()..]);
            Preface::decode(&mut bytes)
        }
        decided => decided,
    };
    let Ok(Some(preface)) = preface else {
        return;
    };
    let again = Preface::decode(&mut BytesMut::from(preface.encode().as_ref()));
    assert_eq!(again, Ok(Some(preface)));
    let Preface::Hello(hello) = preface else {
        return;
    };
    let incarnation = hello.expects.unwrap_or(Incarnation(1));
    let server = Session::server(Config::default(), hello.session, incarnation);
    let client = Session::client(Config::default(), SessionId(0), incarnation);
    for mut session in [server, client] {
        let theirs = Hello {
            session: session.id(),
            ..hello
        };
        if session.attach(Duration::ZERO, &theirs).is_ok() {
            session.transmit(Duration::ZERO, 1 << 16, &mut Vec::new());
        }
    }
});
