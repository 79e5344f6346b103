//! From a row of logits to a token.
//!
//! Everything here is a function of its arguments, to the bit and on every CPU: `f32` arithmetic
//! is plain multiplications and additions (the `kernel` module's exponential), and sums of
//! probabilities are sums of integers ([`weights`]), which have no order. A token therefore
//! depends on the logits, the request and the position, and on nothing else that runs.
//!
//! The order of rules is that of the worker protocol: logit bias, penalties, temperature, top-k,
//! top-p, min-p, draw.

mod draw;
mod history;
mod logprobs;
mod sampler;
mod truncation;
mod weights;

pub(crate) use history::TokenHistory;
pub(crate) use sampler::{Sampler, SamplingError, TokenRules};

/// The greatest logit of a row; `None` if any is infinite or no number, or the row is empty.
fn greatest(row: &[f32]) -> Option<f32> {
    const LANES: usize = 16;
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut finite = [true; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            finite[i] &= chunk[i].abs() < f32::INFINITY;
            lanes[i] = if chunk[i] > lanes[i] {
                chunk[i]
            } else {
                lanes[i]
            };
        }
    }
    let all_finite = finite.iter().all(|finite| *finite) && rest.iter().all(|l| l.is_finite());
    let greatest = lanes
        .iter()
        .chain(rest)
        .fold(f32::NEG_INFINITY, |greatest, l| greatest.max(*l));
    (all_finite && !row.is_empty()).then_some(greatest)
}
