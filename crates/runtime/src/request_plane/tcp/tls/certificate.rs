//! What is read in certificates.

use std::time::Duration;

use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, Error, KeyUsage};

use super::{TlsError, unusable};

/// Who showed a certificate: the same after it was renewed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Holder {
    /// The DNS names in it.
    Named(Vec<String>),
    /// The owner of this certificate, in which there are none.
    Owner(Vec<u8>),
}

impl Holder {
    /// Who showed this chain, if it is one; it was verified.
    pub(in super::super) fn of(shown: Option<&[CertificateDer<'_>]>) -> Option<Self> {
        let own = shown?.first()?;
        let mut names = Vec::new();
        if let Ok(certificate) = EndEntityCert::try_from(own) {
            let small = certificate.valid_dns_names().map(str::to_ascii_lowercase);
            names.extend(small);
        }
        names.sort_unstable();
        names.dedup();
        Some(match names.is_empty() {
            true => Self::Owner(own.to_vec()),
            false => Self::Named(names),
        })
    }
}

/// The host, if the certificate is for it, and else the first name that can be asked for.
pub(super) fn identity(own: &CertificateDer<'_>, host: &str) -> Result<String, TlsError> {
    if is_for(own, host) {
        return Ok(host.to_owned());
    }
    let certificate = EndEntityCert::try_from(own).map_err(unusable)?;
    let mut names = certificate.valid_dns_names();
    let name = names.find(|name| !name.starts_with('*'));
    name.map(str::to_owned).ok_or_else(|| TlsError::NoIdentity {
        host: host.to_owned(),
    })
}

/// Whether clients that ask for this name take the certificate.
pub(super) fn is_for(own: &CertificateDer<'_>, name: &str) -> bool {
    let (Ok(certificate), Ok(name)) = (EndEntityCert::try_from(own), ServerName::try_from(name))
    else {
        return false;
    };
    certificate.verify_is_valid_for_subject_name(&name).is_ok()
}

/// When a certificate expires, since the Unix epoch; none if that cannot be read.
pub(super) fn expiry(certificate: &CertificateDer<'_>) -> Option<Duration> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    // The verifier looks at the time first, and says until when it would have been good.
    let end_of_time = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX));
    let usage = KeyUsage::server_auth();
    match certificate.verify_for_usage(&[], &[], &[], end_of_time, usage, None, None) {
        Err(Error::CertExpired { not_after, .. }) => Some(Duration::from_secs(not_after.as_secs())),
        _ => None,
    }
}
