//! The suites that hold implementations to the contracts of the seams.
//!
//! Each macro makes a module of tests, one a check, each with a fresh implementation from an
//! expression (a value, not a reference; evaluated inside an async function). The crate that calls
//! one needs `tokio` with `macros` and `time`. A check panics where the contract is broken.

use std::time::Duration;

use tokio::time::timeout;

pub mod discovery;
pub mod event_plane;
pub mod request_plane;

/// How long a check waits for what must happen before it calls it missing.
const DEADLINE: Duration = Duration::from_secs(60);

async fn in_time<F: Future>(future: F) -> F::Output {
    let output = timeout(DEADLINE, future).await;
    output.expect("what had to happen did not")
}

/// Makes a module `discovery_contract` of the checks in
/// [`conformance::discovery`](crate::conformance::discovery).
#[macro_export]
macro_rules! discovery_conformance_tests {
    ($make:expr) => {
        $crate::conformance_tests! { discovery_contract, discovery, $make;
            lists_who_is_registered
            forgets_who_is_dropped
            replaces_a_worker_that_registers_again
            keeps_endpoints_apart
            watches_from_the_present_on
            misses_no_change_between_present_and_changes
            tells_a_late_watcher_where_things_stand
            watches_many_at_once
        }
    };
}

/// Makes a module `request_plane_contract` of the checks in
/// [`conformance::request_plane`](crate::conformance::request_plane).
#[macro_export]
macro_rules! request_plane_conformance_tests {
    ($make:expr) => {
        $crate::conformance_tests! { request_plane_contract, request_plane, $make;
            carries_frames_in_order_and_once
            carries_frames_of_any_size
            carries_frames_both_ways
            tells_of_the_half_close
            carries_stops
            carries_errors_whole
            refuses_what_nobody_serves
            serves_an_address_once
            keeps_workers_apart
            holds_back_a_producer_that_nobody_reads
            lets_a_slow_stream_hold_up_nobody
            ends_with_its_client
            ends_with_its_client_before_it_began
            ends_with_its_server
            drains
            carries_many_streams
            tells_how_things_stand
        }
    };
}

/// Makes a module `event_plane_contract` of the checks in
/// [`conformance::event_plane`](crate::conformance::event_plane).
#[macro_export]
macro_rules! event_plane_conformance_tests {
    ($make:expr) => {
        $crate::conformance_tests! { event_plane_contract, event_plane, $make;
            stamps_without_a_gap
            orders_the_epochs_of_a_publisher
            begins_with_the_subscription
            tells_every_subscriber
            keeps_topics_apart
            carries_several_publishers
            outlives_a_publisher
            tells_who_is_too_slow
            waits_for_nobody
        }
    };
}

/// A module of tests, one a check.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_tests {
    ($module:ident, $suite:ident, $make:expr; $($check:ident)*) => {
        mod $module {
            use super::*;
            $(
                #[tokio::test]
                async fn $check() {
                    $crate::conformance::$suite::$check(&$make).await;
                }
            )*
        }
    };
}
