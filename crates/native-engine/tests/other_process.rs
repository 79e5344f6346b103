//! A sequence that moves to another process continues with the same bits.
//!
//! This binary is both processes: started with `--continue FILE` it reads the blocks that the
//! test has written, computes the rest of the sequence on them, and prints the logits.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::path::Path;
use std::process::Command;

use forebay_tokens::BlockId;
use support::*;

const MOVED_TOKENS: usize = 64;
const MOVED_BLOCKS: usize = MOVED_TOKENS / 16;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match &arguments[1..] {
        [flag, file] if flag == "--continue" => continue_from(Path::new(file)),
        [flag, ..] if flag == "--list" => println!("moved_sequences_continue: test"),
        _ => moved_sequences_continue(),
    }
}

fn moved_sequences_continue() {
    let sequence = tokens(100, 9);
    let mut runner = fast(&random_model());
    let table = blocks(10..17);
    let expected = all_bits(&mut runner, &sequence, 0, &table)[MOVED_TOKENS..].to_vec();

    let file = std::env::temp_dir().join(format!("forebay-moved-blocks-{}", std::process::id()));
    let moved = &table[..MOVED_BLOCKS];
    let bytes = moved
        .iter()
        .map(|block| runner.memory().export(*block).unwrap());
    std::fs::write(&file, bytes.collect::<Vec<_>>().concat()).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .arg("--continue")
        .arg(&file)
        .output()
        .unwrap();
    std::fs::remove_file(&file).unwrap();

    assert!(
        child.status.success(),
        "{}",
        String::from_utf8_lossy(&child.stderr)
    );
    let printed = String::from_utf8(child.stdout).unwrap();
    let got: Vec<u32> = printed
        .split_whitespace()
        .map(|word| u32::from_str_radix(word, 16).unwrap())
        .collect();
    assert!(
        got == expected.concat(),
        "logits of the other process differ"
    );
    println!("moved_sequences_continue ... ok");
}

fn continue_from(file: &Path) {
    let mut runner = fast(&random_model());
    let bytes = std::fs::read(file).unwrap();
    let table = blocks([70, 3, 41, 8, 20, 90, 55]);
    let block_bytes = runner.memory().layout().bytes_per_block();
    for (block, bytes) in table.iter().zip(bytes.chunks_exact(block_bytes)) {
        runner.memory_mut().import(BlockId(block.0), bytes).unwrap();
    }
    let sequence = tokens(100, 9);
    let rows = all_bits(&mut runner, &sequence[MOVED_TOKENS..], MOVED_TOKENS, &table);
    for logit in rows.concat() {
        println!("{logit:08x}");
    }
}
