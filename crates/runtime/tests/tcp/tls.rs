//! Who is who under TLS.

use std::sync::Arc;

use forebay_mux::session::{Config, Hello, Incarnation, Preface, Refusal, Session, SessionId};
use forebay_observability::{ErrorChain, Registry};
use forebay_protocols::ErrorClass;
use forebay_runtime::{Health, PeerState, RequestPlane as _, Tasks, TcpConfig, TcpPlane};
use futures::StreamExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, version};

use crate::authority::Authority;
use crate::in_time;
use crate::numbers::{ENDLESS, NOTHING, Numbers, failure, read, request};
use crate::process::Process;
use crate::raw::say_hello;

/// Why there is no plane with these settings.
async fn refusal_to_start(config: TcpConfig) -> String {
    let registry = Registry::new();
    let bound = TcpPlane::bind(config, &Tasks::new(&registry), &registry, &Health::new()).await;
    ErrorChain(&bound.unwrap_err()).to_string()
}

#[tokio::test]
async fn peers_of_one_authority_talk_and_an_address_names_its_identity() {
    let authority = Authority::new();
    let server = Process::start(authority.config("worker-1")).await;
    let client = Process::start(authority.config("frontend-1")).await;
    let served = server.serve(1, Arc::new(Numbers::new())).await;
    let address = served.address();
    assert!(address.ends_with("?identity=worker-1"), "{address}");
    let mut answer = client.plane.open(address, request(ENDLESS));
    read(&mut answer, 0..2000).await;
    let mut peer = client.plane.peer(address);
    assert_eq!(in_time(peer.next()).await, Some(PeerState::Reachable));
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let authority = Authority::new();
    let server = Process::start(authority.config("worker-1")).await;
    let client = Process::start(authority.config("frontend-1")).await;
    let served = server.serve(1, Arc::new(Numbers::new())).await;
    let other = served.address().replace("=worker-1", "=worker-2");
    let error = failure(client.plane.open(&other, request(NOTHING))).await;
    assert_eq!(error.class, ErrorClass::Unavailable);
    assert_eq!(error.reason, "worker_unreachable");
    let diagnostic = error.diagnostic.unwrap();
    assert!(diagnostic.contains("TLS"), "{diagnostic}");
}

#[tokio::test]
async fn a_stranger_is_refused_by_both_sides() {
    let (authority, strangers) = (Authority::new(), Authority::new());
    let server = Process::start(authority.config("worker-1")).await;
    let numbers = Numbers::new();
    let served = server.serve(1, Arc::new(numbers.clone())).await;
    // It trusts nobody whom the server's authority signed.
    let client = Process::start(strangers.config("frontend-1")).await;
    let error = failure(client.plane.open(served.address(), request(NOTHING))).await;
    assert_eq!(error.reason, "worker_unreachable");
    // It trusts the server, and is not trusted.
    let mut config = strangers.config("frontend-2");
    config.tls.ca = authority.ca();
    let client = Process::start(config).await;
    let error = failure(client.plane.open(served.address(), request(NOTHING))).await;
    assert_eq!(error.class, ErrorClass::Unavailable);
    assert_eq!(*numbers.begun.borrow(), 0);
}

#[tokio::test]
async fn with_and_without_tls_do_not_mix_and_do_not_hang() {
    let authority = Authority::new();
    let with = Process::start(authority.config("worker-1")).await;
    let without = Process::start(TcpConfig::default()).await;
    let with_served = with.serve(1, Arc::new(Numbers::new())).await;
    let without_served = without.serve(1, Arc::new(Numbers::new())).await;
    let (plain, _) = with_served.address().split_once('?').unwrap();
    for (client, address) in [
        (&without, with_served.address()),
        (&without, plain),
        (&with, without_served.address()),
    ] {
        let error = failure(client.plane.open(address, request(NOTHING))).await;
        assert_eq!(error.class, ErrorClass::Unavailable, "{address}");
        assert_eq!(error.reason, "worker_unreachable", "{address}");
    }
}

#[tokio::test]
async fn files_that_are_no_certificates_are_named() {
    let authority = Authority::new();
    let mut config = authority.config("worker-1");
    config.tls.key = Some("/nowhere/key.pem".into());
    let error = refusal_to_start(config).await;
    assert!(error.contains("/nowhere/key.pem"), "{error}");
    let mut config = authority.config("worker-1");
    config.tls.cert = None;
    let error = refusal_to_start(config).await;
    assert!(error.contains("`cert` and `key`"), "{error}");
}

