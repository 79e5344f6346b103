//! What a pull tells the person who waits for it.

use std::sync::Mutex;

use indicatif::{ProgressBar, ProgressStyle};

/// What the bytes that are counted are being put through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// They come from a network or another place outside the cache.
    Fetching,
    /// They are unpacked from an archive that is already on this machine.
    Unpacking,
    /// They are in the cache and are hashed again.
    Verifying,
}

/// Receives the progress of one pull. Called on the pulling thread: implementations return quickly.
///
/// `()` ignores everything; [`TerminalProgress`] draws a bar.
pub trait Progress: Send + Sync {
    /// A phase over `file_name` begins with `done_bytes` of `total_bytes` (when known) already
    /// there. A phase may begin again, when a fetch is restarted.
    fn begin(&self, phase: Phase, file_name: &str, done_bytes: u64, total_bytes: Option<u64>);

    /// `bytes` more went through.
    fn advance(&self, bytes: u64);

    /// The phase is over, well or not.
    fn end(&self);
}

impl Progress for () {
    fn begin(&self, _: Phase, _: &str, _: u64, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
    fn end(&self) {}
}

/// A progress bar on stderr; draws nothing where stderr is not a terminal.
#[derive(Debug, Default)]
pub struct TerminalProgress {
    bar: Mutex<Option<ProgressBar>>,
}

impl TerminalProgress {
    /// A bar that appears when the first phase begins.
    pub fn new() -> Self {
        Self::default()
    }

    fn swap(&self, next: Option<ProgressBar>) {
        let mut bar = self
            .bar
            .lock()
            .expect("no code panics while it holds the bar");
        if let Some(last) = std::mem::replace(&mut *bar, next) {
            last.finish_and_clear();
        }
    }
}

impl Progress for TerminalProgress {
    fn begin(&self, phase: Phase, file_name: &str, done_bytes: u64, total_bytes: Option<u64>) {
        let bar = match total_bytes {
            Some(total) => ProgressBar::new(total).with_style(
                ProgressStyle::with_template(
                    "{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} ({eta})",
                )
                .expect("the template is a constant and valid"),
            ),
            None => ProgressBar::no_length().with_style(
                ProgressStyle::with_template("{msg} {bytes} {bytes_per_sec}")
                    .expect("the template is a constant and valid"),
            ),
        };
        let verb = match phase {
            Phase::Fetching => "fetching",
            Phase::Unpacking => "unpacking",
            Phase::Verifying => "verifying",
        };
        bar.set_message(format!("{verb} {file_name}"));
        bar.set_position(done_bytes);
        bar.reset_eta();
        self.swap(Some(bar));
    }

    fn advance(&self, bytes: u64) {
        let bar = self
            .bar
            .lock()
            .expect("no code panics while it holds the bar");
        if let Some(bar) = &*bar {
            bar.inc(bytes);
        }
    }

    fn end(&self) {
        self.swap(None);
    }
}
