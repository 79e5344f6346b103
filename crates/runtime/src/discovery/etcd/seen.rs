use etcd_client::ResponseHeader;

/// A point in the history of one etcd cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    cluster: u64,
    /// The leader's term.
    term: u64,
    pub(super) revision: i64,
}

impl Seen {
    pub(super) fn of(header: &ResponseHeader) -> Self {
        Self {
            cluster: header.cluster_id(),
            term: header.raft_term(),
            revision: header.revision(),
        }
    }

    /// The same point, where what is at `now` has been seen as well. The leader stays that of
    /// before, so that a change of leaders shows when it is looked for.
    pub(super) fn with(&self, now: Self) -> Self {
        Self {
            revision: self.revision.max(now.revision),
            ..*self
        }
    }

    /// Whether what is at `now` surely continues what was here: the same cluster, under the same
    /// leader, and no earlier. A cluster that was restarted, perhaps with older data, has had
    /// another election.
    pub(super) fn goes_on_at(&self, now: &Self) -> bool {
        self.cluster == now.cluster && self.term == now.term && self.revision <= now.revision
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_leader_goes_on() {
        let seen = Seen {
            cluster: 1,
            term: 2,
            revision: 10,
        };
        let at = |cluster, term, revision| Seen {
            cluster,
            term,
            revision,
        };
        assert!(seen.goes_on_at(&seen));
        assert!(seen.goes_on_at(&at(1, 2, 11)));
        assert_eq!(seen.with(at(1, 3, 12)), at(1, 2, 12));
        for other in [at(1, 2, 9), at(1, 3, 11), at(1, 1, 11), at(2, 2, 11)] {
            assert!(!seen.goes_on_at(&other), "{other:?}");
        }
    }
}
