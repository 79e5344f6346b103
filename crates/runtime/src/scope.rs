use std::fmt;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::cause::CancelCause;

/// A node in a tree of cancellation with two levels.
///
/// - *Stop*: finish soon with what there is. An engine ends the sequence and reports its usage, a
///   stream is closed properly.
/// - *Kill*: drop everything now. Whoever holds resources frees them; nobody waits for an answer.
///   A kill is also a stop.
///
/// What happens to a scope happens to its children and never the other way round. The first cause
/// stays. Cloning gives another handle on the same scope. A scope owns no task and no timer: a
/// deadline costs a timer only while someone waits, and is noticed by whoever waits or asks next.
#[derive(Clone)]
pub struct CancelScope {
    node: Arc<Node>,
}

struct Node {
    parent: Option<Arc<Node>>,
    stop: Level,
    kill: Level,
    /// The earliest of this scope's and its ancestors' deadlines.
    deadline: Option<Instant>,
    /// Held while a level of any scope in the tree changes, so that the cause of a change and the
    /// change itself are one step.
    changing: Arc<Mutex<()>>,
}

struct Level {
    token: CancellationToken,
    /// Set only where the change began; descendants find it by going up.
    cause: OnceLock<CancelCause>,
}

impl CancelScope {
    /// A scope without a parent.
    pub fn new() -> Self {
        Self {
            node: Arc::new(Node {
                parent: None,
                stop: Level::new(CancellationToken::new()),
                kill: Level::new(CancellationToken::new()),
                deadline: None,
                changing: Arc::default(),
            }),
        }
    }

    /// A scope that is stopped and killed with this one.
    pub fn child(&self) -> Self {
        self.child_until(self.node.deadline)
    }

    /// A child that is killed with [`CancelCause::Deadline`] at `deadline`, or at this scope's own
    /// if that is earlier.
    pub fn child_with_deadline(&self, deadline: Instant) -> Self {
        let earliest = self.node.deadline.map_or(deadline, |own| own.min(deadline));
        self.child_until(Some(earliest))
    }

    fn child_until(&self, deadline: Option<Instant>) -> Self {
        Self {
            node: Arc::new(Node {
                parent: Some(self.node.clone()),
                stop: Level::new(self.node.stop.token.child_token()),
                kill: Level::new(self.node.kill.token.child_token()),
                deadline,
                changing: self.node.changing.clone(),
            }),
        }
    }

    /// Whether a child of it is left, or another handle on it.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.node) > 1
    }

    /// When this scope is killed at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.node.deadline
    }

    /// Asks everything in this scope to finish soon; tells whether this was the first to ask.
    pub fn stop(&self, cause: CancelCause) -> bool {
        let _changing = self.node.changing.lock();
        self.node.stop.cancel(cause)
    }

    /// Drops everything in this scope; tells whether this was the first to do so.
    pub fn kill(&self, cause: CancelCause) -> bool {
        self.node.kill(cause)
    }

    /// Kills this scope when the guard is dropped, unless it was disarmed.
    ///
    /// For what nobody needs once its reader is gone: put the guard into the response stream.
    pub fn kill_on_drop(&self, cause: CancelCause) -> KillGuard {
        KillGuard {
            armed: Some((self.clone(), cause)),
        }
    }

    /// Whether it was stopped or killed, or its deadline is over.
    pub fn is_stopped(&self) -> bool {
        self.notice_deadline();
        self.node.stop.token.is_cancelled()
    }

    /// Whether it was killed, or its deadline is over.
    pub fn is_killed(&self) -> bool {
        self.notice_deadline();
        self.node.kill.token.is_cancelled()
    }

    /// Why it was killed or, if it was not, stopped; `None` while it goes on.
    pub fn cause(&self) -> Option<CancelCause> {
        self.notice_deadline();
        self.kill_cause().or_else(|| self.stop_cause())
    }

    /// Waits until it is stopped, killed or past its deadline; gives the first cause.
    ///
    /// Cancel-safe: nothing is lost when the future is dropped, and a later call sees the same.
    pub async fn stopped(&self) -> CancelCause {
        self.cancelled(&self.node.stop).await;
        self.stop_cause()
            .expect("a cause is set before its level changes")
    }

    /// Waits until it is killed or past its deadline; gives the cause.
    ///
    /// Cancel-safe: nothing is lost when the future is dropped, and a later call sees the same.
    pub async fn killed(&self) -> CancelCause {
        self.cancelled(&self.node.kill).await;
        self.kill_cause()
            .expect("a cause is set before its level changes")
    }

    /// Runs `future` until it ends or this scope is killed, whichever comes first; a killed scope
    /// does not begin it. What has to outlive a kill must not be in `future`: it is dropped.
    ///
    /// # Errors
    ///
    /// The cause, if the scope was killed first.
    pub async fn run<F: Future>(&self, future: F) -> Result<F::Output, CancelCause> {
        tokio::select! {
            biased;
            cause = self.killed() => Err(cause),
            output = future => Ok(output),
        }
    }

    async fn cancelled(&self, level: &Level) {
        let cancelled = level.token.cancelled();
        match self.node.deadline {
            None => cancelled.await,
            Some(deadline) => {
                if timeout_at(deadline, cancelled).await.is_err() {
                    self.notice_deadline();
                }
            }
        }
    }

    /// Kills the outermost scope whose deadline is over: the one that it was set for.
    fn notice_deadline(&self) {
        if self.node.deadline.is_none() || self.node.kill.token.is_cancelled() {
            return;
        }
        let now = Instant::now();
        if let Some(expired) = self
            .node
            .path()
            .take_while(|node| node.deadline.is_some_and(|deadline| deadline <= now))
            .last()
        {
            expired.kill(CancelCause::Deadline);
        }
    }

    fn stop_cause(&self) -> Option<CancelCause> {
        self.node.cause(|node| &node.stop)
    }

    fn kill_cause(&self) -> Option<CancelCause> {
        self.node.cause(|node| &node.kill)
    }
}

