use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use forebay_runtime::Tasks;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::config::{Arrival, BenchConfig};
use crate::connection::Connections;
use crate::cpu;
use crate::load::{self, Limits};
use crate::probe::{self, Probed};
use crate::progress::{Phase, Progress};
use crate::prompt::{Prompts, TokenFit};
use crate::record::RequestRecord;
use crate::report::{Report, RunInfo, Surroundings};
use crate::request::RequestWriter;
use crate::samples::Samples;
use crate::schedule;
use crate::session::{Endpoint, Session};

/// What a run gives.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Measured {
    /// The numbers.
    pub report: Report,
    /// Every request of the measurement, in the order of their numbers.
    pub records: Vec<RequestRecord>,
}

/// Measures a server: asks how it counts, warms it up, sends the load, waits for what is under
/// way, and sums up.
///
/// It runs on the current tokio runtime, whose threads are the generator's. Cancelled by `cancel`
/// it gives up what is under way and reports what there is so far.
///
/// # Errors
///
/// - [`Error::Config`] if the configuration does not hold;
/// - [`Error::Unreachable`], [`Error::Probe`] if the server is not there or does not answer the
///   first requests;
/// - [`Error::ServerCpu`] if a process of [`BenchConfig::server_pids`] cannot be read;
/// - [`Error::Interrupted`] if it was cancelled before the measurement.
///
/// # Panics
///
/// Outside of a tokio runtime.
pub async fn run(
    config: &BenchConfig,
    tasks: &Tasks,
    cancel: CancellationToken,
    progress: Arc<dyn Progress>,
) -> Result<Measured, Error> {
    config.validate()?;
    cpu::of_processes(&config.server_pids)?;
    progress.began(Phase::Probe);
    let preparing = async {
        let connections = connect(config).await?;
        let probed = probe::probe(config, &connections).await?;
        Ok((connections, probed))
    };
    let prepared = cancel.run_until_cancelled(preparing).await;
    let (connections, probed) = prepared.ok_or(Error::Interrupted)??;
    let fit = probed.fit.unwrap_or(TokenFit::ASSUMED);
    let endpoint = Arc::new(Endpoint {
        connections,
        writer: RequestWriter::new(config, &probed.model, probed.exact_length),
        prompts: Prompts::new(config.workload.clone(), fit, config.seed),
        stream: config.stream,
        exact_length: probed.exact_length,
        timeout: config.timeout,
    });
    if config.warmup_requests > 0 {
        warm_up(config, &endpoint, tasks, &cancel, &progress).await;
    }
    if cancel.is_cancelled() {
        return Err(Error::Interrupted);
    }
    measure(config, endpoint, &probed, tasks, cancel, progress).await
}

/// Connects to the first address of the host that takes connections.
async fn connect(config: &BenchConfig) -> Result<Connections, Error> {
    let authority = config.target.authority();
    let unreachable = |source| Error::Unreachable {
        authority: authority.clone(),
        source,
    };
    let host = (config.target.host(), config.target.port());
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host(host)
        .await
        .map_err(unreachable)?
        .collect();
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        let connections = Connections::new(address);
        match tokio::time::timeout(config.timeout, connections.open()).await {
            Ok(Ok(())) => return Ok(connections),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(unreachable(last))
}

async fn warm_up(
    config: &BenchConfig,
    endpoint: &Arc<Endpoint>,
    tasks: &Tasks,
    cancel: &CancellationToken,
    progress: &Arc<dyn Progress>,
) {
    const CONCURRENCY: usize = 16;
    let requests = config.warmup_requests;
    progress.began(Phase::WarmUp { requests });
    let session = Session::begin(endpoint.clone(), cancel.clone(), progress.clone());
    let concurrency = match config.arrival {
        Arrival::Closed { concurrency } => concurrency,
        Arrival::Poisson { .. } | Arrival::Timestamps { .. } => CONCURRENCY,
    };
    let limits = Limits {
        requests: Some(requests),
        duration: None,
    };
    load::closed_loop(
        &Arc::new(session),
        concurrency,
        limits,
        Endpoint::write_warm_up,
        tasks,
    )
    .await;
}

async fn measure(
    config: &BenchConfig,
    endpoint: Arc<Endpoint>,
    probed: &Probed,
    tasks: &Tasks,
    cancel: CancellationToken,
    progress: Arc<dyn Progress>,
) -> Result<Measured, Error> {
    let (requests, duration) = config.limits();
    let limits = Limits { requests, duration };
    progress.began(Phase::Measure { requests, duration });
    let started_unix_seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs();
    let due_times = schedule::due_times(config.arrival, &config.workload, config.seed);
    let mut lag = Samples::default();

    let server_cpu_before = cpu::of_processes(&config.server_pids)?;
    let cpu_before = cpu::own();
    let session = Arc::new(Session::begin(endpoint, cancel.clone(), progress));
    match due_times {
        Some(due_times) => {
            load::open_loop(&session, due_times, config.max_connections, limits, tasks).await?;
        }
        None => {
            let concurrency = config.connections();
            let closed_loop =
                load::closed_loop(&session, concurrency, limits, Endpoint::write, tasks);
            tokio::select! {
                () = closed_loop => {}
                () = load::watch_timer(&mut lag) => {}
            }
        }
    }
    let elapsed = session.clock.now();
    let cpu = cpu::own().saturating_sub(cpu_before);
    let server_cpu = cpu::of_processes(&config.server_pids)?
        .zip(server_cpu_before)
        .map(|(after, before)| after.saturating_sub(before));

    let mut seen = session.take();
    seen.records.sort_by_key(|record| record.number);
    for late in seen.records.iter().filter_map(RequestRecord::lag) {
        lag.record(late);
    }
    let run = run_info(config, probed, started_unix_seconds);
    let around = Surroundings {
        unfinished: seen.unfinished,
        unsent: seen.unsent,
        interrupted: cancel.is_cancelled(),
        lag: &lag,
        max_lag: config.max_lag,
        cpu,
        server_cpu,
        elapsed,
        threads: tokio::runtime::Handle::current().metrics().num_workers(),
        max_in_flight: seen.max_in_flight,
    };
    let report = Report::new(run, config.slo, &seen.records, &seen.gaps, around);
    Ok(Measured {
        report,
        records: seen.records,
    })
}

fn run_info(config: &BenchConfig, probed: &Probed, started_unix_seconds: u64) -> RunInfo {
    RunInfo {
        url: config.target.to_string(),
        model: probed.model.clone(),
        api: config.api.name(),
        stream: config.stream,
        workload: config.workload.to_string(),
        arrival: config.arrival.to_string(),
        seed: config.seed,
        exact_length: probed.exact_length,
        tokens_per_word: probed.fit.map(|fit| fit.tokens_per_word),
        overhead_tokens: probed.fit.map(|fit| fit.overhead_tokens),
        started_unix_seconds,
    }
}