#[tokio::test]
async fn who_is_not_named_is_no_member_on_either_side() {
    let authority = Authority::new();
    let members = |mut config: TcpConfig| {
        config.tls.names = vec!["frontend".to_owned(), "*.workers.internal".to_owned()];
        config
    };
    let worker = authority.config_of("worker", &["a.workers.internal"]);
    let worker = Process::start(members(worker)).await;
    let frontend = Process::start(members(authority.config("frontend"))).await;
    let rogue = Process::start(authority.config("rogue")).await;
    let numbers = Numbers::new();
    let served = worker.serve(1, Arc::new(numbers.clone())).await;
    let mut answer = frontend.plane.open(served.address(), request(ENDLESS));
    read(&mut answer, 0..10).await;
    assert_eq!(*numbers.begun.borrow(), 1);

    let error = failure(rogue.plane.open(served.address(), request(NOTHING))).await;
    assert_eq!(error.class, ErrorClass::Unavailable);
    assert_eq!(*numbers.begun.borrow(), 1);
    let served_by_rogue = rogue.serve(1, Arc::new(numbers.clone())).await;
    let address = served_by_rogue.address();
    let error = failure(frontend.plane.open(address, request(NOTHING))).await;
    let diagnostic = error.diagnostic.unwrap();
    assert!(diagnostic.contains("may be a member"), "{diagnostic}");
    assert_eq!(*numbers.begun.borrow(), 1);
}

#[tokio::test]
async fn the_identity_is_a_name_that_clients_can_ask_for() {
    let authority = Authority::new();
    let client = Process::start(authority.config("frontend-1")).await;
    for (names, advertise, identity) in [
        (&["*.internal", "worker-1"][..], None, "worker-1"),
        (&["*.internal", "127.0.0.1"][..], None, "127.0.0.1"),
        (
            &["worker-1", "localhost"][..],
            Some("localhost"),
            "localhost",
        ),
    ] {
        let server = Process::start(TcpConfig {
            advertise: advertise.map(str::to_owned),
            ..authority.config_of("worker", names)
        })
        .await;
        let served = server.serve(1, Arc::new(Numbers::new())).await;
        let address = served.address();
        let ending = format!("?identity={identity}");
        assert!(address.ends_with(&ending), "{address}");
        let mut answer = client.plane.open(address, request(ENDLESS));
        read(&mut answer, 0..10).await;
    }
    let error = refusal_to_start(authority.config_of("worker", &["*.internal"])).await;
    assert!(error.contains("127.0.0.1"), "{error}");
}

#[tokio::test]
async fn a_session_is_gone_on_with_by_its_own_client_alone() {
    let authority = Authority::new();
    let server = Process::start(authority.config("worker-1")).await;
    let at = server.plane.local_addr();
    let (one, other) = (authority.config("one"), authority.config("other"));
    let session = Session::client(Config::default(), SessionId(7), Incarnation(1));
    let hello = session.hello();
    let resuming = Hello {
        resumes: true,
        ..hello
    };
    let (mut first, told) = greet(at, &one, hello).await;
    assert!(matches!(told, Preface::Hello(_)), "{told:?}");
    first.shutdown().await.unwrap();
    let (_, told) = greet(at, &other, resuming).await;
    assert_eq!(told, Preface::Refused(Refusal::UnknownSession));
    let (_resumed, told) = greet(at, &one, resuming).await;
    assert!(matches!(told, Preface::Hello(_)), "{told:?}");
}

/// Connects with the certificate of these settings, says hello, and reads the answer.
async fn greet(
    at: std::net::SocketAddr,
    config: &TcpConfig,
    hello: Hello,
) -> (TlsStream<TcpStream>, Preface) {
    let [cert, key, ca] =
        [&config.tls.cert, &config.tls.key, &config.tls.ca].map(|path| path.clone().unwrap());
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_file(cert).unwrap()],
            PrivateKeyDer::from_pem_file(key).unwrap(),
        )
        .unwrap();
    let connector = TlsConnector::from(Arc::new(client));
    let socket = TcpStream::connect(at).await.unwrap();
    let name = "worker-1".try_into().unwrap();
    let mut stream = in_time(connector.connect(name, socket)).await.unwrap();
    let told = say_hello(&mut stream, hello).await;
    (stream, told)
}
