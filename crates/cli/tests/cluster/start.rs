//! Clusters that come together in any order, with services and without.

use forebay_testkit::http;

use crate::answer::{Completion, End};
use crate::cluster::{Cluster, Frontend};

#[track_caller]
fn answers(frontend: &Frontend) {
    let completion = Completion::open(frontend.address, 10).unwrap();
    assert_eq!(completion.end(), End::Complete);
}

#[test]
fn a_frontend_before_its_workers_says_what_it_waits_for() {
    let cluster = Cluster::new();
    let frontend = cluster.frontend();
    let ready = http::get(frontend.address, "/ready").unwrap();
    assert_eq!(ready.status, 503, "{}", ready.body);
    let early = Completion::open(frontend.address, 10).map(Completion::end);
    assert!(matches!(early, Err(End::Typed(_))), "{early:?}");

    let _worker = cluster.worker(&[]);
    frontend.until_workers(1);
    answers(&frontend);
    assert_eq!(http::get(frontend.address, "/ready").unwrap().status, 200);
    let models = http::get(frontend.address, "/v1/models").unwrap().body;
    assert!(models.contains(r#""id":"mocker""#), "{models}");

    let late = cluster.frontend();
    late.until_workers(1);
    answers(&late);
}

#[test]
fn one_process_has_many_workers() {
    let cluster = Cluster::new();
    let _workers = cluster.worker(&["--workers", "16"]);
    let frontend = cluster.frontend();
    frontend.until_workers(16);
    answers(&frontend);
}

#[test]
fn two_clusters_do_not_meet() {
    let (one, other) = (Cluster::new(), Cluster::new());
    let _worker = one.worker(&[]);
    let (here, there) = (one.frontend(), other.frontend());
    here.until_workers(1);
    assert_eq!(there.workers(), 0);
}
