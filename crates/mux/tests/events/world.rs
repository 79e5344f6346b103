use std::collections::VecDeque;
use std::time::Duration;

use forebay_mux::events::{
    FollowerConfig, KvAnswer, KvAsk, KvBatch, KvFollower, KvLedger, KvMark, KvMarks, KvState,
    KvSyncAnswer, KvUpdate, LedgerConfig,
};
use forebay_tokens::{DpRank, KvEvent};

use crate::blocks::Blocks;

/// What is wrong with a [`World`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bug {
    None,
    /// The publisher never says where it is.
    NoMarks,
    /// The consumer keeps what it had when it is told anew.
    ForgetsNothing,
    /// The consumer takes batches as they come.
    BelievesThePlane,
}

/// How the event plane treats messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plane {
    /// Of 100 messages, how many are lost.
    loss: u64,
    /// Of 100, how many come twice.
    repeated: u64,
    /// The longest way, in milliseconds.
    delay: u64,
    /// Of 100 questions, how many are not answered.
    unanswered: u64,
}

impl Plane {
    pub(crate) fn lossy() -> Self {
        Self {
            loss: 10,
            repeated: 10,
            delay: 30,
            unanswered: 10,
        }
    }

    pub(crate) fn perfect() -> Self {
        Self {
            loss: 0,
            repeated: 0,
            delay: 0,
            unanswered: 0,
        }
    }
}

#[derive(Clone)]
enum Message {
    Batch(KvBatch),
    Mark(KvMark),
    Lagged,
}

/// An engine, its worker's ledger, the planes, and one follower with its index, in virtual time.
pub(crate) struct World {
    bug: Bug,
    plane: Plane,
    random: u64,
    now: Duration,
    engine: Blocks,
    ledger: KvLedger,
    marks: KvMarks,
    to_lose: u32,
    to_spoil: bool,
    to_fail: u32,
    to_garble: u32,
    under_way: VecDeque<(Duration, Message)>,
    /// When it reaches the worker.
    question: Option<(Duration, KvAsk)>,
    /// When it is back; nothing, if it failed.
    answer: Option<(Duration, Option<KvAnswer>)>,
    asks: u32,
    follower: KvFollower,
    index: Blocks,
    index_cap: usize,
    state: KvState,
}

const RANKS: [DpRank; 2] = [DpRank(0), DpRank(1)];

fn ledger(epoch: u64, engine: &Blocks) -> KvLedger {
    let config = LedgerConfig {
        ring_bytes: 4096,
        max_batch_blocks: 4,
    };
    let mut ledger = KvLedger::new(config, epoch);
    for rank in RANKS {
        ledger.replace(rank, engine.tell(rank));
    }
    ledger
}

impl World {
    pub(crate) fn new(seed: u64, plane: Plane, bug: Bug) -> Self {
        let engine = Blocks::default();
        let config = FollowerConfig { buffer_bytes: 2048 };
        Self {
            bug,
            plane,
            random: seed,
            now: Duration::ZERO,
            ledger: ledger(1, &engine),
            engine,
            marks: KvMarks::after_change(Duration::ZERO),
            to_lose: 0,
            to_spoil: false,
            to_fail: 0,
            to_garble: 0,
            under_way: VecDeque::new(),
            question: None,
            answer: None,
            asks: 0,
            follower: KvFollower::new(config, seed),
            index: Blocks::default(),
            index_cap: usize::MAX,
            state: KvState::Repairing,
        }
    }

    pub(crate) fn change(&mut self, rank: DpRank, events: Vec<KvEvent>) {
        for event in &events {
            self.engine.apply(rank, event);
        }
        let batches = self.ledger.change(rank, events);
        self.publish(batches);
    }

    pub(crate) fn relapse(&mut self, rank: DpRank, events: &[KvEvent]) {
        for event in events {
            self.engine.apply(rank, event);
        }
        let batches = self.ledger.replace(rank, self.engine.tell(rank));
        self.publish(batches);
    }

    pub(crate) fn restart(&mut self) {
        let epoch = self.ledger.mark().position.epoch + 1;
        self.ledger = ledger(epoch, &self.engine);
        self.marks = KvMarks::after_change(self.now);
    }

    pub(crate) fn lose_next(&mut self, messages: u32) {
        self.to_lose = messages;
    }

    pub(crate) fn spoil_next(&mut self) {
        self.to_spoil = true;
    }

    pub(crate) fn fail_asks(&mut self, asks: u32) {
        self.to_fail = asks;
    }

    /// The next answers cannot be understood.
    pub(crate) fn garble_asks(&mut self, asks: u32) {
        self.to_garble = asks;
    }

    pub(crate) fn lag(&mut self) {
        self.send(Message::Lagged);
    }

    pub(crate) fn cap_index(&mut self, blocks: usize) {
        self.index_cap = blocks;
    }

    pub(crate) fn truth(&self) -> &Blocks {
        &self.engine
    }

    pub(crate) fn known(&self) -> &Blocks {
        &self.index
    }

    pub(crate) fn state(&self) -> KvState {
        self.state
    }

    pub(crate) fn is_exact(&self) -> bool {
        matches!(self.state, KvState::Exact { .. })
    }

    pub(crate) fn asks(&self) -> u32 {
        self.asks
    }

