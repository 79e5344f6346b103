use bitflags::bitflags;
use forebay_protocols::Error;
use forebay_protocols::worker::GenerateRequest;
use forebay_tokens::{BlockSize, TokenId};

bitflags! {
    /// What an engine can do. Whatever is not here is refused by name, never ignored.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Capabilities: u32 {
        /// [`Engine::generate`](crate::Engine::generate).
        const GENERATE = 1;
        /// [`Engine::embed`](crate::Engine::embed).
        const EMBED = 1 << 1;
        /// [`Engine::score`](crate::Engine::score).
        const SCORE = 1 << 2;
        /// [`Engine::encode`](crate::Engine::encode).
        const ENCODE = 1 << 3;
        /// [`Engine::media`](crate::Engine::media).
        const MEDIA = 1 << 4;
        /// Log probabilities of tokens.
        const LOGPROBS = 1 << 5;
        /// Logit bias and the three penalties.
        const LOGIT_SHAPING = 1 << 6;
        /// Prefixes are kept, and `cached_tokens` is truthful.
        const PREFIX_CACHE = 1 << 7;
        /// [`Engine::kv_events`](crate::Engine::kv_events).
        const KV_EVENTS = 1 << 8;
        /// One seed, one answer: whatever else runs, whether the prefix was cached, and whether the
        /// tokens so far came in `emitted_token_ids`.
        const EXACT = 1 << 9;
        /// LoRA adapters.
        const LORA = 1 << 10;
        /// Multimodal features in prompts.
        const MULTIMODAL = 1 << 11;
        /// [`Control::Pause`](crate::Control::Pause) and `Resume`.
        const PAUSE = 1 << 12;
        /// [`Engine::stop`](crate::Engine::stop).
        const STOP = 1 << 13;
    }
}

impl Capabilities {
    /// Refuses what a generation asks for beyond these capabilities.
    ///
    /// # Errors
    ///
    /// `Unsupported`, with the first such field in `param`.
    pub fn check(self, request: &GenerateRequest) -> Result<(), Error> {
        let default = Default::default();
        let sampling = request.sampling.as_ref().unwrap_or(&default);
        let repeats = sampling.repetition_penalty.is_some_and(|by| by != 1.0);
        let shapes = [
            (!sampling.logit_bias.is_empty(), "sampling.logit_bias"),
            (repeats, "sampling.repetition_penalty"),
            (
                sampling.presence_penalty != 0.0,
                "sampling.presence_penalty",
            ),
            (
                sampling.frequency_penalty != 0.0,
                "sampling.frequency_penalty",
            ),
        ]
        .map(|(asked, field)| (asked, Self::LOGIT_SHAPING, field));
        let wants_logprobs = request
            .output
            .is_some_and(|output| output.logprobs.is_some());
        let others = [
            (wants_logprobs, Self::LOGPROBS, "output.logprobs"),
            (!request.lora.is_empty(), Self::LORA, "lora"),
            (!request.features.is_empty(), Self::MULTIMODAL, "features"),
        ];
        let asked = shapes.iter().chain(&others);
        let lacks = |(asked, by, _): &&(bool, Self, &str)| *asked && !self.contains(*by);
        match asked.into_iter().find(lacks) {
            Some((.., field)) => Err(Error::unsupported(
                *field,
                "is not supported by this engine",
            )),
            None => Ok(()),
        }
    }
}

/// What is fixed about an engine while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineInfo {
    /// The model's name, as the engine knows it.
    pub model: String,
    /// What it can do.
    pub capabilities: Capabilities,
    /// The longest sequence in tokens, prompt and answer together.
    pub context_length: u32,
    /// Token ids are below this.
    pub vocabulary_size: u32,
    /// Tokens a KV block.
    pub block_size: BlockSize,
    /// KV blocks in all.
    pub kv_blocks: u32,
    /// The tokens that end a sequence, as the model's own configuration says.
    pub eos_token_ids: Vec<TokenId>,
    /// How many data-parallel ranks it has, 1 to 4,096.
    pub data_parallel_ranks: u32,
}
