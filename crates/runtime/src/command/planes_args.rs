use std::net::SocketAddr;

use forebay_settings::Flag;

/// The flags of [`PlanesConfig`](crate::PlanesConfig), for a component's own [`clap::Args`] to
/// flatten.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Between processes")]
pub struct PlanesArgs {
    /// The deployment's name: processes with the same one find each other [default: forebay]
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,

    /// Where processes find each other: file:DIR, etcd://HOST:PORT[,HOST:PORT] [default: file:, a
    /// directory of this user's]
    #[arg(long, value_name = "WHERE")]
    discovery: Option<String>,

    /// What requests and answers go by: tcp, nats://HOST:PORT, or nats, the servers of --events
    /// [default: tcp]
    #[arg(long, value_name = "HOW")]
    requests: Option<String>,

    /// What KV events, load, changes of workers' cards and frontends' news for each other go by: tcp
    /// or nats://HOST:PORT [default: what requests go by]
    #[arg(long, value_name = "HOW")]
    events: Option<String>,

    /// Where it listens for the others over TCP; port 0 takes a free one [default: 127.0.0.1:0]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,

    /// The host, or HOST:PORT, under which they reach that [default: where it listens]
    #[arg(long, value_name = "HOST[:PORT]")]
    advertise: Option<String>,
}

impl PlanesArgs {
    /// The settings that were given: below `planes`, and the namespace as `namespace_key`.
    pub fn flags(&self, namespace_key: &str) -> [Option<Flag>; 6] {
        let text = |name, key, value: &Option<String>| Flag::given(name, key, value.as_deref());
        let listen = self.listen.map(|address| address.to_string());
        [
            text("--namespace", namespace_key, &self.namespace),
            text("--discovery", "planes.discovery", &self.discovery),
            text("--requests", "planes.requests", &self.requests),
            text("--events", "planes.events", &self.events),
            Flag::given("--listen", "planes.listen", listen),
            text("--advertise", "planes.advertise", &self.advertise),
        ]
    }
}
