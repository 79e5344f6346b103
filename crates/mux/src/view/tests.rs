//! The view under random histories, against rules that are checked from the outside; and views
//! with planted bugs, which the same rules have to catch.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use forebay_tokens::WorkerId;
use proptest::prelude::*;
use proptest::test_runner::{Config as RunnerConfig, RngSeed, TestRunner};

use super::{Config, DownCause, Output, Peer, Record, View};

const CONFIG: Config = Config {
    max_members: 3,
    unlisted: Duration::from_secs(10),
    relist: Duration::from_secs(1),
};

#[derive(Clone, Debug, PartialEq)]
struct Claim {
    worker: WorkerId,
    address: String,
    card: u8,
}

impl Record for Claim {
    fn worker(&self) -> WorkerId {
        self.worker
    }

    fn address(&self) -> &str {
        &self.address
    }
}

fn claim(worker: u64, address: u8, card: u8) -> Claim {
    Claim {
        worker: WorkerId(worker),
        address: format!("host:{address}"),
        card,
    }
}

/// What can happen to a view.
#[derive(Clone, Debug)]
enum Input {
    Present(Vec<Claim>),
    Put(Claim),
    Removed(WorkerId),
    Expired(WorkerId),
    Peer(WorkerId, Peer),
    /// What a peer answers to the question that is open, if one is.
    Answer(WorkerId, bool),
    Wait(Duration),
    ListFailed,
}

/// What is wrong with a view.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bug {
    None,
    /// A record that is gone takes its worker out.
    TrustsDiscovery,
    /// A worker with a record stays in though it is silent.
    IgnoresSilence,
    /// A draining worker gets new requests.
    IgnoresDraining,
    /// A goodbye counts as little as a lost record.
    IgnoresGoodbyes,
    /// Who moved is looked after at the old address.
    StaysAtTheOldAddress,
    /// Who is gone is looked after for ever.
    KeepsWatching,
    /// Who has no record stays for ever.
    NeverAsksAgain,
    /// An outage ends the stay of who has no record.
    TakesAnOutageForAnAnswer,
    /// A card is what it was at first.
    KeepsTheOldCard,
    /// Any record is believed.
    BelievesAnyone,
    /// Who is up is taken over by who names another address.
    LetsBeTakenOver,
    /// Who was never confirmed outlives its record.
    KeepsWhoWasNeverConfirmed,
}

/// The view with what is wrong with it.
struct Subject {
    view: View<Claim>,
    bug: Bug,
}

impl Subject {
    fn take(&mut self, now: Duration, input: Input) {
        let view = &mut self.view;
        match input {
            Input::Expired(worker) if self.bug == Bug::TrustsDiscovery => view.removed(now, worker),
            Input::Removed(worker) if self.bug == Bug::IgnoresGoodbyes => view.expired(now, worker),
            Input::Put(claim) if self.bug == Bug::LetsBeTakenOver => {
                view.expired(now, claim.worker);
                view.peer(claim.worker, Peer::Lost);
                view.put(claim);
            }
            Input::Peer(_, Peer::Lost) if self.bug == Bug::IgnoresSilence => {}
            Input::Peer(_, Peer::Draining) if self.bug == Bug::IgnoresDraining => {}
            Input::ListFailed if self.bug == Bug::TakesAnOutageForAnAnswer => {
                view.present(now, vec![]);
            }
            Input::Put(mut claim) if self.bug == Bug::StaysAtTheOldAddress => {
                claim.address = "host:0".to_owned();
                view.put(claim);
            }
            Input::Put(mut claim) if self.bug == Bug::KeepsTheOldCard => {
                claim.card = 0;
                view.put(claim);
            }
            Input::Present(claims) => view.present(now, claims),
            Input::Put(claim) => view.put(claim),
            Input::Removed(worker) => view.removed(now, worker),
            Input::Expired(worker) => view.expired(now, worker),
            Input::Peer(worker, peer) => view.peer(worker, peer),
            // It is told to the view in `World::step`, which knows the question.
            Input::Answer(..) => {}
            Input::Wait(_) if self.bug == Bug::NeverAsksAgain => {}
            Input::Wait(_) => view.handle_timeout(now),
            Input::ListFailed => view.list_failed(now),
        }
    }

