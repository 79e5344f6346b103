mod asking;
mod first_look;
mod newer_cards;
mod unreached;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use forebay_engine::Capabilities;
use forebay_engine::remote::{RemoteEngine, WorkerCard, WorkerRole, engine_endpoint};
use forebay_observability::{ErrorChain, Registry};
use forebay_router::RouterConfig;
use forebay_runtime::{
    Degradation, DownCause, EndpointId, Instance, MemberEvent, Planes, TaskHandle, TaskKind, Tasks,
    members,
};
use forebay_tokens::WorkerId;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesUnordered, SelectAll};
use futures::{FutureExt as _, StreamExt as _};
use tokio::time::sleep;
use tracing::{info, warn};

use first_look::{FirstLook, GIVEN_UP, list};
pub(super) use newer_cards::NewerCards;
use unreached::Unreached;

use super::expected::Expected;
use super::text::{Text, TextFailure, Texts};
use super::version::{State, Version, VersionKey};
use super::{ModelRegistry, SamplingDefaults, ServedModel};
use crate::config::{FrontendConfig, check_router};
use crate::pool::{KvFeeds, WorkerPool};
use crate::replica::{Owner, Replicas, SharedBooks};
use crate::{Error, Process};

/// Versions that are followed; workers of others are left out.
const MOST_VERSIONS: usize = 1024;

impl ModelRegistry {
    /// Keeps the registry to what the workers of a deployment serve, on `planes`: a model comes
    /// with its first worker, from which its tokenizer and template are fetched, and goes some time
    /// after its last ([`FrontendConfig::model_linger_seconds`]). Workers whose cards have equal
    /// digests make a version of their model. What cannot be used is logged once, and told in the
    /// process's health.
    ///
    /// A request for a model that is not there waits for it ([`FrontendConfig::worker_wait_seconds`])
    /// while its text is fetched, and whatever its name, until the workers that the deployment has
    /// at first are up, at most 10 seconds from when discovery told of them.
    ///
    /// With [`FrontendConfig::share_bookings`], frontends that follow one deployment find each other
    /// there, and each chooses workers by what all of them have sent.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSetting`], [`Error::Router`] or [`Error::Namespace`].
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn follow(
        &self,
        planes: &Planes,
        namespace: &str,
        config: &FrontendConfig,
        process: &Process,
    ) -> Result<TaskHandle, Error> {
        check_router(&config.router)?;
        let owner = Arc::new(match config.share_bookings {
            true => Owner::telling(),
            false => Owner::alone(),
        });
        let others = SharedBooks::default();
        if config.share_bookings {
            Replicas::start(planes, namespace, owner.clone(), others.clone(), process)?;
        }
        let follower = Follower {
            registry: self.clone(),
            owner,
            others,
            router: config.router.clone(),
            linger: config.limits()?.model_linger,
            endpoint: engine_endpoint(namespace)?,
            planes: planes.clone(),
            tasks: process.tasks.clone(),
            metrics: process.metrics.clone(),
            unusable: process.health.degradation("models"),
            versions: BTreeMap::new(),
            workers: HashMap::new(),
            texts: Texts::default(),
            feeds: KvFeeds::default(),
            cards: SelectAll::new(),
            first_look: FirstLook::Listing(HashSet::new()),
            unreached: Unreached::default(),
            work: FuturesUnordered::new(),
        };
        follower.tell();
        let (tasks, task) = (&process.tasks, follower.run());
        // Requests that go on through a shutdown may need workers that come meanwhile.
        Ok(tasks.spawn(TaskKind::Critical, "models", task))
    }
}

struct Follower {
    registry: ModelRegistry,
    /// Whose the bookings of all pools are.
    owner: Arc<Owner>,
    /// What other frontends have booked.
    others: SharedBooks,
    router: RouterConfig,
    linger: Duration,
    endpoint: EndpointId,
    planes: Planes,
    tasks: Tasks,
    metrics: Registry,
    unusable: Degradation,
    versions: BTreeMap<VersionKey, Version>,
    /// Every worker that is up and can be used.
    workers: HashMap<WorkerId, (Instance, VersionKey)>,
    texts: Texts,
    feeds: KvFeeds,
    /// Newer cards of workers that are up, as they come; and of some that were.
    cards: SelectAll<BoxStream<'static, (WorkerId, Arc<WorkerCard>)>>,
    first_look: FirstLook,
    unreached: Unreached,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
}

