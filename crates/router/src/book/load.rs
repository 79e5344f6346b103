/// What is booked at one worker's rank: the sum over its bookings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests that have not ended.
    pub requests: u64,
    /// Those of them whose first token has not come.
    pub prefills: u64,
    /// Prompt tokens still to compute, after hits: of the requests without a first token.
    pub prefill_tokens: u64,
    /// For each of these tokens those it attends to, itself included, summed: the work of
    /// attention, as in [`Iteration`](forebay_perf_model::Iteration).
    pub prefill_context_tokens: u64,
    /// Distinct KV blocks in use: a prompt's full block that several requests share counts once,
    /// other blocks each. What the requests take of the worker's memory.
    pub used_blocks: u64,
    /// KV blocks summed over the requests, shared ones for each. What a decode step reads.
    pub context_blocks: u64,
}
