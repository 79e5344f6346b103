//! TLS of a plane: who this process is, and who the others must be.

mod certificate;
mod ends;
mod files;
mod metrics;
mod renewal;

use std::fmt;
use std::path::PathBuf;

use forebay_observability::Registry;
use parking_lot::RwLock;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub(super) use certificate::Holder;
pub(super) use renewal::renew;

use self::ends::Ends;
use self::files::Files;
use self::metrics::Metrics;
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
    /// A renewed certificate is for other names than the one before.
    #[error("the certificate is not for {identity}, which others know this process by")]
    OtherIdentity {
        /// The name that it has to be for.
        identity: String,
    },
    /// The files are no certificates, or do not belong together.
    #[error("the certificates cannot be used")]
    Certificates(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Both ends of TLS for one process.
pub(super) struct Tls {
    config: PeerTlsConfig,
    /// What was in the files at the start.
    files: Files,
    /// The name in this process's certificate that clients check it for, however often it is renewed.
    pub(super) identity: String,
    ends: RwLock<Ends>,
    metrics: Metrics,
}

impl Tls {
    /// Reads the files, which blocks. Others reach this process at `host`.
    pub(super) fn load(
        config: &PeerTlsConfig,
        host: &str,
        registry: &Registry,
    ) -> Result<Self, TlsError> {
        let files = Files::read(config)?;
        let ends = Ends::new(config, &files)?;
        let identity = certificate::identity(&ends.own, host)?;
        let metrics = Metrics::new(registry);
        metrics.tell(&ends);
        Ok(Self {
            config: config.clone(),
            files,
            identity,
            ends: RwLock::new(ends),
            metrics,
        })
    }

    /// New connections are made with what is in these files from now on. It blocks: files of
    /// authorities may be read.
    fn take(&self, files: &Files) -> Result<(), TlsError> {
        let ends = Ends::new(&self.config, files)?;
        if !certificate::is_for(&ends.own, &self.identity) {
            let identity = self.identity.clone();
            return Err(TlsError::OtherIdentity { identity });
        }
        let mut in_use = self.ends.write();
        *in_use = ends;
        // Whoever sees this connects with them.
        self.metrics.tell(&in_use);
        Ok(())
    }

    /// Takes connections.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.ends.read().acceptor.clone()
    }

    /// Makes connections.
    pub(super) fn connector(&self) -> TlsConnector {
        self.ends.read().connector.clone()
    }

    /// Whether a peer that showed these certificates, which were verified, may be a member.
    pub(super) fn admits(&self, shown: Option<&[CertificateDer<'_>]>) -> bool {
        let names = &self.config.names;
        if names.is_empty() {
            return true;
        }
        let own = shown.and_then(<[_]>::first);
        let Some(Ok(certificate)) = own.map(webpki::EndEntityCert::try_from) else {
            return false;
        };
        let is_listed = |name: &str| names.iter().any(|pattern| matches(pattern, name));
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