impl Default for CancelScope {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for CancelScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelScope")
            .field("stopped", &self.stop_cause())
            .field("killed", &self.kill_cause())
            .finish_non_exhaustive()
    }
}

impl Node {
    fn kill(&self, cause: CancelCause) -> bool {
        let _changing = self.changing.lock();
        let first = self.kill.cancel(cause);
        if first {
            self.stop.cancel(cause);
        }
        first
    }

    /// This node and its ancestors, from the innermost out.
    fn path(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |node| node.parent.as_deref())
    }

    /// The nearest cause is the first in time: a scope keeps a cause of its own only if no
    /// ancestor's change had reached it.
    fn cause(&self, level: impl Fn(&Self) -> &Level) -> Option<CancelCause> {
        if !level(self).token.is_cancelled() {
            return None;
        }
        self.path()
            .find_map(|node| level(node).cause.get().copied())
    }
}

impl Level {
    fn new(token: CancellationToken) -> Self {
        Self {
            token,
            cause: OnceLock::new(),
        }
    }

    fn cancel(&self, cause: CancelCause) -> bool {
        let first = !self.token.is_cancelled() && self.cause.set(cause).is_ok();
        if first {
            self.token.cancel();
        }
        first
    }
}

/// Kills a scope when it is dropped; see [`CancelScope::kill_on_drop`].
#[derive(Debug)]
#[must_use = "dropping it kills the scope"]
pub struct KillGuard {
    armed: Option<(CancelScope, CancelCause)>,
}

impl KillGuard {
    /// Drops the guard without killing anything: the scope's work is done.
    pub fn disarm(mut self) {
        self.armed = None;
    }
}

