use std::time::Duration;

use forebay_mocker::MockerConfig;

use crate::driver::{Driver, config, ms, request};

#[test]
fn tokens_come_when_the_performance_model_says() {
    let mut driver = Driver::new(&config());
    let heard = driver.answer(request("a", &[1; 10], 4));
    // Ten prompt tokens and the fixed part, then the fixed part alone.
    assert_eq!(heard.at, [ms(11), ms(12), ms(13), ms(14)]);
    // Eight of them are cached now.
    let heard = driver.answer(request("b", &[1; 10], 1));
    assert_eq!((heard.cached_tokens, heard.at), (8, vec![ms(14 + 3)]));
}

#[test]
fn a_long_prompt_goes_in_chunks() {
    let mut driver = Driver::new(&config());
    let heard = driver.answer(request("a", &[1; 150], 1));
    // 64 tokens a batch: three iterations.
    assert_eq!(heard.at, [ms(153)]);
}

#[test]
fn who_looks_late_loses_no_time() {
    let mut driver = Driver::new(&config());
    let id = driver.submit(request("a", &[1; 10], 4)).unwrap();
    driver.step();
    driver.now = ms(100);
    for _ in 0..4 {
        driver.step();
    }
    let expected = [ms(11), ms(12), ms(13), ms(14)];
    assert_eq!(driver.heard[&id].at, expected);
    // After that there was nothing to do: what comes next begins when it comes.
    let heard = driver.answer(request("b", &[2; 5], 1));
    assert_eq!(heard.at, [ms(106)]);
}

#[test]
fn a_request_that_comes_during_an_iteration_waits_for_its_end() {
    let mut driver = Driver::new(&config());
    driver.submit(request("a", &[1; 10], 2)).unwrap();
    driver.step();
    driver.now = ms(5);
    let late = driver.submit(request("b", &[2; 3], 1)).unwrap();
    driver.step();
    assert_eq!(driver.mocker.wake_at(), Some(ms(11)));
    driver.run();
    // Begun at 11, with three prompt tokens beside the other's decode.
    assert_eq!(driver.heard[&late].at, [ms(11 + 4)]);
}

#[test]
fn at_speed_zero_nothing_takes_time() {
    let mut driver = Driver::new(&MockerConfig {
        speed: 0.0,
        ..config()
    });
    let heard = driver.answer(request("a", &[1; 150], 20));
    assert_eq!(heard.at, [Duration::ZERO; 20]);
    let mut driver = Driver::new(&MockerConfig {
        speed: 2.0,
        ..config()
    });
    let heard = driver.answer(request("a", &[1; 9], 2));
    assert_eq!(heard.at, [ms(5), Duration::from_micros(5_500)]);
}

#[test]
fn a_paused_engine_begins_nothing() {
    let mut driver = Driver::new(&config());
    let id = driver.submit(request("a", &[1; 10], 2)).unwrap();
    driver.step();
    driver.mocker.pause();
    driver.run();
    // What had begun came to its end.
    assert_eq!(driver.heard[&id].at, [ms(11)]);
    driver.now = ms(50);
    driver.mocker.resume();
    driver.run();
    assert_eq!(driver.heard[&id].at, [ms(11), ms(51)]);
}
