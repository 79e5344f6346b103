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

use crate::planes::TlsConfig;

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
    /// The files are no certificates, or do not belong together.
    #[error("the certificates cannot be used")]
    Certificates(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Both ends of TLS for one process.
pub(super) struct Tls {
    pub(super) acceptor: TlsAcceptor,
    pub(super) connector: TlsConnector,
    /// The first DNS name of this process's certificate: what clients check it for.
    pub(super) identity: Option<String>,
}

impl Tls {
    /// Reads the files.
    pub(super) fn load(config: &TlsConfig) -> Result<Self, TlsError> {
        let (Some(cert), Some(key)) = (&config.cert, &config.key) else {
            return Err(TlsError::NoCertificate);
        };
        let chain = certificates(cert)?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::File {
            path: key.clone(),
            source,
        })?;
        let identity = identity(&chain)?;
        let provider = Arc::new(ring::default_provider());
        let roots = Arc::new(roots(config.ca.as_deref())?);
        let server = server(&provider, config.ca.is_some(), &roots, &chain, &key)?;
        let client = client(&provider, &roots, chain, key)?;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
            identity,
        })
    }
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

fn identity(chain: &[CertificateDer<'static>]) -> Result<Option<String>, TlsError> {
    let own = chain.first().ok_or(TlsError::NoCertificate)?;
    let certificate = webpki::EndEntityCert::try_from(own).map_err(unusable)?;
    Ok(certificate.valid_dns_names().next().map(str::to_owned))
}

fn unusable(error: impl std::error::Error + Send + Sync + 'static) -> TlsError {
    TlsError::Certificates(error.into())
}
