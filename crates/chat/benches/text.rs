//! How fast text becomes tokens and tokens become text.
//!
//! `cargo bench -p forebay-chat --bench text -- --model PATH`, with a GGUF file of a byte-level
//! vocabulary.

#![allow(clippy::print_stdout)]

use std::fs::File;
use std::hint::black_box;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::quantized::gguf_file::{Content, Value};
use forebay_chat::{
    ChatTemplate, GgufVocabulary, TemplateInput, TextDecoder, TextOptions, Tokenizer,
};
use forebay_tokens::TokenId;
use serde_json::json;

const PROMPT_TOKENS: usize = 8192;
/// Runs of each case, fewer if they take long.
const REPEATS: usize = 31;
const FEWEST_REPEATS: usize = 5;
const ENOUGH: Duration = Duration::from_secs(1);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let Some(path) = model_path()? else {
        println!("text: give --model PATH to run it");
        return Ok(());
    };
    let vocabulary = vocabulary(&path)?;
    let library = library(&vocabulary)?;
    println!(
        "{:<34}{:>12}{:>12}{:>12}",
        "case", "median", "worst", "best"
    );
    report("build from GGUF, ms", millis, || {
        time(|| Tokenizer::from_gguf(vocabulary.clone()).expect("a valid vocabulary"))
    });
    let tokenizer = Tokenizer::from_gguf(vocabulary)?;

    println!();
    for (name, text) in texts(&tokenizer)? {
        let tokens = tokenizer.encode(&text, false)?.len();
        println!("{name}: {} bytes, {tokens} tokens", text.len());
        let rate = move |elapsed: Duration| tokens as f64 / elapsed.as_secs_f64() / 1e6;
        let bytes = text.len() as f64;
        let mega = move |elapsed: Duration| bytes / elapsed.as_secs_f64() / 1e6;
        let ours = || time(|| tokenizer.encode(&text, false));
        let theirs = || time(|| library.encode_fast(text.as_str(), false));
        report("  ours, M tok/s", rate, ours);
        report("  ours, MB/s", mega, ours);
        report("  tokenizers, M tok/s", rate, theirs);
        report("  tokenizers, MB/s", mega, theirs);
    }

    println!();
    let long = "a".repeat(10_000_000);
    report("refuse 10 MB at 8192 tokens, us", micros, || {
        time(|| tokenizer.encode_within(&long, false, PROMPT_TOKENS))
    });
    let words = words(&tokenizer, 4 * PROMPT_TOKENS, 1);
    report("refuse 32768 words at 8192, us", micros, || {
        time(|| tokenizer.encode_within(&words, false, PROMPT_TOKENS))
    });

    println!();
    decoding(&tokenizer)?;
    println!();
    templates()?;
    Ok(())
}

/// Texts to tokenize: every one-token prompt is its own.
fn texts(tokenizer: &Tokenizer) -> Result<Vec<(&'static str, String)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/texts");
    let read = |name: &str| std::fs::read_to_string(folder.join(name));
    Ok(vec![
        ("one-token words", words(tokenizer, PROMPT_TOKENS, 7)),
        ("short prompt of such words", words(tokenizer, 128, 3)),
        ("English", include_str!("../README.md").repeat(20)),
        ("code", read("code.txt")?.repeat(30)),
        ("22 languages", read("languages.txt")?.repeat(30)),
        ("a run of one letter", "a".repeat(1 << 20)),
        ("a run of spaces", " ".repeat(1 << 20)),
        ("a run of digits", "7".repeat(1 << 20)),
        ("one CJK word", "漢字仮名交じり文".repeat(43_690)),
    ])
}

fn decoding(tokenizer: &Tokenizer) -> Result<()> {
    let stops = ["\n\nUser:", "<|stop|>", "###"].map(str::to_owned);
    let text = include_str!("../README.md").repeat(4);
    let ids = tokenizer.encode(&text, false)?;
    for (name, stop) in [
        ("decode, ns a token", vec![]),
        ("decode with 3 stops, ns a token", stops.into()),
    ] {
        let options = TextOptions {
            stop,
            ..TextOptions::default()
        };
        let per_token = |elapsed: Duration| elapsed.as_secs_f64() * 1e9 / ids.len() as f64;
        report(name, per_token, || {
            let mut decoder = TextDecoder::new(tokenizer, &options);
            time(|| {
                for &id in &ids {
                    black_box(decoder.push(&[id]).expect("a byte-level token has text"));
                }
            })
        });
    }
    Ok(())
}

