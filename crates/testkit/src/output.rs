use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// What is kept of a child's output, in bytes.
const KEPT_BYTES: usize = 1 << 20;

/// What a child has written, of both its streams, by lines. A clone is another view of the same.
#[derive(Clone, Default)]
pub(crate) struct Output {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    lines: Mutex<Lines>,
    changed: Condvar,
}

/// The last lines, and the number of the first of them.
#[derive(Default)]
struct Lines {
    kept: VecDeque<String>,
    first: usize,
    bytes: usize,
    /// Streams that may still say something.
    open: usize,
}

impl Output {
    /// Keeps what comes from `stream` until it ends.
    pub(crate) fn follow(&self, stream: impl Read + Send + 'static) {
        self.shared.lines.lock().open += 1;
        let output = self.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                output.push(String::from_utf8_lossy(&line).into_owned());
            }
            output.shared.lines.lock().open -= 1;
            output.shared.changed.notify_all();
        });
    }

    fn push(&self, line: String) {
        let mut lines = self.shared.lines.lock();
        lines.bytes += line.len();
        lines.kept.push_back(line);
        while lines.bytes > KEPT_BYTES
            && let Some(gone) = lines.kept.pop_front()
        {
            lines.bytes -= gone.len();
            lines.first += 1;
        }
        drop(lines);
        self.shared.changed.notify_all();
    }

    /// The first line, of those before and those to come, that `find` takes; `None` if both
    /// streams end or `patience` is over before there is one.
    pub(crate) fn wait_for<T>(
        &self,
        patience: Duration,
        mut find: impl FnMut(&str) -> Option<T>,
    ) -> Option<T> {
        let until = Instant::now() + patience;
        let mut lines = self.shared.lines.lock();
        let mut next = lines.first;
        loop {
            next = next.max(lines.first);
            while let Some(line) = lines.kept.get(next - lines.first) {
                if let Some(found) = find(line) {
                    return Some(found);
                }
                next += 1;
            }
            if lines.open == 0
                || self
                    .shared
                    .changed
                    .wait_until(&mut lines, until)
                    .timed_out()
            {
                return None;
            }
        }
    }

    /// Waits until both streams have ended.
    pub(crate) fn wait_for_end(&self, patience: Duration) {
        self.wait_for(patience, |_| None::<()>);
    }

    /// Everything that is kept.
    pub(crate) fn text(&self) -> String {
        let lines = self.shared.lines.lock();
        let mut text = String::with_capacity(lines.bytes + lines.kept.len());
        for line in &lines.kept {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}
