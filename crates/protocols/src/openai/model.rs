use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// A served model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Model {
    /// The name to put into a request's `model`.
    pub id: String,
    /// Always `model`.
    pub object: Cow<'static, str>,
    /// When it was made available, in seconds since 1970.
    pub created: u64,
    /// Who owns it.
    pub owned_by: String,
    /// The longest sequence in tokens, prompt and answer together (as vLLM reports it).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_model_len: Option<u32>,
}

/// All served models.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ModelList {
    /// Always `list`.
    pub object: Cow<'static, str>,
    /// The models, ordered by id.
    pub data: Vec<Model>,
}
