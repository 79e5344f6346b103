use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use super::*;

/// Repeats what it is told, on every connection.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let _ = io::copy(&mut &stream, &mut &stream);
                let _ = stream.shutdown(Shutdown::Write);
            });
        }
    });
    address
}

fn client(proxy: &FaultProxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).unwrap();
    let patience = Duration::from_secs(20);
    stream.set_read_timeout(Some(patience)).unwrap();
    stream
}

fn repeats(stream: &mut TcpStream, word: &[u8]) {
    stream.write_all(word).unwrap();
    let mut heard = vec![0; word.len()];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(heard, word);
}

/// Nothing comes for a while: a short one, since it can only be wrong in the harmless direction.
fn silent(stream: &mut TcpStream) {
    let patience = stream.read_timeout().unwrap();
    let short = Duration::from_millis(50);
    stream.set_read_timeout(Some(short)).unwrap();
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    stream.set_read_timeout(patience).unwrap();
}

#[test]
fn bytes_and_the_end_pass_and_are_counted() {
    let proxy = FaultProxy::to(echo()).unwrap();
    let mut stream = client(&proxy);
    repeats(&mut stream, &vec![7; 1 << 20]);
    assert_eq!((proxy.connections(), proxy.accepted()), (1, 1));
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn what_comes_before_the_target_is_kept_for_it() {
    let proxy = FaultProxy::to_nowhere().unwrap();
    let mut stream = client(&proxy);
    stream.write_all(b"early").unwrap();
    proxy.set_target(echo());
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"early");
}

#[test]
fn a_cut_resets_and_the_next_connection_passes() {
    let proxy = FaultProxy::to(echo()).unwrap();
    let mut stream = client(&proxy);
    repeats(&mut stream, b"a");
    proxy.cut();
    assert_eq!(proxy.connections(), 0);
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    repeats(&mut client(&proxy), b"b");
}

#[test]
fn refused_until_it_passes_again_at_the_same_port() {
    let proxy = FaultProxy::to(echo()).unwrap();
    let address = proxy.address();
    proxy.refuse();
    let error = TcpStream::connect(address).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    proxy.pass();
    assert_eq!(proxy.address(), address);
    repeats(&mut client(&proxy), b"again");
}

#[test]
fn a_stalled_direction_holds_and_the_other_goes_on() {
    let proxy = FaultProxy::to(echo()).unwrap();
    let mut stream = client(&proxy);
    repeats(&mut stream, b"a");
    proxy.stall(Direction::ToClient);
    stream.write_all(b"bc").unwrap();
    silent(&mut stream);
    proxy.pass();
    let mut heard = [0; 2];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"bc");
}

#[test]
fn a_delay_is_at_least_that() {
    let proxy = FaultProxy::to(echo()).unwrap();
    let mut stream = client(&proxy);
    proxy.delay(Duration::from_millis(30));
    let began = Instant::now();
    repeats(&mut stream, b"late");
    assert!(began.elapsed() >= Duration::from_millis(60));
}

#[test]
fn bytes_are_lost_and_no_more_than_told() {
    let proxy = FaultProxy::to(echo()).unwrap();
    let mut stream = client(&proxy);
    repeats(&mut stream, b"a");
    proxy.drop_bytes(Direction::ToTarget, 3);
    stream.write_all(b"123456").unwrap();
    let mut heard = [0; 3];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"456");
}

#[test]
fn half_open_connections_never_answer_again() {
    let proxy = FaultProxy::to(echo()).unwrap();
    let mut old = client(&proxy);
    repeats(&mut old, b"a");
    proxy.half_open();
    let mut new = client(&proxy);
    for stream in [&mut old, &mut new] {
        stream.write_all(b"b").unwrap();
        silent(stream);
    }
    proxy.pass();
    silent(&mut old);
    repeats(&mut client(&proxy), b"c");
}
