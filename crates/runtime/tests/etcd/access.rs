//! Who is let in.

use etcd_client::Client;
use forebay_runtime::{Secret, TlsConfig};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use super::*;

/// How long a start waits that has to fail.
const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn nobody_there_is_an_error_that_says_where() {
    let etcd = Etcd::start();
    let address = etcd.address();
    drop(etcd);
    let config = EtcdDiscoveryConfig {
        connect_timeout: SHORT,
        ..config(address.clone())
    };
    let error = Process::connect(config).await.err().unwrap();
    let text = forebay_observability::ErrorChain(&error).to_string();
    assert!(text.contains(&address), "{text}");
}

#[tokio::test]
async fn who_comes_late_is_waited_for() {
    let mut etcd = Etcd::start();
    etcd.kill();
    let config = config(etcd.address());
    let (process, etcd) = tokio::join!(
        Process::connect(config),
        tokio::task::spawn_blocking(move || {
            etcd.restart();
            etcd
        })
    );
    assert_eq!(process.unwrap().list().await, []);
    drop(etcd);
}

fn user(name: &str, password: &str) -> EtcdConfig {
    EtcdConfig {
        user: Some(name.to_owned()),
        password: Some(Secret::new(password)),
        ..EtcdConfig::default()
    }
}

#[tokio::test]
async fn a_user_with_the_password_is_let_in_also_after_a_restart() {
    let mut etcd = Etcd::start();
    let mut client = Client::connect([etcd.address()], None).await.unwrap();
    client.user_add("root", "secret", None).await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.auth_enable().await.unwrap();

    let with = |access| EtcdDiscoveryConfig {
        access,
        connect_timeout: SHORT,
        ..config(etcd.address())
    };
    for refused in [EtcdConfig::default(), user("root", "wrong")] {
        assert!(Process::connect(with(refused)).await.is_err());
    }
    let good = EtcdDiscoveryConfig {
        access: user("root", "secret"),
        ..config(etcd.address())
    };
    let process = Process::connect(good).await.unwrap();
    let _first = process.discovery.register(instance(1)).await.unwrap();
    let mut watch = process.watch().await;
    next(&mut watch).await;

    // The server forgets every token.
    etcd.restart();
    let _second = in_time(process.discovery.register(instance(2)))
        .await
        .unwrap();
    loop {
        match next(&mut watch).await {
            InstanceEvent::Put(instance) if instance.worker == WorkerId(2) => break,
            InstanceEvent::Present(all) if all.len() == 2 => break,
            _ => {}
        }
    }
}

#[tokio::test]
async fn users_change_and_nobody_notices() {
    let directory = tempfile::tempdir().unwrap();
    // A token of this kind is good for the users as they were when it was made.
    let key = write(&directory, "key", "a key that signs tokens");
    let tokens = format!("jwt,priv-key={},sign-method=HS256,ttl=10m", key.display());
    let etcd = Etcd::with_options(&["--auth-token", &tokens]);
    let mut client = Client::connect([etcd.address()], None).await.unwrap();
    client.user_add("root", "secret", None).await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.auth_enable().await.unwrap();
    let with_user = etcd_client::ConnectOptions::new().with_user("root", "secret");
    let add = async |name: &str| {
        let mut admin = Client::connect([etcd.address()], Some(with_user.clone()))
            .await
            .unwrap();
        admin.user_add(name, "secret", None).await.unwrap();
    };

    let process = || async {
        let config = EtcdDiscoveryConfig {
            access: user("root", "secret"),
            ..config(etcd.address())
        };
        Process::connect(config).await.unwrap()
    };
    let (owner, late) = (process().await, process().await);
    let _first = owner.discovery.register(instance(1)).await.unwrap();
    let unnoticed = async {
        add("someone").await;
        let _second = in_time(owner.discovery.register(instance(2)))
            .await
            .unwrap();
        let mut watch = late.watch().await;
        let present = InstanceEvent::Present(vec![instance(1), instance(2)]);
        assert_eq!(next(&mut watch).await, present);
        add("another").await;
        let renewals = || owner.metric("forebay_discovery_lease_renewals_total");
        let before = renewals();
        until(|| renewals() >= before + 2.0).await;
        add("a third").await;
        let third = in_time(owner.discovery.register(instance(3)))
            .await
            .unwrap();
        assert_eq!(next(&mut watch).await, put(3));
        add("a fourth").await;
        third.deregister().await.unwrap();
        assert_eq!(next(&mut watch).await, InstanceEvent::Removed(WorkerId(3)));
    };
    tokio::select! {
        biased;
        reason = owner.health.amiss("discovery") => panic!("{reason}"),
        reason = late.health.amiss("discovery") => panic!("{reason}"),
        () = unnoticed => {}
    }
    assert_eq!(owner.metric("forebay_discovery_leases_lost_total"), 0.0);
}

/// A certificate authority and what it signed.
struct Authority {
    directory: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self {
            directory: tempfile::tempdir().unwrap(),
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
        }
    }

    /// The files of a certificate for 127.0.0.1, and of the authority's own.
    fn sign(&self, name: &str) -> TlsConfig {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let file = |kind: &str, text: &str| {
            Some(write(&self.directory, &format!("{name}.{kind}.pem"), text))
        };
        TlsConfig {
            cert: file("cert", &cert.pem()),
            key: file("key", &key.serialize_pem()),
            ca: file("ca", &self.issuer.pem()),
        }
    }
}

#[tokio::test]
async fn both_sides_show_certificates() {
    let authority = Authority::new();
    let server = authority.sign("server");
    let path = |path: &Option<PathBuf>| path.as_ref().unwrap().display().to_string();
    let etcd = Etcd::with_options(&[
        "--cert-file",
        &path(&server.cert),
        "--key-file",
        &path(&server.key),
        "--trusted-ca-file",
        &path(&server.ca),
        "--client-cert-auth",
    ]);
    let with = |tls, connect_timeout| EtcdDiscoveryConfig {
        access: EtcdConfig {
            tls,
            ..EtcdConfig::default()
        },
        connect_timeout,
        ..config(etcd.address())
    };
    let client = authority.sign("client");
    let process = Process::connect(with(client.clone(), DEADLINE))
        .await
        .unwrap();
    let _registration = process.discovery.register(instance(1)).await.unwrap();
    assert_eq!(process.list().await, [instance(1)]);

    let nameless = TlsConfig {
        ca: client.ca.clone(),
        ..TlsConfig::default()
    };
    let stranger = Authority::new().sign("stranger");
    let distrustful = TlsConfig {
        ca: stranger.ca.clone(),
        ..client.clone()
    };
    for refused in [TlsConfig::default(), nameless, stranger, distrustful] {
        assert!(Process::connect(with(refused, SHORT)).await.is_err());
    }
    let missing = TlsConfig {
        ca: Some(PathBuf::from("/nowhere/ca.pem")),
        ..TlsConfig::default()
    };
    let error = Process::connect(with(missing, DEADLINE))
        .await
        .err()
        .unwrap();
    let text = forebay_observability::ErrorChain(&error).to_string();
    assert!(text.contains("/nowhere/ca.pem"), "{text}");
}
