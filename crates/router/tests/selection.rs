//! Which worker is chosen.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_perf_model::{Coefficients, PerfModel, Polynomial};
use forebay_router::{
    BookingId, CostUnit, Decision, Eligibility, Error, Mode, Overlap, OwnerId, Request, Router,
    RouterConfig, Selector, Weights, WorkerRank, WorkerSpec,
};
use forebay_tokens::{BlockSize, CacheGroup, DpRank, KvEvent, RoutingHash, Tier, WorkerId};

const BLOCK_TOKENS: u32 = 16;

fn worker(n: u64) -> WorkerRank {
    WorkerId(n).into()
}

fn booking(id: u64) -> BookingId {
    BookingId::new(OwnerId(1), id)
}

fn router(mode: Mode, workers: u64) -> Router {
    let config = RouterConfig {
        mode,
        ..RouterConfig::default()
    };
    let mut router = Router::new(config, BlockSize::new(BLOCK_TOKENS).unwrap()).unwrap();
    // In any order.
    for n in (0..workers).rev() {
        router.add_worker(worker(n), WorkerSpec::default());
    }
    router
}

fn chain(seed: u64, blocks: u64) -> Vec<RoutingHash> {
    let hash = |n: u64| RoutingHash((seed << 32 | n).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (0..blocks).map(hash).collect()
}

fn tokens(chain: &[RoutingHash]) -> u64 {
    chain.len() as u64 * u64::from(BLOCK_TOKENS)
}

fn stored(tier: Tier, blocks: &[RoutingHash]) -> KvEvent {
    KvEvent::Stored {
        tier,
        group: CacheGroup(0),
        parent: None,
        blocks: blocks.to_vec(),
    }
}

/// Reserves for a prompt that nobody has.
fn reserve(router: &mut Router, id: u64, random: u64) -> WorkerRank {
    let chain = chain(1_000_000 + id, 4);
    let request = Request::new(&chain, tokens(&chain));
    let decision = router.reserve(&request, booking(id), random);
    decision.unwrap().at
}

/// How often each worker is chosen by select in 3,000 draws.
fn counts(router: &Router, request: &Request<'_>) -> BTreeMap<WorkerRank, u32> {
    let mut counts = BTreeMap::new();
    for random in 0..3_000 {
        let at = router.select(request, random).unwrap().at;
        *counts.entry(at).or_default() += 1;
    }
    counts
}

#[test]
fn round_robin_takes_turns_while_workers_come_and_go() {
    let mut router = router(Mode::RoundRobin, 3);
    let mut next = {
        let mut id = 0;
        move |router: &mut Router| {
            id += 1;
            reserve(router, id, id).worker.0
        }
    };
    assert_eq!([(); 4].map(|()| next(&mut router)), [0, 1, 2, 0]);
    router.remove_worker(worker(1));
    assert_eq!([(); 3].map(|()| next(&mut router)), [2, 0, 2]);
    router.add_worker(worker(1), WorkerSpec::default());
    router.drain_worker(worker(0));
    assert_eq!([(); 3].map(|()| next(&mut router)), [1, 2, 1]);

    // A request that names its worker takes no turn, and neither does looking.
    let request = Request {
        target: Some(worker(2)),
        ..request_of(&[])
    };
    let at = router.reserve(&request, booking(0), 0);
    assert_eq!(at.unwrap().at, worker(2));
    let request = request_of(&[]);
    assert_eq!(router.select(&request, 0).unwrap().at, worker(2));
    assert_eq!(router.select(&request, 1).unwrap().at, worker(2));
}

#[test]
fn random_and_ties_are_fair_and_seeded() {
    for mode in [Mode::Random, Mode::PowerOfTwo, Mode::LeastLoaded, Mode::Kv] {
        let router = router(mode, 3);
        let request = Request::new(&[], 100);
        for (at, count) in counts(&router, &request) {
            assert!((900..1_100).contains(&count), "{mode:?} {at}: {count}");
        }
        for random in 0..20 {
            let first = router.select(&request, random);
            assert_eq!(first, router.select(&request, random));
        }
    }
}

#[test]
fn power_of_two_takes_the_less_loaded_of_two() {
    let mut router = router(Mode::PowerOfTwo, 3);
    for id in 0..2 {
        let at = worker(id);
        for more in 0..=id {
            let request = Request {
                target: Some(at),
                ..request_of(&[])
            };
            let id = booking(10 * id + more);
            router.reserve(&request, id, 0).unwrap();
        }
    }
    // Requests: 1, 2 and 0. The busiest is never chosen, the idlest two times of three.
    let counts = counts(&router, &request_of(&[]));
    assert!(!counts.contains_key(&worker(1)), "{counts:?}");
    assert!((1_900..2_100).contains(&counts[&worker(2)]), "{counts:?}");
}

fn request_of(chain: &[RoutingHash]) -> Request<'_> {
    Request::new(chain, tokens(chain).max(1))
}