    fn output(&mut self) -> Option<Output<Claim>> {
        loop {
            match self.view.next_output() {
                Some(Output::Release(_)) if self.bug == Bug::KeepsWatching => {}
                Some(Output::Confirm(claim)) if self.bug == Bug::BelievesAnyone => {
                    self.view.confirmed(&claim);
                }
                output => return output,
            }
        }
    }
}

/// What is true of one worker, gathered from the inputs alone.
#[derive(Clone, Debug, Default)]
struct Truth {
    claim: Option<Claim>,
    /// Since when it has none, if it went without a goodbye.
    unlisted: Option<Duration>,
}

/// A world around a view: it keeps what the view was told and what it said.
struct World {
    subject: Subject,
    now: Duration,
    truth: BTreeMap<WorkerId, Truth>,
    watched: BTreeMap<WorkerId, (String, Option<Peer>)>,
    /// What the reachable peers were asked last, and what they said.
    asked: BTreeMap<WorkerId, (Claim, Option<bool>)>,
    /// What the reachable peers confirmed last.
    confirmed: BTreeMap<WorkerId, Claim>,
    up: BTreeMap<WorkerId, Claim>,
    is_asked: bool,
    /// When it was asked for a list and answered, last.
    answered: Option<Duration>,
}

macro_rules! rule {
    ($holds:expr, $($why:tt)*) => {
        if !$holds {
            return Err(format!($($why)*));
        }
    };
}

impl World {
    fn new(bug: Bug) -> Self {
        Self {
            subject: Subject {
                view: View::new(CONFIG),
                bug,
            },
            now: Duration::ZERO,
            truth: BTreeMap::new(),
            watched: BTreeMap::new(),
            asked: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            up: BTreeMap::new(),
            is_asked: false,
            answered: None,
        }
    }

    fn step(&mut self, input: Input) -> Result<(), String> {
        match &input {
            Input::Present(claims) => {
                for (worker, truth) in &mut self.truth {
                    let is_there = claims.iter().any(|claim| claim.worker == *worker);
                    if !is_there && truth.claim.take().is_some() {
                        truth.unlisted = Some(self.now);
                    }
                }
                claims.iter().for_each(|claim| self.is_there(claim));
                self.is_asked = false;
                self.answered = Some(self.now);
            }
            Input::Put(claim) => self.is_there(claim),
            Input::Removed(worker) => {
                let up = self.up.get(worker);
                let is_elsewhere = |claim: &Claim| up.is_some_and(|up| up.address != claim.address);
                match self.truth.get_mut(worker) {
                    Some(truth) if truth.claim.as_ref().is_some_and(is_elsewhere) => {
                        truth.claim = None;
                        truth.unlisted = Some(self.now);
                    }
                    _ => {
                        self.truth.remove(worker);
                    }
                }
            }
            Input::Expired(worker) => {
                if let Some(truth) = self.truth.get_mut(worker)
                    && truth.claim.take().is_some()
                {
                    truth.unlisted = Some(self.now);
                }
            }
            // A connection that is not looked after tells nothing.
            Input::Peer(worker, peer) => match self.watched.get_mut(worker) {
                Some((_, state)) => {
                    *state = Some(*peer);
                    if *peer != Peer::Reachable {
                        self.asked.remove(worker);
                        self.confirmed.remove(worker);
                    }
                }
                None => return Ok(()),
            },
            Input::Answer(worker, is_own) => match self.asked.get_mut(worker) {
                Some((claim, answer @ None)) => {
                    *answer = Some(*is_own);
                    if *is_own {
                        self.confirmed.insert(*worker, claim.clone());
                        self.subject.view.confirmed(claim);
                    }
                }
                _ => return Ok(()),
            },
            Input::Wait(time) => self.now += *time,
            Input::ListFailed => match self.is_asked {
                true => self.is_asked = false,
                false => return Ok(()),
            },
        }
        let hinted = match &input {
            Input::Expired(worker) | Input::Put(Claim { worker, .. }) => {
                self.up.get_key_value(worker)
            }
            _ => None,
        };
        let hinted = hinted.map(|(worker, _)| *worker);
        let is_kept = matches!(&input, Input::Expired(worker) if !self.up.contains_key(worker));
        if !(is_kept && self.subject.bug == Bug::KeepsWhoWasNeverConfirmed) {
            self.subject.take(self.now, input);
        }
        while let Some(output) = self.subject.output() {
            self.heard(output)?;
        }
        let stays = hinted.is_none_or(|worker| self.up.contains_key(&worker));
        rule!(stays, "a record took out who can be reached");
        self.check()
    }

