//! TLS of a plane: who this process is, and who the others must be.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, version};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::planes::PeerTlsConfig;

/// Why TLS cannot be had as it is set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// There is always a listener, and it must show a certificate.
    #[error("TLS needs `cert` and `key`")]
    NoCertificate,
    /// A file that cannot be read, or is not in PEM form.
    #[error("{} cannot be read", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What is wrong.
        source: tokio_rustls::rustls::pki_types::pem::Error,
    },
    /// The certificate is for names that no client could ask for.
    #[error("the certificate is neither for {host} nor for any name that is no wildcard")]
    NoIdentity {
        /// Under which host others reach this process.
        host: String,
    },
    /// The files are no certificates, or do not belong together.
    #[error("the certificates cannot be used")]
    Certificates(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Both ends of TLS for one process.
pub(super) struct Tls {
    pub(super) acceptor: TlsAcceptor,
    pub(super) connector: TlsConnector,
    /// The name in this process's certificate that clients check it for.
    pub(super) identity: String,
    /// Patterns of the names that may be members; empty, any that is well signed.
    names: Vec<String>,
}

impl Tls {
    /// Reads the files. Others reach this process at `host`.
    pub(super) fn load(config: &PeerTlsConfig, host: &str) -> Result<Self, TlsError> {
        let (Some(cert), Some(key)) = (&config.cert, &config.key) else {
            return Err(TlsError::NoCertificate);
        };
        let chain = certificates(cert)?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::File {
            path: key.clone(),
            source,
        })?;
        let identity = identity(&chain, host)?;
        let provider = Arc::new(ring::default_provider());
        let roots = Arc::new(roots(config.ca.as_deref())?);
        let server = server(&provider, config.ca.is_some(), &roots, &chain, &key)?;
        let client = client(&provider, &roots, chain, key)?;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
            identity,
            names: config.names.clone(),
        })
    }

    /// Whether a peer that showed these certificates, which were verified, may be a member.
    pub(super) fn admits(&self, shown: Option<&[CertificateDer<'_>]>) -> bool {
        if self.names.is_empty() {
            return true;
        }
        let own = shown.and_then(<[_]>::first);
        let Some(Ok(certificate)) = own.map(webpki::EndEntityCert::try_from) else {
            return false;
        };
        let is_listed = |name: &str| self.names.iter().any(|pattern| matches(pattern, name));
        certificate.valid_dns_names().any(is_listed)
    }
}

/// Whether a name is the pattern, or fits one that begins with `*.`, which stands for one label.
fn matches(pattern: &str, name: &str) -> bool {
    let parent = name.find('.').map(|at| &name[at..]);
    let fits = pattern.strip_prefix('*').zip(parent);
    pattern.eq_ignore_ascii_case(name)
        || fits.is_some_and(|(suffix, parent)| suffix.eq_ignore_ascii_case(parent))
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// The name that a server must show a certificate for.
pub(super) fn server_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(name.to_owned()).map_err(unusable)
}

fn server(
    provider: &Arc<CryptoProvider>,
    is_mutual: bool,
    roots: &Arc<RootCertStore>,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(unusable)?;
    let builder = if is_mutual {
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build();
        builder.with_client_cert_verifier(verifier.map_err(unusable)?)
    } else {
        builder.with_no_client_auth()
    };
    builder
        .with_single_cert(chain.to_vec(), key.clone_key())
        .map_err(unusable)
}

fn client(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, TlsError> {
    let verifier =
        WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone()).build();
    ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(unusable)?
        .with_webpki_verifier(verifier.map_err(unusable)?)
        .with_client_auth_cert(chain, key)
        .map_err(unusable)
}

/// Who signs good certificates: those of a file, or the system's.
fn roots(ca: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(unusable)?;
            }
        }
        // Some of the system's certificates may be of no use; the others are.
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
        }
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    read.map_err(|source| TlsError::File {
        path: path.to_owned(),
        source,
    })
}

/// The host, if the certificate is for it, and else the first name that can be asked for.
fn identity(chain: &[CertificateDer<'static>], host: &str) -> Result<String, TlsError> {
    let own = chain.first().ok_or(TlsError::NoCertificate)?;
    let certificate = webpki::EndEntityCert::try_from(own).map_err(unusable)?;
    let is_for = |name: ServerName<'_>| certificate.verify_is_valid_for_subject_name(&name).is_ok();
    if ServerName::try_from(host).is_ok_and(is_for) {
        return Ok(host.to_owned());
    }
    let mut names = certificate.valid_dns_names();
    let name = names.find(|name| !name.starts_with('*'));
    name.map(str::to_owned).ok_or_else(|| TlsError::NoIdentity {
        host: host.to_owned(),
    })
}

fn unusable(error: impl std::error::Error + Send + Sync + 'static) -> TlsError {
    TlsError::Certificates(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_one_label() {
        for (pattern, name) in [
            ("worker1.internal", "worker1.internal"),
            ("Worker1.internal", "worker1.Internal"),
            ("*.workers.internal", "a.workers.internal"),
            ("*.workers.internal", "*.workers.internal"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("worker1.internal", "worker2.internal"),
            ("*.workers.internal", "workers.internal"),
            ("*.workers.internal", "a.b.workers.internal"),
            ("*.workers.internal", "a.frontends.internal"),
            ("a.workers.internal", "*.workers.internal"),
            ("", "a"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