#[test]
fn least_loaded_spreads_and_sees_ends() {
    let mut router = router(Mode::LeastLoaded, 4);
    let mut at: Vec<_> = (0..4).map(|id| reserve(&mut router, id, id)).collect();
    let last = at[3];
    at.sort();
    assert_eq!(at, [0, 1, 2, 3].map(worker));
    router.release(booking(3));
    for random in 0..10 {
        assert_eq!(router.select(&request_of(&[]), random).unwrap().at, last);
    }
    // As many requests, but its prefill is done.
    let at = reserve(&mut router, 4, 0);
    router.first_token(booking(4));
    assert_eq!(router.select(&request_of(&[]), 0).unwrap().at, at);
}

#[test]
fn direct_goes_where_the_request_says() {
    let mut router = router(Mode::Direct, 3);
    let mut request = request_of(&[]);
    assert_eq!(router.select(&request, 0), Err(Error::NoTarget));
    request.target = Some(worker(7));
    assert_eq!(
        router.select(&request, 0),
        Err(Error::UnknownTarget(worker(7)))
    );
    request.target = Some(worker(2));
    assert_eq!(router.select(&request, 0).unwrap().at, worker(2));

    // A request names its target or its mode whatever the router's mode is.
    let request = Request {
        mode: Some(Mode::LeastLoaded),
        ..request_of(&[])
    };
    assert_eq!(router.select(&request, 0).unwrap().mode, Mode::LeastLoaded);
    router.drain_worker(worker(2));
    let request = Request {
        target: Some(worker(2)),
        mode: Some(Mode::Kv),
        ..request_of(&[])
    };
    let error = router.select(&request, 0).unwrap_err();
    assert_eq!(
        error,
        Error::TargetNotEligible {
            at: worker(2),
            eligibility: Eligibility::Draining
        }
    );
    assert_eq!(error.to_string(), "worker 2/0 is draining");
}

#[test]
fn nobody_to_go_to_is_said_precisely() {
    let empty = router(Mode::Kv, 0);
    assert_eq!(empty.select(&request_of(&[]), 0), Err(Error::NoWorkers));

    let mut router = router(Mode::Kv, 3);
    router.drain_worker(worker(0));
    let excluded = [worker(1), worker(2)];
    let mut request = request_of(&[]);
    request.excluded = &excluded;
    let error = router.reserve(&request, booking(1), 0);
    let error = error.unwrap_err();
    assert_eq!(
        error.to_string(),
        "none of 3 workers is eligible: 1 draining, 2 excluded"
    );
    assert!(router.book().is_empty());

    request.excluded = &excluded[..1];
    assert_eq!(router.select(&request, 0).unwrap().at, worker(2));
    assert!(!router.drain_worker(worker(9)));
    router.add_worker(worker(0), WorkerSpec::default());
    request.excluded = &excluded;
    assert_eq!(router.select(&request, 0).unwrap().at, worker(0));
}

#[test]
fn kv_goes_where_the_prefix_is_until_that_is_too_busy() {
    let mut router = router(Mode::Kv, 3);
    let prompt = chain(1, 10);
    router.apply(worker(1), &stored(Tier::G1, &prompt[..8]));
    let decision = router.select(&request_of(&prompt), 0).unwrap();
    assert_eq!(decision.at, worker(1));
    assert_eq!(decision.overlap, Overlap::in_tier(Tier::G1, 8));
    assert_eq!(decision.prefill_tokens, 32);

    let pinned = |router: &mut Router, id| {
        let other = chain(100 + id, 10);
        let request = Request {
            target: Some(worker(1)),
            ..request_of(&other)
        };
        router.reserve(&request, booking(id), 0).unwrap();
    };
    // A request of 10 blocks that waits for its prefill outweighs the 8 that are cached, and while
    // it decodes it does not; three of them do.
    let at = |router: &Router| router.select(&request_of(&prompt), 0).unwrap().at;
    pinned(&mut router, 1);
    assert_ne!(at(&router), worker(1));
    router.first_token(booking(1));
    assert_eq!(at(&router), worker(1));
    for id in 2..4 {
        pinned(&mut router, id);
        router.first_token(booking(id));
    }
    assert_ne!(at(&router), worker(1));
    router.release(booking(3));
    assert_eq!(at(&router), worker(1));
}

