use std::collections::BTreeMap;
use std::time::Duration;

use forebay_batch_scheduler::SequenceId;
use forebay_mocker::{Mocker, MockerConfig};
use forebay_perf_model::{Coefficients, PerfModel, Polynomial};
use forebay_protocols::Error;
use forebay_protocols::worker::{
    FinishReason, GenerateOutput, GenerateRequest, SamplingParams, StopConditions,
};
use forebay_tokens::{ContentKey, TokenId};

/// One millisecond an iteration, and one more for each prompt token: easy to add up.
pub(crate) fn milliseconds() -> PerfModel {
    let coefficients = Coefficients {
        fixed_seconds: 1e-3,
        prefill_token_seconds: 1e-3,
        ..Coefficients::default()
    };
    PerfModel::Polynomial(Polynomial::new(coefficients).unwrap())
}

pub(crate) fn config() -> MockerConfig {
    MockerConfig {
        block_size_tokens: 4,
        kv_blocks: 100,
        max_batch_tokens: 64,
        max_sequences: 8,
        max_waiting: 16,
        context_length: 300,
        perf_model: Some(milliseconds()),
        ..MockerConfig::default()
    }
}

/// Greedy, so that the answer depends on the prompt alone.
pub(crate) fn request(id: &str, prompt: &[TokenId], max_tokens: u32) -> GenerateRequest {
    GenerateRequest {
        request_id: id.into(),
        prompt_token_ids: prompt.to_vec(),
        sampling: Some(SamplingParams {
            temperature: Some(0.0),
            ..Default::default()
        }),
        stop: Some(StopConditions {
            max_tokens: Some(max_tokens),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(crate) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// What came of one choice.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Heard {
    pub(crate) tokens: Vec<TokenId>,
    /// When each token came.
    pub(crate) at: Vec<Duration>,
    pub(crate) prompt_tokens: u32,
    pub(crate) cached_tokens: u32,
    pub(crate) finish: Option<FinishReason>,
    pub(crate) matched_stop_token: Option<TokenId>,
    pub(crate) error: Option<Error>,
}

/// A mocker whose time passes only here.
pub(crate) struct Driver {
    pub(crate) mocker: Mocker,
    pub(crate) now: Duration,
    pub(crate) heard: BTreeMap<SequenceId, Heard>,
    pub(crate) preempted: usize,
}

impl Driver {
    pub(crate) fn new(config: &MockerConfig) -> Self {
        Self::instance(config, 0)
    }

    pub(crate) fn instance(config: &MockerConfig, instance: u32) -> Self {
        let key = ContentKey::new([7; 32]);
        Self {
            mocker: Mocker::new(config, instance, key, Duration::ZERO).unwrap(),
            now: Duration::ZERO,
            heard: BTreeMap::new(),
            preempted: 0,
        }
    }

    pub(crate) fn submit(&mut self, request: GenerateRequest) -> Result<SequenceId, Error> {
        let id = self.mocker.submit(self.now, request)?;
        self.heard.insert(id, Heard::default());
        Ok(id)
    }

    /// Does what is due next; false if nothing is.
    pub(crate) fn advance(&mut self) -> bool {
        let Some(wake_at) = self.mocker.wake_at() else {
            return false;
        };
        self.now = self.now.max(wake_at);
        self.step();
        true
    }

    /// Lets the mocker look at the clock, however late.
    pub(crate) fn step(&mut self) {
        let ended = self.mocker.step(self.now);
        self.preempted += ended.map_or(0, |ended| ended.preempted);
        let at = ended.map_or(self.now, |ended| ended.at);
        for (id, output) in self.mocker.take_outputs() {
            self.hear(id, at, output);
        }
    }

    fn hear(&mut self, id: SequenceId, at: Duration, output: Result<GenerateOutput, Error>) {
        let heard = self.heard.get_mut(&id).unwrap();
        assert_eq!((heard.finish, &heard.error), (None, &None), "it had ended");
        let output = match output {
            Ok(output) => output,
            Err(error) => {
                heard.error = Some(error);
                return;
            }
        };
        assert_eq!(output.prompt.is_some(), heard.tokens.is_empty());
        if let Some(prompt) = output.prompt {
            heard.prompt_tokens = prompt.prompt_tokens;
            heard.cached_tokens = prompt.cached_tokens;
        }
        heard.at.extend(output.token_ids.iter().map(|_| at));
        heard.matched_stop_token = output.matched_stop_token;
        heard.finish = match output.finish_reason() {
            FinishReason::Unspecified => None,
            reason => Some(reason),
        };
        heard.tokens.extend(output.token_ids);
    }

    pub(crate) fn run(&mut self) {
        while self.advance() {}
    }

    /// What comes of one request alone.
    pub(crate) fn answer(&mut self, request: GenerateRequest) -> Heard {
        let id = self.submit(request).unwrap();
        self.run();
        self.heard[&id].clone()
    }

    /// Nothing is held for anybody.
    pub(crate) fn assert_idle(&self) {
        let load = self.mocker.load();
        let held = (
            load.running_requests,
            load.waiting_requests,
            load.kv_blocks_active,
        );
        assert_eq!(held, (0, 0, 0));
    }
}
