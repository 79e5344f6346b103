//! How a worker is chosen, step by step.

use super::{Router, Worker};
use crate::selection::{Draws, Pricing};
use crate::{Candidate, Cost, Eligibility, Error, Load, Mode, Overlap, PrefixIndex, Request};

impl<I: PrefixIndex> Router<I> {
    /// The positions of the workers the request may go to; at least one.
    pub(super) fn eligible(&self, request: &Request<'_>, mode: Mode) -> Result<Vec<usize>, Error> {
        if self.workers.is_empty() {
            return Err(Error::NoWorkers);
        }
        if let Some(at) = request.target {
            let position = *self.positions.get(&at).ok_or(Error::UnknownTarget(at))?;
            return match eligibility(request, &self.workers[position]) {
                Eligibility::Eligible => Ok(vec![position]),
                eligibility => Err(Error::TargetNotEligible { at, eligibility }),
            };
        }
        if mode == Mode::Direct {
            return Err(Error::NoTarget);
        }
        let mut eligible = Vec::with_capacity(self.workers.len());
        let mut draining = 0;
        for (position, worker) in self.workers.iter().enumerate() {
            match eligibility(request, worker) {
                Eligibility::Eligible => eligible.push(position),
                Eligibility::Draining => draining += 1,
                Eligibility::Excluded | Eligibility::NotTarget => {}
            }
        }
        let workers = self.workers.len();
        match eligible.is_empty() {
            false => Ok(eligible),
            true => Err(Error::NoneEligible {
                workers,
                draining,
                excluded: workers - draining,
            }),
        }
    }

    /// What each worker has of the prompt, by position: the better of what its events told and
    /// what runs there.
    pub(super) fn overlaps(&self, request: &Request<'_>) -> Vec<Overlap> {
        let mut overlaps = vec![Overlap::default(); self.workers.len()];
        for found in self.index.matches(request.chain) {
            if let Some(&position) = self.positions.get(&found.at) {
                overlaps[position] = found.overlap;
            }
        }
        if self.config.credit_running_requests {
            let credit = |overlap| self.config.weights.credit(overlap);
            for found in self.book.matches(request.chain) {
                if let Some(&position) = self.positions.get(&found.at)
                    && credit(found.overlap) > credit(overlaps[position])
                {
                    overlaps[position] = found.overlap;
                }
            }
        }
        overlaps
    }

    pub(super) fn pricing(&self, request: &Request<'_>) -> Pricing<'_> {
        let block_size_tokens = self.block_size.get() as u64;
        let prompt_blocks = request.prompt_tokens.div_ceil(block_size_tokens);
        Pricing {
            weights: &self.config.weights,
            block_size_tokens,
            prompt_tokens: request.prompt_tokens.max(1),
            prompt_blocks: prompt_blocks.max(request.chain.len() as u64),
            expected_output_tokens: request
                .expected_output_tokens
                .unwrap_or(self.config.expected_output_tokens),
        }
    }

    /// Chooses among `eligible`, which is not empty.
    pub(super) fn choose(
        &self,
        mode: Mode,
        eligible: &[usize],
        pricing: &Pricing<'_>,
        overlaps: &[Overlap],
        random: u64,
    ) -> usize {
        let mut draws = Draws::new(random);
        let load = |position: usize| self.load_of(&self.workers[position]);
        match mode {
            _ if eligible.len() == 1 => eligible[0],
            Mode::RoundRobin => {
                let is_next = |position: &&usize| Some(self.workers[**position].at) > self.last;
                *eligible.iter().find(is_next).unwrap_or(&eligible[0])
            }
            Mode::Random | Mode::Direct => eligible[draws.below(eligible.len())],
            Mode::PowerOfTwo => {
                let first = draws.below(eligible.len());
                let other = draws.below(eligible.len() - 1);
                let second = if other < first { other } else { other + 1 };
                // The order in which they were drawn decides a tie.
                let (first, second) = (eligible[first], eligible[second]);
                match load(second).requests < load(first).requests {
                    true => second,
                    false => first,
                }
            }
            Mode::LeastLoaded => {
                let keys = eligible.iter().map(|position| {
                    let load = load(*position);
                    (load.requests, load.prefill_tokens, load.used_blocks)
                });
                eligible[draws.least(keys)]
            }
            Mode::Kv => {
                let mut chosen = eligible.iter().map(|position| &self.workers[*position]);
                let timed = chosen.all(|worker| worker.spec.perf_model.is_some());
                let costs = eligible.iter().map(|position| {
                    let worker = &self.workers[*position];
                    let cost = self.cost(pricing, overlaps[*position], worker, timed);
                    cost.total()
                });
                eligible[draws.least(costs)]
            }
        }
    }

    /// Every worker, whether it is eligible or not.
    pub(super) fn candidates(
        &self,
        request: &Request<'_>,
        pricing: &Pricing<'_>,
        overlaps: &[Overlap],
    ) -> Vec<Candidate> {
        let timed = (self.workers.iter())
            .filter(|worker| eligibility(request, worker) == Eligibility::Eligible)
            .all(|worker| worker.spec.perf_model.is_some());
        (self.workers.iter().zip(overlaps))
            .map(|(worker, overlap)| Candidate {
                at: worker.at,
                eligibility: eligibility(request, worker),
                overlap: *overlap,
                load: *self.load_of(worker),
                cost: self.cost(pricing, *overlap, worker, timed),
            })
            .collect()
    }

    fn cost(&self, by: &Pricing<'_>, overlap: Overlap, worker: &Worker, timed: bool) -> Cost {
        let load = self.load_of(worker);
        match &worker.spec.perf_model {
            Some(model) if timed => by.in_seconds(overlap, load, model),
            _ => by.in_blocks(overlap, load),
        }
    }

    fn load_of(&self, worker: &Worker) -> &Load {
        self.book.load_in(worker.slot)
    }
}

fn eligibility(request: &Request<'_>, worker: &Worker) -> Eligibility {
    if request.target.is_some_and(|target| target != worker.at) {
        Eligibility::NotTarget
    } else if worker.draining {
        Eligibility::Draining
    } else if request.excluded.contains(&worker.at) {
        Eligibility::Excluded
    } else {
        Eligibility::Eligible
    }
}