fn templates() -> Result<()> {
    let template = ChatTemplate::chatml();
    for (name, length) in [
        ("render 1 message, us", 20),
        ("render 1 message of 10 kB, us", 10_000),
    ] {
        let messages = [json!({"role": "user", "content": "x".repeat(length)})];
        let input = TemplateInput {
            messages: &messages,
            add_generation_prompt: true,
            ..TemplateInput::default()
        };
        report(name, micros, || time(|| template.render(&input)));
    }
    Ok(())
}

/// Words that are one token each, drawn from all of the vocabulary.
fn words(tokenizer: &Tokenizer, count: usize, seed: usize) -> String {
    let is_word = |bytes: &[u8]| {
        bytes.len() > 3 && bytes[0] == b' ' && bytes[1..].iter().all(u8::is_ascii_lowercase)
    };
    let words: Vec<&[u8]> = (0..tokenizer.vocab_size() as TokenId)
        .map(|id| tokenizer.token_bytes(id))
        .filter(|bytes| is_word(bytes))
        .collect();
    let mut state = seed;
    let mut text = Vec::new();
    for _ in 0..count {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        text.extend_from_slice(words[(state >> 33) % words.len()]);
    }
    String::from_utf8(text).expect("the words are ASCII")
}

fn time<T>(work: impl FnOnce() -> T) -> Duration {
    let begin = Instant::now();
    black_box(work());
    begin.elapsed()
}

fn millis(elapsed: Duration) -> f64 {
    elapsed.as_secs_f64() * 1e3
}

fn micros(elapsed: Duration) -> f64 {
    elapsed.as_secs_f64() * 1e6
}

fn report(name: &str, unit: impl Fn(Duration) -> f64, mut run: impl FnMut() -> Duration) {
    let begin = Instant::now();
    let mut times = Vec::new();
    while times.len() < REPEATS && (times.len() < FEWEST_REPEATS || begin.elapsed() < ENOUGH) {
        times.push(run());
    }
    times.sort();
    let [median, worst, best] = [times.len() / 2, times.len() - 1, 0].map(|at| unit(times[at]));
    println!("{name:<34}{median:>12.2}{worst:>12.2}{best:>12.2}");
}

fn model_path() -> Result<Option<PathBuf>> {
    let mut arguments = std::env::args_os().skip(1);
    let mut path = None;
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--bench") => {}
            Some("--model") => path = Some(arguments.next().ok_or("--model needs a path")?.into()),
            _ => return Err(format!("unknown argument {argument:?}").into()),
        }
    }
    Ok(path)
}

fn vocabulary(path: &Path) -> Result<GgufVocabulary> {
    let metadata = Content::read(&mut BufReader::new(File::open(path)?))?.metadata;
    let get = |key: &str| {
        metadata
            .get(&format!("tokenizer.ggml.{key}"))
            .ok_or(key.to_owned())
    };
    let texts = |key: &str| -> Result<Vec<String>> {
        let list = get(key)?.to_vec()?.iter();
        Ok(list
            .map(|text| text.to_string().cloned())
            .collect::<candle_core::Result<_>>()?)
    };
    let types = get("token_type")?.to_vec()?.iter();
    Ok(GgufVocabulary {
        model: get("model")?.to_string()?.clone(),
        pre: get("pre")?.to_string()?.clone(),
        tokens: texts("tokens")?,
        merges: texts("merges")?,
        token_types: types
            .map(Value::to_i32)
            .collect::<candle_core::Result<_>>()?,
        unk: get("unknown_token_id")
            .ok()
            .map(Value::to_u32)
            .transpose()?,
        ..GgufVocabulary::default()
    })
}

/// The library's tokenizer with the vocabulary and SmolLM's pre-tokenizer.
fn library(vocabulary: &GgufVocabulary) -> Result<tokenizers::Tokenizer> {
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
    });
    let vocab: serde_json::Map<_, _> = (0..)
        .zip(&vocabulary.tokens)
        .map(|(id, token): (u32, _)| (token.clone(), id.into()))
        .collect();
    let definition = json!({
        "version": "1.0",
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": true}, byte_level,
        ]},
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "unk_token": vocabulary.unk.map(|id| &vocabulary.tokens[id as usize]),
            "vocab": vocab,
            "merges": vocabulary.merges,
        },
    });
    let library = tokenizers::Tokenizer::from_bytes(definition.to_string());
    library.map_err(|error| error.to_string().into())
}