/// What was waited for.
enum Done {
    /// A worker was asked for a version's text.
    Asked(VersionKey, WorkerId, Result<Text, TextFailure>),
    /// It is time to ask again.
    AskAgain(VersionKey),
    /// Discovery has told who is there at the start.
    Listed(HashSet<WorkerId>),
    /// Those who were there at the start have had their time.
    LookedLongEnough,
    /// A version has been without workers since this arrival.
    Lingered(VersionKey, u64),
}

impl Follower {
    async fn run(mut self) {
        let mut members = members(&self.planes, self.endpoint.clone(), &self.metrics);
        let list = list(self.planes.clone(), self.endpoint.clone());
        self.work.push(Box::pin(list.map(Done::Listed)));
        loop {
            tokio::select! {
                Some(event) = members.next() => self.take(event),
                Some(done) = self.work.next() => self.done(done),
                Some((worker, card)) = self.cards.next() => self.card_changed(worker, &card),
                never = self.feeds.run() => match never {},
            }
        }
    }

    fn take(&mut self, event: MemberEvent) {
        match event {
            MemberEvent::Up(instance) | MemberEvent::Changed(instance) => {
                let worker = instance.worker;
                self.up(instance);
                self.first_look.looked_at(worker);
            }
            MemberEvent::Down(worker, cause) => {
                if matches!(cause, DownCause::Lost | DownCause::Paused) {
                    self.keep_card(worker);
                }
                self.down(worker);
                self.first_look.looked_at(worker);
            }
            MemberEvent::Unreached(instance, reason) => self.unreached.add(&instance, &reason),
            MemberEvent::UnreachedNoMore(worker) => self.unreached.remove(worker),
        }
        self.tell();
    }

    /// A worker takes requests, or says something else about itself.
    fn up(&mut self, instance: Instance) {
        let worker = instance.worker;
        if self.is_known(&instance) {
            return;
        }
        self.down(worker);
        let engine = match RemoteEngine::new(instance.clone(), &self.planes, &self.tasks) {
            Ok(engine) => Arc::new(engine),
            Err(error) => {
                let diagnostic = error.diagnostic.as_deref();
                warn!(worker = worker.0, %error, diagnostic, "worker with a broken card");
                return;
            }
        };
        let card = engine.card();
        if let Some(reason) = useless(&card) {
            info!(worker = worker.0, reason, "worker not used");
            return;
        }
        let key = VersionKey::of(&card);
        if !self.versions.contains_key(&key) && self.versions.len() == MOST_VERSIONS {
            warn!(worker = worker.0, version = %key, "worker not used: too many versions of models");
            return;
        }
        let version = self.versions.entry(key.clone());
        let version = version.or_insert_with(|| Version::new((*card).clone()));
        if let Some(card) = version.newer_cards.take(&instance)
            && let Err(error) = engine.take_card(card)
        {
            let diagnostic = error.diagnostic.as_deref();
            warn!(worker = worker.0, %error, diagnostic, "card ignored");
        }
        self.workers.insert(worker, (instance, key.clone()));
        let changes = engine.card_changes();
        (self.cards).push(changes.map(move |card| (worker, card)).boxed());
        version.workers.insert(worker, engine);
        version.arrivals += 1;
        match &version.state {
            State::Serving(_) => {
                self.admit(&key, worker);
                self.name(&key);
            }
            State::Starting(_) => self.ask(&key),
            State::Unusable(_) => {}
        }
    }

