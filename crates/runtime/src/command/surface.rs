use std::fmt;
use std::net::SocketAddr;

use crate::planes::PeerTlsConfig;

/// Something that listens, as the user is told of it: where, who can reach it, what guards it, and
/// what is there. Each part is a line that is indented and ended.
#[derive(Clone, Copy, Debug)]
pub struct Surface<'a> {
    /// `http` or `tcp`.
    pub scheme: &'a str,
    /// Where it listens.
    pub address: SocketAddr,
    /// What keeps others out, or that nothing does.
    pub guard: &'a str,
    /// What is there, a line each.
    pub offers: &'a [&'a str],
}

impl fmt::Display for Surface<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            scheme,
            address,
            guard,
            offers,
        } = self;
        let reach = match address.ip() {
            ip if ip.is_loopback() => "this machine only",
            ip if ip.is_unspecified() => "every network of this machine",
            _ => "the network of this address",
        };
        writeln!(f, "  {scheme}://{address} ({reach}, {guard})")?;
        (offers.iter()).try_for_each(|offer| writeln!(f, "    {offer}"))
    }
}

/// What TLS keeps others out by, where processes talk to each other.
pub fn guard(tls: &PeerTlsConfig) -> &'static str {
    match (tls.is_on(), tls.ca.is_some()) {
        (false, _) => "without TLS",
        (true, false) => "TLS",
        (true, true) => "mutual TLS",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn who_can_reach_it_and_what_guards_it_are_said() {
        let surface = |address: &str, tls: &PeerTlsConfig| {
            let surface = Surface {
                scheme: "tcp",
                address: address.parse().unwrap(),
                guard: guard(tls),
                offers: &["requests", "events"],
            };
            surface.to_string()
        };
        let (none, mut tls) = (PeerTlsConfig::default(), PeerTlsConfig::default());
        assert_eq!(
            surface("127.0.0.1:7", &none),
            "  tcp://127.0.0.1:7 (this machine only, without TLS)\n    requests\n    events\n"
        );
        tls.cert = Some("cert.pem".into());
        let everywhere = surface("[::]:7", &tls);
        assert!(everywhere.contains("(every network of this machine, TLS)"));
        tls.ca = Some("ca.pem".into());
        let one = surface("10.0.0.5:7", &tls);
        assert!(one.contains("(the network of this address, mutual TLS)"));
    }
}
