use std::time::Duration;

use futures::future;
use tokio::time::sleep;

use super::shared::SharedSession;
use crate::request_plane::services::Services;
use crate::tasks::Tasks;

/// How often a process that shuts down looks whether a session is still needed.
const QUIET_CHECK: Duration = Duration::from_millis(50);

/// Waits until a shutdown has begun and what `is_quiet` looks at is not needed any more.
pub(super) async fn until_quiet(tasks: &Tasks, is_quiet: impl Fn() -> bool) {
    tasks.shutdown_begun().await;
    while !is_quiet() {
        sleep(QUIET_CHECK).await;
    }
}

/// Ends a server's session once its process shuts down and nothing is asked for any more. It returns
/// never, as the driver tells the client, and ends.
pub(crate) async fn keep_serving(session: &SharedSession, services: &Services, tasks: &Tasks) {
    tasks.shutdown_begun().await;
    session.go_away(None);
    until_quiet(tasks, || session.is_quiet() && !services.takes_streams()).await;
    session.close();
    future::pending().await
}
