//! The files of TLS.

use std::path::Path;

use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;
use crate::planes::PeerTlsConfig;

/// What was in the files at one moment.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Files {
    cert: Vec<u8>,
    key: Vec<u8>,
    ca: Option<Vec<u8>>,
}

impl Files {
    /// Reads them, which blocks.
    pub(super) fn read(config: &PeerTlsConfig) -> Result<Self, TlsError> {
        let (Some(cert), Some(key)) = (&config.cert, &config.key) else {
            return Err(TlsError::NoCertificate);
        };
        Ok(Self {
            cert: read(cert)?,
            key: read(key)?,
            ca: config.ca.as_deref().map(read).transpose()?,
        })
    }

    /// This process's certificate, and those between it and an authority.
    pub(super) fn chain(
        &self,
        config: &PeerTlsConfig,
    ) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        certificates(&self.cert, config.cert.as_deref())
    }

    /// The certificate's private key.
    pub(super) fn key(&self, config: &PeerTlsConfig) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(&self.key).map_err(in_file(config.key.as_deref()))
    }

    /// The authorities, if there is a file of them.
    pub(super) fn authorities(
        &self,
        config: &PeerTlsConfig,
    ) -> Result<Option<Vec<CertificateDer<'static>>>, TlsError> {
        let ca = self.ca.as_ref();
        ca.map(|ca| certificates(ca, config.ca.as_deref()))
            .transpose()
    }
}

fn read(path: impl AsRef<Path>) -> Result<Vec<u8>, TlsError> {
    let path = path.as_ref();
    std::fs::read(path).map_err(|error| in_file(Some(path))(pem::Error::Io(error)))
}

/// Those of a file, which has one at least.
fn certificates(
    bytes: &[u8],
    path: Option<&Path>,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match read {
        Ok(read) if read.is_empty() => Err(in_file(path)(pem::Error::NoItemsFound)),
        read => read.map_err(in_file(path)),
    }
}

fn in_file(path: Option<&Path>) -> impl FnOnce(pem::Error) -> TlsError {
    let path = path.unwrap_or(Path::new("")).to_owned();
    |source| TlsError::File { path, source }
}
