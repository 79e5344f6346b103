//! A real engine, which counts what it computes.

use std::fs;

use forebay_native_engine::{ModelShape, random_gguf};
use forebay_testkit::FaultProxy;
use forebay_testkit::http::{self, Streaming};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Frontend};
use crate::wait::until;

/// Its answers are noise, and a token takes about a millisecond.
const MODEL: ModelShape = ModelShape {
    vocabulary: 259,
    context_length: 2048,
    layers: 4,
    hidden: 256,
    feed_forward: 1024,
    heads: 4,
    kv_heads: 2,
    head_dim: 64,
};

const STREAMS: usize = 4;

#[test]
fn nothing_is_computed_again_after_a_cut() {
    let cluster = Cluster::new();
    let directory = tempfile::tempdir().unwrap();
    let model = directory.path().join("noise.gguf");
    fs::write(&model, random_gguf(&MODEL, 1)).unwrap();
    let proxy = FaultProxy::to_nowhere().unwrap();
    let worker = cluster.native_worker_behind(&proxy, &model);
    let frontend = cluster.frontend();
    until("the model is there", || frontend.workers_of("noise") == 1);
    let counts = || {
        ["prompt", "cached_prompt", "generation"]
            .map(|what| worker.metric(&format!("forebay_engine_{what}_tokens_total")))
    };
    let before = counts();
    let mut streams: Vec<_> = (0..STREAMS).map(|number| open(&frontend, number)).collect();
    for stream in &mut streams {
        stream.event().unwrap().unwrap();
    }
    // Nothing ends while the connection is away.
    worker.child.stop();
    proxy.cut();
    worker.child.resume();
    assert!(worker.running() > 0.0, "there is something to lose");
    let usages: Vec<_> = streams.into_iter().map(usage).collect();
    let after = counts();
    let counted = [0, 1, 2].map(|at| after[at] - before[at]);
    let answered = [0, 1, 2].map(|at| usages.iter().map(|usage| usage[at]).sum::<f64>());
    assert_eq!(counted, answered);
    let reattached = frontend.metric("forebay_tcp_client_reattachments_total");
    assert_eq!(reattached, 1.0);
}

/// A stream of an answer with a prompt that no other has.
fn open(frontend: &Frontend, number: usize) -> Streaming {
    let body = json!({
        "model": "noise", "prompt": format!("{number}: once upon a time"), "max_tokens": 1000,
        "temperature": 0.0, "stream": true, "stream_options": {"include_usage": true},
    });
    http::stream(frontend.address, "/v1/completions", &body.to_string()).unwrap()
}

/// Reads to the end: tokens of the prompt, those of them that were cached, tokens of the answer.
fn usage(mut stream: Streaming) -> [f64; 3] {
    let mut usage = None;
    loop {
        let event = stream.event().unwrap().expect("it ends with a word");
        if event == "[DONE]" {
            return usage.expect("the last event has the usage");
        }
        let event: Value = serde_json::from_str(&event).unwrap();
        let of = |path: &str| event["usage"].pointer(path).and_then(Value::as_f64);
        assert!(event.get("error").is_none(), "{event}");
        if let Some(prompt) = of("/prompt_tokens") {
            let cached = of("/prompt_tokens_details/cached_tokens").unwrap();
            usage = Some([prompt, cached, of("/completion_tokens").unwrap()]);
        }
    }
}
