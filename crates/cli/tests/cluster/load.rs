//! Clients that ask one thing after another, all the time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use crate::answer::{Completion, End};
use crate::wait::until;

/// A closed loop of clients, until it is finished.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<End>>>,
}

impl Load {
    /// So many clients at each frontend, each answer of so many tokens.
    pub(crate) fn start(frontends: &[SocketAddr], clients: usize, tokens: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::new(AtomicUsize::new(0));
        let client = |&frontend: &SocketAddr| {
            let (stop, ended) = (stop.clone(), ended.clone());
            thread::spawn(move || {
                let mut ends = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    ends.push(match Completion::open(frontend, tokens) {
                        Ok(completion) => completion.end(),
                        Err(end) => end,
                    });
                    ended.fetch_add(1, Ordering::Relaxed);
                }
                ends
            })
        };
        let everywhere = frontends.iter().cycle().take(frontends.len() * clients);
        Self {
            clients: everywhere.map(client).collect(),
            stop,
            ended,
        }
    }

    /// Waits until so many more answers have ended.
    pub(crate) fn go_on_for(&self, answers: usize) {
        let before = self.ended.load(Ordering::Relaxed);
        until("answers end", || {
            self.ended.load(Ordering::Relaxed) >= before + answers
        });
    }

    /// Lets every answer end, and tells how they did.
    pub(crate) fn finish(self) -> Ends {
        self.stop.store(true, Ordering::Relaxed);
        let mut ends = Ends::default();
        for client in self.clients {
            for end in client.join().expect("a client panics at nothing") {
                ends.add(end);
            }
        }
        ends
    }
}

/// How answers ended.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    pub(crate) complete: usize,
    /// How often each code.
    pub(crate) typed: BTreeMap<String, usize>,
    pub(crate) broken: Vec<String>,
}

impl Ends {
    fn add(&mut self, end: End) {
        match end {
            End::Complete => self.complete += 1,
            End::Typed(code) => *self.typed.entry(code).or_default() += 1,
            End::Broken(how) => self.broken.push(how),
        }
    }

    /// No client has seen an error.
    #[track_caller]
    pub(crate) fn assert_all_complete(&self) {
        let all = self.typed.is_empty() && self.broken.is_empty() && self.complete > 0;
        assert!(all, "{self:#?}");
    }

    /// Every answer was complete, or said why it is not.
    #[track_caller]
    pub(crate) fn assert_none_broken(&self) {
        assert!(self.broken.is_empty() && self.complete > 0, "{self:#?}");
    }
}
