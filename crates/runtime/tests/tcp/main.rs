//! The planes over TCP, through networks that fail.
#![cfg(all(feature = "tcp", target_os = "linux"))]
#![allow(clippy::unwrap_used)]

mod authority;
mod events;
mod identity;
mod limits;
mod loss;
mod numbers;
mod process;
mod raw;
mod reattachment;
mod renewal;
mod shutdown;
mod tls;

use std::time::Duration;

use tokio::time::{sleep, timeout};

/// How long a test waits for what must happen before it calls it missing.
const DEADLINE: Duration = Duration::from_secs(20);

async fn in_time<F: Future>(future: F) -> F::Output {
    let output = timeout(DEADLINE, future).await;
    output.expect("what had to happen did not")
}

/// Waits until something that nobody tells of is so.
async fn until(is_so: impl Fn() -> bool) {
    in_time(async {
        while !is_so() {
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}
