//! Instances that discovery names and that nobody can reach.

use std::collections::HashMap;
use std::time::Duration;

use forebay_tokens::WorkerId;
use futures::StreamExt as _;
use futures::future::{AbortHandle, Abortable, BoxFuture, FutureExt as _};
use futures::stream::FuturesUnordered;
use tokio::time::{sleep, timeout};

use super::Instance;
use crate::planes::Planes;

/// How long an instance may be named without an answer of its peer before it is told.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long it may take to find out why.
const ANSWER: Duration = Duration::from_secs(2);

/// Finds out, of each instance that does not answer in time, what is wrong with it. The usual reason
/// is an address that was advertised and leads nowhere from here.
#[derive(Default)]
pub(super) struct Unreached {
    waits: FuturesUnordered<Abortable<BoxFuture<'static, (Instance, String)>>>,
    /// Ends the wait for each worker.
    handles: HashMap<WorkerId, AbortHandle>,
}

impl Unreached {
    /// Begins to wait for an instance.
    pub(super) fn wait_for(&mut self, planes: &Planes, instance: Instance) {
        let (handle, registration) = AbortHandle::new_pair();
        if let Some(earlier) = self.handles.insert(instance.worker, handle) {
            earlier.abort();
        }
        let wait = wait(planes.clone(), instance).boxed();
        self.waits.push(Abortable::new(wait, registration));
    }

    /// An instance answers, or nobody waits for it any more.
    pub(super) fn wait_no_more(&mut self, worker: WorkerId) {
        if let Some(handle) = self.handles.remove(&worker) {
            handle.abort();
        }
    }

    /// The next instance that has not answered in time, and why; none if nothing is waited for.
    /// Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<(Instance, String)> {
        loop {
            if let Ok((instance, reason)) = self.waits.next().await? {
                self.handles.remove(&instance.worker);
                return Some((instance, reason));
            }
        }
    }
}

async fn wait(planes: Planes, instance: Instance) -> (Instance, String) {
    loop {
        sleep(PATIENCE).await;
        if let Some(reason) = reason(&planes, &instance).await {
            return (instance, reason);
        }
    }
}

/// Why an instance cannot be reached, as far as its plane can say; none if it can be by now.
async fn reason(planes: &Planes, instance: &Instance) -> Option<String> {
    Some(
        match timeout(ANSWER, planes.requests.confirm(instance)).await {
            Ok(Ok(true)) => return None,
            Ok(Ok(false)) => "its address is not of the plane that requests go by here".to_owned(),
            Ok(Err(error)) => error.diagnostic.unwrap_or(error.message),
            Err(_) => "it does not answer".to_owned(),
        },
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::names::EndpointId;

    #[cfg(feature = "tcp")]
    #[tokio::test]
    async fn the_reason_is_told() {
        use std::net::{Ipv4Addr, TcpListener};
        use std::sync::Arc;

        use forebay_observability::Registry;

        use crate::health::Health;
        use crate::request_plane::{TcpConfig, TcpPlane};
        use crate::tasks::Tasks;

        let registry = Registry::new();
        let tasks = Tasks::new(&registry);
        let plane = TcpPlane::bind(TcpConfig::default(), &tasks, &registry, &Health::new()).await;
        let planes = Planes {
            requests: Arc::new(plane.unwrap()),
            ..Planes::in_process()
        };
        let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let nobody = nobody.local_addr().unwrap();
        let mut instance = instance(&format!("tcp://{nobody}/a/b/c/1"));
        let refused = reason(&planes, &instance).await.unwrap();
        assert!(refused.contains(&nobody.to_string()), "{refused}");
        "nats:a/b/c/1@2".clone_into(&mut instance.address);
        let foreign = reason(&planes, &instance).await.unwrap();
        assert!(foreign.contains("plane"), "{foreign}");
    }

    fn instance(address: &str) -> Instance {
        Instance {
            endpoint: EndpointId::new("a", "b", "c").unwrap(),
            worker: WorkerId(1),
            address: address.to_owned(),
            card: Bytes::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_reached_is_waited_for_no_more() {
        let instance = instance("nowhere");
        let mut unreached = Unreached::default();
        assert_eq!(unreached.next().await, None);
        let start = tokio::time::Instant::now();
        unreached.wait_for(&Planes::in_process(), instance);
        assert_eq!(unreached.next().now_or_never(), None);
        unreached.wait_no_more(WorkerId(1));
        assert_eq!(unreached.next().await, None);
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
