use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use forebay_chat::{TemplateInput, TextOptions, Tokenizer, TokenizerError};
use forebay_pipeline::Plan;
use forebay_protocols::openai::{
    self, ChatCompletionRequest, ChatMessage, CompletionRequest, Generation, Prompt,
};
use forebay_protocols::worker::SamplingParams;
use forebay_protocols::{Error, ErrorClass};
use forebay_tokens::{RequestId, RoutingSeed, TokenId};
use serde_json::{Map, Value};

use super::echo::Echo;
use crate::config::Limits;
use crate::models::{ModelRegistry, ServedModel, not_found};
use crate::pool::RoutedPrompt;
use crate::request_id::random_u64;

/// A request that was read, checked and turned into tokens. How many attempts it has is not in its
/// plan yet.
pub(crate) struct Prepared {
    pub(crate) model: Arc<ServedModel>,
    pub(crate) plan: Plan,
    /// By prompt, what its worker depends on.
    pub(crate) routed: Vec<RoutedPrompt>,
    /// The field of the request that the prompt came from.
    pub(crate) prompt_field: &'static str,
    pub(crate) text: TextOptions,
    pub(crate) echo: Echo,
    /// The model's name as the client wrote it.
    pub(crate) asked_model: String,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
}

/// Why a request was not prepared.
pub(crate) enum Unprepared {
    /// There is no model of this name now.
    NoModel(String),
    /// It is not one that can be answered.
    Refused(Error),
}

