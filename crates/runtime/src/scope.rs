use std::fmt;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::cause::CancelCause;

/// A node in a tree of cancellation. A kill says: drop everything now. Whoever holds resources frees
/// them, and nobody waits for an answer. Where a stream is to end well with what there is, that is
/// [`StreamRequest::stop`](crate::StreamRequest::stop).
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
    token: CancellationToken,
    /// Set only where the kill began; descendants find it by going up.
    cause: OnceLock<CancelCause>,
    /// The earliest of this scope's and its ancestors' deadlines.
    deadline: Option<Instant>,
    /// Held while any scope in the tree is killed, so that the cause and the kill are one step.
    changing: Arc<Mutex<()>>,
}

impl CancelScope {
    /// A scope without a parent.
    pub fn new() -> Self {
        Self {
            node: Arc::new(Node {
                parent: None,
                token: CancellationToken::new(),
                cause: OnceLock::new(),
                deadline: None,
                changing: Arc::default(),
            }),
        }
    }

    /// A scope that is killed with this one.
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
                token: self.node.token.child_token(),
                cause: OnceLock::new(),
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

    /// Whether it was killed, or its deadline is over.
    pub fn is_killed(&self) -> bool {
        self.notice_deadline();
        self.node.token.is_cancelled()
    }

    /// Why it was killed; `None` while it goes on.
    pub fn cause(&self) -> Option<CancelCause> {
        self.notice_deadline();
        self.node.cause()
    }

    /// Waits until it is killed or past its deadline; gives the cause.
    ///
    /// Cancel-safe: nothing is lost when the future is dropped, and a later call sees the same.
    pub async fn killed(&self) -> CancelCause {
        let killed = self.node.token.cancelled();
        match self.node.deadline {
            None => killed.await,
            Some(deadline) => {
                if timeout_at(deadline, killed).await.is_err() {
                    self.notice_deadline();
                }
            }
        }
        self.node
            .cause()
            .expect("a cause is set before its scope is killed")
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

    /// Kills the outermost scope whose deadline is over: the one that it was set for.
    fn notice_deadline(&self) {
        if self.node.deadline.is_none() || self.node.token.is_cancelled() {
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
}

impl Default for CancelScope {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for CancelScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelScope")
            .field("killed", &self.node.cause())
            .finish_non_exhaustive()
    }
}

impl Node {
    fn kill(&self, cause: CancelCause) -> bool {
        let _changing = self.changing.lock();
        let first = !self.token.is_cancelled() && self.cause.set(cause).is_ok();
        if first {
            self.token.cancel();
        }
        first
    }

    /// This node and its ancestors, from the innermost out.
    fn path(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |node| node.parent.as_deref())
    }

    /// The nearest cause is the first in time: a scope keeps a cause of its own only if no
    /// ancestor's kill had reached it.
    fn cause(&self) -> Option<CancelCause> {
        if !self.token.is_cancelled() {
            return None;
        }
        self.path().find_map(|node| node.cause.get().copied())
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
        assert!(left.kill(CancelCause::SiblingFailed));
        assert_eq!(below.killed().await, CancelCause::SiblingFailed);
        assert!(!right.is_killed() && !root.is_killed());

        assert!(root.kill(CancelCause::ClientDisconnected));
        assert_eq!(
            below.killed().await,
            CancelCause::SiblingFailed,
            "the first cause stays"
        );
        assert_eq!(right.killed().await, CancelCause::ClientDisconnected);
    }

    #[test]
    fn a_child_made_late_begins_as_its_parent_is() {
        let root = CancelScope::new();
        root.kill(CancelCause::Shutdown);
        let child = root.child();
        assert_eq!(child.cause(), Some(CancelCause::Shutdown));
        assert!(!child.kill(CancelCause::Deadline), "it is killed already");
        assert_eq!(child.cause(), Some(CancelCause::Shutdown));
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_kills_what_it_was_set_for() {
        let root = CancelScope::new();
        let begun = Instant::now();
        let timed = root.child_with_deadline(begun + Duration::from_secs(5));
        let below = timed.child_with_deadline(begun + Duration::from_secs(60));
        assert_eq!(below.deadline(), timed.deadline());
        assert!(!below.is_killed());

        assert_eq!(below.killed().await, CancelCause::Deadline);
        assert_eq!(begun.elapsed().as_secs(), 5);
        assert_eq!(timed.cause(), Some(CancelCause::Deadline));
        assert!(!root.is_killed());
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
                tokio::task::yield_now().await;
                assert_eq!(Arc::strong_count(&held), 2);
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

    /// What the documentation promises, said the simple way: each scope remembers the first cause
    /// that reached it.
    #[derive(Default)]
    struct Model {
        parents: Vec<Option<usize>>,
        causes: Vec<Option<CancelCause>>,
    }

    impl Model {
        fn add(&mut self, parent: Option<usize>) {
            self.causes
                .push(parent.and_then(|parent| self.causes[parent]));
            self.parents.push(parent);
        }

        fn kill(&mut self, scope: usize, cause: CancelCause) {
            self.causes[scope].get_or_insert(cause);
            for child in 0..self.parents.len() {
                if self.parents[child] == Some(scope) {
                    self.kill(child, cause);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn causes_are_those_of_a_naive_model(
            steps in proptest::collection::vec((any::<bool>(), any::<usize>()), 1..60),
        ) {
            const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
            let mut scopes = vec![CancelScope::new()];
            let mut model = Model::default();
            model.add(None);
            for (number, (is_kill, pick)) in steps.into_iter().enumerate() {
                let at = pick % scopes.len();
                let cause = CancelCause::Other(NAMES[number % NAMES.len()]);
                if is_kill {
                    prop_assert_eq!(scopes[at].kill(cause), model.causes[at].is_none());
                    model.kill(at, cause);
                } else {
                    scopes.push(scopes[at].child());
                    model.add(Some(at));
                }
                for (scope, cause) in scopes.iter().zip(&model.causes) {
                    prop_assert_eq!(&scope.cause(), cause);
                    prop_assert_eq!(scope.is_killed(), cause.is_some());
                }
            }
        }
    }
}
