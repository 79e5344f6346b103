use std::path::PathBuf;

use forebay_runtime::{PeerTlsConfig, TcpConfig};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use tempfile::TempDir;

/// Who signs certificates, and where its files are.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, dir }
    }

    /// Where its own certificate is.
    pub(crate) fn ca(&self) -> Option<PathBuf> {
        Some(self.dir.path().join("ca.pem"))
    }

    /// The settings of a process with this name.
    pub(crate) fn config(&self, name: &str) -> TcpConfig {
        self.config_of(name, &[name])
    }

    /// The settings of a process whose certificate is for these names.
    pub(crate) fn config_of(&self, file: &str, names: &[&str]) -> TcpConfig {
        self.certify(file, names, 2100);
        let path = |what| Some(self.path(file, what));
        TcpConfig {
            tls: PeerTlsConfig {
                cert: path("cert"),
                key: path("key"),
                ca: self.ca(),
                names: Vec::new(),
            },
            ..TcpConfig::default()
        }
    }

    /// Writes a new certificate with a new key in place of what was in the files. It expires when
    /// the year begins.
    pub(crate) fn certify(&self, file: &str, names: &[&str], until: i32) {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = date_time_ymd(until, 1, 1);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(file, "cert"), certificate.pem()).unwrap();
        std::fs::write(self.path(file, "key"), key.serialize_pem()).unwrap();
    }

    fn path(&self, file: &str, what: &str) -> PathBuf {
        self.dir.path().join(format!("{file}-{what}.pem"))
    }
}
