//! Small models with random weights, for tests.

use std::io::Cursor;

use candle_core::quantized::gguf_file::{Value, write};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

use crate::model::ModelShape;

/// Control tokens, in the last places of the vocabulary: end of text, and ChatML's two.
const CONTROL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// ChatML without a default system message.
const CHAT_TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + \
    '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}\
    {{ '<|im_start|>assistant\n' }}{% endif %}";

/// The bytes of a GGUF file with a llama model of random weights, the same for the same shape and
/// seed. What it says is noise; how it is computed is what the real models have.
///
/// It has a byte-level tokenizer (256 byte tokens, no merges) with ChatML's control tokens and
/// template, so it can stand in for a real model behind a whole server.
///
/// # Panics
///
/// If the shape is not one that [`Model`](crate::Model) supports, or its vocabulary has less than
/// 259 tokens.
pub fn random_gguf(shape: &ModelShape, seed: u64) -> Vec<u8> {
    let mut numbers = SplitMix(seed);
    let (hidden, ffn) = (shape.hidden, shape.feed_forward);
    let (query, kv) = (
        shape.heads * shape.head_dim,
        shape.kv_heads * shape.head_dim,
    );
    let mut tensors = vec![
        (
            "token_embd.weight".to_owned(),
            numbers.matrix(shape.vocabulary, hidden, GgmlDType::Q8_0),
        ),
        ("output_norm.weight".to_owned(), numbers.norm(hidden)),
    ];
    for layer in 0..shape.layers {
        let mut push = |part: &str, tensor| {
            tensors.push((format!("blk.{layer}.{part}.weight"), tensor));
        };
        push("attn_norm", numbers.norm(hidden));
        push("attn_q", numbers.matrix(query, hidden, GgmlDType::Q4_1));
        push("attn_k", numbers.matrix(kv, hidden, GgmlDType::Q5_0));
        push("attn_v", numbers.matrix(kv, hidden, GgmlDType::F16));
        push(
            "attn_output",
            numbers.matrix(hidden, query, GgmlDType::Q4_0),
        );
        push("ffn_norm", numbers.norm(hidden));
        push("ffn_gate", numbers.matrix(ffn, hidden, GgmlDType::Q8_0));
        push("ffn_up", numbers.matrix(ffn, hidden, GgmlDType::Q4_1));
        push("ffn_down", numbers.matrix(hidden, ffn, GgmlDType::F32));
    }
    let metadata = metadata(shape);
    let metadata: Vec<_> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let tensors: Vec<_> = tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect();
    let mut file = Cursor::new(Vec::new());
    write(&mut file, &metadata, &tensors).expect("writing to memory does not fail");
    file.into_inner()
}

fn metadata(shape: &ModelShape) -> Vec<(&'static str, Value)> {
    let number = |value: usize| Value::U32(u32::try_from(value).expect("a size of a small model"));
    let text = |text: &str| Value::String(text.to_owned());
    let tokens = vocabulary(shape.vocabulary);
    let control = |name: &str| number(tokens.iter().position(|t| t == name).expect("in the list"));
    let types = (0..tokens.len()).map(|id| Value::I32(if id < 256 { 1 } else { 3 }));
    vec![
        ("general.architecture", text("llama")),
        ("general.name", text("random")),
        ("llama.block_count", number(shape.layers)),
        ("llama.context_length", number(shape.context_length)),
        ("llama.embedding_length", number(shape.hidden)),
        ("llama.feed_forward_length", number(shape.feed_forward)),
        ("llama.attention.head_count", number(shape.heads)),
        ("llama.attention.head_count_kv", number(shape.kv_heads)),
        ("llama.attention.key_length", number(shape.head_dim)),
        ("llama.attention.value_length", number(shape.head_dim)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("llama.rope.freq_base", Value::F32(10_000.0)),
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text("smollm")),
        ("tokenizer.ggml.token_type", Value::Array(types.collect())),
        ("tokenizer.ggml.merges", Value::Array(Vec::new())),
        ("tokenizer.ggml.bos_token_id", control("<|im_start|>")),
        ("tokenizer.ggml.eos_token_id", control("<|im_end|>")),
        ("tokenizer.ggml.unknown_token_id", control("<|endoftext|>")),
        ("tokenizer.ggml.add_bos_token", Value::Bool(false)),
        ("tokenizer.ggml.add_space_prefix", Value::Bool(false)),
        ("tokenizer.chat_template", text(CHAT_TEMPLATE)),
        (
            "tokenizer.ggml.tokens",
            Value::Array(tokens.into_iter().map(Value::String).collect()),
        ),
    ]
}

/// The 256 bytes in GPT-2's spelling, unused tokens, and the control tokens.
fn vocabulary(size: usize) -> Vec<String> {
    assert!(
        size >= 256 + CONTROL.len(),
        "a vocabulary holds all bytes and the control tokens"
    );
    let printable = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let hidden_before = |byte: u32| (0..byte).filter(|byte| !printable(*byte)).count() as u32;
    let spelled = |byte: u32| {
        let code = if printable(byte) {
            byte
        } else {
            256 + hidden_before(byte)
        };
        char::from_u32(code).expect("below 512").to_string()
    };
    let unused = (256..size - CONTROL.len()).map(|id| format!("<|unused{id}|>"));
    (0..256)
        .map(spelled)
        .chain(unused)
        .chain(CONTROL.map(str::to_owned))
        .collect()
}

/// Sebastiano Vigna's SplitMix64.
struct SplitMix(u64);

impl SplitMix {
    /// A number in -1..1.
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// Weights that keep the magnitude of what they multiply.
    fn matrix(&mut self, rows: usize, columns: usize, dtype: GgmlDType) -> QTensor {
        let scale = (3.0 / columns as f32).sqrt();
        let weights = (0..rows * columns).map(|_| self.next() * scale).collect();
        quantised(weights, &[rows, columns], dtype)
    }

    fn norm(&mut self, columns: usize) -> QTensor {
        let weights = (0..columns).map(|_| 1.0 + self.next() / 4.0).collect();
        quantised(weights, &[columns], GgmlDType::F32)
    }
}

fn quantised(weights: Vec<f32>, shape: &[usize], dtype: GgmlDType) -> QTensor {
    let tensor = Tensor::from_vec(weights, shape, &Device::Cpu).expect("as many as the shape has");
    QTensor::quantize(&tensor, dtype).expect("columns are a multiple of 32")
}
