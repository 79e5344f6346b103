//! A peer that says nothing is lost in time, however late the checks run.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use forebay_mux::session::{
    Config, DetachCause, Event, Incarnation, LostCause, Session, SessionId,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// A session that is attached at the time 0.
fn attached() -> Session {
    let id = SessionId(7);
    let mut client = Session::client(Config::default(), id, Incarnation(1));
    let mut server = Session::server(Config::default(), id, Incarnation(2));
    server.attach(Duration::ZERO, &client.hello()).unwrap();
    client.attach(Duration::ZERO, &server.hello()).unwrap();
    client
}

/// Runs each check so much late, in turn and again and again; returns when the session was lost, and
/// why.
fn run(session: &mut Session, delays: &[Duration]) -> (Duration, LostCause) {
    let mut out = Vec::new();
    for delay in delays.iter().cycle() {
        let now = session.next_timeout().unwrap() + *delay;
        session.handle_timeout(now);
        session.transmit(now, 1 << 16, &mut out);
        while let Some(event) = session.next_event() {
            if let Event::Lost(cause) = event {
                return (now, cause);
            }
        }
    }
    unreachable!("the delays come again and again")
}

fn delays() -> impl Strategy<Value = Vec<Duration>> {
    vec((0_u64..3000).prop_map(Duration::from_millis), 1..20)
}

/// The bound of a wait: of `lost_after` and a heartbeat, and the two checks that were late.
fn is_in_time(at: Duration, lost_after: Duration, delays: &[Duration]) -> bool {
    let mut worst = delays.to_vec();
    worst.sort_unstable();
    let late: Duration = worst.iter().rev().cycle().take(2).sum();
    (lost_after..=lost_after + Config::default().heartbeat + late).contains(&at)
}

proptest! {
    #[test]
    fn a_silent_peer_is_lost_whatever_the_checks_delays(delays in delays()) {
        let (at, cause) = run(&mut attached(), &delays);
        prop_assert_eq!(cause, LostCause::Silent);
        prop_assert!(is_in_time(at, Config::default().silence, &delays), "{at:?}");
    }

    #[test]
    fn a_cut_session_is_lost_whatever_the_checks_delays(delays in delays()) {
        let mut session = attached();
        session.detach(Duration::ZERO, DetachCause::Cut);
        let (at, cause) = run(&mut session, &delays);
        prop_assert_eq!(cause, LostCause::Grace);
        prop_assert!(is_in_time(at, Config::default().grace, &delays), "{at:?}");
    }
}
