//! From a GGUF file to a model.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use candle_core::quantized::gguf_file::Value;

use super::{GgufMetadata, Layer, Model, ModelShape, TokenizerMetadata};
use crate::error::LoadError;
use crate::gguf::{Gguf, as_u32};
use crate::kernel::{BLOCK_COLUMNS, Rope};

impl Model {
    /// Loads a GGUF file. Weights of any quantised type are converted to 8-bit blocks.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if the file cannot be read, is not a complete GGUF file, or holds a model
    /// that this engine cannot run faithfully. The error names the key or tensor.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        Self::from_gguf(open(path)?)
    }

    /// Like [`Model::load`], from any reader.
    ///
    /// # Errors
    ///
    /// As [`Model::load`].
    pub fn from_gguf(reader: impl Read + Seek) -> Result<Self, LoadError> {
        let mut file = Gguf::open(reader)?;
        let shape = read_shape(&file)?;
        refuse_unknown_tensors(&file, shape.layers)?;
        let metadata = read_metadata(&file, shape.vocabulary)?;
        let epsilon = read_epsilon(&file)?;
        let rope = read_rope(&mut file, &shape)?;

        let embedding = file.matrix(
            &[("token_embd.weight".to_owned(), shape.vocabulary)],
            shape.hidden,
        )?;
        let output = if file.has_tensor("output.weight") {
            let tensor = [("output.weight".to_owned(), shape.vocabulary)];
            Some(file.matrix(&tensor, shape.hidden)?)
        } else {
            None
        };
        let output_norm = file.vector("output_norm.weight", shape.hidden)?;
        let mut layers = Vec::new();
        for number in 0..shape.layers {
            layers.push(read_layer(&mut file, &shape, number)?);
        }
        let mut model = Self {
            shape,
            epsilon,
            rope,
            embedding,
            layers,
            output_norm,
            output,
            metadata,
            digest: [0; 32],
        };
        model.digest = digest(&model);
        Ok(model)
    }
}

impl GgufMetadata {
    /// Reads what a GGUF file says beside weights, and nothing else of it.
    ///
    /// # Errors
    ///
    /// As [`Model::load`], but for what is wrong with the weights.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        let file = Gguf::open(open(path)?)?;
        let shape = read_shape(&file)?;
        read_metadata(&file, shape.vocabulary)
    }
}

fn open(path: &Path) -> Result<BufReader<File>, LoadError> {
    let file = File::open(path).map_err(|source| LoadError::Open {
        path: path.to_owned(),
        source,
    })?;
    Ok(BufReader::new(file))
}

/// The largest head dimension; none of the family's models has a larger one.
const MAX_HEAD_DIM: usize = 256;

fn read_shape<R: Read + Seek>(file: &Gguf<R>) -> Result<ModelShape, LoadError> {
    let missing = |key: &str| LoadError::MissingKey(key.to_owned());
    let bad = |key: &str, problem: String| LoadError::BadKey {
        key: key.to_owned(),
        problem,
    };
    let architecture = file
        .string("general.architecture")?
        .ok_or_else(|| missing("general.architecture"))?;
    if architecture != "llama" {
        return Err(LoadError::Architecture(architecture));
    }
    let size = |key: &str| -> Result<usize, LoadError> {
        match file.integer(key)?.ok_or_else(|| missing(key))? {
            0 => Err(bad(key, "is zero".to_owned())),
            size => Ok(size as usize),
        }
    };
    let optional = |key: &str, default: usize| -> Result<usize, LoadError> {
        Ok(file.integer(key)?.map_or(default, |value| value as usize))
    };
    let whole = |key: &str, value: usize, unit: usize| {
        if value.is_multiple_of(unit) {
            Ok(value)
        } else {
            Err(bad(key, format!("is {value}, not a multiple of {unit}")))
        }
    };

    const HIDDEN: &str = "llama.embedding_length";
    const FEED_FORWARD: &str = "llama.feed_forward_length";
    const HEADS: &str = "llama.attention.head_count";
    const KV_HEADS: &str = "llama.attention.head_count_kv";
    const KEY_DIM: &str = "llama.attention.key_length";
    let hidden = whole(HIDDEN, size(HIDDEN)?, BLOCK_COLUMNS)?;
    let feed_forward = whole(FEED_FORWARD, size(FEED_FORWARD)?, BLOCK_COLUMNS)?;
    let heads = size(HEADS)?;
    let kv_heads = optional(KV_HEADS, heads)?;
    if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        return Err(bad(
            KV_HEADS,
            format!("is {kv_heads}, not a divisor of {heads} heads"),
        ));
    }
    let head_dim = optional(KEY_DIM, hidden / heads)?;
    if head_dim == 0 || head_dim > MAX_HEAD_DIM || !head_dim.is_multiple_of(16) {
        return Err(bad(
            KEY_DIM,
            format!("gives heads of {head_dim}, not a multiple of 16 up to {MAX_HEAD_DIM}"),
        ));
    }
    if !(heads as u64 * head_dim as u64).is_multiple_of(BLOCK_COLUMNS as u64) {
        return Err(bad(
            HEADS,
            format!("times {head_dim} is not a multiple of {BLOCK_COLUMNS}"),
        ));
    }
    for key in ["llama.attention.value_length", "llama.rope.dimension_count"] {
        let other = optional(key, head_dim)?;
        if other != head_dim {
            return Err(bad(
                key,
                format!("is {other}, but heads have {head_dim} dimensions"),
            ));
        }
    }
    for key in ["llama.expert_count", "llama.attention.sliding_window"] {
        if optional(key, 0)? != 0 {
            return Err(bad(key, "is not supported".to_owned()));
        }
    }
    let vocabulary = match *file.dimensions("token_embd.weight")? {
        [rows, _] if rows > 0 && u32::try_from(rows).is_ok() => rows,
        ref dimensions => {
            return Err(LoadError::TensorShape {
                tensor: "token_embd.weight".to_owned(),
                got: dimensions.to_vec(),
                expected: vec![optional("llama.vocab_size", 1)?, hidden],
            });
        }
    };
    Ok(ModelShape {
        vocabulary,
        context_length: size("llama.context_length")?,
        layers: size("llama.block_count")?,
        hidden,
        feed_forward,
        heads,
        kv_heads,
        head_dim,
    })
}

