mod environment;
mod json;
mod messages;
mod strftime;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use minijinja::value::{Serde, Value};
use minijinja::{Environment, Error, ErrorKind, Template};

use crate::TemplateError;
use messages::ContentForm;

/// Name of the one template in the environment.
const NAME: &str = "chat";

/// Names in `chat_template_kwargs` that are refused.
const RESERVED: [&str; 3] = ["messages", "raise_exception", "strftime_now"];

/// A model's chat template: from a conversation to the prompt text.
///
/// Renders what Hugging Face `transformers` renders: the Jinja dialect with blocks trimmed,
/// `loop` controls, Python's string and mapping methods, `tojson` as Python's `json.dumps`,
/// `raise_exception`, and `{% generation %}` blocks, which have no effect here. Cheap to clone.
///
/// As in vLLM, content parts become one text, joined by newlines, for a template that takes only
/// text; and a tool call's `arguments`, JSON in a string, become the value they spell.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    form: ContentForm,
    limits: TemplateLimits,
}

/// What rendering one prompt may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateLimits {
    /// Steps: about one per template instruction and one per 64 bytes that are made on the way, so
    /// this bounds memory, too.
    pub fuel: u64,
    /// Length of the rendered prompt, in bytes.
    pub output_bytes: usize,
}

impl Default for TemplateLimits {
    /// 10 million steps (below a second) and 16 MiB.
    fn default() -> Self {
        Self {
            fuel: 10_000_000,
            output_bytes: 16 << 20,
        }
    }
}

/// What a template sees of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct TemplateInput<'a> {
    /// The conversation: objects of the OpenAI chat format, any fields of which the template may
    /// use. `content` is a string, a list of parts, null or absent.
    pub messages: &'a [serde_json::Value],
    /// End the prompt with the beginning of the assistant's answer.
    pub add_generation_prompt: bool,
    /// Tool definitions of the request.
    pub tools: Option<&'a [serde_json::Value]>,
    /// Documents of the request (`documents`, a field of the Hugging Face interface).
    pub documents: Option<&'a [serde_json::Value]>,
    /// Text of the token that begins a text, where the model has one.
    pub bos_token: Option<&'a str>,
    /// Text of the token that ends a text, where the model has one.
    pub eos_token: Option<&'a str>,
    /// The time for the template's `strftime_now`, in seconds since 1970-01-01 UTC. Without it the
    /// function is undefined, and the templates that know of it fall back to a fixed date.
    pub now_unix_seconds: Option<i64>,
    /// The request's `chat_template_kwargs`: further names for the template, which override those
    /// above except `messages`.
    pub kwargs: Option<&'a serde_json::Map<String, serde_json::Value>>,
}

impl ChatTemplate {
    /// Compiles a template, with the default limits.
    ///
    /// # Errors
    /// As [`with_limits`](Self::with_limits).
    pub fn new(source: &str) -> Result<Self, TemplateError> {
        Self::with_limits(source, TemplateLimits::default())
    }

    /// Compiles a template and tries it on a plain user message, which also shows whether it takes
    /// content as text or in parts.
    ///
    /// # Errors
    /// [`TemplateError::Syntax`] when it does not compile, [`TemplateError::Broken`] when it cannot
    /// render that message.
    pub fn with_limits(source: &str, limits: TemplateLimits) -> Result<Self, TemplateError> {
        let mut environment = environment::new(limits.fuel);
        environment
            .add_template_owned(NAME, environment::without_generation_blocks(source))
            .map_err(TemplateError::Syntax)?;
        let mut template = Self {
            environment: Arc::new(environment),
            form: ContentForm::Text,
            limits,
        };
        template.form = messages::probe(&template)?;
        Ok(template)
    }

    /// The ChatML template, which many models follow, without a default system message.
    pub fn chatml() -> Self {
        Self::new(
            "{% for message in messages %}\
             {{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}\
             {% endfor %}\
             {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
        )
        .expect("the built-in template is valid")
    }

    /// The prompt for a conversation.
    ///
    /// Tokenize it without adding special tokens: it has its own.
    ///
    /// # Errors
    /// Any of [`TemplateError`] that are the request's fault.
    pub fn render(&self, input: &TemplateInput<'_>) -> Result<String, TemplateError> {
        if let Some(name) = input
            .kwargs
            .and_then(|kwargs| RESERVED.iter().find(|name| kwargs.contains_key(**name)))
        {
            return Err(TemplateError::ReservedName((*name).to_owned()));
        }
        let messages = messages::prepare(input.messages, self.form)?;
        self.render_as_given(&TemplateInput {
            messages: &messages,
            ..*input
        })
    }

    /// Renders without a look at the messages.
    fn render_as_given(&self, input: &TemplateInput<'_>) -> Result<String, TemplateError> {
        let mut output = Bounded {
            bytes: Vec::new(),
            limit: self.limits.output_bytes,
        };
        match self
            .compiled()
            .render_captured_to(context(input), &mut output)
        {
            Ok(_) => Ok(String::from_utf8(output.bytes).expect("templates write whole strings")),
            Err(error) => Err(self.classify(error)),
        }
    }

    fn compiled(&self) -> Template<'_, '_> {
        self.environment
            .get_template(NAME)
            .expect("added when it was compiled")
    }

    fn classify(&self, error: Error) -> TemplateError {
        match error.kind() {
            ErrorKind::OutOfFuel => TemplateError::OutOfFuel {
                limit: self.limits.fuel,
            },
            ErrorKind::WriteFailure => TemplateError::TooLong {
                limit_bytes: self.limits.output_bytes,
            },
            _ => match environment::raised_message(&error) {
                Some(message) => TemplateError::Raised(message),
                None => TemplateError::Render(error),
            },
        }
    }
}

/// The names a template finds: as `transformers` passes them, `tools` and `documents` are none when
/// absent, the other optional ones undefined.
fn context(input: &TemplateInput<'_>) -> Value {
    let given = [
        ("messages", Some(Value::from(Serde(input.messages)))),
        (
            "add_generation_prompt",
            Some(Value::from(input.add_generation_prompt)),
        ),
        ("tools", Some(Value::from(Serde(input.tools)))),
        ("documents", Some(Value::from(Serde(input.documents)))),
        ("bos_token", input.bos_token.map(Value::from)),
        ("eos_token", input.eos_token.map(Value::from)),
        (
            "strftime_now",
            input.now_unix_seconds.map(environment::strftime_at),
        ),
    ];
    let mut names: BTreeMap<String, Value> = given
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect();
    let kwargs = input.kwargs.into_iter().flatten();
    names.extend(kwargs.map(|(name, value)| (name.clone(), Value::from(Serde(value)))));
    Value::from(names)
}

/// Collects a prompt up to a limit.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.limit - self.bytes.len() < bytes.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
