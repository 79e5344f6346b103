//! A router and its engines in virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use forebay_perf_model::PerfModel;
use forebay_router::{
    BookingId, OwnerId, Request, Router, RouterConfig, Selector, WorkerRank, WorkerSpec,
};
use forebay_tokens::{BlockSize, KvEvent, WorkerId};

use crate::engine::{BLOCK_TOKENS, Engine, Progress};
use crate::workload::Arrival;

pub(crate) struct Fleet {
    pub(crate) config: RouterConfig,
    pub(crate) workers: u64,
    pub(crate) blocks_each: usize,
    pub(crate) engine: PerfModel,
    pub(crate) spec: WorkerSpec,
    /// How late the router hears of KV events.
    pub(crate) events_after: Duration,
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) prefilled_tokens: u64,
    /// From arrival to the first token, in order of their length.
    pub(crate) ttft: Vec<Duration>,
    /// From the first token to the last, for each token after the first, in order.
    pub(crate) itl: Vec<Duration>,
    /// From arrival to the last token, in order.
    pub(crate) end_to_end: Vec<Duration>,
    /// Requests by worker.
    pub(crate) requests: Vec<u64>,
    /// How many prompt tokens the router expected to be computed.
    pub(crate) expected_prefill_tokens: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Heard(usize, usize),
    Iterated(usize),
    Arrived(usize),
}

impl Fleet {
    pub(crate) fn run(&self, arrivals: &[Arrival]) -> Outcome {
        let block_size = BlockSize::new(BLOCK_TOKENS as u32).unwrap();
        let mut router = Router::new(self.config.clone(), block_size).unwrap();
        let rank = |n: usize| WorkerRank::from(WorkerId(n as u64));
        let mut engines = Vec::new();
        for n in 0..self.workers as usize {
            router.add_worker(rank(n), self.spec.clone());
            engines.push(Engine::new(self.engine.clone(), self.blocks_each));
        }
        let mut outcome = Outcome {
            prefilled_tokens: 0,
            ttft: Vec::new(),
            itl: Vec::new(),
            end_to_end: Vec::new(),
            requests: vec![0; engines.len()],
            expected_prefill_tokens: 0,
        };
        let mut first_tokens = vec![Duration::ZERO; arrivals.len()];
        let mut busy = vec![false; engines.len()];
        let mut told: Vec<Vec<KvEvent>> = Vec::new();
        let mut queue = BinaryHeap::new();
        for (id, arrival) in arrivals.iter().enumerate() {
            queue.push(Reverse((arrival.at, Event::Arrived(id))));
        }

        while let Some(Reverse((now, event))) = queue.pop() {
            let worker = match event {
                Event::Arrived(id) => {
                    let arrival = &arrivals[id];
                    // How long the answer will be, nobody knows.
                    let request = Request::new(&arrival.chain, arrival.prompt_tokens);
                    let booking = BookingId::new(OwnerId(1), id as u64);
                    let decision = router.reserve(&request, booking, id as u64).unwrap();
                    outcome.expected_prefill_tokens += decision.prefill_tokens;
                    let worker = decision.at.worker.0 as usize;
                    outcome.requests[worker] += 1;
                    engines[worker].submit(id, arrival.clone());
                    worker
                }
                Event::Heard(worker, n) => {
                    for event in std::mem::take(&mut told[n]) {
                        router.apply(rank(worker), &event);
                    }
                    continue;
                }
                Event::Iterated(worker) => {
                    busy[worker] = false;
                    for (id, progress) in engines[worker].finish() {
                        let booking = BookingId::new(OwnerId(1), id as u64);
                        match progress {
                            Progress::FirstToken => {
                                router.first_token(booking);
                                first_tokens[id] = now;
                                outcome.ttft.push(now - arrivals[id].at);
                            }
                            Progress::Grew => router.grew(booking, 1),
                            Progress::Done => {
                                router.release(booking);
                                outcome.end_to_end.push(now - arrivals[id].at);
                                let more = arrivals[id].output_tokens - 1;
                                if more > 0 {
                                    outcome.itl.push((now - first_tokens[id]) / more as u32);
                                }
                            }
                        }
                    }
                    worker
                }
            };
            if !busy[worker]
                && let Some(time) = engines[worker].start()
            {
                busy[worker] = true;
                queue.push(Reverse((now + time, Event::Iterated(worker))));
            }
            let events = engines[worker].take_events();
            if !events.is_empty() {
                told.push(events);
                let heard = Event::Heard(worker, told.len() - 1);
                queue.push(Reverse((now + self.events_after, heard)));
            }
        }

        assert!(router.book().is_empty());
        outcome.prefilled_tokens = engines.iter().map(|engine| engine.prefilled_tokens).sum();
        outcome.ttft.sort();
        outcome.itl.sort();
        outcome.end_to_end.sort();
        outcome
    }
}

/// The value below which a part of the sorted values lies.
pub(crate) fn quantile(sorted: &[Duration], part: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * part) as usize]
}

pub(crate) fn mean(values: &[Duration]) -> Duration {
    values.iter().sum::<Duration>() / values.len() as u32
}
