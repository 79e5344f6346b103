//! Whether a process can be reached from where its planes let it be found.

use std::net::IpAddr;

use super::choice::{DiscoveryChoice, EventsChoice, RequestsChoice};
use super::config::PlanesConfig;

/// How far the advertised address of TCP reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// As far as anyone can find it; or nothing listens.
    Everyone,
    /// This machine alone, while others may share the directory by which it is found.
    PerhapsTooShort,
    /// This machine alone, while others can find it, or are invited by where it listens.
    TooShort,
}

pub(super) fn reach(config: &PlanesConfig) -> Reach {
    let is_local = match &config.advertise {
        None => config.listen.ip().is_loopback(),
        Some(advertised) => is_this_machine(advertised),
    };
    if config.requests != RequestsChoice::Tcp || !is_local {
        return Reach::Everyone;
    }
    let elsewhere = |servers: &[String]| !servers.iter().all(|server| is_this_machine(server));
    let finds = match &config.discovery {
        DiscoveryChoice::Memory | DiscoveryChoice::File(None) => Reach::Everyone,
        DiscoveryChoice::File(Some(_)) => Reach::PerhapsTooShort,
        DiscoveryChoice::Etcd(members) if elsewhere(members) => Reach::TooShort,
        DiscoveryChoice::Etcd(_) => Reach::Everyone,
    };
    let hears = matches!(&config.events, Some(EventsChoice::Nats(servers)) if elsewhere(servers));
    match hears || !config.listen.ip().is_loopback() {
        true => Reach::TooShort,
        false => finds,
    }
}

/// Whether `HOST` or `HOST:PORT` is of the loopback interface.
fn is_this_machine(address: &str) -> bool {
    let host = match address.rsplit_once(':') {
        Some((host, _)) if address.parse::<IpAddr>().is_err() => host,
        _ => address,
    };
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse();
    match ip {
        Ok(ip) => IpAddr::is_loopback(&ip),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn who_can_be_found_by_others_is_to_be_reached_by_them() {
        let reaches = |change: &dyn Fn(&mut PlanesConfig)| {
            let mut config = PlanesConfig::default();
            change(&mut config);
            reach(&config)
        };
        let discovery = |what: &str| {
            let choice: DiscoveryChoice = what.parse().unwrap();
            reaches(&move |config| config.discovery = choice.clone())
        };
        assert_eq!(discovery("file:"), Reach::Everyone);
        assert_eq!(discovery("file:/shared"), Reach::PerhapsTooShort);
        let local = "etcd://127.0.0.1:1,[::1]:2,localhost:3";
        assert_eq!(discovery(local), Reach::Everyone);
        assert_eq!(discovery("etcd://127.0.0.1:1,etcd-1:2"), Reach::TooShort);

        let nats = |config: &mut PlanesConfig| {
            config.events = Some("nats://10.0.0.1:4222".parse().unwrap());
        };
        assert_eq!(reaches(&nats), Reach::TooShort);
        let nats_alone = |config: &mut PlanesConfig| {
            config.requests = "nats://10.0.0.1:4222".parse().unwrap();
        };
        assert_eq!(reaches(&nats_alone), Reach::Everyone, "nothing listens");

        for (advertise, expected) in [
            ("127.0.0.1", Reach::TooShort),
            ("[::1]:7", Reach::TooShort),
            ("::1", Reach::TooShort),
            ("localhost:7", Reach::TooShort),
            ("10.0.0.2", Reach::Everyone),
            ("fd00::1", Reach::Everyone),
            ("worker-1:7", Reach::Everyone),
        ] {
            let everywhere = |config: &mut PlanesConfig| {
                config.listen = "0.0.0.0:0".parse().unwrap();
                config.advertise = Some(advertise.to_owned());
            };
            assert_eq!(reaches(&everywhere), expected, "{advertise}");
        }
    }
}