/// A tensor that is not used would silently change the model's answers.
fn refuse_unknown_tensors<R: Read + Seek>(file: &Gguf<R>, layers: usize) -> Result<(), LoadError> {
    const GLOBAL: [&str; 4] = [
        "token_embd.weight",
        "output.weight",
        "output_norm.weight",
        "rope_freqs.weight",
    ];
    const LAYER: [&str; 9] = [
        "attn_norm.weight",
        "attn_q.weight",
        "attn_k.weight",
        "attn_v.weight",
        "attn_output.weight",
        "ffn_norm.weight",
        "ffn_gate.weight",
        "ffn_up.weight",
        "ffn_down.weight",
    ];
    let known = |name: &str| {
        let layer = name
            .strip_prefix("blk.")
            .and_then(|rest| rest.split_once('.'));
        GLOBAL.contains(&name)
            || layer.is_some_and(|(number, part)| {
                number.parse::<usize>().is_ok_and(|number| number < layers) && LAYER.contains(&part)
            })
    };
    // The names come out of a hash map: the least one makes the message stable.
    match file.tensor_names().filter(|name| !known(name)).min() {
        None => Ok(()),
        Some(name) => Err(LoadError::UnsupportedTensor(name.to_owned())),
    }
}

fn read_epsilon<R: Read + Seek>(file: &Gguf<R>) -> Result<f32, LoadError> {
    const KEY: &str = "llama.attention.layer_norm_rms_epsilon";
    match file.float(KEY)? {
        None => Err(LoadError::MissingKey(KEY.to_owned())),
        Some(epsilon) if epsilon > 0.0 => Ok(epsilon as f32),
        Some(epsilon) => Err(LoadError::BadKey {
            key: KEY.to_owned(),
            problem: format!("is {epsilon}, not positive"),
        }),
    }
}

fn read_rope<R: Read + Seek>(file: &mut Gguf<R>, shape: &ModelShape) -> Result<Rope, LoadError> {
    let positive = |key: &str, value: Option<f64>, default: f64| match value {
        None => Ok(default),
        Some(value) if value > 0.0 => Ok(value),
        Some(value) => Err(LoadError::BadKey {
            key: key.to_owned(),
            problem: format!("is {value}, not positive"),
        }),
    };
    const BASE: &str = "llama.rope.freq_base";
    const KIND: &str = "llama.rope.scaling.type";
    const FACTOR: &str = "llama.rope.scaling.factor";
    let base = positive(BASE, file.float(BASE)?, 10_000.0)?;
    let factor = match file.string(KIND)?.as_deref() {
        None | Some("none") => 1.0,
        Some("linear") => positive(FACTOR, file.float(FACTOR)?, 1.0)?,
        Some(kind) => {
            return Err(LoadError::BadKey {
                key: KIND.to_owned(),
                problem: format!("is {kind:?}, which is not supported"),
            });
        }
    };
    let pairs = shape.head_dim / 2;
    let mut factors = if file.has_tensor("rope_freqs.weight") {
        file.vector("rope_freqs.weight", pairs)?
    } else {
        vec![1.0; pairs]
    };
    factors.iter_mut().for_each(|each| *each *= factor as f32);
    if !factors
        .iter()
        .all(|factor| factor.is_normal() && *factor > 0.0)
    {
        return Err(LoadError::NotFinite("rope_freqs.weight".to_owned()));
    }
    Ok(Rope::new(base, shape.head_dim, &factors))
}