#[test]
fn a_burst_with_one_prefix_stays_together_before_any_event() {
    let mut router = router(Mode::Kv, 4);
    let prompt = chain(1, 40);
    let first = router.reserve(&request_of(&prompt), booking(1), 3).unwrap();
    assert_eq!(first.prefill_tokens, 640);
    router.first_token(booking(1));
    let second = router.reserve(&request_of(&prompt), booking(2), 4).unwrap();
    assert_eq!(second.at, first.at);
    // Its last token is computed in any case.
    assert_eq!(second.prefill_tokens, 1);
    assert_eq!(router.book().load(first.at).used_blocks, 40);
    assert_eq!(router.book().load(first.at).context_blocks, 80);

    let config = RouterConfig {
        credit_running_requests: false,
        ..RouterConfig::default()
    };
    let mut router = Router::new(config, BlockSize::new(BLOCK_TOKENS).unwrap()).unwrap();
    router.add_worker(worker(0), WorkerSpec::default());
    for id in 0..2 {
        let decision = router
            .reserve(&request_of(&prompt), booking(id), 0)
            .unwrap();
        assert_eq!(decision.prefill_tokens, 640);
    }
}

#[test]
fn lower_tiers_count_in_part() {
    let mut router = router(Mode::Kv, 2);
    let prompt = chain(1, 8);
    router.apply(worker(0), &stored(Tier::G2, &prompt));
    router.apply(worker(1), &stored(Tier::G1, &prompt[..5]));
    // 8 blocks at 0.75 are 6, which is more than 5.
    let decision = router.select(&request_of(&prompt), 0).unwrap();
    assert_eq!(decision.at, worker(0));
    assert_eq!(decision.prefill_tokens, 2 * u64::from(BLOCK_TOKENS));
}

#[test]
fn ranks_are_places_of_their_own() {
    let mut router = router(Mode::Kv, 0);
    let ranks = [0, 1].map(|rank| WorkerRank::new(WorkerId(5), DpRank(rank)));
    for at in ranks {
        router.add_worker(at, WorkerSpec::default());
    }
    let prompt = chain(1, 8);
    router.apply(ranks[1], &stored(Tier::G1, &prompt));
    let decision = router.select(&request_of(&prompt), 0).unwrap();
    assert_eq!(decision.at, ranks[1]);
    let request = Request {
        excluded: &ranks[1..],
        ..request_of(&prompt)
    };
    assert_eq!(router.select(&request, 0).unwrap().at, ranks[0]);
}

#[test]
fn a_worker_that_returns_has_its_bookings_and_no_blocks() {
    let mut router = router(Mode::Kv, 1);
    let prompt = chain(1, 8);
    router.apply(worker(0), &stored(Tier::G1, &prompt));
    reserve(&mut router, 1, 0);
    assert!(router.remove_worker(worker(0)));
    assert!(!router.remove_worker(worker(0)));
    assert!(
        !router.apply(worker(0), &stored(Tier::G1, &prompt)),
        "a late event"
    );
    router.add_worker(worker(0), WorkerSpec::default());
    let decision = router.select(&request_of(&prompt), 0).unwrap();
    assert_eq!(decision.overlap, Overlap::default());
    let load = router.workers().next().unwrap().1;
    assert_eq!((load.requests, load.used_blocks), (1, 4));
    router.release(booking(1));
    router.release(booking(1));
    assert_eq!(router.workers().next().unwrap().1, Default::default());
}

#[test]
fn what_nobody_ends_ends_with_its_owner() {
    let mut router = router(Mode::RoundRobin, 2);
    for id in 0..6 {
        reserve(&mut router, id, 0);
    }
    assert_eq!(router.release_owner(OwnerId(2)), 0);
    assert_eq!(router.book().len(), 6);
    assert_eq!(router.release_owner(OwnerId(1)), 6);
    assert!(router.book().is_empty());
}

#[test]
fn reserving_again_moves_the_booking() {
    let mut router = router(Mode::RoundRobin, 2);
    let first = reserve(&mut router, 1, 0);
    let second = reserve(&mut router, 1, 0);
    assert_ne!(first, second);
    assert_eq!(router.book().load(first).requests, 0);
    assert_eq!(router.book().load(second).requests, 1);
}

/// 1 ms for a prompt token, 10 ms for a decode step and 1 ms for each sequence in it.
fn timed() -> WorkerSpec {
    let model = Polynomial::new(Coefficients {
        fixed_seconds: 0.01,
        prefill_token_seconds: 0.001,
        decode_sequence_seconds: 0.001,
        ..Coefficients::default()
    });
    WorkerSpec {
        perf_model: Some(Arc::new(PerfModel::Polynomial(model.unwrap()))),
    }
}

fn explained(router: &Router, request: Request<'_>) -> Decision {
    let request = Request {
        explain: true,
        ..request
    };
    router.select(&request, 0).unwrap()
}

