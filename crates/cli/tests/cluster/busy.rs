//! A machine that has more to do than it can.

use forebay_testkit::Busy;

use crate::cluster::Cluster;
use crate::load::Load;

#[test]
fn nobody_is_taken_for_dead() {
    let cluster = Cluster::new();
    let _workers = [cluster.worker(&[]), cluster.worker(&[])];
    let frontend = cluster.frontend();
    frontend.until_workers(2);
    let _busy = Busy::start(2);
    let load = Load::start(&[frontend.address], 8, 60);
    load.go_on_for(40);
    load.finish().assert_all_complete();
    assert_eq!((frontend.retries(), frontend.workers()), (0, 2));
}
