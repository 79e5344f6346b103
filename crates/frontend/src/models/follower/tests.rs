use bytes::Bytes;
use forebay_observability::Registry;
use forebay_protocols::ErrorClass;
use forebay_runtime::Health;
use tokio::time::Instant;

use super::*;

#[tokio::test(start_paused = true)]
async fn who_is_there_at_first_and_does_not_come_up_is_given_up() {
    let planes = Planes::in_process();
    let gone = Instance {
        endpoint: engine_endpoint("test").unwrap(),
        worker: WorkerId(1),
        address: "nowhere".into(),
        card: Bytes::new(),
    };
    let _gone = planes.discovery.register(gone).await.unwrap();
    let metrics = Registry::new();
    let process = Process {
        tasks: Tasks::new(&metrics),
        health: Health::new(),
        metrics,
    };
    let registry = ModelRegistry::pending();
    assert!(registry.may_have("m"), "nothing is known yet");
    let config = FrontendConfig::default();
    (registry.follow(&planes, "test", &config, &process)).unwrap();
    let before = Instant::now();
    let error = registry.has_worker("m").await.unwrap_err();
    assert_eq!(error.class, ErrorClass::NotFound);
    assert_eq!(before.elapsed(), GIVEN_UP);
    assert!(!registry.may_have("m"));
}