#[test]
fn with_a_model_the_cost_is_the_time_of_all() {
    let config = RouterConfig {
        weights: Weights {
            queue: 1.0,
            prefill: 1.0,
            decode: 1.0,
            ..Weights::default()
        },
        ..RouterConfig::default()
    };
    let mut router = Router::new(config, BlockSize::new(BLOCK_TOKENS).unwrap()).unwrap();
    for n in 0..2 {
        router.add_worker(worker(n), timed());
    }
    // One request of 64 tokens waits for its prefill.
    let busy = reserve(&mut router, 1, 0);
    let prompt = chain(1, 10);
    router.apply(busy, &stored(Tier::G1, &prompt[..8]));
    let request = Request {
        expected_output_tokens: Some(100),
        ..request_of(&prompt)
    };
    let decision = explained(&router, request);
    let cost = |at| {
        let candidates = &decision.candidates;
        let candidate = candidates.iter().find(|c| c.at == at).unwrap();
        let cost = candidate.cost;
        assert_eq!(cost.unit, CostUnit::Seconds);
        [cost.queue, cost.prefill, cost.decode].map(|seconds| (seconds * 1e6).round() / 1e6)
    };
    let idle = worker(1 - busy.worker.0);
    // Its 32 tokens take 43 ms beside a decode, which takes 11 without. Each of its 100 steps
    // takes 12 ms, and one more than without for half of the other's.
    assert_eq!(cost(busy), [0.064, 0.043 + 0.032, 1.2 + 0.05]);
    assert_eq!(cost(idle), [0.0, 0.17, 1.1]);
    assert_eq!(decision.at, idle);

    // For a short answer the prefill counts more than the decode.
    let request = Request {
        expected_output_tokens: Some(1),
        ..request_of(&prompt)
    };
    assert_eq!(router.select(&request, 0).unwrap().at, busy);
}

#[test]
fn times_are_compared_with_times_only() {
    let mut router = router(Mode::Kv, 1);
    router.add_worker(worker(1), timed());
    router.add_worker(worker(2), timed());
    let unit = |decision: &Decision| decision.candidates[1].cost.unit;
    let decision = explained(&router, request_of(&[]));
    assert_eq!(unit(&decision), CostUnit::Blocks);
    // The one without a model is out of the question.
    router.drain_worker(worker(0));
    let decision = explained(&router, request_of(&[]));
    assert_eq!(unit(&decision), CostUnit::Seconds);
}

#[test]
fn an_explanation_says_why() {
    let mut router = router(Mode::Kv, 4);
    let prompt = chain(1, 8);
    router.apply(worker(3), &stored(Tier::G1, &prompt[..6]));
    router.apply(worker(0), &stored(Tier::G2, &prompt));
    router.drain_worker(worker(0));
    let excluded = [worker(1)];
    let request = Request {
        excluded: &excluded,
        ..request_of(&prompt)
    };
    assert_eq!(router.select(&request, 0).unwrap().candidates, []);
    let decision = explained(&router, request);
    assert_eq!(decision.candidates, router.explain(&request));
    let told: Vec<_> = (decision.candidates.iter())
        .map(|c| {
            (
                c.at.worker.0,
                c.eligibility,
                c.overlap.blocks(),
                c.cost.total(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (0, Eligibility::Draining, 8, 2.0 * 2.0 + 0.25 * 8.0),
            (1, Eligibility::Excluded, 0, 2.0 * 8.0 + 0.25 * 8.0),
            (2, Eligibility::Eligible, 0, 2.0 * 8.0 + 0.25 * 8.0),
            (3, Eligibility::Eligible, 6, 2.0 * 2.0 + 0.25 * 8.0),
        ]
    );
    assert_eq!(decision.at, worker(3));

    // It is to be had where there is no decision as well.
    let request = Request {
        target: Some(worker(0)),
        ..request
    };
    assert!(router.select(&request, 0).is_err());
    let eligibility = router
        .explain(&request)
        .iter()
        .map(|c| c.eligibility)
        .next_back();
    assert_eq!(eligibility, Some(Eligibility::NotTarget));
}

#[test]
fn settings_are_checked_by_name() {
    let wrong = [
        (r#"{"max_index_bytes": 1000}"#, "max_index_bytes"),
        (r#"{"weights": {"queue": -1}}"#, "weights.queue"),
        (r#"{"weights": {"g2_credit": 1.5}}"#, "weights.g2_credit"),
    ];
    let block_size = BlockSize::new(16).unwrap();
    for (text, setting) in wrong {
        let config: RouterConfig = serde_json::from_str(text).unwrap();
        let error = Router::new(config, block_size).unwrap_err();
        assert_eq!(error.setting, setting, "{text}");
    }
    let config = r#"{"mode": "power-of-two", "weights": {"decode": 0.5}}"#;
    let config: RouterConfig = serde_json::from_str(config).unwrap();
    assert_eq!(config.mode, Mode::PowerOfTwo);
    config.check().unwrap();
    assert!(serde_json::from_str::<RouterConfig>(r#"{"modes": "kv"}"#).is_err());
}
