mod standing;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use forebay_mux::view::{Config, Output, Peer, Record, View};
use forebay_observability::{ErrorChain, Registry};
use forebay_tokens::WorkerId;
use futures::future::{self, BoxFuture};
use futures::stream::{self, AbortHandle, BoxStream, SelectAll};
use futures::{FutureExt as _, StreamExt as _};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

pub use forebay_mux::view::DownCause;

use standing::{Standing, Standings};

use super::unreached::Unreached;
use super::{Instance, InstanceEvent, Watch, record};
use crate::names::EndpointId;
use crate::planes::{PlaneError, Planes};
use crate::request_plane::PeerState;

/// The wait before discovery is asked again, where it does not answer.
const RETRY: Duration = Duration::from_secs(1);

/// A change of which instances requests may be sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberEvent {
    /// It can be reached: requests may be sent there. It was not up before.
    Up(Instance),
    /// What it says about itself is something else now, at the same address.
    Changed(Instance),
    /// Nothing new to this worker from now on. It may come up again, also as another process.
    Down(WorkerId, DownCause),
    /// Discovery names it, and nobody has answered at its address for 3 s, for this reason. It is not
    /// up. What its record says of it is not confirmed.
    Unreached(Instance, String),
    /// What [`MemberEvent::Unreached`] told of this worker is over: it answers, or discovery does not
    /// name it any more.
    UnreachedNoMore(WorkerId),
}

/// The changes of which instances of an endpoint requests may be sent to, from nobody on, for as
/// long as it is not dropped.
///
/// Beside what discovery says, it follows how things stand with each instance's process
/// ([`RequestPlane::peer`](crate::RequestPlane::peer)), and joins the two by the rules of
/// [`forebay_mux::view`]: who is lost or drains is out at once, whatever discovery says; who
/// discovery lost without a goodbye stays while it can be reached. A record is believed once what
/// is served at its address confirms it ([`RequestPlane::confirm`](crate::RequestPlane::confirm)),
/// and who is up is not replaced by a record at another address while it is. A record whose address
/// is not for its own endpoint and worker is refused, with a warning; one whose peer does not answer
/// for 3 s is told, here and in the log, with the reason. It follows at most [`Config::max_members`]
/// instances, and says in the log when there are more. The gauge `forebay_discovery_members` of
/// `registry` counts them by the endpoint's component and by how they stand.
///
/// It spawns nothing, and works while it is polled.
pub fn members(
    planes: &Planes,
    endpoint: EndpointId,
    registry: &Registry,
) -> BoxStream<'static, MemberEvent> {
    let members = Members {
        standings: Standings::new(&endpoint, registry),
        planes: planes.clone(),
        endpoint,
        start: Instant::now(),
        view: View::new(Config::default()),
        watch: None,
        peers: SelectAll::new(),
        watched: HashMap::new(),
        answers: SelectAll::new(),
        asked: HashMap::new(),
        refused: HashMap::new(),
        unreached: Unreached::default(),
        list: None,
        was_full: false,
    };
    stream::unfold(members, |mut members| async move {
        let event = members.next().await;
        Some((event, members))
    })
    .boxed()
}

struct Members {
    planes: Planes,
    endpoint: EndpointId,
    start: Instant,
    view: View<Instance>,
    watch: Option<Watch>,
    peers: SelectAll<BoxStream<'static, (WorkerId, PeerState)>>,
    watched: HashMap<WorkerId, Watched>,
    standings: Standings,
    /// Of peers that were asked whether a record is theirs.
    answers: SelectAll<BoxStream<'static, (Instance, bool)>>,
    /// Ends the question to each worker's peer.
    asked: HashMap<WorkerId, AbortHandle>,
    /// Records whose address is not for them, by worker: those that were warned of.
    refused: HashMap<WorkerId, String>,
    unreached: Unreached,
    /// The list that the view asked for.
    list: Option<BoxFuture<'static, Result<Vec<Instance>, PlaneError>>>,
    was_full: bool,
}

/// A peer that is looked after.
struct Watched {
    /// Whose it is, as discovery said first.
    instance: Instance,
    /// Ends the watch.
    handle: AbortHandle,
}

