//! Hot paths of the text side: what every token and every request pays.

use forebay_chat::{
    ChatTemplate, GgufVocabulary, TemplateInput, TextDecoder, TextOptions, Tokenizer,
};
use forebay_testkit::instructions::{self, measured};

/// 512 byte tokens, some of them in characters of several bytes.
fn ids() -> Vec<u32> {
    let text = "Zwölf große Boxkämpfer jagen Viktor über den Deich: 漢字 и кириллица. ".repeat(7);
    text.bytes().take(512).map(u32::from).collect()
}

fn decode(stop: &[&str]) -> String {
    let tokenizer = Tokenizer::bytes();
    let options = TextOptions {
        stop: stop.iter().map(|&text| text.to_owned()).collect(),
        ..TextOptions::default()
    };
    let mut decoder = TextDecoder::new(&tokenizer, &options);
    let (ids, mut text) = (ids(), String::with_capacity(1024));
    measured(|| {
        for id in ids {
            let delta = decoder.push(&[id]).expect("a byte has text");
            text.push_str(&delta.text);
        }
    });
    text
}

fn detokenize() {
    assert!(decode(&[]).len() > 500);
}

fn detokenize_with_stops() {
    assert!(decode(&["\n\nUser:", "Deichgraf", "###"]).len() > 490);
}

const CONSONANTS: &str = "bcdfghjklmnprstvwz";
const VOWELS: &str = "aeiou";

fn syllables() -> Vec<String> {
    let pairs = CONSONANTS
        .chars()
        .flat_map(|first| VOWELS.chars().map(move |second| (first, second)));
    pairs
        .map(|(first, second)| format!("{first}{second}"))
        .collect()
}

/// 8,100 words of two syllables with the space before them, each one token.
fn vocabulary() -> Tokenizer {
    const SPACE: char = '\u{120}';
    let mut gguf = GgufVocabulary {
        model: "gpt2".into(),
        pre: "gpt-2".into(),
        ..GgufVocabulary::default()
    };
    let printable = ('!'..='~').chain(['\u{10a}', SPACE]).map(String::from);
    gguf.tokens.extend(printable);
    gguf.unk = Some(0);
    let mut add = |left: &str, right: &str| {
        gguf.tokens.push(format!("{left}{right}"));
        gguf.merges.push(format!("{left} {right}"));
    };
    let syllables = syllables();
    for syllable in &syllables {
        let (consonant, vowel) = syllable.split_at(1);
        add(consonant, vowel);
    }
    for first in &syllables {
        add(&SPACE.to_string(), first);
        for second in &syllables {
            add(&format!("{SPACE}{first}"), second);
        }
    }
    Tokenizer::from_gguf(gguf).expect("the vocabulary is valid")
}

/// Words of `length` syllables, every one another, with a space before each.
fn words(count: usize, length: usize) -> String {
    let syllables = syllables();
    let word = |number: usize| {
        let syllable = |place: usize| {
            let index = number * 31 + place * 17 + number / 90;
            syllables[index % syllables.len()].as_str()
        };
        let word: String = (0..length).map(syllable).collect();
        format!(" {word}")
    };
    (0..count).map(word).collect()
}

fn encode(text: &str, tokens: usize) {
    let tokenizer = vocabulary();
    let ids = measured(|| tokenizer.encode(text, false));
    assert!(ids.is_ok_and(|ids| ids.len() == tokens));
}

fn encode_words() {
    encode(&words(8192, 2), 8192);
}

fn encode_merged_words() {
    encode(&words(1024, 4), 1024 * 3);
}

fn encode_one_long_word() {
    encode(&words(1, 2048), 2047);
}

fn render() {
    let template = ChatTemplate::chatml();
    let messages: Vec<_> = (0..16)
        .map(|turn| {
            let role = if turn % 2 == 0 { "user" } else { "assistant" };
            serde_json::json!({"role": role, "content": "the quick brown fox ".repeat(20)})
        })
        .collect();
    let prompt = measured(|| {
        template.render(&TemplateInput {
            messages: &messages,
            add_generation_prompt: true,
            ..TemplateInput::default()
        })
    });
    assert!(prompt.is_ok_and(|prompt| prompt.len() > 16 * 400));
}

fn main() {
    instructions::main(&[
        ("detokenize_512", detokenize),
        ("detokenize_512_with_stops", detokenize_with_stops),
        ("encode_8192_words", encode_words),
        ("encode_1024_merged_words", encode_merged_words),
        ("encode_a_word_of_4096", encode_one_long_word),
        ("render_16_turns", render),
    ]);
}