fn read_layer<R: Read + Seek>(
    file: &mut Gguf<R>,
    shape: &ModelShape,
    number: usize,
) -> Result<Layer, LoadError> {
    let name = |part: &str| format!("blk.{number}.{part}.weight");
    let (query, kv) = (shape.query_columns(), shape.kv_columns());
    Ok(Layer {
        attention_norm: file.vector(&name("attn_norm"), shape.hidden)?,
        query_key_value: file.matrix(
            &[
                (name("attn_q"), query),
                (name("attn_k"), kv),
                (name("attn_v"), kv),
            ],
            shape.hidden,
        )?,
        attention_output: file.matrix(&[(name("attn_output"), shape.hidden)], query)?,
        feed_forward_norm: file.vector(&name("ffn_norm"), shape.hidden)?,
        gate_up: file.matrix(
            &[
                (name("ffn_gate"), shape.feed_forward),
                (name("ffn_up"), shape.feed_forward),
            ],
            shape.hidden,
        )?,
        down: file.matrix(&[(name("ffn_down"), shape.hidden)], shape.feed_forward)?,
    })
}

fn read_metadata<R: Read + Seek>(
    file: &Gguf<R>,
    vocabulary: usize,
) -> Result<GgufMetadata, LoadError> {
    let text = |value: &Value| value.to_string().ok().cloned();
    let tokens = file.array("tokenizer.ggml.tokens", "is not an array of strings", text)?;
    if tokens.len() > vocabulary {
        return Err(LoadError::BadKey {
            key: "tokenizer.ggml.tokens".to_owned(),
            problem: format!(
                "has {} tokens for a vocabulary of {vocabulary}",
                tokens.len()
            ),
        });
    }
    let id = |key: &str| file.integer(key);
    Ok(GgufMetadata {
        name: file.string("general.name")?,
        license: file.string("general.license")?,
        tokenizer: TokenizerMetadata {
            model: file.string("tokenizer.ggml.model")?.unwrap_or_default(),
            pre: file.string("tokenizer.ggml.pre")?,
            tokens,
            token_types: file.array(
                "tokenizer.ggml.token_type",
                "is not an array of small integers",
                |value| as_u32(value).and_then(|value| value.try_into().ok()),
            )?,
            scores: file.array(
                "tokenizer.ggml.scores",
                "is not an array of floats",
                |value| value.to_f32().ok(),
            )?,
            merges: file.array("tokenizer.ggml.merges", "is not an array of strings", text)?,
            bos: id("tokenizer.ggml.bos_token_id")?,
            eos: id("tokenizer.ggml.eos_token_id")?,
            unknown: id("tokenizer.ggml.unknown_token_id")?,
            padding: id("tokenizer.ggml.padding_token_id")?,
            add_bos: file.bool("tokenizer.ggml.add_bos_token")?,
            add_eos: file.bool("tokenizer.ggml.add_eos_token")?,
            add_space_prefix: file.bool("tokenizer.ggml.add_space_prefix")?,
            chat_template: file.string("tokenizer.chat_template")?,
        },
    })
}

/// A digest of all that a forward pass computes with.
fn digest(model: &Model) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&model.epsilon.to_le_bytes());
    for frequency in model.rope.frequencies() {
        hasher.update(&frequency.to_le_bytes());
    }
    let vector = |hasher: &mut blake3::Hasher, values: &[f32]| {
        for value in values {
            hasher.update(&value.to_le_bytes());
        }
    };
    vector(&mut hasher, &model.output_norm);
    model.embedding.digest(&mut hasher);
    if let Some(output) = &model.output {
        output.digest(&mut hasher);
    }
    for layer in &model.layers {
        vector(&mut hasher, &layer.attention_norm);
        vector(&mut hasher, &layer.feed_forward_norm);
        layer.query_key_value.digest(&mut hasher);
        layer.attention_output.digest(&mut hasher);
        layer.gate_up.digest(&mut hasher);
        layer.down.digest(&mut hasher);
    }
    *hasher.finalize().as_bytes()
}
