use std::time::Duration;

use tokio::time::sleep;

use crate::tasks::Tasks;

/// How often a process that shuts down looks whether a session is still needed.
const QUIET_CHECK: Duration = Duration::from_millis(50);

/// Waits until a shutdown has begun and what `is_quiet` looks at is not needed any more.
pub(crate) async fn until_quiet(tasks: &Tasks, is_quiet: impl Fn() -> bool) {
    tasks.shutdown_begun().await;
    while !is_quiet() {
        sleep(QUIET_CHECK).await;
    }
}

/// A number that nobody else has: of a process or a session.
pub(crate) fn random() -> u64 {
    getrandom::u64().expect("the system has random numbers")
}