    /// Whether this is a worker that is up, whose card at most is another one: that it takes.
    fn is_known(&mut self, instance: &Instance) -> bool {
        let Some((known, key)) = self.workers.get_mut(&instance.worker) else {
            return false;
        };
        if known == instance {
            return true;
        }
        let engine = self.versions[key].workers.get(&instance.worker);
        let takes = |engine: &Arc<RemoteEngine>| engine.take_card(instance.card.clone()).is_ok();
        let is_same = known.address == instance.address && engine.is_some_and(takes);
        if is_same {
            *known = instance.clone();
        }
        is_same
    }

    /// A worker says something else about itself, to discovery or in its reports.
    fn card_changed(&mut self, worker: WorkerId, card: &Arc<WorkerCard>) {
        let Some((_, key)) = self.workers.get(&worker) else {
            return;
        };
        let key = key.clone();
        let version = self.version(&key);
        // It may have gone, and another be there, in between.
        let engine = version.workers.get(&worker);
        if engine.is_none_or(|engine| !Arc::ptr_eq(&engine.card(), card)) {
            return;
        }
        let (revision, weight) = (card.revision, card.weight);
        info!(worker = worker.0, version = %key, revision, weight, "card changed");
        let aliases = version.aliases();
        if let State::Serving(model) = &version.state {
            model.pool().set_weight(worker, weight);
            if model.aliases() != aliases {
                self.name(&key);
            }
        }
        self.tell();
    }

    /// Keeps what a worker said last until it is back, if discovery has not heard.
    fn keep_card(&mut self, worker: WorkerId) {
        let Some((record, key)) = self.workers.get(&worker) else {
            return;
        };
        if let Some(version) = self.versions.get_mut(key)
            && let Some(engine) = version.workers.get(&worker)
        {
            version.newer_cards.keep(record, &engine.card());
        }
    }

    /// A worker takes no requests any more; what runs there goes on.
    fn down(&mut self, worker: WorkerId) {
        let Some((_, key)) = self.workers.remove(&worker) else {
            return;
        };
        self.feeds.remove(worker);
        self.others.left(worker);
        let version = self.version(&key);
        version.workers.remove(&worker);
        if let State::Serving(model) = &version.state {
            model.pool().remove(worker);
            info!(worker = worker.0, version = %key, "worker left");
            match version.workers.is_empty() {
                true => self.linger(key),
                false => self.name(&key),
            }
        } else if version.workers.is_empty() {
            self.forget(&key);
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Asked(key, worker, outcome) => self.asked(&key, worker, outcome),
            Done::AskAgain(key) => self.ask_again(&key),
            Done::Listed(workers) => {
                self.first_look.listed(workers);
                let long_enough = async {
                    sleep(GIVEN_UP).await;
                    Done::LookedLongEnough
                };
                self.work.push(Box::pin(long_enough));
            }
            Done::LookedLongEnough => self.first_look = FirstLook::Over,
            Done::Lingered(key, arrivals) => {
                let version = self.versions.get(&key);
                if version.is_some_and(|version| version.arrivals == arrivals) {
                    info!(version = %key, "model not served any more");
                    self.forget(&key);
                }
            }
        }
        self.tell();
    }

    /// A version has all that it needs.
    fn serve(&mut self, key: &VersionKey, text: Text) {
        let card = self.version(key).card.clone();
        let served = served(&card, &text, &self.router, self.owner.clone());
        self.texts.keep(&card, &text);
        match served {
            Ok(model) => {
                info!(version = %key, digest = %key.digest, "model served");
                let version = self.version(key);
                version.state = State::Serving(Box::new(model));
                let workers: Vec<_> = version.workers.keys().copied().collect();
                for worker in workers {
                    self.admit(key, worker);
                }
                self.name(key);
                let versions = self.versions.iter();
                let versions = versions.filter(|(other, version)| {
                    other.name == key.name && matches!(version.state, State::Serving(_))
                });
                match versions.count() {
                    1 => {}
                    versions => info!(model = key.name, versions, "model has several versions"),
                }
            }
            Err(error) => self.refuse(key, ErrorChain(&error).to_string()),
        }
    }

