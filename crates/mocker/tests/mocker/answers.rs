use forebay_mocker::{Answer, ConfigError, MockerConfig};
use forebay_protocols::ErrorClass;
use forebay_protocols::worker::{FinishReason, GenerateRequest, SamplingParams};
use forebay_tokens::TokenId;

use crate::driver::{Driver, config, request};

/// What must be answered, by the exported rule.
fn expected(request: &GenerateRequest, config: &MockerConfig, tokens: usize) -> Vec<TokenId> {
    let answer = Answer::new(request, config.answer_vocabulary());
    (0..tokens).map(|position| answer.token(position)).collect()
}

#[test]
fn an_answer_is_known_beforehand() {
    let prompt: Vec<_> = (0..150).collect();
    for seed in [0, 9] {
        let mut asked = request("a", &prompt, 20);
        asked.sampling = Some(SamplingParams {
            seed,
            ..Default::default()
        });
        let known = expected(&asked, &config(), 20);
        let heard = Driver::new(&config()).answer(asked);
        assert_eq!(heard.tokens, known);
        assert_eq!(heard.finish, Some(FinishReason::Length));
        assert_eq!(heard.prompt_tokens, 150);
    }
}

#[test]
fn an_answer_goes_on_after_what_was_emitted_elsewhere() {
    let asked = request("a", &[1, 2, 3, 4, 5], 10);
    let known = expected(&asked, &config(), 10);
    for emitted in 0..10 {
        let resumed = GenerateRequest {
            emitted_token_ids: known[..emitted].to_vec(),
            ..asked.clone()
        };
        let heard = Driver::new(&config()).answer(resumed);
        assert_eq!(heard.tokens, known[emitted..]);
    }
}

#[test]
fn an_answer_ends_by_itself_where_the_settings_say() {
    let config = MockerConfig {
        answer_tokens: 6,
        ..config()
    };
    let eos = config.eos().unwrap();
    let mut asked = request("a", &[1, 2, 3], 50);
    let mut known = expected(&asked, &config, 50);
    let answer = |asked: &GenerateRequest| Driver::new(&config).answer(asked.clone());
    // No end of sequence, no end.
    assert_eq!(answer(&asked).tokens, known);

    let stop = asked.stop.as_mut().unwrap();
    stop.eos_token_ids = vec![eos];
    let heard = answer(&asked);
    assert_eq!(heard.tokens[..6], known[..6]);
    assert_eq!(heard.tokens[6..], [eos]);
    assert_eq!(heard.finish, Some(FinishReason::Stop));
    assert_eq!(heard.matched_stop_token, None);

    asked.stop.as_mut().unwrap().min_tokens = 9;
    let heard = answer(&asked);
    assert_eq!(heard.tokens[..9], known[..9]);
    assert_eq!(heard.tokens[9..], [eos]);

    // Taken up beyond its end, it ends at once.
    let resumed = GenerateRequest {
        emitted_token_ids: known[..12].to_vec(),
        ..asked.clone()
    };
    assert_eq!(answer(&resumed).tokens, [eos]);

    asked.stop.as_mut().unwrap().ignore_eos = true;
    let heard = answer(&asked);
    known.truncate(50);
    assert_eq!(heard.tokens, known);
    assert_eq!(heard.finish, Some(FinishReason::Length));
}

#[test]
fn a_stop_token_ends_an_answer_but_not_before_its_minimum() {
    let mut asked = request("a", &[1, 2, 3], 12);
    let known = expected(&asked, &config(), 12);
    asked.stop.as_mut().unwrap().stop_token_ids = vec![known[4]];
    let heard = Driver::new(&config()).answer(asked.clone());
    assert_eq!(heard.tokens, known[..5]);
    assert_eq!(heard.finish, Some(FinishReason::Stop));
    assert_eq!(heard.matched_stop_token, Some(known[4]));

    asked.stop.as_mut().unwrap().min_tokens = 8;
    let heard = Driver::new(&config()).answer(asked);
    let words = config().answer_vocabulary();
    let next = if known[4] + 1 == words.end {
        words.start
    } else {
        known[4] + 1
    };
    assert_eq!(heard.tokens[4], next);
    assert_eq!(heard.tokens[..4], known[..4]);
    assert_eq!(heard.tokens[5..], known[5..]);
}

#[test]
fn another_vocabulary_is_used_whole() {
    let config = MockerConfig {
        vocabulary_size: Some(3),
        ..config()
    };
    assert_eq!(config.eos(), None);
    let heard = Driver::new(&config).answer(request("a", &[0, 1, 2], 40));
    for token in 0..3 {
        assert!(heard.tokens.contains(&token));
    }
    let error = Driver::new(&config).submit(request("a", &[3], 1));
    assert_eq!(error.unwrap_err().class, ErrorClass::InvalidRequest);
}

#[test]
fn settings_that_do_not_work_are_refused() {
    let refused = |change: fn(&mut MockerConfig)| {
        let mut config = config();
        change(&mut config);
        let key = forebay_tokens::ContentKey::new([7; 32]);
        forebay_mocker::Mocker::new(&config, 0, key, Default::default()).unwrap_err()
    };
    let error = refused(|config| config.block_size_tokens = 0);
    assert!(matches!(error, ConfigError::BlockSize));
    let error = refused(|config| config.kv_blocks = 0);
    assert!(matches!(error, ConfigError::KvBlocks));
    let error = refused(|config| config.vocabulary_size = Some(0));
    assert!(matches!(error, ConfigError::VocabularySize));
    let error = refused(|config| config.max_sequences = 0);
    assert!(matches!(error, ConfigError::Scheduler(_)));
    let error = refused(|config| config.speed = f64::NAN);
    assert!(matches!(error, ConfigError::Speed(_)));
}
