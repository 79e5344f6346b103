//! The published trace format, on a published trace.

#![allow(clippy::unwrap_used)]

use forebay_bench::{TRACE_BLOCK_TOKENS, Trace};

#[test]
fn mooncakes_trace_is_read() {
    let text = include_str!("../../../testdata/mooncake/conversation_head.jsonl");
    let trace = Trace::parse(text).unwrap();
    let requests = trace.requests();
    assert_eq!(requests.len(), 300);
    let first = &requests[0];
    assert_eq!((first.input_tokens, first.output_tokens), (6758, 500));
    assert_eq!(first.hash_ids, (0..14).collect::<Vec<_>>());
    let tokens: u64 = requests.iter().map(|r| u64::from(r.input_tokens)).sum();
    let blocks: usize = requests.iter().map(|r| r.hash_ids.len()).sum();
    assert!(blocks as u64 * u64::from(TRACE_BLOCK_TOKENS) >= tokens);
    assert_eq!(requests.last().unwrap().timestamp_ms, 102_000);
}
