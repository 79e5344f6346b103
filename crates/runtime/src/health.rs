use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::watch;

/// Whether a process is alive, and whether it is ready to serve: what `/live`, `/ready` and
/// `/health` answer. A cheap handle on one state.
///
/// It is ready while every named [`Condition`] holds and no shutdown has begun; with no condition
/// at all it is ready. It is alive until someone says that only a restart can help.
#[derive(Clone, Debug)]
pub struct Health {
    state: Arc<watch::Sender<HealthReport>>,
}

/// The state of a [`Health`] at one moment; serialises as the body of `/health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HealthReport {
    /// False: only a restart can help.
    pub live: bool,
    /// Whether requests should be sent here.
    pub ready: bool,
    /// Whether a shutdown has begun; from then on it is never ready again.
    pub draining: bool,
    /// Every condition, in the order of their creation.
    pub conditions: Vec<ConditionReport>,
    /// What is not as it should be without keeping the process from serving, in the order of
    /// their names; empty when all is well.
    pub degraded: Vec<DegradationReport>,
}

/// One condition of a [`HealthReport`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ConditionReport {
    /// The condition's name, for instance `model`.
    pub name: Cow<'static, str>,
    /// Whether it holds.
    pub ready: bool,
    /// Why it does not hold; empty while it does. Client-safe.
    pub reason: String,
}

/// One thing of a [`HealthReport`] that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DegradationReport {
    /// What it is, for instance `discovery`.
    pub name: &'static str,
    /// What is wrong with it. Client-safe.
    pub reason: String,
}

impl Health {
    /// Alive, and ready until a condition is added.
    pub fn new() -> Self {
        let report = HealthReport {
            live: true,
            ready: true,
            draining: false,
            conditions: Vec::new(),
            degraded: Vec::new(),
        };
        Self {
            state: Arc::new(watch::Sender::new(report)),
        }
    }

    /// Adds a condition that does not hold yet, for `reason`. It keeps its last state when the
    /// handle is dropped.
    pub fn condition(
        &self,
        name: impl Into<Cow<'static, str>>,
        reason: impl Into<String>,
    ) -> Condition {
        let name = name.into();
        let mut index = 0;
        self.change(|report| {
            index = report.conditions.len();
            report.conditions.push(ConditionReport {
                name,
                ready: false,
                reason: reason.into(),
            });
        });
        Condition {
            health: self.clone(),
            index,
        }
    }

    /// A thing that can be amiss while the process serves on; it is well until it says otherwise.
    /// Each name has one owner.
    pub fn degradation(&self, name: &'static str) -> Degradation {
        Degradation {
            health: self.clone(),
            name,
        }
    }

    /// The present state.
    pub fn report(&self) -> HealthReport {
        self.state.borrow().clone()
    }

    /// Whether requests should be sent here.
    pub fn is_ready(&self) -> bool {
        self.state.borrow().ready
    }

    /// False once [`Health::fail`] was called.
    pub fn is_live(&self) -> bool {
        self.state.borrow().live
    }

    /// Waits until it is ready; forever, if a shutdown has begun. Cancel-safe.
    pub async fn ready(&self) {
        self.state
            .subscribe()
            .wait_for(|report| report.ready)
            .await
            .expect("this handle keeps the sender alive");
    }

    /// Waits until the [degradation](Self::degradation) of this name is amiss; gives the reason.
    /// Cancel-safe.
    pub async fn amiss(&self, name: &str) -> String {
        let mut state = self.state.subscribe();
        let reason = |report: &HealthReport| {
            let degraded = report
                .degraded
                .iter()
                .find(|degraded| degraded.name == name);
            degraded.map(|degraded| degraded.reason.clone())
        };
        let report = state.wait_for(|report| reason(report).is_some()).await;
        let report = report.expect("this handle keeps the sender alive");
        reason(&report).expect("it was waited for")
    }

    /// Says that a shutdown has begun: not ready, for good.
    pub fn drain(&self) {
        self.change(|report| report.draining = true);
    }

