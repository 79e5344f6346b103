use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, future, stream};
use tokio::time::sleep;

use super::error;
use crate::request_plane::services::Services;
use crate::request_plane::{
    PeerState, PeerWatch, ResponseStream, StreamHandler, StreamRequest, WORKER_STOPPED,
};
use crate::tasks::Tasks;

/// Waits between attempts to reach a peer, in turn, in milliseconds; the last stays.
const BACK_OFF: [u64; 3] = [50, 100, 250];

/// Answers at [`PEER_TARGET`](super::PEER_TARGET): the state of the target that the first frame
/// names, and each change of it, one byte each; but not that it begins to drain, which the session
/// says itself, before anything else.
pub(crate) struct PeerHandler(pub(crate) Services);

impl StreamHandler for PeerHandler {
    fn handle(&self, request: StreamRequest) -> ResponseStream {
        match std::str::from_utf8(&request.first) {
            Ok(target) => {
                let states = self.0.peer(target).enumerate();
                let told = states.filter(|(number, state)| {
                    future::ready(*number == 0 || *state != PeerState::Draining)
                });
                told.map(|(_, state)| Ok(encode(state))).boxed()
            }
            Err(_) => {
                let error = error::broken("a target that is no text");
                stream::iter([Err(error)]).boxed()
            }
        }
    }
}

/// Watches a peer by streams that `open` makes to a [`PeerHandler`]: what it says counts, and a
/// stream that fails means that the peer is lost, or drains if it says that it stops. A process that
/// shuts down, and closes its own connections as no request goes on, is told of nothing any more.
pub(crate) fn watch_peer(open: OpenWatch, tasks: Tasks) -> PeerWatch {
    let watch = Watch {
        open,
        tasks,
        answer: None,
        told: None,
        attempts: 0,
    };
    stream::unfold(watch, |mut watch| async move {
        let state = watch.next().await;
        Some((state, watch))
    })
    .boxed()
}

/// Opens a stream to a [`PeerHandler`].
pub(crate) type OpenWatch = Arc<dyn Fn() -> ResponseStream + Send + Sync>;

struct Watch {
    open: OpenWatch,
    tasks: Tasks,
    answer: Option<ResponseStream>,
    told: Option<PeerState>,
    /// Those that failed since the peer was last heard of.
    attempts: usize,
}

impl Watch {
    async fn next(&mut self) -> PeerState {
        loop {
            let state = self.look().await;
            if self.told != Some(state) {
                self.told = Some(state);
                return state;
            }
        }
    }

    async fn look(&mut self) -> PeerState {
        let mut answer = match self.answer.take() {
            Some(answer) => answer,
            None => {
                if let Some(last) = self.attempts.checked_sub(1) {
                    let wait = BACK_OFF[last.min(BACK_OFF.len() - 1)];
                    sleep(Duration::from_millis(wait)).await;
                }
                (self.open)()
            }
        };
        match Pin::new(&mut answer).next().await {
            Some(Ok(frame)) => {
                self.answer = Some(answer);
                self.attempts = 0;
                decode(&frame)
            }
            Some(Err(error)) if error.reason == WORKER_STOPPED => {
                self.attempts += 1;
                PeerState::Draining
            }
            _ if self.tasks.is_shutting_down() && !self.tasks.has_requests() => {
                future::pending().await
            }
            _ => {
                self.attempts += 1;
                PeerState::Lost
            }
        }
    }
}

fn encode(state: PeerState) -> Bytes {
    Bytes::from_static(match state {
        PeerState::Reachable => &[1],
        PeerState::Draining => &[2],
        PeerState::Lost => &[3],
        PeerState::Paused => &[4],
    })
}

/// A state that is newer than this program is one in which no new streams are welcome.
fn decode(frame: &[u8]) -> PeerState {
    match frame {
        [1, ..] => PeerState::Reachable,
        [3, ..] => PeerState::Lost,
        [4, ..] => PeerState::Paused,
        _ => PeerState::Draining,
    }
}

#[cfg(test)]
mod tests {
    use PeerState::{Draining, Lost, Paused, Reachable};

    use super::*;

    #[test]
    fn states_are_read_as_they_are_written() {
        for state in [Reachable, Paused, Draining, Lost] {
            assert_eq!(decode(&encode(state)), state);
        }
        assert_eq!(decode(&[9, 9]), Draining);
        assert_eq!(decode(&[]), Draining);
    }
}