    /// A version cannot be used.
    fn refuse(&mut self, key: &VersionKey, reason: String) {
        warn!(version = %key, reason, "model not served");
        self.version(key).state = State::Unusable(reason);
    }

    /// Adds a worker to the pool of a version that serves.
    fn admit(&mut self, key: &VersionKey, worker: WorkerId) {
        let Version { workers, state, .. } = self.version(key);
        let (State::Serving(model), Some(engine)) = (&*state, workers.get(&worker)) else {
            return;
        };
        let (pool, engine) = (model.pool().clone(), engine.clone());
        let weight = engine.card().weight;
        match pool.add_with_weight(worker, engine.clone(), weight) {
            Ok(()) => {
                info!(worker = worker.0, version = %key, "worker joined");
                self.others.joined(worker, &pool);
                self.feeds.add(worker, pool, &engine);
            }
            Err(error) => warn!(worker = worker.0, version = %key, %error, "worker not used"),
        }
    }

    /// Makes a version that serves known under all its names.
    fn name(&mut self, key: &VersionKey) {
        let version = self.version(key);
        let aliases = version.aliases();
        if let State::Serving(model) = &mut version.state {
            model.set_aliases(aliases);
            let model = (**model).clone();
            if let Err(error) = self.registry.insert(model) {
                self.refuse(key, ErrorChain(&error).to_string());
            }
        }
    }

    /// Keeps a version without workers known for a while.
    fn linger(&mut self, key: VersionKey) {
        let (linger, arrivals) = (self.linger, self.version(&key).arrivals);
        self.work.push(Box::pin(async move {
            sleep(linger).await;
            Done::Lingered(key, arrivals)
        }));
    }

    fn forget(&mut self, key: &VersionKey) {
        self.versions.remove(key);
        let digest = key.digest.to_string();
        self.registry.remove(&key.name, Some(&digest));
        let cards = self.versions.values().map(|version| &version.card);
        self.texts.retain(cards);
    }

    fn version(&mut self, key: &VersionKey) -> &mut Version {
        let version = self.versions.get_mut(key);
        version.expect("a version is there while it has workers, and while it is asked about")
    }

    /// Says which models may be there soon, which workers cannot be reached, and in the process's
    /// health what is not served though it has workers.
    fn tell(&self) {
        let starting = self.versions.values();
        let starting = starting.filter(|version| matches!(version.state, State::Starting(_)));
        self.registry.expect(Expected {
            any: self.first_look != FirstLook::Over,
            names: starting.flat_map(Version::names).collect(),
        });
        let versions = self.versions.iter();
        let problems = versions.filter_map(|(key, version)| {
            let problem = version.problem()?;
            Some(format!("{key}: {problem}"))
        });
        let unreached = self.unreached.sentences();
        let problems: Vec<_> = problems.chain(unreached.iter().cloned()).collect();
        self.registry.lacks(unreached);
        match problems.is_empty() {
            true => self.unusable.clear(),
            false => self.unusable.set(problems.join("; ")),
        }
    }
}

/// Why a worker is of no use here.
fn useless(card: &WorkerCard) -> Option<&'static str> {
    match card {
        card if card.role != WorkerRole::Aggregated => Some("it does a part of a request only"),
        card if !card.engine.capabilities.contains(Capabilities::GENERATE) => {
            Some("it does not generate")
        }
        card if card.model.is_empty() => Some("its model has no name"),
        _ => None,
    }
}

/// The model of a card, without workers.
fn served(
    card: &WorkerCard,
    text: &Text,
    router: &RouterConfig,
    owner: Arc<Owner>,
) -> Result<ServedModel, Error> {
    let pool = WorkerPool::owned(card.engine.clone(), router, owner)?;
    let model = ServedModel::pooled(&card.model, text.tokenizer.clone(), pool)
        .with_version(card.digest().to_string())
        .with_sampling_defaults(SamplingDefaults {
            temperature: card.sampling_defaults.temperature,
            top_p: card.sampling_defaults.top_p,
        })?;
    Ok(match &text.template {
        Some(template) => model.with_template(template.clone()),
        None => model,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
