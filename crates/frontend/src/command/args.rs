use std::net::IpAddr;

use forebay_runtime::command::PlanesArgs;
use forebay_settings::{Flag, Settings, SettingsArgs};

use super::settings::{FrontendSettings, OPEN};

/// The router's modes, but for `direct`: clients name no workers.
pub const ROUTER_MODES: [&str; 5] = [
    "kv",
    "round-robin",
    "random",
    "power-of-two",
    "least-loaded",
];

/// The command line of a frontend's process.
#[derive(Clone, Debug, clap::Args)]
pub struct FrontendArgs {
    /// The address to listen on for clients [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    host: Option<IpAddr>,

    /// The port to listen on for clients; 0 takes a free one [default: 8000]
    #[arg(long)]
    port: Option<u16>,

    /// How a worker is chosen: kv, round-robin, random, power-of-two or least-loaded [default: kv]
    #[arg(long, value_name = "MODE", value_parser = ROUTER_MODES, hide_possible_values = true)]
    router_mode: Option<String>,

    #[command(flatten)]
    planes: PlanesArgs,

    #[command(flatten)]
    pub(super) settings: SettingsArgs,
}

impl FrontendArgs {
    /// The settings: defaults, then the file, the environment as `FOREBAY_FRONTEND__<KEY>`, and the
    /// flags.
    ///
    /// # Errors
    ///
    /// What cannot be read.
    pub fn load(&self) -> Result<Settings<FrontendSettings>, forebay_settings::Error> {
        let file = self.settings.config.as_deref();
        Settings::load("frontend", file, self.flags(), OPEN)
    }

    /// The settings that were given; a flag of its own wins over `--set`.
    fn flags(&self) -> Vec<Flag> {
        let host = self.host.map(|host| host.to_string());
        let router_mode = self.router_mode.as_deref();
        let own = [
            Flag::given("--host", "frontend.host", host),
            Flag::given("--port", "frontend.port", self.port),
            Flag::given("--router-mode", "frontend.router.mode", router_mode),
        ];
        let planes = self.planes.flags("namespace");
        self.settings.flags(own.into_iter().chain(planes))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: FrontendArgs,
    }

    fn args(line: &[&str]) -> FrontendArgs {
        Line::parse_from([&["frontend"], line].concat()).args
    }

    #[test]
    fn every_flag_is_a_setting() {
        Line::command().debug_assert();
        let args = args(&[
            "--host",
            "::1",
            "--port",
            "9",
            "--router-mode",
            "random",
            "--namespace",
            "n",
            "--discovery",
            "file:/d",
            "--requests",
            "nats",
            "--events",
            "nats://h:1",
            "--listen",
            "[::1]:5",
            "--advertise",
            "h:7",
            "--set",
            "frontend.port=8",
        ]);
        let settings = args.load().unwrap().values;
        settings.check().unwrap();
        let address = settings.frontend.address();
        assert_eq!(address.to_string(), "[::1]:9", "it wins over --set");
        assert_eq!(settings.frontend.router.mode.to_string(), "random");
        assert_eq!(settings.namespace, "n");
        assert_eq!(settings.planes.discovery.to_string(), "file:/d");
        assert_eq!(settings.planes.requests.to_string(), "nats");
        assert_eq!(settings.planes.events_in_use().to_string(), "nats://h:1");
        assert_eq!(settings.planes.listen.to_string(), "[::1]:5");
        assert_eq!(settings.planes.advertise.as_deref(), Some("h:7"));
    }

    #[test]
    fn every_router_mode_is_one() {
        for mode in ROUTER_MODES {
            let settings = args(&["--router-mode", mode]).load().unwrap().values;
            assert_eq!(settings.frontend.router.mode.to_string(), mode);
            settings.check().unwrap();
        }
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (set, says) in [
            ("planes.discovery=zookeeper", "planes.discovery"),
            ("frontend.prot=1", "did you mean `frontend.port`"),
        ] {
            let error = args(&["--set", set]).load().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        for (set, says) in [
            ("io_threads=1025", "io_threads must be from 1 to 1024"),
            ("namespace=No", "namespace must be 1 to 63"),
            ("frontend.router.mode=direct", "router.mode must be"),
            ("planes.lease_seconds=0", "wrong setting in `planes`"),
            ("shutdown.grace_seconds=-1", "wrong setting in `shutdown`"),
        ] {
            let settings = args(&["--set", set]).load().unwrap().values;
            let error = settings.check().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
