//! Both ends of connections, by what is in the files.

use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, version};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::certificate::expiry;
use super::files::Files;
use super::{TlsError, unusable};
use crate::planes::PeerTlsConfig;

/// What new connections are made with.
pub(super) struct Ends {
    pub(super) acceptor: TlsAcceptor,
    pub(super) connector: TlsConnector,
    /// This process's certificate.
    pub(super) own: CertificateDer<'static>,
    /// When the first of its chain expires, since the Unix epoch.
    pub(super) own_expiry: Option<Duration>,
    /// When the last of the authorities expires, if they are in a file.
    pub(super) ca_expiry: Option<Duration>,
}

impl Ends {
    pub(super) fn new(config: &PeerTlsConfig, files: &Files) -> Result<Self, TlsError> {
        let chain = files.chain(config)?;
        let own = chain.first().ok_or(TlsError::NoCertificate)?.clone();
        let own_expiry = chain.iter().filter_map(expiry).min();
        let key = files.key(config)?;
        let authorities = files.authorities(config)?;
        let is_mutual = authorities.is_some();
        let ca_expiry = authorities.iter().flatten().filter_map(expiry).max();
        let roots = Arc::new(roots(authorities)?);
        let provider = Arc::new(ring::default_provider());
        let server = server(&provider, is_mutual, &roots, &chain, &key)?;
        let client = client(&provider, &roots, chain, key)?;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
            own,
            own_expiry,
            ca_expiry,
        })
    }
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

/// Who signs good certificates: these, or the system's.
fn roots(authorities: Option<Vec<CertificateDer<'static>>>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Some(authorities) => {
            for certificate in authorities {
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
