use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::answer::AnswerReader;
use crate::clock::Clock;
use crate::connection::Connections;
use crate::failure::{Failure, FailureClass};
use crate::progress::Progress;
use crate::prompt::Prompts;
use crate::record::{RequestRecord, Sending};
use crate::request::{Prepared, RequestWriter};
use crate::samples::Samples;

/// How a server is asked.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) connections: Connections,
    pub(crate) writer: RequestWriter,
    pub(crate) prompts: Prompts,
    pub(crate) stream: bool,
    pub(crate) exact_length: bool,
    pub(crate) timeout: Duration,
}

impl Endpoint {
    /// Writes request `number` of the load.
    pub(crate) fn write(&self, number: u64, prepared: &mut Prepared) {
        self.writer
            .write(prepared, |text| self.prompts.write(number, text));
    }

    /// Writes request `number` of the warm-up.
    pub(crate) fn write_warm_up(&self, number: u64, prepared: &mut Prepared) {
        self.writer
            .write(prepared, |text| self.prompts.write_warm_up(number, text));
    }
}

/// What the requests of one phase share: the server, the clock, and what came of them.
pub(crate) struct Session {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) clock: Clock,
    /// Ends the phase with what is there.
    pub(crate) cancel: CancellationToken,
    progress: Arc<dyn Progress>,
    seen: Mutex<Seen>,
    in_flight: AtomicU64,
    max_in_flight: AtomicU64,
}

/// What came of the requests.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// In the order in which they ended.
    pub(crate) records: Vec<RequestRecord>,
    /// Time between parts of streams.
    pub(crate) gaps: Samples,
    /// Requests that were under way when the phase was cancelled.
    pub(crate) unfinished: u64,
    /// Requests that were due and could not be sent in time.
    pub(crate) unsent: u64,
    /// Most requests under way at a time.
    pub(crate) max_in_flight: u64,
}

impl Session {
    /// Begins a phase: its clock starts.
    pub(crate) fn begin(
        endpoint: Arc<Endpoint>,
        cancel: CancellationToken,
        progress: Arc<dyn Progress>,
    ) -> Self {
        Self {
            endpoint,
            clock: Clock::start(),
            cancel,
            progress,
            seen: Mutex::default(),
            in_flight: AtomicU64::new(0),
            max_in_flight: AtomicU64::new(0),
        }
    }

    /// Sends a request, waits for the answer and keeps its record. Tells whether there was a
    /// connection.
    pub(crate) async fn send(
        &self,
        number: u64,
        scheduled: Option<Duration>,
        prepared: &Prepared,
    ) -> bool {
        let endpoint = &*self.endpoint;
        let in_flight = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.max_in_flight.fetch_max(in_flight, Ordering::Relaxed);
        let sending = Sending {
            number,
            scheduled,
            sent: self.clock.now(),
            requested_tokens: prepared.output_tokens,
            exact_length: endpoint.exact_length,
        };
        let mut reader = AnswerReader::new(endpoint.stream);
        let exchange = endpoint
            .connections
            .exchange(&prepared.bytes, self.clock, &mut reader);
        let limited = tokio::time::timeout(endpoint.timeout, exchange);
        let ended = self.cancel.run_until_cancelled(limited).await;
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let result = match ended {
            None => {
                self.seen.lock().unfinished += 1;
                return true;
            }
            Some(Err(_)) => Err(Failure::new(FailureClass::Timeout, "no answer in time")),
            Some(Ok(result)) => result,
        };
        let (record, gaps) = match result.and_then(|()| reader.into_answer()) {
            Ok(answer) => (sending.answered(&answer), answer.gaps),
            Err(failure) => (sending.failed(self.clock.now(), failure), Vec::new()),
        };
        let class = record.failure.as_ref().map(|failure| failure.class);
        self.progress.ended(class.is_some());
        let mut seen = self.seen.lock();
        if class.is_none() {
            for gap in gaps {
                seen.gaps.record(gap);
            }
        }
        seen.records.push(record);
        class != Some(FailureClass::Connect)
    }

    /// Counts requests that were due and are not sent any more.
    pub(crate) fn count_unsent(&self, requests: u64) {
        self.seen.lock().unsent += requests;
    }

    /// What came of the requests; called when all of them have ended.
    pub(crate) fn take(&self) -> Seen {
        let mut seen = std::mem::take(&mut *self.seen.lock());
        seen.max_in_flight = self.max_in_flight.load(Ordering::Relaxed);
        seen
    }
}