    fn is_there(&mut self, claim: &Claim) {
        let truth = Truth {
            claim: Some(claim.clone()),
            unlisted: None,
        };
        self.truth.insert(claim.worker, truth);
    }

    fn heard(&mut self, output: Output<Claim>) -> Result<(), String> {
        match output {
            Output::Up(claim) => {
                rule!(self.up.insert(claim.worker, claim).is_none(), "up twice");
            }
            Output::Changed(claim) => {
                rule!(
                    self.up.insert(claim.worker, claim).is_some(),
                    "changed, not up"
                );
            }
            Output::Down(worker, cause) => {
                rule!(self.up.remove(&worker).is_some(), "down, not up");
                if cause == DownCause::Unlisted {
                    let since = self.truth.get(&worker).and_then(|truth| truth.unlisted);
                    let waited = since.map(|since| self.now - since);
                    let is_over = waited.is_some_and(|waited| waited >= CONFIG.unlisted);
                    rule!(is_over, "given up early");
                    rule!(self.answered == Some(self.now), "given up unasked");
                }
            }
            Output::Watch(claim) => {
                let watch = self.watched.insert(claim.worker, (claim.address, None));
                rule!(watch.is_none(), "watched twice");
            }
            Output::Confirm(claim) => {
                let watch = self.watched.get(&claim.worker);
                let is_reachable = watch.is_some_and(|(address, state)| {
                    *address == claim.address && *state == Some(Peer::Reachable)
                });
                rule!(is_reachable, "asked who cannot answer");
                self.asked.insert(claim.worker, (claim, None));
            }
            Output::Release(worker) => {
                self.asked.remove(&worker);
                self.confirmed.remove(&worker);
                rule!(self.watched.remove(&worker).is_some(), "released twice");
            }
            Output::List => {
                rule!(!self.is_asked, "asked twice");
                self.is_asked = true;
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        let view = &self.subject.view;
        rule!(self.watched.len() <= CONFIG.max_members, "too many");
        rule!(self.watched.len() == view.members(), "watches and members");
        rule!(self.up.len() == view.up(), "up and counted");
        for (worker, claim) in &self.up {
            let watch = self.watched.get(worker);
            let is_reachable = watch.is_some_and(|(_, state)| *state == Some(Peer::Reachable));
            rule!(is_reachable, "up, not reachable");
            let Some(truth) = self.truth.get(worker) else {
                return Err("up after a goodbye".to_owned());
            };
            let is_asked = |known: &Claim| {
                let asked = self.asked.get(worker);
                known.address != claim.address || asked.is_some_and(|(asked, _)| asked == known)
            };
            rule!(
                truth.claim.as_ref().is_none_or(is_asked),
                "nobody asked for the last record"
            );
        }
        rule!(self.up == self.confirmed, "up is what is confirmed");
        for (worker, truth) in &self.truth {
            let Some((address, state)) = self.watched.get(worker) else {
                let has_room = self.watched.len() < CONFIG.max_members;
                let is_seen = truth.claim.is_none() || !has_room || view.is_full();
                rule!(is_seen, "listed, with room, not looked after");
                continue;
            };
            let is_up = self.up.contains_key(worker);
            match &truth.claim {
                Some(claim) => {
                    rule!(claim.address == *address || is_up, "watched elsewhere");
                    let is_asked = self.asked.contains_key(worker);
                    let is_reachable = *state == Some(Peer::Reachable);
                    rule!(is_asked == is_reachable, "asked is who is reachable");
                }
                None => rule!(is_up, "kept without a record, not confirmed"),
            }
        }
        let is_known = |worker: &WorkerId| self.truth.contains_key(worker);
        rule!(
            self.watched.keys().all(is_known),
            "a goodbye ends the watch"
        );
        // Who has no record for too long, and who found no room, is asked for.
        let overdue = |worker: &&WorkerId| {
            let since = self.truth.get(worker).and_then(|truth| truth.unlisted);
            since.is_some_and(|since| self.now >= since + CONFIG.unlisted)
        };
        if self.watched.keys().filter(overdue).count() > 0 && !self.is_asked {
            let due = view.next_timeout();
            let is_soon = due.is_some_and(|due| due <= self.now + CONFIG.relist);
            rule!(is_soon, "nobody will ask");
        }
        Ok(())
    }

    /// Lets a long time pass in which discovery answers and the peers that are reachable stay so:
    /// nobody without a record may be left.
    fn settle(&mut self) -> Result<(), String> {
        let claims = |world: &Self| -> Vec<Claim> {
            let claims = world.truth.values().filter_map(|truth| truth.claim.clone());
            claims.collect()
        };
        for _ in 0..3 {
            self.step(Input::Wait(CONFIG.unlisted))?;
            if self.is_asked {
                let answer = Input::Present(claims(self));
                self.step(answer)?;
            }
        }
        let listed: BTreeSet<_> = claims(self).iter().map(|claim| claim.worker).collect();
        let watched: BTreeSet<_> = self.watched.keys().copied().collect();
        rule!(watched.is_subset(&listed), "kept for ever");
        let is_all = watched.len() == listed.len().min(CONFIG.max_members);
        rule!(is_all, "left out though there is room");
        Ok(())
    }
}

fn inputs() -> impl Strategy<Value = Vec<Input>> {
    let worker = || (0_u64..5).prop_map(WorkerId);
    let one = || (0_u64..5, 0_u8..2, 0_u8..3).prop_map(|(w, a, c)| claim(w, a, c));
    let all = proptest::collection::btree_map(0_u64..5, (0_u8..2, 0_u8..3), 0..5);
    let all = all.prop_map(|all| all.into_iter().map(|(w, (a, c))| claim(w, a, c)).collect());
    let peer = prop_oneof![
        4 => Just(Peer::Reachable),
        1 => Just(Peer::Paused),
        1 => Just(Peer::Draining),
        1 => Just(Peer::Lost),
    ];
    let input = prop_oneof![
        1 => all.prop_map(Input::Present),
        4 => one().prop_map(Input::Put),
        1 => worker().prop_map(Input::Removed),
        2 => worker().prop_map(Input::Expired),
        6 => (worker(), peer).prop_map(|(worker, peer)| Input::Peer(worker, peer)),
        6 => (worker(), proptest::bool::weighted(0.7))
            .prop_map(|(worker, is_own)| Input::Answer(worker, is_own)),
        2 => (0_u64..12).prop_map(|seconds| Input::Wait(Duration::from_secs(seconds))),
        1 => Just(Input::ListFailed),
    ];
    proptest::collection::vec(input, 0..60)
}

fn holds(bug: Bug, inputs: Vec<Input>) -> Result<(), String> {
    let mut world = World::new(bug);
    for input in inputs {
        world.step(input)?;
    }
    world.settle()
}

proptest! {
    #[test]
    fn the_rules_hold_in_any_history(inputs in inputs()) {
        holds(Bug::None, inputs).map_err(TestCaseError::fail)?;
    }
}

#[test]
fn planted_bugs_are_caught() {
    for bug in [
        Bug::TrustsDiscovery,
        Bug::IgnoresSilence,
        Bug::IgnoresDraining,
        Bug::IgnoresGoodbyes,
        Bug::StaysAtTheOldAddress,
        Bug::KeepsWatching,
        Bug::NeverAsksAgain,
        Bug::TakesAnOutageForAnAnswer,
        Bug::KeepsTheOldCard,
        Bug::BelievesAnyone,
        Bug::LetsBeTakenOver,
        Bug::KeepsWhoWasNeverConfirmed,
    ] {
        let config = RunnerConfig {
            cases: 2000,
            rng_seed: RngSeed::Fixed(7),
            max_shrink_iters: 0,
            failure_persistence: None,
            ..RunnerConfig::default()
        };
        let run = TestRunner::new(config).run(&inputs(), |inputs| {
            holds(bug, inputs).map_err(TestCaseError::fail)
        });
        assert!(run.is_err(), "{bug:?} was not caught");
    }
}
