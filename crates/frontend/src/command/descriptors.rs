//! How many files and sockets the process may have open.

/// What is kept back for everything that is not a client's connection: models, metrics, peers.
const KEPT_BACK: u64 = 64;

/// Raises the process's own limit to what the system allows it, and tells how many of the
/// `wanted` connections that leaves room for; fewer are announced in the log.
///
/// The limit that a process starts with is often 1024, for the sake of programs that use
/// `select(2)`.
pub fn make_room(wanted: usize) -> usize {
    let limit = raise();
    let room = room(wanted, limit);
    if room < wanted {
        tracing::warn!(
            limit,
            max_connections = room,
            "fewer connections than frontend.max_connections: the system allows this process too \
             few open files"
        );
    }
    room
}

fn room(wanted: usize, limit: Option<u64>) -> usize {
    let Some(limit) = limit else { return wanted };
    // Half of a limit that is hardly one: something has to be served.
    let room = limit.saturating_sub(KEPT_BACK).max(limit / 2).max(1);
    wanted.min(usize::try_from(room).unwrap_or(usize::MAX))
}

/// The limit after it was raised; `None` where there is none.
#[cfg(unix)]
fn raise() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: before.maximum,
        maximum: before.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => before.maximum,
        // macOS names no maximum and takes none.
        Err(error) => {
            tracing::debug!(%error, "the limit of open files stays as it is");
            before.current
        }
    }
}

#[cfg(not(unix))]
fn raise() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_the_rest() {
        assert_eq!(room(16_384, None), 16_384);
        assert_eq!(room(16_384, Some(1 << 20)), 16_384);
        assert_eq!(room(16_384, Some(4096)), 4032);
        assert_eq!(room(16_384, Some(100)), 50);
        assert_eq!(room(16_384, Some(0)), 1);
        assert_eq!(room(10, Some(4096)), 10);
    }

    #[test]
    #[cfg(unix)]
    fn the_limit_is_as_high_as_it_may_be() {
        use rustix::process::{Resource, getrlimit};

        raise();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
