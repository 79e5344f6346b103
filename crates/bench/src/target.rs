use std::fmt;
use std::str::FromStr;

use crate::Error;

/// The server to measure: `http://host[:port][/prefix]`.
///
/// The prefix is what comes before `/v1`; a trailing `/v1`, as clients write their base URL, is
/// understood. Only plain HTTP: TLS would be in the measurement on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    host: String,
    port: u16,
    prefix: String,
}

impl Target {
    /// Host name or address, without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port as they stand in a URL and in the `host` header.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The path of an API route, such as `/v1/models`.
    pub(crate) fn path(&self, route: &str) -> String {
        format!("{}{route}", self.prefix)
    }
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self, Error> {
        let fault = |message| Error::Url {
            url: url.to_owned(),
            message,
        };
        let rest = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => {
                return Err(fault("https is not supported, only plain http"));
            }
            Some(_) => return Err(fault("its scheme is not http")),
            None => return Err(fault("it does not begin with http://")),
        };
        let (authority, path) = match rest.find(['/', '?', '#']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if path.contains(['?', '#']) {
            return Err(fault("it has a query"));
        }
        if authority.contains('@') {
            return Err(fault("it has a user name; give a header instead"));
        }
        if url.bytes().any(|byte| byte <= b' ' || byte >= 0x7F) {
            return Err(fault("it has a character that a URL cannot have"));
        }
        let (host, port) = split_authority(authority).ok_or(fault("its host has no end"))?;
        let port = match port {
            None | Some("") => 80,
            Some(port) => (port.parse().ok().filter(|&port| port > 0))
                .ok_or(fault("its port is no number from 1 to 65535"))?,
        };
        if host.is_empty() {
            return Err(fault("it has no host"));
        }
        let path = path.trim_end_matches('/');
        Ok(Self {
            host: host.to_owned(),
            port,
            prefix: path.strip_suffix("/v1").unwrap_or(path).to_owned(),
        })
    }
}

fn split_authority(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    match authority.split_once(':') {
        Some((host, port)) => Some((host, Some(port))),
        None => Some((authority, None)),
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.prefix)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_with_and_without_v1_is_one() {
        for url in [
            "http://127.0.0.1:8000",
            "http://127.0.0.1:8000/",
            "HTTP://127.0.0.1:8000/v1",
            "http://127.0.0.1:8000/v1/",
        ] {
            let target: Target = url.parse().unwrap();
            assert_eq!(target.to_string(), "http://127.0.0.1:8000");
            assert_eq!(target.path("/v1/models"), "/v1/models");
        }
    }

    #[test]
    fn hosts_ports_and_prefixes_are_told_apart() {
        let target: Target = "http://[::1]/gateway/v1".parse().unwrap();
        assert_eq!((target.host(), target.port()), ("::1", 80));
        assert_eq!(target.authority(), "[::1]:80");
        assert_eq!(target.path("/v1/models"), "/gateway/v1/models");
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        for (url, says) in [
            ("localhost:8000", "begin with http://"),
            ("https://example.com", "https"),
            ("ftp://example.com", "scheme"),
            ("http://", "no host"),
            ("http://:80", "no host"),
            ("http://a:0", "port"),
            ("http://a:99999", "port"),
            ("http://[::1", "no end"),
            ("http://u:p@a", "user name"),
            ("http://a?b", "query"),
            ("http://a/b c", "character"),
        ] {
            let error = Target::from_str(url).unwrap_err().to_string();
            assert!(error.contains(says), "{url}: {error}");
        }
    }
}
