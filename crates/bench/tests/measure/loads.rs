//! What is sent, and what is made of what comes back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use forebay_bench::{Api, Arrival, Length, Slo, Synthetic, Trace, Workload};
use tokio_util::sync::CancellationToken;

use crate::server::{Answer, Server, Step};
use crate::{config, run, synthetic};

/// Generations that the probes make.
const PROBES: usize = 2;

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[tokio::test]
async fn a_closed_loop_is_measured() {
    let server = Server::start(|asked| Answer::tokens(asked, ms(20), ms(5))).await;
    let mut config = config(&server);
    config.workload = synthetic(50, 4);
    config.arrival = Arrival::Closed { concurrency: 3 };
    config.warmup_requests = 5;
    config.slo = Slo {
        ttft: Some(ms(1)),
        itl: None,
    };
    let measured = run(&config, &server).await.unwrap();
    let report = &measured.report;

    assert_eq!(report.run.model, "first");
    assert_eq!(
        (report.run.tokens_per_word, report.run.overhead_tokens),
        (Some(2.0), Some(10.0))
    );
    assert_eq!(
        (report.requests.completed, report.requests.failed),
        (12, 0),
        "{report}"
    );
    assert_eq!(
        report.requests.good,
        Some(0),
        "no token came within a millisecond"
    );
    assert_eq!(report.generator.max_in_flight, 3);

    // 20 words are 50 tokens.
    assert_eq!(
        (report.tokens.input, report.tokens.output),
        (12 * 50, 12 * 4)
    );
    assert_eq!(report.tokens.cached, Some(12 * 5));
    assert_eq!(report.tokens.content_chunks, 12 * 4);

    let latencies = &report.latency_ms;
    let ttft = latencies.ttft.unwrap();
    assert!(ttft.count == 12 && ttft.min >= 20.0, "{ttft:?}");
    let itl = latencies.itl.unwrap();
    assert_eq!(itl.count, 12 * 3);
    assert!(itl.mean >= 3.0, "{itl:?}");
    assert!(latencies.tpot.unwrap().min >= 4.0);
    assert!(latencies.e2e.unwrap().min >= 35.0);
    let least = 12.0 / 3.0 * 0.035;
    assert!(
        report.duration_seconds >= least && report.throughput.requests_per_second <= 12.0 / least
    );

    let numbers: Vec<_> = measured
        .records
        .iter()
        .map(|record| record.number)
        .collect();
    assert_eq!(numbers, (0..12).collect::<Vec<_>>());
    assert_eq!(server.most_at_a_time(), 3);
    assert_eq!(server.connections(), 3, "connections are used again");
    let asked = server.asked();
    assert_eq!(asked.len(), PROBES + 5 + 12);
    let prompts: BTreeSet<_> = asked.iter().map(|asked| &asked.prompt).collect();
    assert_eq!(prompts.len(), asked.len(), "every prompt is unique");
    assert!(asked[PROBES..].iter().all(|asked| asked.words() == 20));
}

#[tokio::test]
async fn completions_may_be_whole() {
    let server = Server::start(|asked| {
        let body = serde_json::json!({
            "choices": [{"text": " baba", "finish_reason": "length"}],
            "usage": {"prompt_tokens": asked.words(), "completion_tokens": asked.max_tokens()},
        });
        Answer::status(200, body)
    })
    .await;
    let mut config = config(&server);
    config.api = Api::Completions;
    config.stream = false;
    config.model = Some("second".into());
    let report = run(&config, &server).await.unwrap().report;
    assert_eq!(
        (report.requests.completed, report.tokens.output),
        (12, 12 * 4)
    );
    assert!(report.latency_ms.ttft.is_none() && report.latency_ms.itl.is_none());
    assert_eq!(report.latency_ms.e2e.unwrap().count, 12);
    assert!(
        server
            .asked()
            .iter()
            .all(|asked| asked.body["model"] == "second")
    );
}

/// Requests that a busy server makes wait count from when they were due, not from when they could
/// be sent; and the run says that it is not valid.
#[tokio::test]
async fn waiting_is_not_omitted() {
    let server = Server::start(|asked| Answer::tokens(asked, ms(20), ms(0))).await;
    let mut config = config(&server);
    config.arrival = Arrival::Poisson {
        rate_per_second: 200.0,
    };
    config.requests = Some(20);
    config.max_connections = 1;
    let measured = run(&config, &server).await.unwrap();
    assert_eq!(measured.records.len(), 20);
    for (index, record) in (1..).zip(&measured.records) {
        // One after the other, 20 ms each: request n cannot have ended before n times that.
        let due = record.scheduled_seconds.unwrap();
        let least_ms = (0.020 * f64::from(index) - due) * 1e3;
        assert!(record.e2e_ms.unwrap() >= least_ms, "{record:?}");
    }
    let report = measured.report;
    assert!(report.latency_ms.e2e.unwrap().max >= 200.0);
    assert!(
        !report.valid && report.invalid_reasons[0].contains("fell behind"),
        "{report}"
    );
    assert!(report.to_string().contains("NOT VALID"));
}

