use std::collections::HashSet;
use std::time::Duration;

use forebay_runtime::{EndpointId, Planes};
use forebay_tokens::WorkerId;
use tokio::time::sleep;

/// The wait before discovery is asked again, where it does not answer.
const RETRY: Duration = Duration::from_secs(1);

/// How long those who were there at first are waited for: one that is not up by then may be gone.
pub(super) const GIVEN_UP: Duration = Duration::from_secs(10);

/// How far it is known who is there, from the start on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FirstLook {
    /// Discovery has not told yet; these have been looked at meanwhile.
    Listing(HashSet<WorkerId>),
    /// These were there, and are neither looked at nor given up.
    Awaits(HashSet<WorkerId>),
    /// All of them have been looked at.
    Over,
}

impl FirstLook {
    /// Discovery has told that these are there.
    pub(super) fn listed(&mut self, mut workers: HashSet<WorkerId>) {
        if let Self::Listing(seen) = self {
            workers.retain(|worker| !seen.contains(worker));
            *self = Self::awaits(workers);
        }
    }

    /// It is known of this worker what it serves, or that it is gone.
    pub(super) fn looked_at(&mut self, worker: WorkerId) {
        match self {
            Self::Listing(seen) => drop(seen.insert(worker)),
            Self::Awaits(workers) => {
                workers.remove(&worker);
                *self = Self::awaits(std::mem::take(workers));
            }
            Self::Over => {}
        }
    }

    fn awaits(workers: HashSet<WorkerId>) -> Self {
        match workers.is_empty() {
            true => Self::Over,
            false => Self::Awaits(workers),
        }
    }
}

/// Who is there, once discovery tells.
pub(super) async fn list(planes: Planes, endpoint: EndpointId) -> HashSet<WorkerId> {
    loop {
        // That it does not is told by those who follow it.
        if let Ok(instances) = planes.discovery.list(&endpoint).await {
            return instances.iter().map(|instance| instance.worker).collect();
        }
        sleep(RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: WorkerId = WorkerId(1);
    const B: WorkerId = WorkerId(2);

    #[test]
    fn it_is_over_once_everyone_was_looked_at_before_or_after_the_list() {
        let mut look = FirstLook::Listing(HashSet::new());
        look.looked_at(A);
        look.listed([A, B].into());
        assert_eq!(look, FirstLook::Awaits([B].into()));
        look.looked_at(A);
        look.looked_at(B);
        assert_eq!(look, FirstLook::Over);

        let mut look = FirstLook::Listing([A].into());
        look.listed([A].into());
        assert_eq!(look, FirstLook::Over);
    }
}