impl Drop for KillGuard {
    fn drop(&mut self) {
        if let Some((scope, cause)) = self.armed.take() {
            scope.kill(cause);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[tokio::test]
    async fn what_happens_to_a_scope_happens_to_its_children_only() {
        let root = CancelScope::new();
        let (left, right) = (root.child(), root.child());
        let below = left.child();
        assert!(left.stop(CancelCause::AnswerComplete));
        assert_eq!(below.stopped().await, CancelCause::AnswerComplete);
        assert!(!below.is_killed() && !right.is_stopped() && !root.is_stopped());

        assert!(root.kill(CancelCause::ClientDisconnected));
        assert_eq!(below.killed().await, CancelCause::ClientDisconnected);
        assert_eq!(
            below.stopped().await,
            CancelCause::AnswerComplete,
            "the first cause stays"
        );
        assert_eq!(below.cause(), Some(CancelCause::ClientDisconnected));
        assert_eq!(right.stopped().await, CancelCause::ClientDisconnected);
    }

    #[test]
    fn a_child_made_late_begins_as_its_parent_is() {
        let root = CancelScope::new();
        root.stop(CancelCause::Shutdown);
        let child = root.child();
        assert_eq!(child.cause(), Some(CancelCause::Shutdown));
        assert!(!child.stop(CancelCause::Deadline), "it is stopped already");
        assert_eq!(child.cause(), Some(CancelCause::Shutdown));
        assert!(!child.is_killed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_kills_what_it_was_set_for() {
        let root = CancelScope::new();
        let begun = Instant::now();
        let timed = root.child_with_deadline(begun + Duration::from_secs(5));
        let below = timed.child_with_deadline(begun + Duration::from_secs(60));
        assert_eq!(below.deadline(), timed.deadline());
        assert!(!below.is_stopped());

        assert_eq!(below.killed().await, CancelCause::Deadline);
        assert_eq!(begun.elapsed().as_secs(), 5);
        assert_eq!(timed.cause(), Some(CancelCause::Deadline));
        assert!(!root.is_stopped());
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_is_noticed_by_whoever_asks() {
        let timed = CancelScope::new().child_with_deadline(Instant::now());
        assert!(timed.child().is_killed());
        assert_eq!(timed.cause(), Some(CancelCause::Deadline));
        assert!(!timed.kill(CancelCause::ClientDisconnected));
    }

    #[tokio::test]
    async fn a_killed_scope_drops_what_runs_in_it() {
        let scope = CancelScope::new();
        assert_eq!(scope.run(async { 7 }).await, Ok(7));
        let held = Arc::new(());
        let inside = held.clone();
        let (cut, ()) = tokio::join!(
            scope.run(async move {
                let _inside = inside;
                pending::<()>().await;
            }),
            async {
                scope.stop(CancelCause::AnswerComplete);
                tokio::task::yield_now().await;
                assert_eq!(Arc::strong_count(&held), 2, "a stop drops nothing");
                scope.kill(CancelCause::ClientDisconnected);
            }
        );
        assert_eq!(cut, Err(CancelCause::ClientDisconnected));
        assert_eq!(Arc::strong_count(&held), 1);
        let begun = scope.run(async { panic!("a killed scope begins nothing") });
        assert!(begun.await.is_err());
    }

    #[test]
    fn a_guard_kills_unless_disarmed() {
        let scope = CancelScope::new();
        scope.kill_on_drop(CancelCause::ClientDisconnected).disarm();
        assert!(!scope.is_killed());
        drop(scope.kill_on_drop(CancelCause::ClientDisconnected));
        assert_eq!(scope.cause(), Some(CancelCause::ClientDisconnected));
    }

    /// What the documentation promises, said the simple way: each scope remembers, for both
    /// levels, the first cause that reached it.
    #[derive(Default)]
    struct Model {
        parents: Vec<Option<usize>>,
        causes: Vec<[Option<CancelCause>; 2]>,
    }

    impl Model {
        fn add(&mut self, parent: Option<usize>) {
            self.causes
                .push(parent.map_or([None; 2], |parent| self.causes[parent]));
            self.parents.push(parent);
        }

        fn set(&mut self, scope: usize, level: usize, cause: CancelCause) {
            self.causes[scope][level].get_or_insert(cause);
            for child in 0..self.parents.len() {
                if self.parents[child] == Some(scope) {
                    self.set(child, level, cause);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn causes_are_those_of_a_naive_model(
            steps in proptest::collection::vec((0..4_u8, any::<usize>()), 1..60),
        ) {
            const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
            let mut scopes = vec![CancelScope::new()];
            let mut model = Model::default();
            model.add(None);
            for (number, (action, pick)) in steps.into_iter().enumerate() {
                let at = pick % scopes.len();
                let cause = CancelCause::Other(NAMES[number % NAMES.len()]);
                match action {
                    0 | 1 => {
                        scopes.push(scopes[at].child());
                        model.add(Some(at));
                    }
                    2 => {
                        scopes[at].stop(cause);
                        model.set(at, 0, cause);
                    }
                    _ => {
                        scopes[at].kill(cause);
                        if model.causes[at][1].is_none() {
                            model.set(at, 0, cause);
                        }
                        model.set(at, 1, cause);
                    }
                }
                for (scope, [stop, kill]) in scopes.iter().zip(&model.causes) {
                    prop_assert_eq!(&scope.stop_cause(), stop);
                    prop_assert_eq!(&scope.kill_cause(), kill);
                    prop_assert_eq!(scope.cause(), kill.or(*stop));
                }
            }
        }
    }
}