#[tokio::test]
async fn a_seed_fixes_what_is_sent_and_when() {
    let mut sent = Vec::new();
    for seed in [1, 1, 2] {
        let server = Server::start(Answer::at_once).await;
        let mut config = config(&server);
        config.seed = seed;
        config.arrival = Arrival::Poisson {
            rate_per_second: 2_000.0,
        };
        let measured = run(&config, &server).await.unwrap();
        let due: Vec<_> = measured
            .records
            .iter()
            .map(|record| record.scheduled_seconds)
            .collect();
        let mut prompts: Vec<_> = server
            .asked()
            .into_iter()
            .map(|asked| asked.prompt)
            .collect();
        prompts.sort();
        sent.push((due, prompts));
    }
    assert_eq!(sent[0], sent[1]);
    assert_ne!(sent[0].0, sent[2].0);
    assert_ne!(sent[0].1, sent[2].1);
}

#[tokio::test]
async fn a_trace_is_replayed() {
    let server = Server::start(Answer::at_once).await;
    let text = r#"{"timestamp":0,"input_length":1100,"output_length":3,"hash_ids":[1,2,3]}
{"timestamp":40,"input_length":600,"output_length":2,"hash_ids":[1,4]}
{"timestamp":80,"input_length":100,"output_length":1,"hash_ids":[9]}"#;
    let mut config = config(&server);
    config.workload = Workload::Trace(Trace::parse(text).unwrap());
    config.arrival = Arrival::Timestamps { speedup: 2.0 };
    config.requests = None;
    let measured = run(&config, &server).await.unwrap();

    let due: Vec<_> = measured
        .records
        .iter()
        .map(|record| record.scheduled_seconds)
        .collect();
    assert_eq!(due, [Some(0.0), Some(0.02), Some(0.04)]);
    let lengths: Vec<_> = measured
        .records
        .iter()
        .map(|r| (r.input_tokens, r.output_tokens))
        .collect();
    assert_eq!(lengths, [(Some(1100), 3), (Some(600), 2), (Some(100), 1)]);
    assert!(measured.report.duration_seconds >= 0.04);
    let mut prompts: Vec<_> = server.asked()[PROBES..]
        .iter()
        .map(|asked| asked.prompt.clone())
        .collect();
    prompts.sort_by_key(|prompt| std::cmp::Reverse(prompt.len()));
    let common = prompts[0]
        .split(' ')
        .zip(prompts[1].split(' '))
        .take_while(|(a, b)| a == b);
    assert_eq!(
        common.count(),
        1 + 256,
        "one block of 512 tokens, two a word"
    );
}

#[tokio::test]
async fn a_run_can_be_ended_by_time() {
    let server = Server::start(|asked| Answer::tokens(asked, ms(10), ms(0))).await;
    let mut config = config(&server);
    config.requests = None;
    config.duration = Some(ms(100));
    config.arrival = Arrival::Closed { concurrency: 2 };
    config.workload = Workload::Synthetic(Synthetic {
        isl: Length { min: 20, max: 60 },
        osl: Length { min: 1, max: 3 },
        shared_prefix_tokens: 10,
    });
    let measured = run(&config, &server).await.unwrap();
    assert!(measured.report.duration_seconds >= 0.1);
    assert!(
        measured
            .records
            .iter()
            .all(|record| record.sent_seconds <= 0.1)
    );
    assert!(
        measured
            .records
            .iter()
            .all(|r| (20..=60).contains(&r.input_tokens.unwrap()))
    );
    let starts: BTreeSet<_> = server.asked()[PROBES..]
        .iter()
        .map(|asked| asked.prompt[..25].to_owned())
        .collect();
    assert_eq!(starts.len(), 1, "five words are shared");
}

/// An open loop that cannot keep up does not go on for ever: what was due and not sent is counted.
#[tokio::test]
async fn an_open_loop_ends_by_time_too() {
    let server = Server::start(|asked| Answer::tokens(asked, ms(20), ms(0))).await;
    let mut config = config(&server);
    config.requests = None;
    config.duration = Some(ms(100));
    config.arrival = Arrival::Poisson {
        rate_per_second: 20_000.0,
    };
    config.max_connections = 1;
    let measured = run(&config, &server).await.unwrap();
    let report = &measured.report;
    let counts = report.requests;
    // One after the other, 20 ms each, until a second after the end.
    assert!(counts.completed <= 56, "{report}");
    // 2,000 are due on average, with a deviation of 45.
    let due = counts.completed + counts.failed + counts.unsent;
    assert!((1_750..2_250).contains(&due), "{report}");
    assert!((measured.records.iter()).all(|record| record.scheduled_seconds.unwrap() < 0.1));
    assert!(!report.valid);
    assert!(
        report.invalid_reasons[0].contains("were due and not sent"),
        "{report}"
    );
    assert!(report.to_string().contains(" not sent in "), "{report}");
}

#[tokio::test]
async fn an_interrupted_run_reports_what_it_has() {
    for arrival in [
        Arrival::Closed { concurrency: 1 },
        Arrival::Poisson {
            rate_per_second: 1_000.0,
        },
    ] {
        let server = Server::start(|asked| {
            if asked.number < PROBES + 3 {
                return Answer::at_once(asked);
            }
            Answer::stream(vec![Step::Stall])
        })
        .await;
        let mut config = config(&server);
        config.arrival = arrival;
        config.requests = None;
        config.max_connections = 1;
        let cancel = CancellationToken::new();
        let running = forebay_bench::run(&config, &server.tasks, cancel.clone(), Arc::new(()));
        let ending = async {
            server.arrived(PROBES as u32 + 4).await;
            cancel.cancel();
        };
        let (measured, ()) = tokio::join!(running, ending);
        let report = measured.unwrap().report;
        assert!(report.interrupted);
        assert_eq!(
            (report.requests.completed, report.requests.unfinished),
            (3, 1),
            "{report}"
        );
    }
}
