//! Who is who under TLS.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay_protocols::ErrorClass;
use forebay_runtime::{PeerState, RequestPlane as _, TcpConfig, TlsConfig};
use futures::StreamExt as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use tempfile::TempDir;

use crate::in_time;
use crate::numbers::{ENDLESS, NOTHING, Numbers, failure, read, request};
use crate::process::Process;

/// Who signs certificates, and where its files are.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        let dir = TempDir::new().unwrap();
        write(&dir.path().join("ca.pem"), &issuer.pem());
        Self { issuer, dir }
    }

    fn ca(&self) -> Option<PathBuf> {
        Some(self.dir.path().join("ca.pem"))
    }

    /// The settings of a process with this name.
    fn config(&self, name: &str) -> TcpConfig {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |what| self.dir.path().join(format!("{name}-{what}.pem"));
        write(&path("cert"), &certificate.pem());
        write(&path("key"), &key.serialize_pem());
        let tls = TlsConfig {
            cert: Some(path("cert")),
            key: Some(path("key")),
            ca: self.ca(),
        };
        TcpConfig {
            tls,
            ..TcpConfig::default()
        }
    }
}

fn write(path: &Path, pem: &str) {
    std::fs::write(path, pem).unwrap();
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
    let bind = |config| async move {
        let registry = forebay_observability::Registry::new();
        let tasks = forebay_runtime::Tasks::new(&registry);
        let bound = forebay_runtime::TcpPlane::bind(config, &tasks, &registry).await;
        let error = bound.unwrap_err();
        forebay_observability::ErrorChain(&error).to_string()
    };
    let mut config = authority.config("worker-1");
    config.tls.key = Some("/nowhere/key.pem".into());
    let error = bind(config).await;
    assert!(error.contains("/nowhere/key.pem"), "{error}");
    let mut config = authority.config("worker-1");
    config.tls.cert = None;
    let error = bind(config).await;
    assert!(error.contains("`cert` and `key`"), "{error}");
}
