//! The vocabulary under the field's own tokenizer.

use forebay_mocker::{Vocabulary, one_token_words, vocabulary};
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{AddedToken, Tokenizer};

fn tokenizer() -> Tokenizer {
    let Vocabulary {
        tokens,
        merges,
        token_types,
        ..
    } = vocabulary();
    let controls: Vec<_> = tokens
        .iter()
        .zip(&token_types)
        .filter(|(_, kind)| **kind == 3)
        .map(|(token, _)| AddedToken::from(token.clone(), true))
        .collect();
    assert_eq!(controls.len(), 3);
    let merges = merges
        .iter()
        .map(|merge| merge.split_once(' ').unwrap())
        .map(|(left, right)| (left.to_owned(), right.to_owned()))
        .collect();
    let entries: Vocab = tokens.into_iter().zip(0..).collect();
    let bpe = BPE::builder().vocab_and_merges(entries, merges).build();
    let mut tokenizer = Tokenizer::new(bpe.unwrap());
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    tokenizer.add_special_tokens(controls).unwrap();
    tokenizer
}

#[test]
fn every_word_after_a_space_is_one_token() {
    let tokenizer = tokenizer();
    let text: String = one_token_words().map(|word| format!(" {word}")).collect();
    let encoding = tokenizer.encode_fast(text.as_str(), false).unwrap();
    let ids = encoding.get_ids();
    assert_eq!(ids.len(), one_token_words().count());
    let first = ids[0];
    assert!(ids.iter().copied().eq((first..).take(ids.len())));
    assert_eq!(tokenizer.decode(ids, true).unwrap(), text);
}

#[test]
fn any_text_comes_back() {
    let tokenizer = tokenizer();
    for text in [
        "Hello, world! bado shatro\n\n",
        "naïve 漢字 🦀 \u{1f468}\u{200d}\u{1f469}",
        "<|im_start|>user\nba<|im_end|>\n",
        " \t\r\n  x",
        "",
    ] {
        let encoding = tokenizer.encode_fast(text, false).unwrap();
        assert_eq!(tokenizer.decode(encoding.get_ids(), false).unwrap(), text);
    }
    let chat = tokenizer.encode_fast("<|im_end|>", false).unwrap();
    assert_eq!(chat.get_ids(), [vocabulary().eos]);
}
