//! The real model's tokenizer and template, and recorded exchanges.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use candle_core::quantized::gguf_file::{Content, Value};
use forebay_chat::{GgufVocabulary, Tokenizer};

/// What `chat` needs of the model.
pub(crate) struct Model {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) vocabulary: GgufVocabulary,
    pub(crate) template: String,
}

/// SmolLM2-135M-Instruct from the file that `FOREBAY_TEST_MODEL` names.
pub(crate) fn model() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| {
        let path = std::env::var_os("FOREBAY_TEST_MODEL").expect(
            "FOREBAY_TEST_MODEL must name the test model's GGUF file (cargo xtask test sets it)",
        );
        let mut file = BufReader::new(File::open(path).unwrap());
        let metadata = Content::read(&mut file).unwrap().metadata;
        let get = |key: &str| metadata.get(key);
        let text = |key: &str| get(key).unwrap().to_string().unwrap().clone();
        let list = |key: &str| get(key).unwrap().to_vec().unwrap();
        let texts = |key: &str| {
            list(key)
                .iter()
                .map(|text| text.to_string().unwrap().clone())
                .collect()
        };
        let id = |key: &str| get(key).map(|id| id.to_u32().unwrap());
        let vocabulary = GgufVocabulary {
            model: text("tokenizer.ggml.model"),
            pre: text("tokenizer.ggml.pre"),
            tokens: texts("tokenizer.ggml.tokens"),
            merges: texts("tokenizer.ggml.merges"),
            token_types: list("tokenizer.ggml.token_type")
                .iter()
                .map(|t| t.to_i32().unwrap())
                .collect(),
            bos: id("tokenizer.ggml.bos_token_id"),
            eos: id("tokenizer.ggml.eos_token_id"),
            unk: id("tokenizer.ggml.unknown_token_id"),
            add_bos: get("tokenizer.ggml.add_bos_token")
                .map(Value::to_bool)
                .transpose()
                .unwrap(),
        };
        Model {
            tokenizer: Tokenizer::from_gguf(vocabulary.clone()).unwrap(),
            vocabulary,
            template: text("tokenizer.chat_template"),
        }
    })
}

/// Bodies of a recorded request and its response.
pub(crate) fn capture(name: &str) -> (serde_json::Value, serde_json::Value) {
    let text = read(name);
    let (request, response) = text.split_once("\n### response").unwrap();
    let body = |part: &str| match part.trim_end().rsplit_once("\n\n") {
        Some((_, body)) if body.starts_with(['{', '[']) => serde_json::from_str(body).unwrap(),
        _ => serde_json::Value::Null,
    };
    (body(request), body(response))
}

/// Chunks of a recorded stream.
pub(crate) fn stream(name: &str) -> Vec<serde_json::Value> {
    let text = read(name);
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

fn read(name: &str) -> String {
    std::fs::read_to_string(testdata("vllm-0.32.0").join(format!("{name}.txt"))).unwrap()
}

/// A folder of the recorded data.
pub(crate) fn testdata(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../testdata")
        .join(folder)
}
