//! The suites catch improper implementations: each planted bug fails the check that is there for
//! it.
#![allow(clippy::unwrap_used)]

mod discovery;
mod event_plane;
mod request_plane;

/// Whether a check of a suite fails, as its test would. The clock is paused, so that a deadline
/// comes at once where nothing else happens.
macro_rules! catches {
    ($suite:ident::$check:ident, $plane:expr) => {
        let plane = $plane;
        let check = forebay_runtime::conformance::$suite::$check(&plane);
        let outcome = futures::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(check)).await;
        assert!(
            outcome.is_err(),
            "{} lets {} pass",
            stringify!($check),
            stringify!($plane)
        );
    };
}
use catches;
