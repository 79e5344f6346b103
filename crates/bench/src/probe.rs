use std::time::Duration;

use serde::Deserialize;

use crate::Error;
use crate::answer::AnswerReader;
use crate::clock::Clock;
use crate::config::{BenchConfig, Workload};
use crate::connection::{Connections, Receive};
use crate::failure::{Failure, FailureClass};
use crate::prompt::{Prompts, TokenFit};
use crate::request::{self, Prepared, RequestWriter};
use crate::response::{Head, Part, ResponseReader};

/// The numbers of the probes' prompts, out of reach of the load's.
const FIRST_NUMBER: u64 = 1 << 39;

/// What has to be known of a server before it is measured.
#[derive(Debug)]
pub(crate) struct Probed {
    pub(crate) model: String,
    /// None if the server does not count tokens.
    pub(crate) fit: Option<TokenFit>,
    /// Whether the server goes on beyond an end of text when it is told to.
    pub(crate) exact_length: bool,
}

/// Asks a server for its first model if none is named, and with two short requests how it counts
/// words and whether it lets an answer's length be fixed.
pub(crate) async fn probe(
    config: &BenchConfig,
    connections: &Connections,
) -> Result<Probed, Error> {
    let model = match &config.model {
        Some(model) => model.clone(),
        None => first_model(config, connections).await?,
    };
    let mut counting = Counting {
        config,
        connections,
        model: &model,
        exact_length: !config.stop_at_eos,
    };
    let many = words(config);
    let few = many / 8;
    let mut first = counting.count(few, 0).await;
    if first.as_ref().is_err_and(is_refused) && counting.exact_length {
        counting.exact_length = false;
        first = counting.count(few, 0).await;
    }
    let first = first.map_err(refused)?;
    let second = counting.count(many, 1).await.map_err(refused)?;
    let exact_length = counting.exact_length;
    let fit = first
        .zip(second)
        .and_then(|(first, second)| TokenFit::from_probes((few, first), (many, second)));
    Ok(Probed {
        model,
        fit,
        exact_length,
    })
}

/// Words of the longer probe: enough for a mean, and not more than a prompt of the load.
fn words(config: &BenchConfig) -> u32 {
    let tokens = match &config.workload {
        Workload::Synthetic(synthetic) => synthetic.isl.max,
        Workload::Trace(trace) => {
            let lengths = trace.requests().iter().map(|request| request.input_tokens);
            lengths.max().unwrap_or(0)
        }
    };
    (tokens / 3).clamp(32, 512)
}

/// Short requests whose prompts the server counts.
struct Counting<'a> {
    config: &'a BenchConfig,
    connections: &'a Connections,
    model: &'a str,
    exact_length: bool,
}

impl Counting<'_> {
    /// What the server counts for a prompt of so many words; `number` makes it another prompt.
    async fn count(&self, words: u32, number: u64) -> Result<Option<u32>, Failure> {
        let config = self.config;
        let writer = RequestWriter::new(config, self.model, self.exact_length);
        let prompts = Prompts::new(config.workload.clone(), TokenFit::ASSUMED, config.seed);
        let mut prepared = Prepared::default();
        writer.write(&mut prepared, |text| {
            prompts.write_words(FIRST_NUMBER + number, words, text);
            1
        });
        let mut reader = AnswerReader::new(config.stream);
        exchange(config, self.connections, &prepared.bytes, &mut reader).await?;
        let answer = reader.into_answer()?;
        Ok(answer.usage.map(|usage| usage.prompt_tokens))
    }
}

async fn first_model(config: &BenchConfig, connections: &Connections) -> Result<String, Error> {
    #[derive(Deserialize)]
    struct List {
        data: Vec<Model>,
    }
    #[derive(Deserialize)]
    struct Model {
        id: String,
    }
    let what = || format!("GET {}/v1/models", config.target);
    let fault = |message: String| Error::Probe {
        what: what(),
        message,
    };
    let mut body = WholeBody::new();
    exchange(
        config,
        connections,
        &request::get(config, "/v1/models"),
        &mut body,
    )
    .await
    .map_err(|failure| fault(failure.detail))?;
    if body.status() != 200 {
        return Err(fault(format!("status {}", body.status())));
    }
    let list: List = serde_json::from_slice(&body.body)
        .map_err(|_| fault("the answer is no list of models".into()))?;
    match list.data.into_iter().next() {
        Some(model) => Ok(model.id),
        None => Err(fault("the server has no model".into())),
    }
}

async fn exchange(
    config: &BenchConfig,
    connections: &Connections,
    request: &[u8],
    receiver: &mut impl Receive,
) -> Result<(), Failure> {
    let exchange = connections.exchange(request, Clock::start(), receiver);
    tokio::time::timeout(config.timeout, exchange)
        .await
        .unwrap_or_else(|_| Err(Failure::new(FailureClass::Timeout, "no answer in time")))
}

/// Whether the server did not like the request, as opposed to failing at it.
fn is_refused(failure: &Failure) -> bool {
    failure.class == FailureClass::Http && failure.detail.starts_with(['4'])
}

fn refused(failure: Failure) -> Error {
    Error::Probe {
        what: "the first request".into(),
        message: format!("{} ({})", failure.detail, failure.class.as_str()),
    }
}

/// Reads a response whole.
struct WholeBody {
    response: ResponseReader,
    head: Option<Head>,
    body: Vec<u8>,
}

impl WholeBody {
    /// Longer than any list of models.
    const MAX_BYTES: usize = 16 << 20;

    fn new() -> Self {
        Self {
            response: ResponseReader::new(),
            head: None,
            body: Vec::new(),
        }
    }

    fn status(&self) -> u16 {
        self.head.map_or(0, |head| head.status)
    }
}

impl Receive for WholeBody {
    fn read(&mut self, _: Duration, mut bytes: &[u8]) -> Result<bool, Failure> {
        loop {
            let part = self.response.read(&mut bytes);
            match part.map_err(|fault| Failure::new(FailureClass::Malformed, fault.0))? {
                Some(Part::Head(head)) => self.head = Some(head),
                Some(Part::Body(part)) if self.body.len() + part.len() <= Self::MAX_BYTES => {
                    self.body.extend_from_slice(part);
                }
                Some(Part::Body(_)) => {
                    return Err(Failure::new(FailureClass::Malformed, "too long an answer"));
                }
                Some(Part::End) => return Ok(true),
                None => return Ok(false),
            }
        }
    }

    fn closed(&mut self, _: Duration) -> Result<(), Failure> {
        if self.response.may_end() {
            return Ok(());
        }
        let detail = "the connection ended before the answer";
        Err(Failure::new(FailureClass::Truncated, detail))
    }

    fn keep_alive(&self) -> bool {
        self.head.is_some_and(|head| head.keep_alive)
    }
}
