use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ServedModel;
use crate::WorkerPool;
use crate::request_id::random_u64;

/// The golden ratio's part of 2^64. Its multiples, modulo 2^64, are spread evenly, however many
/// there are: of any number of turns each interval gets its part, give or take a few.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The versions of a model, and whose turn it is.
#[derive(Debug)]
pub(super) struct Versions {
    /// At least one, in the order of their versions.
    models: Vec<Arc<ServedModel>>,
    turn: AtomicU64,
}

/// How a version stands among the others.
#[derive(Clone, Copy, Debug)]
struct Standing {
    ready_workers: usize,
    /// Of those.
    weight: f64,
}

impl Versions {
    /// `models` are at least one. If the model was there before, its turns go on: its versions have
    /// their shares of all requests, whatever comes and goes meanwhile.
    pub(super) fn new(models: Vec<Arc<ServedModel>>, before: Option<&Self>) -> Self {
        let turn = match before {
            Some(before) => before.turn.load(Ordering::Relaxed),
            // So that several frontends do not all begin with the same one.
            None => random_u64(),
        };
        Self {
            models,
            turn: AtomicU64::new(turn),
        }
    }

    pub(super) fn models(&self) -> &[Arc<ServedModel>] {
        &self.models
    }

    /// The version of the next request.
    pub(super) fn next(&self) -> &Arc<ServedModel> {
        match &*self.models {
            [only] => only,
            models => &models[whose(&self.shares(), self.turn())],
        }
    }

    /// The same among those with other pools than these; `None` if they have no share.
    pub(super) fn next_other(&self, than: &[WorkerPool]) -> Option<&Arc<ServedModel>> {
        let mut shares = self.shares();
        for (share, model) in shares.iter_mut().zip(&self.models) {
            let pool = model.pool().identity();
            if than.iter().any(|than| than.identity() == pool) {
                *share = 0.0;
            }
        }
        let whole: f64 = shares.iter().sum();
        if whole <= 0.0 {
            return None;
        }
        shares.iter_mut().for_each(|share| *share /= whole);
        Some(&self.models[whose(&shares, self.turn())])
    }

    fn turn(&self) -> u64 {
        self.turn.fetch_add(GOLDEN, Ordering::Relaxed)
    }

    /// By version, its part of the next requests.
    pub(super) fn shares(&self) -> Vec<f64> {
        let standings = self.models.iter().map(|model| Standing {
            ready_workers: model.pool().ready_workers(),
            weight: model.pool().weight(),
        });
        shares(&standings.collect::<Vec<_>>())
    }
}

/// Each one's part of the weights of those that have workers; where these have none, of the workers.
/// They add up to 1; or all are 0, if nobody has workers.
fn shares(versions: &[Standing]) -> Vec<f64> {
    let weight = |version: &Standing| match version.ready_workers {
        0 => 0.0,
        _ => version.weight,
    };
    let workers = |version: &Standing| version.ready_workers as f64;
    let parts = |part: &dyn Fn(&Standing) -> f64| {
        let whole: f64 = versions.iter().map(part).sum();
        (whole > 0.0).then(|| versions.iter().map(|v| part(v) / whole).collect())
    };
    parts(&weight)
        .or_else(|| parts(&workers))
        .unwrap_or_else(|| vec![0.0; versions.len()])
}

/// Whose a turn is, by their shares; anyone's, if nobody has one: the request waits there.
fn whose(shares: &[f64], turn: u64) -> usize {
    // As many of its bits as a number holds: below 1.
    let at = (turn >> 11) as f64 / 2.0_f64.powi(53);
    let mut end = 0.0;
    for (index, share) in shares.iter().enumerate() {
        end += share;
        if at < end {
            return index;
        }
    }
    // What rounding left over is the last one's that has a share.
    let last = shares.iter().rposition(|share| *share > 0.0);
    last.unwrap_or((at * shares.len() as f64) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(standings: &[(usize, f64)]) -> Vec<f64> {
        let standings = standings.iter().map(|&(ready_workers, weight)| Standing {
            ready_workers,
            weight,
        });
        shares(&standings.collect::<Vec<_>>())
    }

    #[test]
    fn a_share_is_the_weight_of_those_who_are_ready() {
        assert_eq!(of(&[(2, 2.0), (2, 2.0)]), [0.5, 0.5]);
        assert_eq!(of(&[(3, 3.0), (1, 1.0)]), [0.75, 0.25]);
        assert_eq!(of(&[(1, 0.25), (1, 0.75)]), [0.25, 0.75]);
        // Weight of workers that are not ready is none.
        assert_eq!(of(&[(0, 5.0), (1, 0.5)]), [0.0, 1.0]);
        assert_eq!(of(&[(0, 0.0), (0, 0.0)]), [0.0, 0.0]);
    }

    #[test]
    fn who_has_no_weight_gets_none_unless_nobody_else_can() {
        assert_eq!(of(&[(3, 0.0), (1, 0.001)]), [0.0, 1.0]);
        assert_eq!(of(&[(3, 0.0), (0, 0.0)]), [1.0, 0.0]);
        assert_eq!(of(&[(3, 0.0), (1, 0.0)]), [0.75, 0.25]);
    }

    #[test]
    fn turns_go_on_where_versions_come_and_go() {
        let before = Versions::new(Vec::new(), None);
        let last = before.turn();
        let next = Versions::new(Vec::new(), Some(&before)).turn();
        assert_eq!(next, last.wrapping_add(GOLDEN));
    }

    #[test]
    fn a_request_that_nobody_can_take_is_anyone_s() {
        assert_eq!(whose(&[0.0, 0.0], 0), 0);
        assert_eq!(whose(&[0.0, 0.0], u64::MAX), 1);
    }

    /// Not only on the whole: of any thousand that follow each other.
    #[test]
    fn each_gets_its_share_give_or_take_a_few() {
        let weights = [
            [1.0, 1.0, 0.0],
            [9.0, 1.0, 0.0],
            [0.001, 0.999, 0.0],
            [1.0, 2.0, 4.0],
            [0.3, 0.3, 0.4],
        ];
        for (weights, start) in weights.iter().zip((0..).map(|n: u64| n << 61)) {
            let shares = of(&weights.map(|weight| (1, weight)));
            let mut got = [0.0; 3];
            for turn in 0..1000 {
                got[whose(&shares, start.wrapping_add(GOLDEN.wrapping_mul(turn)))] += 1.0;
            }
            for (got, share) in got.iter().zip(&shares) {
                assert!((got - share * 1000.0).abs() < 4.0, "{got} of {share}");
                assert!(*share > 0.0 || *got == 0.0);
            }
        }
    }
}
