//! Hot paths of the scheduler: what one engine iteration pays.

use forebay_batch_scheduler::{
    Batch, NewSequence, Priority, Sampled, Scheduler, SchedulerConfig, SequenceId,
};
use forebay_kv_block_manager::{BlockPool, PoolConfig};
use forebay_testkit::instructions::{self, measured};
use forebay_tokens::{BlockChain, BlockSize, ContentKey, ContentNamespace, RoutingSeed};

const SEQUENCES: u32 = 64;
const PROMPT: u32 = 128;

/// 64 waiting sequences that share nothing.
fn waiting() -> Scheduler {
    let size = BlockSize::new(16).expect("16 is a block size");
    let pool = BlockPool::new(PoolConfig::full_attention(1024, size)).expect("it is valid");
    let config = SchedulerConfig {
        max_batch_tokens: 8192,
        max_chunk_tokens: 8192,
        max_sequences: SEQUENCES as usize,
        max_waiting: SEQUENCES as usize,
        context_length: 1024,
    };
    let mut scheduler = Scheduler::new(config, pool).expect("it is valid");
    for n in 0..SEQUENCES {
        submit(&mut scheduler, n, size);
    }
    scheduler
}

fn submit(scheduler: &mut Scheduler, n: u32, size: BlockSize) {
    let namespace = ContentNamespace::new(&ContentKey::new([7; 32]), b"model", b"tenant");
    let sequence = NewSequence {
        id: SequenceId(n.into()),
        prompt: (n * PROMPT..(n + 1) * PROMPT).collect(),
        emitted: Vec::new(),
        max_new_tokens: 100,
        priority: Priority::default(),
        chain: BlockChain::new(namespace, RoutingSeed::default(), size),
    };
    scheduler.submit(sequence).expect("there is room");
}

fn complete(scheduler: &mut Scheduler, batch: Batch) {
    let samples = batch.items().iter().filter(|item| item.samples).count();
    let token = Sampled {
        token: 42,
        stop: false,
    };
    scheduler.complete(batch, &vec![token; samples]);
}

fn admit() {
    let mut scheduler = waiting();
    let batch = measured(|| scheduler.schedule());
    assert_eq!(batch.items().len(), SEQUENCES as usize);
    complete(&mut scheduler, batch);
}

fn decode() {
    let mut scheduler = waiting();
    let batch = scheduler.schedule();
    complete(&mut scheduler, batch);
    measured(|| {
        let batch = scheduler.schedule();
        complete(&mut scheduler, batch);
    });
}

/// 16 iterations: every sequence fills and registers a block.
fn decode_a_block() {
    let mut scheduler = waiting();
    let batch = scheduler.schedule();
    complete(&mut scheduler, batch);
    measured(|| {
        for _ in 0..16 {
            let batch = scheduler.schedule();
            complete(&mut scheduler, batch);
        }
    });
}

fn main() {
    instructions::main(&[
        ("admit_64", admit),
        ("decode_64", decode),
        ("decode_64_a_block", decode_a_block),
    ]);
}
