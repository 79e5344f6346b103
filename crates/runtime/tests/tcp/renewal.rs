//! Certificates that are renewed while processes run.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use forebay_protocols::ErrorClass;
use forebay_runtime::{RequestPlane as _, TcpConfig};
use forebay_testkit::FaultProxy;

use crate::authority::Authority;
use crate::numbers::{ENDLESS, NOTHING, Numbers, failure, read, request};
use crate::process::Process;
use crate::{in_time, until};

/// When certificates until the years 2100 and 2101 expire, since the Unix epoch.
const END_OF_2099: f64 = 4_102_444_800.0;
const END_OF_2100: f64 = 4_133_980_800.0;

fn looking_often(config: TcpConfig) -> TcpConfig {
    TcpConfig {
        certificate_check: Duration::from_millis(10),
        ..config
    }
}

fn expiry(process: &Process, certificate: &str) -> f64 {
    let name = "forebay_tcp_certificate_expiry_timestamp_seconds";
    process.metric(&format!(r#"{name}{{certificate="{certificate}"}}"#))
}

/// Where the authority's files are.
fn directory(authority: &Authority) -> PathBuf {
    let ca = authority.ca().unwrap();
    ca.parent().unwrap().to_owned()
}

/// Waits until the process uses the certificate that it was given until 2101.
async fn renewed(process: &Process) {
    until(|| expiry(process, "own") == END_OF_2100).await;
}

fn degraded(process: &Process) -> Vec<&'static str> {
    let report = process.health.report();
    report.degraded.iter().map(|thing| thing.name).collect()
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_whoever_connects_then() {
    let (authority, next) = (Authority::new(), Authority::new());
    let trusting = |config: TcpConfig, ca: Option<PathBuf>| {
        let mut config = looking_often(config);
        config.tls.ca = ca;
        config
    };
    let both = authority.ca().unwrap().with_file_name("both.pem");
    let pems = [authority.ca(), next.ca()].map(|ca| fs::read_to_string(ca.unwrap()).unwrap());
    fs::write(&both, pems.concat()).unwrap();

    let server = Process::start(trusting(authority.config("worker-1"), Some(both.clone()))).await;
    let config = trusting(authority.config("frontend-1"), Some(both.clone()));
    let client = Process::start(config).await;
    assert_eq!(expiry(&server, "own"), END_OF_2099);
    assert!(expiry(&server, "ca") > END_OF_2100);
    let served = server.serve(1, Arc::new(Numbers::new())).await;
    let mut answer = client.plane.open(served.address(), request(ENDLESS));
    read(&mut answer, 0..100).await;

    // It knows only those whom the next authority signs.
    let modern = Process::start(next.config("frontend-2")).await;
    let error = failure(modern.plane.open(served.address(), request(NOTHING))).await;
    assert_eq!(error.reason, "worker_unreachable");

    let dir = directory(&authority);
    next.certify("worker-1", &["worker-1"], 2101);
    for what in ["cert", "key"] {
        let name = format!("worker-1-{what}.pem");
        fs::copy(next.ca().unwrap().with_file_name(&name), dir.join(&name)).unwrap();
    }
    renewed(&server).await;
    read(&mut answer, 100..2000).await;
    let mut other = modern.plane.open(served.address(), request(NOTHING));
    read(&mut other, 0..1).await;
    assert!(degraded(&server).is_empty());
}

#[tokio::test]
async fn who_is_trusted_changes_for_whoever_connects_then() {
    let (authority, next) = (Authority::new(), Authority::new());
    let server = Process::start(looking_often(authority.config("worker-1"))).await;
    let client = Process::start(authority.config("frontend-1")).await;
    let mut config = next.config("frontend-2");
    config.tls.ca = authority.ca().map(|ca| ca.with_file_name("kept.pem"));
    fs::copy(authority.ca().unwrap(), config.tls.ca.as_ref().unwrap()).unwrap();
    let newcomer = Process::start(config).await;

    let served = server.serve(1, Arc::new(Numbers::new())).await;
    let mut answer = client.plane.open(served.address(), request(ENDLESS));
    read(&mut answer, 0..100).await;
    let error = failure(newcomer.plane.open(served.address(), request(NOTHING))).await;
    assert_eq!(error.class, ErrorClass::Unavailable);

    fs::copy(next.ca().unwrap(), authority.ca().unwrap()).unwrap();
    authority.certify("worker-1", &["worker-1"], 2101);
    renewed(&server).await;
    let mut other = newcomer.plane.open(served.address(), request(NOTHING));
    read(&mut other, 0..1).await;
    let late = Process::start(authority.config("frontend-3")).await;
    failure(late.plane.open(served.address(), request(NOTHING))).await;
    read(&mut answer, 100..2000).await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_that_is_swapped_is_a_renewal() {
    let authority = Authority::new();
    let dir = directory(&authority);
    let mut config = looking_often(authority.config("worker-1"));
    let secret = |version: &str| {
        let at = dir.join(version);
        fs::create_dir(&at).unwrap();
        for what in ["cert", "key"] {
            let name = format!("worker-1-{what}.pem");
            fs::copy(dir.join(&name), at.join(&name)).unwrap();
        }
        at
    };
    let link = |version: &Path| {
        let fresh = dir.join("fresh");
        std::os::unix::fs::symlink(version, &fresh).unwrap();
        fs::rename(&fresh, dir.join("data")).unwrap();
    };
    link(&secret("1"));
    config.tls.cert = Some(dir.join("data/worker-1-cert.pem"));
    config.tls.key = Some(dir.join("data/worker-1-key.pem"));
    let server = Process::start(config).await;
    assert_eq!(expiry(&server, "own"), END_OF_2099);
    authority.certify("worker-1", &["worker-1"], 2101);
    link(&secret("2"));
    renewed(&server).await;
}

#[tokio::test]
async fn files_that_are_no_use_change_nothing_and_are_told() {
    let authority = Authority::new();
    let server = Process::start(looking_often(authority.config("worker-1"))).await;
    let served = server.serve(1, Arc::new(Numbers::new())).await;
    let dir = directory(&authority);
    let (cert, key) = (dir.join("worker-1-cert.pem"), dir.join("worker-1-key.pem"));
    let good = [&cert, &key].map(|path| fs::read(path).unwrap());
    let mend = || {
        fs::write(&cert, &good[0]).unwrap();
        fs::write(&key, &good[1]).unwrap();
    };
    let half_written = || fs::write(&cert, &good[0][..good[0].len() / 2]).unwrap();
    let of_another_key = || take_another_key(&authority, &key);
    let empty = || fs::write(authority.ca().unwrap(), "").unwrap();
    let missing = || fs::remove_file(&key).unwrap();
    let of_another_name = || authority.certify("worker-1", &["worker-2"], 2101);
    let ca = fs::read(authority.ca().unwrap()).unwrap();
    for (what, spoil) in [
        ("half written", &half_written as &dyn Fn()),
        ("of another key", &of_another_key),
        ("no authority", &empty),
        ("missing", &missing),
        ("of another name", &of_another_name),
    ] {
        spoil();
        in_time(server.health.amiss("certificates")).await;
        assert_eq!(expiry(&server, "own"), END_OF_2099, "{what}");
        let late = looking_often(client_config(&authority, &ca));
        let late = Process::start(late).await;
        let mut answer = late.plane.open(served.address(), request(NOTHING));
        read(&mut answer, 0..1).await;
        mend();
        fs::write(authority.ca().unwrap(), &ca).unwrap();
        until(|| degraded(&server).is_empty()).await;
    }
}

/// A key that is not the certificate's.
fn take_another_key(authority: &Authority, key: &Path) {
    let other = authority.config("other");
    fs::copy(other.tls.key.unwrap(), key).unwrap();
}

/// The settings of a client that reads the authority's certificate elsewhere.
fn client_config(authority: &Authority, ca: &[u8]) -> TcpConfig {
    let mut config = authority.config("frontend-1");
    let path = directory(authority).join("elsewhere.pem");
    fs::write(&path, ca).unwrap();
    config.tls.ca = Some(path);
    config
}

#[tokio::test]
async fn a_session_goes_on_with_a_client_whose_certificate_was_renewed() {
    let authority = Authority::new();
    let proxy = FaultProxy::to_nowhere().unwrap();
    let server = Process::behind(&proxy, looking_often(authority.config("worker-1"))).await;
    let client = Process::start(looking_often(authority.config("frontend-1"))).await;
    let numbers = Numbers::new();
    let served = server.serve(1, Arc::new(numbers.clone())).await;
    let mut answer = client.plane.open(served.address(), request(ENDLESS));
    read(&mut answer, 0..100).await;
    authority.certify("frontend-1", &["frontend-1"], 2101);
    authority.certify("worker-1", &["worker-1"], 2101);
    renewed(&client).await;
    renewed(&server).await;
    proxy.cut();
    read(&mut answer, 100..2000).await;
    until(|| client.metric("forebay_tcp_client_reattachments_total") == 1.0).await;
    assert_eq!(*numbers.begun.borrow(), 1);
}
