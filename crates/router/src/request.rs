use forebay_tokens::RoutingHash;

use crate::{Mode, WorkerRank};

/// A request, as far as its worker's choice depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The hashes of the prompt's full blocks, first to last, under the seed of its adapter and
    /// salt.
    pub chain: &'a [RoutingHash],
    /// The prompt's length in tokens, those after its last full block included.
    pub prompt_tokens: u64,
    /// How many tokens it is likely to generate, if that is known: at most what its client asked
    /// for. It matters where time is predicted.
    pub expected_output_tokens: Option<u64>,
    /// How its worker is chosen; as the router is configured if `None`.
    pub mode: Option<Mode>,
    /// The one worker it may go to, whatever the mode.
    pub target: Option<WorkerRank>,
    /// Workers it may not go to: those that refused it, or failed it.
    pub excluded: &'a [WorkerRank],
    /// Whether the [`Decision`](crate::Decision) tells about every worker.
    pub explain: bool,
}

impl<'a> Request<'a> {
    /// A request for a prompt, without wishes. `prompt_tokens` is at least `chain`'s blocks.
    pub fn new(chain: &'a [RoutingHash], prompt_tokens: u64) -> Self {
        Self {
            chain,
            prompt_tokens,
            expected_output_tokens: None,
            mode: None,
            target: None,
            excluded: &[],
            explain: false,
        }
    }
}
