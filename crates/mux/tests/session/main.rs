//! Two ends of a session with an unreliable connection between them, driven to the end of all
//! streams: each message arrives once and in order, memory stays within its bounds at every step,
//! and nothing waits for ever.

#![allow(clippy::unwrap_used)]

mod plan;
mod side;
mod world;

use forebay_mux::session::Mode;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use plan::plan;
use world::{Bug, World};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn everything_arrives_once_over_connections_that_are_cut(plan in plan(Mode::Bytes)) {
        prop_assert_eq!(World::run(&plan, None), Ok(()));
    }

    #[test]
    fn everything_arrives_once_over_packets_that_are_lost(plan in plan(Mode::Packets)) {
        prop_assert_eq!(World::run(&plan, None), Ok(()));
    }
}

/// A test of the test: what is wrong shows.
#[test]
fn planted_bugs_are_caught() {
    for bug in [
        Bug::ForgetsCredit,
        Bug::AcknowledgesTooEarly,
        Bug::AsksForTooMuch,
        Bug::LosesBytes,
        Bug::RepeatsBytes,
    ] {
        let mut runner = TestRunner::deterministic();
        let caught = (0..64).any(|_| {
            let plan = plan(Mode::Bytes).new_tree(&mut runner).unwrap().current();
            World::run(&plan, Some(bug)).is_err()
        });
        assert!(caught, "{bug:?} went unnoticed");
    }
}
