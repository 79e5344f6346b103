//! What the engine's thread does.

use std::sync::Arc;
use std::time::Instant;

use forebay_batch_scheduler::SequenceId;
use forebay_engine::host::{KvBroadcast, KvSubscription, LiveStreams, OutputWriter, Writers};
use forebay_engine::{Control, Error, GenerateRequest, Load};
use forebay_tokens::{DpRank, TokenId};
use futures::executor::block_on;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{COMMANDS, stopped};
use crate::engine_core::{EngineCore, KvBlock};
use crate::metrics::Metrics;

/// There is one.
const RANK: DpRank = DpRank(0);

/// What the thread is asked for, between two steps.
#[derive(Debug)]
pub(super) enum Command {
    Generate {
        request: Box<GenerateRequest>,
        writer: OutputWriter,
        reply: oneshot::Sender<Result<(), Error>>,
    },
    Control {
        control: Control,
        reply: oneshot::Sender<Result<(), Error>>,
    },
    Subscribe(oneshot::Sender<KvSubscription>),
    Export {
        tokens: Vec<TokenId>,
        cache_salt: String,
        reply: oneshot::Sender<Vec<KvBlock>>,
    },
    Import {
        tokens: Vec<TokenId>,
        cache_salt: String,
        blocks: Vec<KvBlock>,
        reply: oneshot::Sender<Result<usize, Error>>,
    },
    /// Look at what streams want.
    Wake,
    #[cfg(test)]
    Panic,
}

/// Lets the thread look at its streams.
pub(super) fn wake(commands: &mpsc::WeakSender<Command>) {
    if let Some(commands) = commands.upgrade() {
        // If the channel is full, the thread looks when it has emptied it.
        let _ = commands.try_send(Command::Wake);
    }
}

/// The thread's state.
pub(super) struct StepLoop {
    core: EngineCore,
    commands: mpsc::Receiver<Command>,
    writers: Writers<SequenceId>,
    kv_events: KvBroadcast,
    streams: LiveStreams,
    load: Arc<Mutex<Load>>,
    metrics: Metrics,
}

impl StepLoop {
    pub(super) fn new(
        core: EngineCore,
        commands: mpsc::Receiver<Command>,
        streams: LiveStreams,
        load: Arc<Mutex<Load>>,
        metrics: Metrics,
    ) -> Self {
        Self {
            core,
            commands,
            writers: Writers::default(),
            kv_events: KvBroadcast::new(RANK),
            streams,
            load,
            metrics,
        }
    }

    /// Runs until it is cancelled or nobody can ask for anything any more.
    pub(super) fn run(mut self, cancel: &CancellationToken) {
        while !cancel.is_cancelled() {
            // As many as the channel holds: a flood of commands does not keep steps away.
            for _ in 0..COMMANDS {
                match self.commands.try_recv() {
                    Ok(command) => self.handle(command),
                    Err(_) => break,
                }
            }
            // After the commands: a stream that found no room for its own among them counts on it.
            self.end_unwanted();
            let progressed = self.step();
            self.publish();
            if !progressed {
                match self.next_command(cancel) {
                    Some(command) => self.handle(command),
                    None => return,
                }
            }
        }
    }

    /// Sleeps until there is a command.
    fn next_command(&mut self, cancel: &CancellationToken) -> Option<Command> {
        block_on(async {
            tokio::select! {
                biased;
                () = cancel.cancelled() => None,
                command = self.commands.recv() => command,
            }
        })
    }

    fn handle(&mut self, command: Command) {
        // Nobody may be waiting for a reply any more.
        match command {
            Command::Generate {
                request,
                writer,
                reply,
            } => {
                // A name is free as soon as its stream is dropped.
                self.end_unwanted();
                let accepted = self.core.submit(*request).map(|id| {
                    self.writers.insert(id, writer);
                });
                self.publish();
                let _ = reply.send(accepted);
            }
            Command::Control { control, reply } => {
                let done = self.control(control);
                self.publish();
                let _ = reply.send(done);
            }
            Command::Subscribe(reply) => {
                self.publish();
                let snapshot = self.core.kv_snapshot();
                let _ = reply.send(self.kv_events.subscribe(snapshot));
            }
            Command::Export {
                tokens,
                cache_salt,
                reply,
            } => {
                let _ = reply.send(self.core.export_prefix(&tokens, &cache_salt));
            }
            Command::Import {
                tokens,
                cache_salt,
                blocks,
                reply,
            } => {
                let imported = self.core.import_prefix(&tokens, &cache_salt, &blocks);
                self.publish();
                let _ = reply.send(imported);
            }
            Command::Wake => self.end_unwanted(),
            #[cfg(test)]
            Command::Panic => panic!("the test asked for it"),
        }
    }

    fn control(&mut self, control: Control) -> Result<(), Error> {
        match control {
            Control::ClearKvCache => self.core.clear_kv_cache(),
            Control::Pause => self.core.pause(),
            Control::Resume => self.core.resume(),
            Control::Unspecified => {
                return Err(Error::unsupported("control", "it must be specified"));
            }
        }
        Ok(())
    }

    /// Ends the choices that nobody wants any more.
    fn end_unwanted(&mut self) {
        let core = &mut self.core;
        self.writers.end_unwanted(|id| core.abort(id));
    }

    /// Steps the engine, and hands the outputs over. Whether there was anything to compute.
    fn step(&mut self) -> bool {
        let begun = Instant::now();
        let report = self.core.step();
        if report.computed_tokens == 0 {
            return false;
        }
        self.metrics
            .stepped(begun.elapsed(), report.computed_tokens, report.preempted);
        // Who sees the end of a stream sees the load without it.
        self.publish_load();
        for (id, output) in report.outputs {
            if let Ok(output) = &output {
                self.metrics.output(output);
            }
            self.writers.hand_over(id, output);
        }
        true
    }

    /// Makes known what happened.
    fn publish(&mut self) {
        let events = self.core.take_kv_events();
        self.kv_events.publish(events);
        self.publish_load();
    }

    fn publish_load(&mut self) {
        let load = self.core.load();
        self.metrics.state(&load, &self.core.kv_stats());
        *self.load.lock() = load;
    }
}

impl Drop for StepLoop {
    /// However the thread ends, no stream stays open and no load is shown.
    fn drop(&mut self) {
        let error = if std::thread::panicking() {
            Error::internal("the engine's thread panicked")
        } else {
            stopped()
        };
        // From here on no command is accepted, so no stream comes after those that are failed.
        self.commands.close();
        // Who sees the end of a stream sees the load without it.
        *self.load.lock() = Load::default();
        self.streams.fail_all(&error);
    }
}
