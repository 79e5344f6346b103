use std::time::Duration;

use forebay_mocker::{ConfigError, Fault, MockerConfig, ScheduledFault};
use forebay_protocols::ErrorClass;
use forebay_protocols::worker::Load;

use crate::driver::{Driver, config, ms, request};

fn at(after_seconds: f64, fault: Fault) -> ScheduledFault {
    ScheduledFault {
        after_seconds,
        instance: None,
        fault,
    }
}

fn with(faults: Vec<ScheduledFault>) -> MockerConfig {
    MockerConfig { faults, ..config() }
}

#[test]
fn a_stall_holds_everything_up_for_its_time() {
    let stall = Fault::Stall { seconds: 1.0 };
    let config = with(vec![at(0.005, stall)]);
    // In the middle of an iteration.
    let heard = Driver::new(&config).answer(request("a", &[1; 10], 3));
    assert_eq!(heard.at, [ms(1_011), ms(1_012), ms(1_013)]);
    // While nothing runs: the next begins when it is over.
    let mut driver = Driver::new(&config);
    driver.run();
    assert_eq!(driver.now, ms(5));
    let heard = driver.answer(request("a", &[1; 10], 1));
    assert_eq!(heard.at, [ms(1_016)]);
    // Without engine time, too.
    let config = MockerConfig {
        speed: 0.0,
        ..with(vec![at(0.0, stall)])
    };
    let heard = Driver::new(&config).answer(request("a", &[1; 10], 2));
    assert_eq!(heard.at, [ms(1_000); 2]);
}

#[test]
fn a_stall_that_is_noticed_late_was_no_later() {
    let stall = Fault::Stall { seconds: 1.0 };
    let mut driver = Driver::new(&with(vec![at(0.0125, stall)]));
    let id = driver.submit(request("a", &[1; 10], 4)).unwrap();
    driver.step();
    driver.now = ms(5_000);
    driver.run();
    let expected = [ms(11), ms(12), ms(1_013), ms(1_014)];
    assert_eq!(driver.heard[&id].at, expected);
}

#[test]
fn a_crash_ends_everything_after_what_was_generated() {
    let mut driver = Driver::new(&with(vec![at(0.0125, Fault::Crash)]));
    let running = driver.submit(request("a", &[1; 10], 9)).unwrap();
    driver.run();
    let heard = &driver.heard[&running];
    assert_eq!(heard.at, [ms(11), ms(12)]);
    assert_eq!(heard.finish, None);
    let error = heard.error.as_ref().unwrap();
    assert_eq!(error.class, ErrorClass::Unavailable);
    assert_eq!(error.reason, "engine_crashed");

    let error = driver.submit(request("b", &[1; 10], 9)).unwrap_err();
    assert_eq!(error.class, ErrorClass::Unavailable);
    assert_eq!(driver.mocker.check(), Err(error));
    assert_eq!(driver.mocker.load(), Load::default());
    assert_eq!(driver.mocker.wake_at(), None);
}

#[test]
fn a_crash_hands_over_what_was_not_taken() {
    let mut driver = Driver::new(&config());
    let id = driver.submit(request("a", &[1; 10], 9)).unwrap();
    driver.mocker.step(ms(0));
    driver.mocker.step(ms(11));
    driver.mocker.inject(ms(11), Fault::Crash).unwrap();
    let outputs = driver.mocker.take_outputs();
    assert_eq!(outputs.len(), 2);
    assert_eq!(outputs[0].1.as_ref().unwrap().token_ids.len(), 1);
    assert!(outputs.iter().all(|(other, _)| *other == id));
    assert!(outputs[1].1.is_err());
}

#[test]
fn slowness_is_a_factor_until_it_is_another() {
    let mut driver = Driver::new(&config());
    let slow = |driver: &mut Driver, factor| {
        let now = driver.now;
        driver.mocker.inject(now, Fault::Slow { factor })
    };
    slow(&mut driver, 3.0).unwrap();
    let heard = driver.answer(request("a", &[1; 10], 2));
    assert_eq!(heard.at, [ms(33), ms(36)]);
    slow(&mut driver, 1.0).unwrap();
    let heard = driver.answer(request("b", &[2; 10], 1));
    assert_eq!(heard.at, [ms(36 + 11)]);
    let error = slow(&mut driver, 0.0);
    assert!(matches!(error, Err(ConfigError::Fault { .. })));
}

#[test]
fn who_refuses_goes_on_with_what_it_has() {
    let mut driver = Driver::new(&config());
    let running = driver.submit(request("a", &[1; 10], 3)).unwrap();
    driver.now = ms(10);
    let refuse = Fault::Refuse { seconds: 2.0 };
    driver.mocker.inject(driver.now, refuse).unwrap();
    driver.now = ms(510);
    let error = driver.submit(request("b", &[1; 10], 1)).unwrap_err();
    assert_eq!(error.class, ErrorClass::CapacityExhausted);
    assert_eq!(error.retry_after, Some(Duration::from_millis(1_500)));
    driver.run();
    assert_eq!(driver.heard[&running].tokens.len(), 3);
    driver.now = ms(2_010);
    driver.submit(request("b", &[1; 10], 1)).unwrap();
}

#[test]
fn a_fault_is_for_its_instance() {
    let crash = ScheduledFault {
        instance: Some(1),
        ..at(0.0, Fault::Crash)
    };
    let config = with(vec![crash]);
    for (instance, crashes) in [(0, false), (1, true), (2, false)] {
        let mut driver = Driver::instance(&config, instance);
        driver.run();
        assert_eq!(driver.mocker.check().is_err(), crashes);
    }
    let wrong = with(vec![at(-1.0, Fault::Crash)]);
    let key = forebay_tokens::ContentKey::new([7; 32]);
    let error = forebay_mocker::Mocker::new(&wrong, 0, key, Duration::ZERO);
    assert!(matches!(error, Err(ConfigError::Fault { .. })));
}
