use std::fmt;
use std::ops::Deref;

use forebay_tokens::RequestId;
use tokio::time::Instant;

use crate::scope::CancelScope;

/// What travels with one request through every stage and hop: its id and its cancellation.
///
/// A context is a [`CancelScope`] with a name, and everything a scope can do, it can do. Each part
/// of a request that may end apart from the rest (a choice, a leg, an attempt) gets a
/// [`Context::child`].
#[derive(Clone)]
pub struct Context {
    request_id: RequestId,
    scope: CancelScope,
}

impl Context {
    /// A request's context within `scope`, for instance
    /// [`Tasks::requests`](crate::Tasks::requests), or a [`CancelScope::child_with_deadline`] of
    /// it.
    pub fn new(request_id: RequestId, scope: &CancelScope) -> Self {
        Self {
            request_id,
            scope: scope.child(),
        }
    }

    /// The request's id.
    pub fn request_id(&self) -> &RequestId {
        &self.request_id
    }

    /// A part of the same request.
    pub fn child(&self) -> Self {
        Self {
            request_id: self.request_id.clone(),
            scope: self.scope.child(),
        }
    }

    /// A part of the same request that is killed at `deadline` at the latest.
    pub fn child_with_deadline(&self, deadline: Instant) -> Self {
        Self {
            request_id: self.request_id.clone(),
            scope: self.scope.child_with_deadline(deadline),
        }
    }
}

impl Deref for Context {
    type Target = CancelScope;

    fn deref(&self) -> &CancelScope {
        &self.scope
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("request_id", &self.request_id)
            .field("scope", &self.scope)
            .finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cause::CancelCause;

    #[test]
    fn parts_of_a_request_share_its_id_and_end_apart() {
        let process = CancelScope::new();
        let request = Context::new(RequestId::new("req-1").unwrap(), &process);
        let (first, second) = (request.child(), request.child());
        first.kill(CancelCause::SiblingFailed);
        assert_eq!(second.request_id().as_str(), "req-1");
        assert!(!second.is_killed() && !request.is_killed());
        process.kill(CancelCause::Shutdown);
        assert_eq!(second.cause(), Some(CancelCause::Shutdown));
        assert_eq!(first.cause(), Some(CancelCause::SiblingFailed));
    }
}