    /// Says that only a restart can help: not alive and not ready, for good.
    pub fn fail(&self) {
        self.change(|report| report.live = false);
    }

    fn change(&self, change: impl FnOnce(&mut HealthReport)) {
        self.state.send_modify(|report| {
            change(report);
            report.ready = report.live
                && !report.draining
                && report.conditions.iter().all(|condition| condition.ready);
        });
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

/// One thing that must hold for a process to be ready; made by [`Health::condition`].
#[derive(Debug)]
pub struct Condition {
    health: Health,
    index: usize,
}

impl Condition {
    /// It holds.
    pub fn set_ready(&self) {
        self.set(true, String::new());
    }

    /// It does not hold (any more), for a client-safe `reason`.
    pub fn set_not_ready(&self, reason: impl Into<String>) {
        self.set(false, reason.into());
    }

    fn set(&self, ready: bool, reason: String) {
        self.health.change(|report| {
            let condition = &mut report.conditions[self.index];
            condition.ready = ready;
            condition.reason = reason;
        });
    }
}

/// One thing that can be amiss while a process serves on, such as a service that is away and that
/// it can do without for a while; made by [`Health::degradation`]. Well again when it is dropped.
#[derive(Debug)]
pub struct Degradation {
    health: Health,
    name: &'static str,
}

impl Degradation {
    /// It is amiss, for a client-safe `reason`.
    pub fn set(&self, reason: impl Into<String>) {
        let reason = reason.into();
        self.health.change(|report| {
            let degraded = &mut report.degraded;
            match degraded.binary_search_by_key(&self.name, |known| known.name) {
                Ok(index) => degraded[index].reason = reason,
                Err(index) => {
                    let name = self.name;
                    degraded.insert(index, DegradationReport { name, reason });
                }
            }
        });
    }

    /// It is well.
    pub fn clear(&self) {
        self.health
            .change(|report| report.degraded.retain(|known| known.name != self.name));
    }
}

impl Drop for Degradation {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_ready_while_all_conditions_hold() {
        let health = Health::new();
        assert!(health.is_ready());
        let model = health.condition("model", "loading");
        let engine = health.condition("engine", "starting");
        assert!(!health.is_ready());
        model.set_ready();
        assert!(!health.is_ready());
        let waiting = health.clone();
        tokio::join!(waiting.ready(), async { engine.set_ready() });

        engine.set_not_ready("out of memory");
        let report = health.report();
        assert!(report.live && !report.ready && !report.draining);
        assert_eq!(report.conditions[0].reason, "");
        assert_eq!(report.conditions[1].name, "engine");
        assert_eq!(report.conditions[1].reason, "out of memory");
    }

    #[tokio::test]
    async fn what_becomes_amiss_is_waited_for() {
        let health = Health::new();
        let (events, models) = (health.degradation("events"), health.degradation("models"));
        events.set("away");
        let (reason, ()) = tokio::join!(health.amiss("models"), async { models.set("broken") });
        assert_eq!(reason, "broken");
    }

    #[test]
    fn what_is_amiss_is_told_and_does_not_gate() {
        let health = Health::new();
        let events = health.degradation("events");
        let discovery = health.degradation("discovery");
        assert!(health.report().degraded.is_empty());
        events.set("away");
        discovery.set("no leader");
        discovery.set("away");
        let report = health.report();
        assert!(report.ready);
        let degraded = |name, reason: &str| DegradationReport {
            name,
            reason: reason.to_owned(),
        };
        let both = [degraded("discovery", "away"), degraded("events", "away")];
        assert_eq!(report.degraded, both);
        discovery.clear();
        drop(events);
        assert!(health.report().degraded.is_empty());
    }

    #[test]
    fn a_shutdown_and_a_failure_are_for_good() {
        let health = Health::new();
        health.drain();
        health.condition("late", "").set_ready();
        assert!(health.is_live() && !health.is_ready());

        let health = Health::new();
        health.fail();
        assert!(!health.is_live() && !health.is_ready());
    }
}
