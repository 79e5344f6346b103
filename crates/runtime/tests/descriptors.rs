//! A process that has no descriptor for a connection; alone in its process for that.
#![cfg(all(feature = "tcp", target_os = "linux"))]
#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;
use std::time::Duration;

use forebay_mux::session::{Config, Incarnation, Preface, Session, SessionId};
use forebay_observability::Registry;
use forebay_runtime::{Health, Tasks, TcpConfig, TcpPlane};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::time::{sleep, timeout};

#[tokio::test]
async fn who_connects_when_there_is_no_descriptor_is_served_once_there_is_one() {
    let registry = Registry::new();
    let tasks = Tasks::new(&registry);
    let plane = TcpPlane::bind(TcpConfig::default(), &tasks, &registry, &Health::new()).await;
    let at = plane.as_ref().unwrap().local_addr();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();

    let enough = getrlimit(Resource::Nofile);
    let none = Rlimit {
        current: Some(0),
        ..enough
    };
    setrlimit(Resource::Nofile, none).unwrap();
    let mut stream = socket.connect(at).await.unwrap();
    let failures = "forebay_tcp_server_accept_failures_total 0";
    let refused = async {
        while registry.encode().contains(failures) {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(Duration::from_secs(20), refused).await.unwrap();
    setrlimit(Resource::Nofile, enough).unwrap();

    let session = Session::client(Config::default(), SessionId(1), Incarnation(1));
    let hello = Preface::Hello(session.hello()).encode();
    stream.write_all(&hello).await.unwrap();
    let answer = timeout(Duration::from_secs(20), stream.read_u8()).await;
    assert_eq!(answer.unwrap().unwrap(), b'F', "a preface begins so");
}