impl Members {
    async fn next(&mut self) -> MemberEvent {
        loop {
            while let Some(output) = self.view.next_output() {
                if let Some(event) = self.carry_out(output) {
                    return event;
                }
            }
            self.tell_if_full();
            if let Some(event) = self.take_an_input().await {
                return event;
            }
        }
    }

    fn carry_out(&mut self, output: Output<Instance>) -> Option<MemberEvent> {
        match output {
            Output::Up(instance) => {
                let (worker, address) = (instance.worker.0, &instance.address);
                info!(endpoint = %self.endpoint, worker, address, "instance up");
                self.standings.set(instance.worker, Standing::Up);
                Some(MemberEvent::Up(instance))
            }
            Output::Changed(instance) => Some(MemberEvent::Changed(instance)),
            Output::Down(worker, cause) => {
                let (endpoint, cause_name) = (&self.endpoint, cause.as_str());
                info!(%endpoint, worker = worker.0, cause = cause_name, "instance down");
                Some(MemberEvent::Down(worker, cause))
            }
            Output::Watch(instance) => {
                self.watch(instance);
                None
            }
            Output::Confirm(instance) => {
                self.ask(instance);
                None
            }
            Output::Release(worker) => {
                self.ask_no_more(worker);
                self.unreached.wait_no_more(worker);
                if let Some(watched) = self.watched.remove(&worker) {
                    watched.handle.abort();
                }
                let was_told = self.standings.remove(worker) == Some(Standing::Unreached);
                was_told.then_some(MemberEvent::UnreachedNoMore(worker))
            }
            Output::List => {
                let (planes, endpoint) = (self.planes.clone(), self.endpoint.clone());
                let list = async move { planes.discovery.list(&endpoint).await };
                self.list = Some(list.boxed());
                None
            }
        }
    }

    async fn take_an_input(&mut self) -> Option<MemberEvent> {
        let Some(watch) = &mut self.watch else {
            self.begin().await;
            return None;
        };
        let due = self.view.next_timeout().map(|due| self.start + due);
        tokio::select! {
            event = watch.next() => match event {
                Some(event) => self.take(event),
                None => self.watch = None,
            },
            list = wait_for(&mut self.list) => {
                self.list = None;
                self.take_list(list);
            }
            Some((worker, state)) = self.peers.next() => return self.take_peer(worker, state),
            Some((instance, reason)) = self.unreached.next() => {
                return Some(self.take_unreached(instance, reason));
            }
            Some((instance, is_own)) = self.answers.next() => self.take_answer(&instance, is_own),
            () = sleep_until(due.unwrap_or(self.start)), if due.is_some() => {
                self.view.handle_timeout(self.start.elapsed());
            }
        }
        None
    }

    async fn begin(&mut self) {
        match self.planes.discovery.watch(&self.endpoint).await {
            Ok(watch) => self.watch = Some(watch),
            Err(error) => {
                warn!(endpoint = %self.endpoint, error = %ErrorChain(&error),
                    "workers cannot be discovered");
                sleep(RETRY).await;
            }
        }
    }

    /// Looks after an instance's peer, and waits for it to answer.
    fn watch(&mut self, instance: Instance) {
        let worker = instance.worker;
        let states = self.planes.requests.peer(&instance.address);
        let (states, handle) = stream::abortable(states);
        let states = states.map(move |state| (worker, state));
        self.peers.push(states.boxed());
        self.unreached.wait_for(&self.planes, instance.clone());
        self.standings.set(worker, Standing::Connecting);
        self.watched.insert(worker, Watched { instance, handle });
    }

    fn take_peer(&mut self, worker: WorkerId, state: PeerState) -> Option<MemberEvent> {
        let before = self.standings.get(worker)?;
        let (peer, standing) = match state {
            PeerState::Reachable if before == Standing::Up => (Peer::Reachable, Standing::Up),
            PeerState::Reachable => (Peer::Reachable, Standing::Unconfirmed),
            PeerState::Paused => (Peer::Paused, Standing::Paused),
            PeerState::Draining => (Peer::Draining, Standing::Draining),
            PeerState::Lost if before.is_silent() => (Peer::Lost, before),
            PeerState::Lost => (Peer::Lost, Standing::Lost),
        };
        self.standings.set(worker, standing);
        if peer != Peer::Reachable {
            self.ask_no_more(worker);
        }
        match (peer, self.watched.get(&worker)) {
            (Peer::Lost, Some(watched)) if !before.is_silent() => {
                let instance = watched.instance.clone();
                self.unreached.wait_for(&self.planes, instance);
            }
            (Peer::Lost, _) => {}
            _ => self.unreached.wait_no_more(worker),
        }
        self.view.peer(worker, peer);
        let is_over = before == Standing::Unreached && peer != Peer::Lost;
        is_over.then_some(MemberEvent::UnreachedNoMore(worker))
    }

