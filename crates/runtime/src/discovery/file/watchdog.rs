//! Tells how the directory is, also while a look at it does not come back.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use super::super::metrics::Metrics;
use crate::health::Degradation;

/// How long a look may take before the directory counts as away.
const SILENCE: Duration = Duration::from_secs(2);

/// Says what becomes of the directory, by the outcomes of the looks at it, until there are no more.
/// Between two of them pass `poll` and what they take.
pub(super) async fn watch_over(
    mut looks: watch::Receiver<bool>,
    poll: Duration,
    metrics: Metrics,
    degradation: Degradation,
) {
    let mut was_silent = false;
    loop {
        let look = match was_silent {
            true => Ok(looks.changed().await),
            false => timeout(poll + SILENCE, looks.changed()).await,
        };
        match look {
            Ok(Ok(())) => {
                let is_well = *looks.borrow_and_update();
                metrics.connected.set(is_well.into());
                match is_well {
                    true => degradation.clear(),
                    false => degradation.set("the directory of discovery cannot be used"),
                }
                if was_silent {
                    info!("the directory of discovery answers again");
                }
                was_silent = false;
            }
            Ok(Err(_)) => return,
            Err(_) => {
                warn!("the directory of discovery does not answer");
                metrics.connected.set(0);
                degradation.set("the directory of discovery does not answer");
                was_silent = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Health;

    #[tokio::test(start_paused = true)]
    async fn a_look_that_does_not_come_back_is_told() {
        let health = Health::new();
        let metrics = Metrics::default();
        let (tell, looks) = watch::channel(true);
        let watching = watch_over(
            looks,
            Duration::from_millis(200),
            metrics.clone(),
            health.degradation("discovery"),
        );
        let looking = async {
            tell.send_replace(true);
            let reason = health.amiss("discovery").await;
            assert!(reason.contains("does not answer"), "{reason}");
            assert_eq!(metrics.connected.get(), 0);

            tell.send_replace(true);
            tokio::time::sleep(SILENCE).await;
            assert!(health.report().degraded.is_empty());
            assert_eq!(metrics.connected.get(), 1);

            tell.send_replace(false);
            let reason = health.amiss("discovery").await;
            assert!(reason.contains("cannot be used"), "{reason}");
            drop(tell);
        };
        tokio::join!(watching, looking);
    }
}
