use std::time::Duration;

use serde::Serialize;

use crate::answer::Answer;
use crate::failure::{Failure, FailureClass};

/// One request of the measurement; one line of the requests file.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RequestRecord {
    /// Its number within the load, from 0; with the seed it fixes the prompt.
    pub number: u64,
    /// When it had to be sent by the schedule, in seconds from the start of the measurement; in a
    /// closed loop there is no such time.
    pub scheduled_seconds: Option<f64>,
    /// When it was sent.
    pub sent_seconds: f64,
    /// When it ended.
    pub end_seconds: f64,
    /// Milliseconds to the first token: in an open loop from the scheduled time, in a closed one
    /// from sending.
    pub ttft_ms: Option<f64>,
    /// Mean milliseconds from token to token after the first.
    pub tpot_ms: Option<f64>,
    /// Milliseconds to the end of the answer, from the same moment as `ttft_ms`; none if it
    /// failed.
    pub e2e_ms: Option<f64>,
    /// Prompt tokens, as the server counted.
    pub input_tokens: Option<u32>,
    /// Those of them that came from a cache, if the server says so.
    pub cached_tokens: Option<u32>,
    /// Tokens of the answer, as the server counted; the parts with text if it did not count.
    pub output_tokens: u32,
    /// Tokens that were asked for.
    pub requested_tokens: u32,
    /// Parts of the stream with text.
    pub content_chunks: u32,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
}

impl RequestRecord {
    /// How late it was sent, in an open loop.
    pub(crate) fn lag(&self) -> Option<Duration> {
        self.scheduled_seconds
            .map(|scheduled| seconds(self.sent_seconds - scheduled))
    }
}

/// When a request was due and when it was sent, from the start of the measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sending {
    pub(crate) number: u64,
    pub(crate) scheduled: Option<Duration>,
    pub(crate) sent: Duration,
    pub(crate) requested_tokens: u32,
    /// Whether another number of tokens is a failure.
    pub(crate) exact_length: bool,
}

impl Sending {
    /// The record of a request that ended at `end` without an answer.
    pub(crate) fn failed(self, end: Duration, failure: Failure) -> RequestRecord {
        RequestRecord {
            number: self.number,
            scheduled_seconds: self.scheduled.map(|time| time.as_secs_f64()),
            sent_seconds: self.sent.as_secs_f64(),
            end_seconds: end.as_secs_f64(),
            ttft_ms: None,
            tpot_ms: None,
            e2e_ms: None,
            input_tokens: None,
            cached_tokens: None,
            output_tokens: 0,
            requested_tokens: self.requested_tokens,
            content_chunks: 0,
            failure: Some(failure),
        }
    }

    /// The record of a request that was answered. Latencies count from when it had to be sent:
    /// otherwise a server that stalls would be asked less, and seem faster for it.
    pub(crate) fn answered(self, answer: &Answer) -> RequestRecord {
        let from = self.scheduled.unwrap_or(self.sent);
        let since = |time: Duration| time.saturating_sub(from).as_secs_f64() * 1e3;
        let usage = answer.usage;
        let output_tokens = usage.map_or(answer.content_chunks, |usage| usage.completion_tokens);
        let times = answer.first_token.zip(answer.last_token);
        let tpot_ms = times.and_then(|(first, last)| {
            let gaps = output_tokens.checked_sub(1).filter(|&gaps| gaps > 0)?;
            Some((last - first).as_secs_f64() * 1e3 / f64::from(gaps))
        });
        let is_wrong =
            self.exact_length && usage.is_some() && output_tokens != self.requested_tokens;
        RequestRecord {
            number: self.number,
            scheduled_seconds: self.scheduled.map(|time| time.as_secs_f64()),
            sent_seconds: self.sent.as_secs_f64(),
            end_seconds: answer.end.as_secs_f64(),
            ttft_ms: answer.first_token.map(since),
            tpot_ms,
            e2e_ms: Some(since(answer.end)),
            input_tokens: usage.map(|usage| usage.prompt_tokens),
            cached_tokens: usage
                .and_then(|usage| usage.prompt_tokens_details)
                .and_then(|details| details.cached_tokens),
            output_tokens,
            requested_tokens: self.requested_tokens,
            content_chunks: answer.content_chunks,
            failure: is_wrong.then(|| {
                let fewer = output_tokens < self.requested_tokens;
                let detail = if fewer {
                    "fewer tokens than asked for"
                } else {
                    "more tokens than asked for"
                };
                Failure::new(FailureClass::TokenCount, detail)
            }),
        }
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::chunk::Usage;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn sending(scheduled: Option<Duration>) -> Sending {
        Sending {
            number: 3,
            scheduled,
            sent: ms(1_250),
            requested_tokens: 5,
            exact_length: true,
        }
    }

    fn answer(completion_tokens: u32) -> Answer {
        Answer {
            first_token: Some(ms(1_500)),
            last_token: Some(ms(1_900)),
            end: ms(1_950),
            content_chunks: 3,
            gaps: vec![ms(200), ms(200)],
            usage: Some(Usage {
                prompt_tokens: 100,
                completion_tokens,
                prompt_tokens_details: None,
            }),
            ..Answer::default()
        }
    }

    #[test]
    fn latencies_count_from_the_scheduled_time() {
        let open = sending(Some(ms(1_000))).answered(&answer(5));
        assert_eq!((open.ttft_ms, open.e2e_ms), (Some(500.0), Some(950.0)));
        assert_eq!(open.lag(), Some(ms(250)));
        let closed = sending(None).answered(&answer(5));
        assert_eq!((closed.ttft_ms, closed.e2e_ms), (Some(250.0), Some(700.0)));
        assert_eq!(closed.lag(), None);
        assert_eq!(closed.tpot_ms, Some(100.0));
        assert_eq!(closed.failure, None);
    }

    #[test]
    fn another_number_of_tokens_is_a_failure_only_when_it_was_fixed() {
        let failure = sending(None).answered(&answer(4)).failure.unwrap();
        assert_eq!(failure.class, FailureClass::TokenCount);
        let free = Sending {
            exact_length: false,
            ..sending(None)
        };
        assert_eq!(free.answered(&answer(4)).failure, None);
        let uncounted = Answer {
            usage: None,
            ..answer(0)
        };
        let record = sending(None).answered(&uncounted);
        assert_eq!((record.output_tokens, record.failure), (3, None));
    }

    #[test]
    fn one_token_has_no_time_between_tokens() {
        assert_eq!(sending(None).answered(&answer(1)).tpot_ms, None);
    }
}