    fn take_unreached(&mut self, instance: Instance, reason: String) -> MemberEvent {
        let (endpoint, worker, address) = (&self.endpoint, instance.worker, &instance.address);
        warn!(%endpoint, worker = worker.0, address, reason,
            "instance is registered and cannot be reached");
        self.standings.set(worker, Standing::Unreached);
        MemberEvent::Unreached(instance, reason)
    }

    /// Asks the instance's peer whether it is that instance.
    fn ask(&mut self, instance: Instance) {
        self.ask_no_more(instance.worker);
        let requests = self.planes.requests.clone();
        let worker = instance.worker;
        let answer = async move {
            loop {
                match requests.confirm(&instance).await {
                    Ok(is_own) => return (instance, is_own),
                    Err(error) => {
                        debug!(address = instance.address, %error, "not confirmed yet");
                        sleep(RETRY).await;
                    }
                }
            }
        };
        let (answer, handle) = stream::abortable(stream::once(answer));
        self.answers.push(answer.boxed());
        self.asked.insert(worker, handle);
    }

    fn ask_no_more(&mut self, worker: WorkerId) {
        if let Some(handle) = self.asked.remove(&worker) {
            handle.abort();
        }
    }

    fn take_answer(&mut self, instance: &Instance, is_own: bool) {
        self.asked.remove(&instance.worker);
        match is_own {
            true => self.view.confirmed(instance),
            false => {
                let (worker, address) = (instance.worker.0, &instance.address);
                warn!(endpoint = %self.endpoint, worker, address,
                    "record refused: what is served there is not what it says");
            }
        }
    }

    fn take(&mut self, event: InstanceEvent) {
        let now = self.start.elapsed();
        match event {
            InstanceEvent::Present(instances) => self.present(instances),
            InstanceEvent::Put(instance) => {
                if self.is_in_place(&instance) {
                    self.view.put(instance);
                }
            }
            InstanceEvent::Removed(worker) => self.view.removed(now, worker),
            InstanceEvent::Expired(worker) => self.view.expired(now, worker),
        }
    }

    fn present(&mut self, mut instances: Vec<Instance>) {
        let named: HashSet<_> = instances.iter().map(|instance| instance.worker).collect();
        self.refused.retain(|worker, _| named.contains(worker));
        instances.retain(|instance| self.is_in_place(instance));
        self.view.present(self.start.elapsed(), instances);
    }

    /// Whether a record's address is for its endpoint and worker; warns of each that is not.
    fn is_in_place(&mut self, instance: &Instance) -> bool {
        let (worker, address) = (instance.worker, &instance.address);
        if record::names_its_instance(instance) {
            self.refused.remove(&worker);
            return true;
        }
        if self.refused.get(&worker) != Some(address) {
            warn!(endpoint = %self.endpoint, worker = worker.0, address,
                "record refused: its address is another instance's");
            self.refused.insert(worker, address.clone());
        }
        false
    }

    fn take_list(&mut self, list: Result<Vec<Instance>, PlaneError>) {
        let now = self.start.elapsed();
        match list {
            Ok(instances) => self.present(instances),
            Err(error) => {
                let error = ErrorChain(&error);
                warn!(endpoint = %self.endpoint, %error, "workers cannot be listed");
                self.view.list_failed(now);
            }
        }
    }

    fn tell_if_full(&mut self) {
        let is_full = self.view.is_full();
        if is_full && !self.was_full {
            let followed = self.view.members();
            warn!(endpoint = %self.endpoint, followed, "more workers than are followed");
        }
        self.was_full = is_full;
    }
}

/// Waits for what may not be there.
async fn wait_for<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => future::pending().await,
    }
}

impl Record for Instance {
    fn worker(&self) -> WorkerId {
        self.worker
    }

    fn address(&self) -> &str {
        &self.address
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
