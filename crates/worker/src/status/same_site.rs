//! Who may change something: no web page that an operator's browser shows.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use forebay_engine::{Error, ErrorClass};
use forebay_runtime::http::Refusal;

use super::server::Process;

/// Refuses what a page in a browser may have sent.
pub(super) async fn same_site(
    State(process): State<Process>,
    request: Request,
    next: Next,
) -> Response {
    match check(request.headers(), process.host.as_deref()) {
        Ok(()) => next.run(request).await,
        Err(error) => Refusal::from(error).into_response(),
    }
}

/// A browser names the page's origin in whatever can change something. A page whose name was made
/// to lead here (DNS rebinding) is told by the name. `own` is this machine's, if it has one.
fn check(headers: &HeaderMap, own: Option<&str>) -> Result<(), Error> {
    let refused = |reason, message| Err(Error::new(ErrorClass::PermissionDenied, reason, message));
    if headers.contains_key(ORIGIN) {
        return refused("origin_not_allowed", "pages in browsers have no control");
    }
    match headers.get(HOST).map(|host| host.as_bytes().try_into()) {
        // A client of HTTP/1.0, which no browser is.
        None => Ok(()),
        Some(Ok(host)) if is_own(&host, own) => Ok(()),
        Some(_) => {
            let message = "the host must be an address, localhost or planes.advertise";
            refused("host_not_allowed", message)
        }
    }
}

fn is_own(named: &Authority, own: Option<&str>) -> bool {
    let host = named.host();
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    bare.unwrap_or(host).parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || own.is_some_and(|own| host.eq_ignore_ascii_case(own))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn reason(headers: &[(&'static str, &str)]) -> Option<String> {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let refused = check(&headers.collect(), Some("worker1.internal")).err();
        refused.map(|error| error.reason.to_string())
    }

    #[test]
    fn who_names_this_machine_is_let_in() {
        assert_eq!(reason(&[]), None);
        for host in [
            "127.0.0.1:9090",
            "[::1]:9090",
            "10.0.0.7",
            "localhost:9090",
            "LOCALHOST",
            "worker1.internal:9090",
            "Worker1.Internal",
        ] {
            assert_eq!(reason(&[("host", host)]), None, "{host}");
        }
    }

    #[test]
    fn who_names_another_one_is_not() {
        for host in [
            "evil.example",
            "evil.example:9090",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "worker2.internal",
            "",
            "a b",
        ] {
            let refused = reason(&[("host", host)]);
            assert_eq!(refused.as_deref(), Some("host_not_allowed"), "{host}");
        }
    }

    #[test]
    fn a_page_is_not() {
        for origin in ["http://evil.example", "http://127.0.0.1:9090", "null"] {
            let refused = reason(&[("host", "127.0.0.1:9090"), ("origin", origin)]);
            assert_eq!(refused.as_deref(), Some("origin_not_allowed"), "{origin}");
        }
    }
}
