//! A prefix that one process computed gives the same answer in another: tokens and bits of logits,
//! greedy and drawn.
//!
//! This binary is both processes: started with `--continue FILE` it imports the blocks that the
//! test has written, answers the requests on them, and prints what it saw.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use forebay_engine::GenerateRequest;
use forebay_native_engine::{EngineConfig, EngineCore, KvBlock};
use forebay_protocols::worker::{SamplingParams, StopConditions};
use forebay_tokens::{BlockIdentity, ContentId, ContentKey, RoutingHash, TokenId};
use support::*;

const PREFIX_BLOCKS: usize = 5;
const SALT: &str = "tenant";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match &arguments[1..] {
        [flag, file] if flag == "--continue" => continue_from(Path::new(file)),
        [flag, ..] if flag == "--list" => println!("moved_prefixes_continue: test"),
        _ => moved_prefixes_continue(),
    }
}

fn prompt() -> Vec<TokenId> {
    tokens(PREFIX_BLOCKS * 16 + 9, 4)
}

fn core() -> EngineCore {
    let config = EngineConfig {
        kv_cache_bytes: 4 << 20,
        max_chunk_tokens: 24,
        ..EngineConfig::default()
    };
    EngineCore::new(&config, random_model(), ContentKey::new([9; 32])).unwrap()
}

/// What a greedy and a seeded request got, as text: tokens cached, tokens, bits of all logits.
fn answers(core: &mut EngineCore) -> (u32, String) {
    let mut cached = u32::MAX;
    let mut text = String::new();
    for temperature in [0.0, 1.0] {
        let request = GenerateRequest {
            request_id: "moved".into(),
            prompt_token_ids: prompt(),
            cache_salt: SALT.into(),
            sampling: Some(SamplingParams {
                temperature: Some(temperature),
                seed: 77,
                ..Default::default()
            }),
            stop: Some(StopConditions {
                max_tokens: Some(12),
                ..Default::default()
            }),
            ..Default::default()
        };
        core.submit(request).unwrap();
        while core.is_runnable() {
            let mut row_bits = Vec::new();
            let report = core.step_observed(&mut |_, row| row_bits = bits(row));
            for (_, output) in report.outputs {
                let output = output.unwrap();
                cached = cached.min(output.prompt.map_or(cached, |p| p.cached_tokens));
                writeln!(text, "{:?} {row_bits:x?}", output.token_ids).unwrap();
            }
        }
    }
    (cached, text)
}

fn moved_prefixes_continue() {
    let mut core = core();
    let (_, expected) = answers(&mut core);
    let blocks = core.export_prefix(&prompt(), SALT);
    assert_eq!(blocks.len(), PREFIX_BLOCKS);

    let name = format!("forebay-moved-prefix-{}", std::process::id());
    let file = std::env::temp_dir().join(name);
    let bytes = blocks.iter().map(|block| {
        let BlockIdentity { content, routing } = block.identity;
        [
            &content.as_bytes()[..],
            &routing.0.to_le_bytes(),
            &block.bytes,
        ]
        .concat()
    });
    std::fs::write(&file, bytes.collect::<Vec<_>>().concat()).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .arg("--continue")
        .arg(&file)
        .output()
        .unwrap();
    std::fs::remove_file(&file).unwrap();

    let errors = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{errors}");
    let got = String::from_utf8(child.stdout).unwrap();
    assert_eq!(expected.lines().count(), 24);
    assert!(got == expected, "answers of the other process differ");
    println!("moved_prefixes_continue ... ok");
}

fn continue_from(file: &Path) {
    let mut core = core();
    let bytes = std::fs::read(file).unwrap();
    let blocks: Vec<_> = bytes
        .chunks_exact(bytes.len() / PREFIX_BLOCKS)
        .map(|block| {
            let (content, rest) = block.split_first_chunk().unwrap();
            let (routing, bytes) = rest.split_first_chunk().unwrap();
            KvBlock {
                identity: BlockIdentity {
                    content: ContentId::from_bytes(*content),
                    routing: RoutingHash(u64::from_le_bytes(*routing)),
                },
                bytes: bytes.to_vec(),
            }
        })
        .collect();
    let imported = core.import_prefix(&prompt(), SALT, &blocks).unwrap();
    assert_eq!(imported, PREFIX_BLOCKS);
    let (cached, text) = answers(&mut core);
    assert_eq!(
        cached as usize,
        PREFIX_BLOCKS * 16,
        "nothing was computed twice"
    );
    print!("{text}");
}
