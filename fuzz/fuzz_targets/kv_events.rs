//! A follower of a worker's KV events, and the worker's ledger, whose batches get lost, and between
//! which any batches, marks and answers come that are not of the ledger, though none of what is yet
//! to come. The follower has nothing more to ask once the ledger has answered.

#![no_main]

use std::time::Duration;

use forebay_mux::events::{
    FollowerConfig, KvAnswer, KvBatch, KvFollower, KvLedger, KvMark, KvPosition, KvSync,
    KvSyncAnswer, LedgerConfig,
};
use forebay_tokens::{CacheGroup, DpRank, KvEvent, RoutingHash, Tier};
use libfuzzer_sys::fuzz_target;

const EPOCH: u64 = 1;

fn answer(sync: KvSync) -> KvAnswer {
    let mark = sync.mark;
    match sync.answer {
        KvSyncAnswer::Range(batches) => KvAnswer::Range {
            mark,
            batches: batches.iter().map(|batch| (**batch).clone()).collect(),
        },
        KvSyncAnswer::Snapshot(snapshot) => KvAnswer::Snapshot {
            mark,
            parts: snapshot.parts().collect(),
        },
    }
}

fn event(what: u8) -> KvEvent {
    let tier = if what & 4 == 0 { Tier::G1 } else { Tier::G2 };
    let group = CacheGroup(0);
    let blocks = vec![RoutingHash(u64::from(what >> 3))];
    match what & 3 {
        0 => KvEvent::Cleared { tier },
        1 => KvEvent::Removed {
            tier,
            group,
            blocks,
        },
        _ => KvEvent::Stored {
            tier,
            group,
            parent: None,
            blocks,
        },
    }
}

fuzz_target!(|data: &[u8]| {
    let mut ledger = KvLedger::new(LedgerConfig::default(), EPOCH);
    let mut follower = KvFollower::new(FollowerConfig::default(), 7);
    let mut now = Duration::ZERO;
    ledger.replace(DpRank(0), Vec::new());
    // Each step is four bytes: what to do, whose, where and with which block.
    for step in data.chunks_exact(4) {
        let [what, rank, at, block] = [step[0], step[1], step[2], step[3]];
        let rank = DpRank(u32::from(rank % 3));
        let mark = KvMark {
            position: KvPosition {
                epoch: EPOCH - u64::from(at & 1),
                sequence: u64::from(at >> 1).min(ledger.mark().position.sequence),
            },
            digest: u64::from(block),
        };
        match what % 8 {
            0 | 1 => {
                for batch in ledger.change(rank, vec![event(block)]) {
                    // One in two is lost.
                    if what & 8 == 0 {
                        follower.batch(now, (*batch).clone());
                    }
                }
            }
            2 => follower.batch(
                now,
                KvBatch {
                    mark,
                    rank,
                    events: vec![event(block)],
                },
            ),
            3 => follower.mark(now, mark),
            4 => follower.lagged(now),
            5 => {
                if let Some(ask) = follower.ask(now) {
                    match at % 4 {
                        0 => follower.failed(now),
                        1 => follower.broken(now),
                        2 => follower.answer(
                            now,
                            KvAnswer::Snapshot {
                                mark,
                                parts: vec![(rank, vec![event(block)])],
                            },
                        ),
                        _ => follower.answer(now, answer(ledger.sync(ask.since))),
                    }
                }
            }
            6 => now += Duration::from_millis(u64::from(block)),
            _ => follower.mark(now, ledger.mark()),
        }
        while follower.next_update().is_some() {}
    }
    // The truth, as often as it is asked for.
    follower.mark(now, ledger.mark());
    for _ in 0..8 {
        let Some(due) = follower.next_timeout() else {
            break;
        };
        now = now.max(due);
        if let Some(ask) = follower.ask(now) {
            follower.answer(now, answer(ledger.sync(ask.since)));
        }
        follower.mark(now, ledger.mark());
    }
    assert!(follower.next_timeout().is_none());
});
