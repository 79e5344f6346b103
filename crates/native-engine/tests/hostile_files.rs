//! Files that are cut off, damaged, or of another kind are refused by name, without a panic.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::Cursor;

use forebay_native_engine::{LoadError, Model, ModelShape, random_gguf};
use proptest::prelude::*;

const SMALL: ModelShape = ModelShape {
    vocabulary: 259,
    context_length: 64,
    layers: 1,
    hidden: 32,
    feed_forward: 32,
    heads: 2,
    kv_heads: 1,
    head_dim: 16,
};

fn load(file: &[u8]) -> Result<Model, LoadError> {
    Model::from_gguf(Cursor::new(file))
}

fn refusal(file: &[u8]) -> LoadError {
    load(file).map(|_| "a model").unwrap_err()
}

/// The file with one occurrence of `from` replaced by as many bytes.
fn replaced(from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut file = random_gguf(&SMALL, 1);
    let at = find(&file, from);
    file[at..at + to.len()].copy_from_slice(to);
    file
}

/// The file with the value of an integer or float key replaced.
fn with_value(key: &str, value: [u8; 4]) -> Vec<u8> {
    let mut file = random_gguf(&SMALL, 1);
    // After the key come the value's type and the value, four bytes each.
    let at = find(&file, key.as_bytes()) + key.len() + 4;
    file[at..at + 4].copy_from_slice(&value);
    file
}

fn find(file: &[u8], what: &[u8]) -> usize {
    file.windows(what.len())
        .position(|window| window == what)
        .unwrap()
}

#[test]
fn the_whole_file_loads() {
    assert_eq!(*load(&random_gguf(&SMALL, 1)).unwrap().shape(), SMALL);
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    let file = random_gguf(&SMALL, 1);
    // The last tensor is padded to 32 bytes, which may be absent.
    for end in (0..file.len() - 32).step_by(41) {
        let error = refusal(&file[..end]);
        let named = matches!(
            error,
            LoadError::Malformed { .. } | LoadError::Truncated { .. }
        );
        assert!(named, "{end} bytes: {error}");
        assert!(
            !error.to_string().contains("buffer"),
            "{end} bytes: {error}"
        );
    }
    let error = refusal(&file[..file.len() - 33]);
    assert!(matches!(&error, LoadError::Truncated { .. }), "{error}");
}

#[test]
fn other_files_are_refused() {
    assert!(matches!(refusal(b""), LoadError::Malformed { .. }));
    assert!(matches!(
        refusal(b"PK\x03\x04 a zip file"),
        LoadError::Malformed { .. }
    ));
    let missing = Model::load("/no/such/file.gguf".as_ref()).unwrap_err();
    assert_eq!(missing.to_string(), "cannot open /no/such/file.gguf");
    let gemma = replaced(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0gemma");
    assert_eq!(
        refusal(&gemma).to_string(),
        "architecture \"gemma\" is not supported, only \"llama\" is"
    );
}

#[test]
fn what_is_wrong_is_named() {
    let cases = [
        (
            replaced(b"llama.context_length", b"llama.content_length"),
            "metadata key \"llama.context_length\" is missing",
        ),
        (
            replaced(b"blk.0.attn_q.weight", b"blk.0.attn_x.weight"),
            "tensor \"blk.0.attn_x.weight\" is not part of a llama model that this engine can run",
        ),
        (
            replaced(b"token_embd.weight", b"token_abcd.weight"),
            "tensor \"token_embd.weight\" is missing",
        ),
        (
            with_value("llama.block_count", 2u32.to_le_bytes()),
            "tensor \"blk.1.attn_norm.weight\" is missing",
        ),
        (
            with_value("llama.block_count", [0; 4]),
            "metadata key \"llama.block_count\" is zero",
        ),
        (
            with_value("llama.feed_forward_length", 64u32.to_le_bytes()),
            "tensor \"blk.0.ffn_gate.weight\" has shape [32, 32], expected [64, 32]",
        ),
        (
            with_value("llama.embedding_length", 40u32.to_le_bytes()),
            "metadata key \"llama.embedding_length\" is 40, not a multiple of 32",
        ),
        (
            with_value("llama.attention.head_count_kv", 3u32.to_le_bytes()),
            "metadata key \"llama.attention.head_count_kv\" is 3, not a divisor of 2 heads",
        ),
        (
            with_value("llama.attention.key_length", 8u32.to_le_bytes()),
            "metadata key \"llama.attention.key_length\" gives heads of 8, not a multiple of 16 \
             up to 256",
        ),
        (
            with_value("llama.attention.value_length", 32u32.to_le_bytes()),
            "metadata key \"llama.attention.value_length\" is 32, but heads have 16 dimensions",
        ),
        (
            with_value("llama.rope.freq_base", (-1f32).to_le_bytes()),
            "metadata key \"llama.rope.freq_base\" is -1, not positive",
        ),
        (
            with_value(
                "llama.attention.layer_norm_rms_epsilon",
                f32::NAN.to_le_bytes(),
            ),
            "metadata key \"llama.attention.layer_norm_rms_epsilon\" is not a finite number",
        ),
    ];
    for (file, message) in cases {
        assert_eq!(refusal(&file).to_string(), message);
    }
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    // `ffn_down` comes last and is stored as floats.
    let mut file = random_gguf(&SMALL, 1);
    let end = file.len();
    file[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    let expected = "tensor \"blk.0.ffn_down.weight\" holds a weight that is not finite";
    assert_eq!(refusal(&file).to_string(), expected);
}

#[test]
fn an_alignment_of_zero_is_refused() {
    // `general.name` becomes `general.alignment`: its text ("random", 8 bytes of length and 6 of
    // text) makes room for a longer key and a number.
    let mut file = random_gguf(&SMALL, 1);
    let name = [&12u64.to_le_bytes()[..], b"general.name"].concat();
    let at = find(&file, &name);
    let length = name.len() + 4 + 8 + "random".len();
    let alignment = [
        &17u64.to_le_bytes()[..],
        b"general.alignment",
        &0u32.to_le_bytes(),
        &[0],
    ];
    let mut alignment = alignment.concat();
    // An 8-bit zero, and a file whose tensors begin where they did.
    alignment.resize(length, 0);
    file.splice(at..at + length, alignment[..30].iter().copied());
    let message = refusal(&file).to_string();
    assert_eq!(
        message,
        "not a readable GGUF file: its header is inconsistent"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Damaged bytes give an error or a model, never a panic and never a huge allocation (which
    /// would abort the test).
    #[test]
    fn damage_never_panics(
        damage in prop::collection::vec((0..16_000usize, any::<u8>()), 1..6),
    ) {
        let mut file = random_gguf(&SMALL, 1);
        for (at, byte) in damage {
            let at = at % file.len();
            file[at] = byte;
        }
        if let Err(error) = load(&file) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
