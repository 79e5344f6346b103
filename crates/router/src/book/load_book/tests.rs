use std::collections::{BTreeMap, BTreeSet};

use forebay_tokens::WorkerId;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A booking as the model keeps it; the loads are counted from these alone.
#[derive(Clone, Debug)]
struct Model {
    at: WorkerRank,
    chain: Vec<RoutingHash>,
    blocks: u64,
    prefill: Option<(u64, u64)>,
}

#[derive(Clone, Debug)]
enum Step {
    Book {
        id: BookingId,
        at: WorkerRank,
        chain: Vec<RoutingHash>,
        blocks: u64,
        cached_tokens: u64,
        prefill_tokens: u64,
    },
    FirstToken(BookingId),
    Grew(BookingId, u64),
    End(BookingId),
    EndOwner(OwnerId),
    Hold(WorkerRank),
    LetGo(WorkerRank),
}

fn ranks() -> impl Strategy<Value = WorkerRank> {
    (0..3_u64).prop_map(|n| WorkerId(n).into())
}

fn ids() -> impl Strategy<Value = BookingId> {
    (0..2_u64, 0..6_u64).prop_map(|(owner, id)| BookingId::new(OwnerId(owner), id))
}

/// Prefixes of one of two prompts that have their first half in common.
fn chains() -> impl Strategy<Value = Vec<RoutingHash>> {
    (any::<bool>(), 0..8_u64).prop_map(|(other, length)| {
        let hash = |n| RoutingHash(if n >= 4 && other { 100 + n } else { n });
        (0..length).map(hash).collect()
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let book = (ids(), ranks(), chains(), 0..3_u64, 0..50_u64, 0..50_u64).prop_map(
        |(id, at, chain, more, cached_tokens, prefill_tokens)| Step::Book {
            id,
            at,
            blocks: chain.len() as u64 + more,
            chain,
            cached_tokens,
            prefill_tokens,
        },
    );
    let step = prop_oneof![
        8 => book,
        3 => ids().prop_map(Step::FirstToken),
        3 => (ids(), 0..3_u64).prop_map(|(id, blocks)| Step::Grew(id, blocks)),
        6 => ids().prop_map(Step::End),
        1 => (0..2_u64).prop_map(|owner| Step::EndOwner(OwnerId(owner))),
        1 => ranks().prop_map(Step::Hold),
        1 => ranks().prop_map(Step::LetGo),
    ];
    vec(step, 0..100)
}

fn counted(bookings: &BTreeMap<BookingId, Model>, at: WorkerRank) -> Load {
    let mut load = Load::default();
    let mut shared = BTreeSet::<RoutingHash>::new();
    for booking in bookings.values().filter(|booking| booking.at == at) {
        load.requests += 1;
        load.context_blocks += booking.blocks;
        load.used_blocks += booking.blocks - booking.chain.len() as u64;
        shared.extend(&booking.chain);
        if let Some((tokens, context_tokens)) = booking.prefill {
            load.prefills += 1;
            load.prefill_tokens += tokens;
            load.prefill_context_tokens += context_tokens;
        }
    }
    load.used_blocks += shared.len() as u64;
    load
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_loads_are_those_of_the_bookings(steps in steps()) {
        let mut book = LoadBook::new();
        let mut model = BTreeMap::<BookingId, Model>::new();
        let mut held = BTreeMap::new();
        for step in steps {
            match step {
                Step::Book { id, at, chain, blocks, cached_tokens, prefill_tokens } => {
                    let prompt_tokens = cached_tokens + prefill_tokens;
                    let chain_ref = &chain[..];
                    let booking =
                        Booking { at, chain: chain_ref, blocks, prompt_tokens, prefill_tokens };
                    book.book(id, booking);
                    // Each token attends to itself and to all before it.
                    let context_tokens = (cached_tokens + 1..=prompt_tokens).sum();
                    let prefill = Some((prefill_tokens, context_tokens));
                    model.insert(id, Model { at, chain, blocks, prefill });
                }
                Step::FirstToken(id) => {
                    book.first_token(id);
                    model.entry(id).and_modify(|booking| booking.prefill = None);
                }
                Step::Grew(id, blocks) => {
                    book.grew(id, blocks);
                    model.entry(id).and_modify(|booking| booking.blocks += blocks);
                }
                Step::End(id) => {
                    prop_assert_eq!(book.end(id), model.remove(&id).is_some());
                }
                Step::EndOwner(owner) => {
                    let before = model.len();
                    model.retain(|id, _| id.owner != owner);
                    prop_assert_eq!(book.end_owner(owner), before - model.len());
                }
                Step::Hold(at) => drop(held.insert(at, book.hold(at))),
                Step::LetGo(at) => {
                    if let Some(slot) = held.remove(&at) {
                        book.let_go(slot);
                    }
                }
            }
            prop_assert_eq!(book.len(), model.len());
            for at in (0..3).map(|n| WorkerId(n).into()) {
                prop_assert_eq!(book.load(at), counted(&model, at));
            }
            for (at, slot) in &held {
                prop_assert_eq!(*book.load_in(*slot), counted(&model, *at));
            }
            for (id, booking) in &model {
                prop_assert_eq!(book.booked_at(*id), Some(booking.at));
            }
        }

        // Nothing stays behind.
        for id in model.keys() {
            book.end(*id);
        }
        for (_, slot) in held {
            book.let_go(slot);
        }
        prop_assert!(book.is_empty() && book.slots.is_empty() && book.prompts.is_empty());
        prop_assert_eq!(book.free.len(), book.totals.len());
    }
}

fn booking(chain: &[RoutingHash]) -> Booking<'_> {
    Booking {
        at: WorkerId(1).into(),
        chain,
        blocks: chain.len() as u64,
        prompt_tokens: 16,
        prefill_tokens: 16,
    }
}

#[test]
fn running_prompts_are_found_while_they_run() {
    let chain = [1, 2, 3].map(RoutingHash);
    let mut book = LoadBook::new();
    let id = BookingId::default();
    book.book(id, booking(&chain));
    let found = book.matches(&[1, 2, 9].map(RoutingHash));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].overlap.blocks(), 2);
    book.end(id);
    assert_eq!(book.matches(&chain), []);
}