    /// The blocks of the ledger's snapshot.
    pub(crate) fn snapshot(&self) -> Blocks {
        let KvSyncAnswer::Snapshot(snapshot) = self.ledger.sync(None).answer else {
            panic!("nothing was known before");
        };
        let mut blocks = Blocks::default();
        for (rank, events) in snapshot.parts() {
            assert!(events.len() <= 4);
            for event in &events {
                blocks.apply(rank, event);
            }
        }
        blocks
    }

    /// Nothing more happens at the engine; stops early once the follower has the truth and all
    /// that is under way has come.
    pub(crate) fn settle(&mut self, longest: Duration) {
        let end = self.now + longest;
        while self.now < end {
            self.pass(Duration::from_millis(100));
            let is_silent = self.under_way.is_empty() && self.answer.is_none();
            if is_silent && self.is_exact() && self.index == self.engine {
                return;
            }
        }
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.follow();
            let times = [
                self.under_way.front().map(|(at, _)| *at),
                self.question.as_ref().map(|(at, _)| *at),
                self.answer.as_ref().map(|(at, _)| *at),
                self.follower.next_timeout(),
                Some(self.marks.due()),
            ];
            let next = times.into_iter().flatten().min().unwrap_or(end);
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            self.happen();
        }
    }

    /// What is due happens.
    fn happen(&mut self) {
        if self.marks.take(self.now) && self.bug != Bug::NoMarks {
            self.send(Message::Mark(self.ledger.mark()));
        }
        while let Some((_, message)) = self.under_way.pop_front_if(|(at, _)| *at <= self.now) {
            match message {
                Message::Batch(batch) if self.bug == Bug::BelievesThePlane => {
                    for event in &batch.events {
                        self.index.apply(batch.rank, event);
                    }
                    self.follower.batch(self.now, batch);
                }
                Message::Batch(batch) => self.follower.batch(self.now, batch),
                Message::Mark(mark) => self.follower.mark(self.now, mark),
                Message::Lagged => self.follower.lagged(self.now),
            }
        }
        if let Some((_, ask)) = self.question.take_if(|(at, _)| *at <= self.now) {
            let is_failed = self.to_fail + self.to_garble > 0 || self.chance(self.plane.unanswered);
            self.to_fail = self.to_fail.saturating_sub(1);
            let answer = (!is_failed).then(|| self.serve(ask));
            self.answer = Some((self.later(), answer));
        }
        if let Some((_, answer)) = self.answer.take_if(|(at, _)| *at <= self.now) {
            match answer {
                Some(answer) => self.follower.answer(self.now, answer),
                None if self.to_garble > 0 => {
                    self.to_garble -= 1;
                    self.follower.broken(self.now);
                }
                None => self.follower.failed(self.now),
            }
        }
    }

    /// The follower's driver.
    fn follow(&mut self) {
        while let Some(update) = self.follower.next_update() {
            match update {
                KvUpdate::Reset { rank, events } => {
                    if self.bug != Bug::ForgetsNothing {
                        self.index.forget(rank);
                    }
                    self.apply(rank, &events);
                }
                KvUpdate::Changes { rank, events } => self.apply(rank, &events),
                KvUpdate::State(state) => self.state = state,
            }
        }
        if let Some(ask) = self.follower.ask(self.now) {
            assert!(self.question.is_none() && self.answer.is_none());
            self.asks += 1;
            self.question = Some((self.later(), ask));
        }
    }

    fn apply(&mut self, rank: DpRank, events: &[KvEvent]) {
        if self.bug != Bug::BelievesThePlane {
            for event in events {
                self.index.apply(rank, event);
            }
            self.index.cap(self.index_cap);
        }
    }

    fn serve(&self, ask: KvAsk) -> KvAnswer {
        let sync = self.ledger.sync(ask.since);
        let mark = sync.mark;
        match sync.answer {
            KvSyncAnswer::Range(batches) => KvAnswer::Range {
                mark,
                batches: batches.iter().map(|batch| (**batch).clone()).collect(),
            },
            KvSyncAnswer::Snapshot(snapshot) => {
                let parts = snapshot.parts().collect();
                KvAnswer::Snapshot { mark, parts }
            }
        }
    }

    fn publish(&mut self, batches: Vec<std::sync::Arc<KvBatch>>) {
        for batch in &batches {
            let mut batch = (**batch).clone();
            if self.to_spoil {
                self.to_spoil = false;
                batch.events.pop();
            }
            self.send(Message::Batch(batch));
        }
        if !batches.is_empty() {
            self.marks = KvMarks::after_change(self.now);
        }
    }

    fn send(&mut self, message: Message) {
        let copies = 1 + u32::from(self.chance(self.plane.repeated));
        for _ in 0..copies {
            if self.to_lose > 0 {
                self.to_lose -= 1;
            } else if !self.chance(self.plane.loss) {
                let after = self.under_way.back().map_or(self.now, |(at, _)| *at);
                let at = self.later().max(after);
                self.under_way.push_back((at, message.clone()));
            }
        }
    }

    fn later(&mut self) -> Duration {
        let millis = self.draw() % (self.plane.delay + 1);
        self.now + Duration::from_millis(millis)
    }

    fn chance(&mut self, of_100: u64) -> bool {
        self.draw() % 100 < of_100
    }

    fn draw(&mut self) -> u64 {
        // splitmix64
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