impl From<Error> for Unprepared {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<Unprepared> for Error {
    fn from(unprepared: Unprepared) -> Self {
        match unprepared {
            Unprepared::NoModel(name) => not_found(&name),
            Unprepared::Refused(error) => error,
        }
    }
}

/// Prepares a chat completion; for this version of its model, if it is given to one already. This
/// renders and tokenizes: not for an async thread if the body is long.
pub(crate) fn prepare_chat(
    body: &[u8],
    id: RequestId,
    version: Option<Arc<ServedModel>>,
    models: &ModelRegistry,
    limits: &Limits,
) -> Result<Prepared, Unprepared> {
    let request: ChatCompletionRequest = openai::parse(body)?;
    let model = find(version, models, &request.model)?;
    let generation = request.generation()?;
    if generation.choices as usize > limits.choices {
        return Err(too_many_choices(limits.choices, "n").into());
    }
    let asked_model = request.model;
    let prompt = chat_prompt(
        request.messages,
        request.add_generation_prompt.unwrap_or(true),
        request.chat_template_kwargs.as_ref(),
        &model,
    )?;
    let prompts = vec![prompt];
    Ok(prepared(
        id,
        model,
        asked_model,
        generation,
        prompts,
        "messages",
    )?)
}

/// The same for a text completion.
pub(crate) fn prepare_completion(
    body: &[u8],
    id: RequestId,
    version: Option<Arc<ServedModel>>,
    models: &ModelRegistry,
    limits: &Limits,
) -> Result<Prepared, Unprepared> {
    let request: CompletionRequest = openai::parse(body)?;
    let model = find(version, models, &request.model)?;
    let generation = request.generation()?;
    check_choices(&request.prompt, &generation, limits)?;
    let prompts = completion_prompts(&request.prompt, &model)?;
    let echo = match request.echo.unwrap_or(false) {
        true => echoed(request.prompt, model.tokenizer(), &generation)?,
        false => Echo::default(),
    };
    let mut prepared = prepared(id, model, request.model, generation, prompts, "prompt")?;
    prepared.echo = echo;
    if request.max_tokens.is_none() {
        // What the client did not ask for yields to the context.
        prepared.plan.default_max_tokens = prepared.plan.stop.max_tokens.take();
    }
    Ok(prepared)
}

fn find(
    version: Option<Arc<ServedModel>>,
    models: &ModelRegistry,
    name: &str,
) -> Result<Arc<ServedModel>, Unprepared> {
    match version {
        Some(version) => Ok(version),
        None => models
            .get(name)
            .map_err(|_| Unprepared::NoModel(name.to_owned())),
    }
}

/// Before a prompt is tokenized: there may be millions.
fn check_choices(prompt: &Prompt, generation: &Generation, limits: &Limits) -> Result<(), Error> {
    let prompts = match prompt {
        Prompt::Text(_) | Prompt::Tokens(_) => 1,
        Prompt::Texts(texts) => texts.len(),
        Prompt::TokenLists(lists) => lists.len(),
    };
    let most = limits.choices;
    match prompts.saturating_mul(generation.choices as usize) {
        choices if choices <= most => Ok(()),
        _ if prompts > most => Err(too_many_choices(most, "prompt")),
        _ => Err(too_many_choices(most, "n")),
    }
}

fn too_many_choices(most: usize, field: &str) -> Error {
    let message = format!("this request has more than {most} choices over all its prompts");
    Error::new(ErrorClass::TooLarge, "too_many_choices", message).with_param(field)
}

fn prepared(
    id: RequestId,
    model: Arc<ServedModel>,
    asked_model: String,
    generation: Generation,
    prompts: Vec<Vec<TokenId>>,
    prompt_field: &'static str,
) -> Result<Prepared, Error> {
    let context_length = model.pool().model().context_length;
    let mut plan = Plan::new(id, model.name(), prompts, context_length);
    plan.choices_per_prompt = generation.choices;
    check_biases(&generation.sampling, model.tokenizer())?;
    plan.sampling = generation.sampling;
    let defaults = model.sampling_defaults();
    plan.sampling.temperature = plan.sampling.temperature.or(defaults.temperature);
    plan.sampling.top_p = plan.sampling.top_p.or(defaults.top_p);
    plan.sampling.seed = generation.seed.unwrap_or_else(random_u64);
    plan.stop = generation.stop;
    plan.stop.eos_token_ids = model.eos_token_ids().to_vec();
    plan.output = generation.output;
    plan.cache_salt = generation.cache_salt;
    plan.priority = generation.priority;
    let seed = RoutingSeed::new("", &plan.cache_salt);
    let routed = plan.prompts.iter();
    let routed = routed.map(|tokens| model.pool().prompt(tokens, seed));
    let routed = routed.collect();
    Ok(Prepared {
        model,
        text: TextOptions {
            stop: generation.stop_strings,
            include_stop: generation.include_stop_string,
            skip_special: generation.skip_special_tokens,
            min_tokens: plan.stop.min_tokens as usize,
        },
        routed,
        plan,
        echo: Echo::default(),
        prompt_field,
        asked_model,
        stream: generation.stream,
        include_usage: generation.include_usage,
    })
}

fn chat_prompt(
    messages: Vec<ChatMessage>,
    add_generation_prompt: bool,
    kwargs: Option<&Map<String, Value>>,
    model: &ServedModel,
) -> Result<Vec<TokenId>, Error> {
    let Some(template) = model.template() else {
        let message = format!(
            "the model {:?} has no chat template; it takes /v1/completions only",
            model.name()
        );
        return Err(
            Error::new(ErrorClass::Unsupported, "chat_template_missing", message)
                .with_param("messages"),
        );
    };
    let tokenizer = model.tokenizer();
    let messages: Vec<Value> = messages.into_iter().map(Value::from).collect();
    let (bos_token, eos_token) = (tokenizer.bos_token(), tokenizer.eos_token());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok();
    let prompt = template.render(&TemplateInput {
        messages: &messages,
        add_generation_prompt,
        tools: None,
        documents: None,
        bos_token: bos_token.as_deref(),
        eos_token: eos_token.as_deref(),
        now_unix_seconds: now.and_then(|now| i64::try_from(now.as_secs()).ok()),
        kwargs,
    })?;
    encode(model, &prompt, false, "messages")
}

fn completion_prompts(prompt: &Prompt, model: &ServedModel) -> Result<Vec<Vec<TokenId>>, Error> {
    let of_list = |index: usize| format!("prompt[{index}]");
    let prompts = match prompt {
        Prompt::Text(text) => vec![encode(model, text, true, "prompt")?],
        Prompt::Texts(texts) => (texts.iter().enumerate())
            .map(|(index, text)| encode(model, text, true, &of_list(index)))
            .collect::<Result<_, Error>>()?,
        Prompt::Tokens(tokens) => vec![checked(model, tokens, "prompt")?],
        Prompt::TokenLists(lists) => (lists.iter().enumerate())
            .map(|(index, tokens)| checked(model, tokens, &of_list(index)))
            .collect::<Result<_, Error>>()?,
    };
    if prompts.is_empty() {
        return Err(Error::invalid("prompt", "must not be empty"));
    }
    match prompts.iter().position(Vec::is_empty) {
        Some(0) if prompts.len() == 1 => Err(Error::invalid("prompt", "must not be empty")),
        Some(index) => Err(Error::invalid(of_list(index), "must not be empty")),
        None => Ok(prompts),
    }
}

/// The prompts' own texts, where an answer is to begin with them.
fn echoed(prompt: Prompt, tokenizer: &Tokenizer, generation: &Generation) -> Result<Echo, Error> {
    let decode = |tokens: &Vec<TokenId>| tokenizer.decode(tokens, generation.skip_special_tokens);
    let texts = match prompt {
        Prompt::Text(text) => vec![text],
        Prompt::Texts(texts) => texts,
        Prompt::Tokens(tokens) => vec![decode(&tokens)?],
        Prompt::TokenLists(lists) => lists.iter().map(decode).collect::<Result<_, _>>()?,
    };
    Ok(Echo::new(texts, generation.choices))
}

/// The tokens of a prompt that can fit the model's context; a longer one is not tokenized whole.
fn encode(
    model: &ServedModel,
    text: &str,
    add_special: bool,
    field: &str,
) -> Result<Vec<TokenId>, Error> {
    let context = model.pool().model().context_length;
    let tokens = model
        .tokenizer()
        .encode_within(text, add_special, context as usize);
    tokens.map_err(|error| match error {
        TokenizerError::TooLong {
            at_least_tokens, ..
        } => beyond_context(context, &format!("at least {at_least_tokens}"), field),
        error => error.into(),
    })
}

fn beyond_context(context: u32, tokens: &str, field: &str) -> Error {
    let message = format!("this model's context is {context} tokens; the prompt has {tokens}");
    let class = ErrorClass::InvalidRequest;
    Error::new(class, "context_length_exceeded", message).with_param(field)
}

fn check_biases(sampling: &SamplingParams, tokenizer: &Tokenizer) -> Result<(), Error> {
    let size = tokenizer.vocab_size();
    // They are in order.
    match sampling.logit_bias.last() {
        Some(bias) if bias.token_id as usize >= size => {
            let message = format!("{} is no token: the vocabulary has {size}", bias.token_id);
            Err(Error::invalid("logit_bias", message))
        }
        _ => Ok(()),
    }
}

/// A prompt that came as tokens; one beyond the context is not looked at.
fn checked(model: &ServedModel, tokens: &[TokenId], field: &str) -> Result<Vec<TokenId>, Error> {
    let context = model.pool().model().context_length;
    if tokens.len() > context as usize {
        return Err(beyond_context(context, &tokens.len().to_string(), field));
    }
    let size = model.tokenizer().vocab_size();
    match tokens.iter().position(|&token| token as usize >= size) {
        None => Ok(tokens.to_vec()),
        Some(index) => {
            let token = tokens[index];
            let message = format!("{token} is no token: the vocabulary has {size}");
            Err(Error::invalid(format!("{field}[{index}]"), message))
        }
    }
}
