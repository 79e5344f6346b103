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
            Input::Expired(worker) if self.bug == Bug::TrustsDiscovery => view.removed(worker),
            Input::Removed(worker) if self.bug == Bug::IgnoresGoodbyes => view.expired(now, worker),
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
            Input::Removed(worker) => view.removed(worker),
            Input::Expired(worker) => view.expired(now, worker),
            Input::Peer(worker, peer) => view.peer(worker, peer),
            Input::Wait(_) if self.bug == Bug::NeverAsksAgain => {}
            Input::Wait(_) => view.handle_timeout(now),
            Input::ListFailed => view.list_failed(now),
        }
    }

    fn output(&mut self) -> Option<Output<Claim>> {
        loop {
            match self.view.next_output() {
                Some(Output::Release(_)) if self.bug == Bug::KeepsWatching => {}
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
                self.truth.remove(worker);
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
                Some((_, state)) => *state = Some(*peer),
                None => return Ok(()),
            },
            Input::Wait(time) => self.now += *time,
            Input::ListFailed => match self.is_asked {
                true => self.is_asked = false,
                false => return Ok(()),
            },
        }
        let hinted = match &input {
            Input::Expired(worker) => self.up.get_key_value(worker),
            _ => None,
        };
        let hinted = hinted.map(|(worker, _)| *worker);
        self.subject.take(self.now, input);
        while let Some(output) = self.subject.output() {
            self.heard(output)?;
        }
        let stays = hinted.is_none_or(|worker| self.up.contains_key(&worker));
        rule!(stays, "a lost record took out who can be reached");
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
            Output::Watch { worker, address } => {
                let watch = self.watched.insert(worker, (address, None));
                rule!(watch.is_none(), "watched twice");
            }
            Output::Release(worker) => {
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
            if let Some(known) = &truth.claim {
                rule!(claim == known, "another record than the last");
            }
        }
        for (worker, truth) in &self.truth {
            let Some((address, state)) = self.watched.get(worker) else {
                let has_room = self.watched.len() < CONFIG.max_members;
                let is_seen = truth.claim.is_none() || !has_room || view.is_full();
                rule!(is_seen, "listed, with room, not looked after");
                continue;
            };
            if let Some(claim) = &truth.claim {
                rule!(claim.address == *address, "watched elsewhere");
            }
            let is_up = self.up.contains_key(worker);
            rule!(
                (*state == Some(Peer::Reachable)) == is_up,
                "up is what is reachable"
            );
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
        1 => Just(Peer::Draining),
        1 => Just(Peer::Lost),
    ];
    let input = prop_oneof![
        1 => all.prop_map(Input::Present),
        4 => one().prop_map(Input::Put),
        1 => worker().prop_map(Input::Removed),
        2 => worker().prop_map(Input::Expired),
        6 => (worker(), peer).prop_map(|(worker, peer)| Input::Peer(worker, peer)),
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
