//! The exporter against a collector of the test's own.
#![allow(clippy::unwrap_used)]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;

use forebay_observability::{
    BuildInfo, Error, OtlpConfig, Telemetry, TelemetryConfig, continue_trace, propagate_trace,
    request_span,
};
use http::HeaderMap;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use prost::Message as _;

const BUILD: BuildInfo = BuildInfo {
    service: "forebay-test",
    version: "1.2.3",
    revision: "",
};

/// One export as the collector got it.
struct Export {
    path: String,
    api_key: Option<String>,
    body: ExportTraceServiceRequest,
}

/// Answers every request with `status`, and hands over what was sent.
fn collector(status: &'static str) -> (String, mpsc::Receiver<Export>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (exports, received) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            while let Some(export) = read_export(&mut stream) {
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                stream.get_mut().write_all(answer.as_bytes()).unwrap();
                if exports.send(export).is_err() {
                    return;
                }
            }
        }
    });
    (endpoint, received)
}

fn read_export(stream: &mut BufReader<TcpStream>) -> Option<Export> {
    let mut line = String::new();
    if stream.read_line(&mut line).unwrap_or(0) == 0 {
        return None;
    }
    let path = line.split(' ').nth(1).unwrap().to_owned();
    let (mut length, mut api_key) = (0, None);
    loop {
        line.clear();
        stream.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim().split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "x-api-key" => api_key = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    Some(Export {
        path,
        api_key,
        body: ExportTraceServiceRequest::decode(body.as_slice()).unwrap(),
    })
}

fn config(endpoint: &str) -> TelemetryConfig {
    TelemetryConfig {
        otlp: OtlpConfig {
            endpoint: Some(endpoint.to_owned()),
            headers: [("x-api-key".into(), "s3cret".into())].into(),
            timeout_seconds: 5.0,
            ..OtlpConfig::default()
        },
        ..TelemetryConfig::default()
    }
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let attribute = attributes.iter().find(|a| a.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(value) => Some(value),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn spans_reach_the_collector_with_their_attributes_and_parents() {
    let (endpoint, received) = collector("200 OK");
    let (dispatch, telemetry) = Telemetry::dispatch(&config(&endpoint), &BUILD, io::sink).unwrap();
    let mut onward = HeaderMap::new();
    tracing::dispatcher::with_default(&dispatch, || {
        let mut headers = HeaderMap::new();
        headers.insert(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
                .parse()
                .unwrap(),
        );
        let request = request_span("req-1");
        continue_trace(&request, &headers);
        request.in_scope(|| {
            let prefill = tracing::info_span!("prefill", tokens = 42);
            propagate_trace(&prefill, &mut onward);
            tracing::debug_span!("not exported").in_scope(|| {});
        });
    });
    telemetry.shutdown().unwrap();

    let export = received.recv().unwrap();
    assert_eq!(export.path, "/v1/traces");
    assert_eq!(export.api_key.as_deref(), Some("s3cret"));
    let [resource_spans] = &export.body.resource_spans[..] else {
        panic!("one resource");
    };
    let resource = &resource_spans.resource.as_ref().unwrap().attributes;
    assert_eq!(text(resource, "service.name"), Some("forebay-test"));
    assert_eq!(text(resource, "service.version"), Some("1.2.3"));

    let spans: Vec<&Span> = resource_spans
        .scope_spans
        .iter()
        .flat_map(|scope| &scope.spans)
        .collect();
    let [prefill, request] = spans[..] else {
        panic!("two spans in order of their ends: {spans:?}");
    };
    assert_eq!((&*prefill.name, &*request.name), ("prefill", "request"));
    assert_eq!(hex(&request.trace_id), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(hex(&request.parent_span_id), "b7ad6b7169203331");
    assert_eq!(request.kind(), SpanKind::Server);
    assert_eq!(text(&request.attributes, "request_id"), Some("req-1"));
    assert_eq!(prefill.trace_id, request.trace_id);
    assert_eq!(prefill.parent_span_id, request.span_id);
    assert_eq!(
        onward["traceparent"],
        format!("00-{}-{}-01", hex(&prefill.trace_id), hex(&prefill.span_id))
    );
}

#[test]
fn a_caller_that_does_not_sample_is_obeyed() {
    let (endpoint, received) = collector("200 OK");
    let (dispatch, telemetry) = Telemetry::dispatch(&config(&endpoint), &BUILD, io::sink).unwrap();
    tracing::dispatcher::with_default(&dispatch, || {
        let mut headers = HeaderMap::new();
        headers.insert(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
                .parse()
                .unwrap(),
        );
        let unsampled = request_span("unsampled");
        continue_trace(&unsampled, &headers);
        unsampled.in_scope(|| {});
        headers.insert("traceparent", "no trace at all".parse().unwrap());
        let sampled = request_span("sampled");
        continue_trace(&sampled, &headers);
        sampled.in_scope(|| {});
    });
    telemetry.shutdown().unwrap();

    let export = received.recv().unwrap();
    let spans = &export.body.resource_spans[0].scope_spans[0].spans;
    assert_eq!(spans.len(), 1);
    assert_eq!(text(&spans[0].attributes, "request_id"), Some("sampled"));
    assert!(spans[0].parent_span_id.is_empty());
}

#[test]
fn a_collector_that_refuses_is_reported_at_shutdown() {
    let (endpoint, received) = collector("400 Bad Request");
    let (dispatch, telemetry) = Telemetry::dispatch(&config(&endpoint), &BUILD, io::sink).unwrap();
    tracing::dispatcher::with_default(&dispatch, || request_span("req-1").in_scope(|| {}));
    assert!(matches!(telemetry.shutdown(), Err(Error::OtlpFlush(_))));
    assert_eq!(received.recv().unwrap().path, "/v1/traces");
}
