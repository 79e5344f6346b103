//! How good the choices are: a fleet of simulated engines under a workload with shared prefixes.

#![allow(clippy::unwrap_used)]

mod cache;
mod engine;
mod fleet;
mod workload;

use std::sync::Arc;
use std::time::Duration;

use fleet::{Fleet, Outcome, mean, quantile};
use forebay_perf_model::PerfModel;
use forebay_router::{Mode, RouterConfig, WorkerSpec};
use workload::Conversations;

const WORKERS: u64 = 6;

/// Twelve system prompts of 2,560 tokens, 400 conversations of up to six turns.
fn conversations(seed: u64) -> Conversations {
    Conversations {
        seed,
        conversations: 400,
        every: Duration::from_millis(300),
        system_prompts: 12,
        system_blocks: 40,
        turns: 6,
        output_blocks: 6,
    }
}

fn run(workload: &Conversations, mode: Mode, timed: bool) -> Outcome {
    let engine = PerfModel::default();
    let fleet = Fleet {
        config: RouterConfig {
            mode,
            ..RouterConfig::default()
        },
        workers: WORKERS,
        blocks_each: 4_000,
        spec: WorkerSpec {
            perf_model: timed.then(|| Arc::new(engine.clone())),
        },
        engine,
        events_after: Duration::from_millis(5),
    };
    fleet.run(&workload.arrivals())
}

/// How much more the busiest worker was sent than the idlest.
fn imbalance(outcome: &Outcome) -> f64 {
    let most = outcome.requests.iter().max().unwrap();
    let least = outcome.requests.iter().min().unwrap();
    *most as f64 / *least as f64
}

#[test]
fn kv_finds_what_is_cached_and_starves_nobody() {
    for seed in 1..4 {
        let workload = conversations(seed);
        let turns = run(&workload, Mode::RoundRobin, false);
        for timed in [false, true] {
            let kv = run(&workload, Mode::Kv, timed);
            let saved = 1.0 - kv.prefilled_tokens as f64 / turns.prefilled_tokens as f64;
            assert!(saved > 0.4, "seed {seed}: {saved:.3} of the prefill saved");
            assert!(imbalance(&kv) < 1.4, "seed {seed}: {:?}", kv.requests);
            // Nobody waits longer for it: neither most nor the last, for a token or for all.
            let longer = [
                (&kv.ttft, &turns.ttft),
                (&kv.itl, &turns.itl),
                (&kv.end_to_end, &turns.end_to_end),
            ];
            for (kv, turns) in longer {
                for part in [0.5, 0.99] {
                    let (kv, turns) = (quantile(kv, part), quantile(turns, part));
                    assert!(kv < turns, "seed {seed}: {kv:?} {turns:?}");
                }
            }
        }
    }
}

#[test]
fn a_prefix_that_all_share_does_not_keep_them_in_one_place() {
    let workload = Conversations {
        system_prompts: 1,
        system_blocks: 100,
        turns: 1,
        conversations: 1_000,
        every: Duration::from_millis(60),
        ..conversations(1)
    };
    let turns = run(&workload, Mode::RoundRobin, false);
    for timed in [false, true] {
        let kv = run(&workload, Mode::Kv, timed);
        assert!(imbalance(&kv) < 1.2, "{:?}", kv.requests);
        let (kv, turns) = (mean(&kv.end_to_end), mean(&turns.end_to_end));
        assert!(kv < turns.mul_f64(1.02), "{kv:?} {turns:?}");
    }
}

#[test]
fn the_router_knows_what_engines_will_compute() {
    let outcome = run(&conversations(1), Mode::Kv, true);
    let expected = outcome.expected_prefill_tokens as f64;
    let error = expected / outcome.prefilled_tokens as f64 - 1.0;
    assert!(error.abs() < 0.02, "{error}");
}

#[test]
fn the_same_inputs_give_the_same_choices() {
    let workload = conversations(7);
    let runs = [(); 2].map(|()| run(&workload, Mode::Kv, true));
    assert_eq!(runs[0].requests, runs[1].requests);
    assert_eq!(runs[0].ttft, runs[1].ttft);
}
