use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use forebay_chat::{TemplateInput, TextOptions, Tokenizer};
use forebay_pipeline::Plan;
use forebay_protocols::openai::{
    self, ChatCompletionRequest, CompletionRequest, Generation, Prompt,
};
use forebay_protocols::{Error, ErrorClass};
use forebay_tokens::{RequestId, TokenId};

use crate::config::Limits;
use crate::model::{ModelRegistry, ServedModel};
use crate::request_id::random_u64;

/// A request that was read, checked and turned into tokens.
pub(crate) struct Prepared {
    pub(crate) model: Arc<ServedModel>,
    pub(crate) plan: Plan,
    /// The field of the request that the prompt came from.
    pub(crate) prompt_field: &'static str,
    pub(crate) text: TextOptions,
    /// The model's name as the client wrote it.
    pub(crate) asked_model: String,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
}

/// Prepares a chat completion. This renders and tokenizes: not for an async thread if the body is
/// long.
pub(crate) fn prepare_chat(
    body: &[u8],
    id: RequestId,
    models: &ModelRegistry,
    limits: &Limits,
) -> Result<Prepared, Error> {
    let request: ChatCompletionRequest = openai::parse(body)?;
    let model = models.get(&request.model)?;
    let generation = request.generation()?;
    let prompt = chat_prompt(&request, model)?;
    let asked_model = request.model;
    prepared(
        id,
        model,
        asked_model,
        generation,
        vec![prompt],
        "messages",
        limits,
    )
}

/// The same for a text completion.
pub(crate) fn prepare_completion(
    body: &[u8],
    id: RequestId,
    models: &ModelRegistry,
    limits: &Limits,
) -> Result<Prepared, Error> {
    let request: CompletionRequest = openai::parse(body)?;
    let model = models.get(&request.model)?;
    let generation = request.generation()?;
    let prompts = completion_prompts(request.prompt, model.tokenizer())?;
    let mut prepared = prepared(
        id,
        model,
        request.model,
        generation,
        prompts,
        "prompt",
        limits,
    )?;
    if request.max_tokens.is_none() {
        // What the client did not ask for yields to the context.
        prepared.plan.default_max_tokens = prepared.plan.stop.max_tokens.take();
    }
    Ok(prepared)
}

fn prepared(
    id: RequestId,
    model: &Arc<ServedModel>,
    asked_model: String,
    generation: Generation,
    prompts: Vec<Vec<TokenId>>,
    prompt_field: &'static str,
    limits: &Limits,
) -> Result<Prepared, Error> {
    let context_length = model.engine().info().context_length;
    let mut plan = Plan::new(id, model.name(), prompts, context_length);
    plan.choices_per_prompt = generation.choices;
    if plan.choices() as usize > limits.choices {
        let most = limits.choices;
        let message = format!("this request has more than {most} choices over all its prompts");
        return Err(Error::new(ErrorClass::TooLarge, "too_many_choices", message).with_param("n"));
    }
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
    Ok(Prepared {
        model: model.clone(),
        text: TextOptions {
            stop: generation.stop_strings,
            include_stop: generation.include_stop_string,
            skip_special: generation.skip_special_tokens,
            min_tokens: plan.stop.min_tokens as usize,
        },
        plan,
        prompt_field,
        asked_model,
        stream: generation.stream,
        include_usage: generation.include_usage,
    })
}

fn chat_prompt(
    request: &ChatCompletionRequest,
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
    let messages = request
        .messages
        .iter()
        .map(serde_json::to_value)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Error::internal(error.to_string()))?;
    let (bos_token, eos_token) = (tokenizer.bos_token(), tokenizer.eos_token());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok();
    let prompt = template.render(&TemplateInput {
        messages: &messages,
        add_generation_prompt: request.add_generation_prompt.unwrap_or(true),
        tools: None,
        documents: None,
        bos_token: bos_token.as_deref(),
        eos_token: eos_token.as_deref(),
        now_unix_seconds: now.and_then(|now| i64::try_from(now.as_secs()).ok()),
        kwargs: request.chat_template_kwargs.as_ref(),
    })?;
    Ok(tokenizer.encode(&prompt, false)?)
}

fn completion_prompts(prompt: Prompt, tokenizer: &Tokenizer) -> Result<Vec<Vec<TokenId>>, Error> {
    let encode = |text: &String| Ok(tokenizer.encode(text, true)?);
    let prompts = match prompt {
        Prompt::Text(text) => vec![encode(&text)?],
        Prompt::Texts(texts) => texts.iter().map(encode).collect::<Result<_, Error>>()?,
        Prompt::Tokens(tokens) => vec![within_vocabulary(tokens, tokenizer, "prompt")?],
        Prompt::TokenLists(lists) => (0..)
            .zip(lists)
            .map(|(index, tokens)| {
                within_vocabulary(tokens, tokenizer, &format!("prompt[{index}]"))
            })
            .collect::<Result<_, Error>>()?,
    };
    if prompts.is_empty() {
        return Err(Error::invalid("prompt", "must not be empty"));
    }
    match prompts.iter().position(Vec::is_empty) {
        Some(0) if prompts.len() == 1 => Err(Error::invalid("prompt", "must not be empty")),
        Some(index) => Err(Error::invalid(
            format!("prompt[{index}]"),
            "must not be empty",
        )),
        None => Ok(prompts),
    }
}

fn within_vocabulary(
    tokens: Vec<TokenId>,
    tokenizer: &Tokenizer,
    field: &str,
) -> Result<Vec<TokenId>, Error> {
    let size = tokenizer.vocab_size();
    match tokens.iter().position(|&token| token as usize >= size) {
        None => Ok(tokens),
        Some(index) => {
            let token = tokens[index];
            let message = format!("{token} is no token: the vocabulary has {size}");
            Err(Error::invalid(format!("{field}[{index}]"), message))
        }
    }
}
