use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// A served model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// The versions that are served under this name (a field of Forebay's): several during a
    /// rolling upgrade, none where the model is not told from its workers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<ModelVersion>,
}

/// One version of a model: workers with equal weights, tokenizer, template and block hashes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ModelVersion {
    /// The digest of what its workers have in common, in hexadecimal.
    pub digest: String,
    /// How many of its workers take requests.
    pub ready_workers: u32,
    /// Its part of the new requests, 0 to 1; 0 for all, if no version has a worker that takes any.
    #[serde(default)]
    pub share: f64,
}

/// All served models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ModelList {
    /// Always `list`.
    pub object: Cow<'static, str>,
    /// The models, ordered by id.
    pub data: Vec<Model>,
}
