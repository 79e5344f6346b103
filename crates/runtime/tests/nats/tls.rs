use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use forebay_runtime::{NatsConfig, TlsConfig};
use forebay_testkit::NatsServer;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use tempfile::TempDir;

use crate::connection::failure;
use crate::{config, connect};

/// Certificates of an authority, in files.
struct Certificates(TempDir);

impl Certificates {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = CertifiedIssuer::self_signed(params, key).unwrap();
        let certificates = Self(TempDir::new().unwrap());
        fs::write(certificates.file("ca"), authority.pem()).unwrap();
        for (name, usage) in [
            ("server", ExtendedKeyUsagePurpose::ServerAuth),
            ("client", ExtendedKeyUsagePurpose::ClientAuth),
        ] {
            let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
            params.extended_key_usages = vec![usage];
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &authority).unwrap();
            fs::write(certificates.file(name), certificate.pem()).unwrap();
            let key_file = certificates.file(&format!("{name}-key"));
            fs::write(key_file, key.serialize_pem()).unwrap();
        }
        certificates
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(format!("{name}.pem"))
    }

    /// A server that shows its certificate and wants to see one.
    fn server(&self) -> NatsServer {
        let [cert, key, ca] = ["server", "server-key", "ca"].map(|name| self.file(name));
        NatsServer::with_options(&[
            "--tlsverify",
            "--tlscert",
            cert.to_str().unwrap(),
            "--tlskey",
            key.to_str().unwrap(),
            "--tlscacert",
            ca.to_str().unwrap(),
        ])
    }
}

#[tokio::test]
async fn both_sides_show_who_they_are() {
    let (ours, others) = (Certificates::new(), Certificates::new());
    let server = ours.server();
    let with = |cert: Option<&Certificates>, ca: &Certificates| NatsConfig {
        tls: TlsConfig {
            cert: cert.map(|of| of.file("client")),
            key: cert.map(|of| of.file("client-key")),
            ca: Some(ca.file("ca")),
        },
        connect_timeout: Duration::ZERO,
        ..config(&server)
    };
    connect(&with(Some(&ours), &ours)).await.unwrap();
    for refused in [
        with(None, &ours),
        with(Some(&others), &ours),
        with(Some(&ours), &others),
    ] {
        failure(&refused).await;
    }
}
