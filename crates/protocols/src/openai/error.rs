use serde::{Deserialize, Serialize};

use crate::Error;

/// The body of an error response: `{"error": {...}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorEnvelope {
    /// What failed.
    pub error: ErrorBody,
}

/// What failed, as OpenAI's clients read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    /// One sentence.
    pub message: String,
    /// The kind of error, such as `invalid_request_error`.
    pub r#type: String,
    /// The request's field that is wrong.
    pub param: Option<String>,
    /// The stable reason, such as `context_length_exceeded`.
    pub code: Option<String>,
}

impl From<&Error> for ErrorEnvelope {
    /// Takes what the client may see: never the diagnostic.
    fn from(error: &Error) -> Self {
        Self {
            error: ErrorBody {
                message: error.message.clone(),
                r#type: error.class.openai_type().to_owned(),
                param: error.param.clone(),
                code: Some(error.reason.clone().into_owned()),
            },
        }
    }
}
