//! A file of a hub repository, over HTTPS.
//!
//! The hub's protocol for one file is small: `HEAD <endpoint>/<owner>/<repo>/resolve/<revision>/<file>`
//! answers with the commit, size and content digest, and mostly redirects to a store of large
//! files; a ranged `GET` of the same address brings the bytes.
//! (<https://huggingface.co/docs/huggingface_hub/package_reference/file_download>)

use std::sync::Arc;
use std::time::Duration;

use ureq::http::{HeaderMap, StatusCode, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::typestate::WithoutBody;
use ureq::{Agent, RequestBuilder};

use super::ModelSource;
use crate::config::HubConfig;
use crate::digest::Sha256Digest;
use crate::error::Error;
use crate::model_ref::HubRef;
use crate::progress::Phase;
use crate::staging::{CopyError, Staging};

/// How often a repository may have been renamed.
const MAX_RENAMES: usize = 5;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Also the longest that a cancellation can go unnoticed.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);

/// A model file of a hub repository.
///
/// A connection that breaks is made again as long as each brings some bytes; what an ended fetch
/// leaves is continued by the next. The bytes are checked against the digest that the hub
/// announces. TLS trusts the system's roots; proxies are taken from the usual variables.
#[derive(Debug, Clone)]
pub struct HubSource {
    address: HubRef,
    hub: HubConfig,
}

/// What the hub says about a file.
struct Announced {
    /// Names the content: the sha256 of a large file, another hash of a small one.
    etag: String,
    size_bytes: u64,
}

impl HubSource {
    /// The file that `address` names, of the hub that `hub` names.
    pub fn new(address: HubRef, hub: HubConfig) -> Self {
        Self { address, hub }
    }

    fn url(&self) -> String {
        let Self { address, hub } = self;
        format!(
            "{}/{}/{}/resolve/{}/{}",
            hub.endpoint.trim_end_matches('/'),
            address.owner(),
            address.repo(),
            address.revision(),
            address.file(),
        )
    }

    /// Adds what every request to the endpoint carries. The client drops the token where it is
    /// redirected.
    fn request(&self, builder: RequestBuilder<WithoutBody>) -> RequestBuilder<WithoutBody> {
        match &self.hub.token {
            Some(token) => builder.header("authorization", format!("Bearer {}", token.reveal())),
            None => builder,
        }
    }

    /// Asks what the file is, and under which address the endpoint has it now.
    fn ask(&self, agent: &Agent) -> Result<(String, Announced), Error> {
        let mut url = self.url();
        for _ in 0..MAX_RENAMES {
            let head = agent.head(&url).config().max_redirects(0).build();
            let answer = self.request(head).call().map_err(transport(&url))?;
            let status = answer.status();
            if status.is_client_error() || status.is_server_error() {
                return Err(Error::HubStatus {
                    url,
                    status: status.as_u16(),
                });
            }
            match status
                .is_redirection()
                .then(|| moved(&url, answer.headers()))
                .flatten()
            {
                // The repository has another name now.
                Some(elsewhere) => url = elsewhere,
                // Here, or in the store of large files.
                None => {
                    let announced = Announced::read(answer.headers(), status.is_redirection());
                    return match announced {
                        Ok(announced) => Ok((url, announced)),
                        Err(what) => Err(Error::HubAnswer { url, what }),
                    };
                }
            }
        }
        Err(Error::HubAnswer {
            url,
            what: "it redirects without end",
        })
    }

    /// Brings the bytes that are missing, over one connection, until it ends.
    fn continue_once(
        &self,
        agent: &Agent,
        url: &str,
        staging: &mut Staging<'_>,
    ) -> Result<(), CopyError> {
        let start = staging.written_bytes();
        let mut get = self.request(agent.get(url));
        if start > 0 {
            get = get.header("range", format!("bytes={start}-"));
        }
        let answer = get.call().map_err(transport(url))?;
        match answer.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = header(answer.headers(), "content-range").unwrap_or_default();
                if !range.starts_with(&format!("bytes {start}-")) {
                    let what = "it has another range than was asked for";
                    return Err(Error::HubAnswer {
                        url: url.to_owned(),
                        what,
                    }
                    .into());
                }
            }
            // The whole file, asked for or not.
            StatusCode::OK if start > 0 => staging.restart()?,
            StatusCode::OK => {}
            status => {
                return Err(Error::HubStatus {
                    url: url.to_owned(),
                    status: status.as_u16(),
                }
                .into());
            }
        }
        staging
            .copy_from(Phase::Fetching, &mut answer.into_body().into_reader())
            .map(drop)
    }
}

impl Announced {
    fn read(headers: &HeaderMap, elsewhere: bool) -> Result<Self, &'static str> {
        let etag = header(headers, "x-linked-etag").or_else(|| header(headers, "etag"));
        let etag = etag
            .ok_or("it has no ETag")?
            .trim_start_matches("W/")
            .trim_matches('"');
        // The length of a redirect is that of its own body.
        let here = if elsewhere {
            None
        } else {
            header(headers, "content-length")
        };
        let size = header(headers, "x-linked-size")
            .or(here)
            .ok_or("it has no size")?;
        Ok(Self {
            etag: etag.to_owned(),
            size_bytes: size.parse().map_err(|_| "its size is not a number")?,
        })
    }
}

impl ModelSource for HubSource {
    fn origin(&self) -> String {
        self.address.to_string()
    }

    fn file_name(&self) -> &str {
        let file = self.address.file();
        file.rsplit_once('/').map_or(file, |(_, file)| file)
    }

    fn fetch(&self, staging: &mut Staging<'_>) -> Result<(), Error> {
        let agent = agent();
        let (url, Announced { etag, size_bytes }) = self.ask(&agent)?;
        staging.announce(size_bytes, etag.parse::<Sha256Digest>().ok())?;
        if staging.resume(&etag)? > size_bytes {
            staging.restart()?;
        }
        while staging.written_bytes() < size_bytes {
            staging.check_cancelled()?;
            let before = staging.written_bytes();
            let error = match self.continue_once(&agent, &url, staging) {
                Ok(()) => "the connection ended early".into(),
                Err(CopyError::Read(error)) => error.into(),
                Err(CopyError::Keep(error)) => return Err(error),
            };
            if staging.written_bytes() <= before {
                return Err(Error::HubTransport { url, source: error });
            }
        }
        Ok(())
    }
}

fn agent() -> Agent {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(provider)
        .build();
    Agent::config_builder()
        .tls_config(tls)
        .user_agent(concat!("forebay/", env!("CARGO_PKG_VERSION")))
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(SILENCE_TIMEOUT))
        .timeout_per_read(Some(SILENCE_TIMEOUT))
        .build()
        .into()
}

fn transport(url: &str) -> impl FnOnce(ureq::Error) -> Error {
    let url = url.to_owned();
    move |source| Error::HubTransport {
        url,
        source: source.into(),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Where a redirect leads, if that is on the same server.
fn moved(url: &str, headers: &HeaderMap) -> Option<String> {
    let path = header(headers, "location")?;
    if !path.starts_with('/') || path.starts_with("//") {
        return None;
    }
    let here: Uri = url.parse().ok()?;
    Some(format!(
        "{}://{}{path}",
        here.scheme_str()?,
        here.authority()?
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
