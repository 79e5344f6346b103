//! A worker's card of any bytes, as discovery brings it: what is read can be told on, and is read
//! again as the same.

#![no_main]

use bytes::Bytes;
use forebay_engine::remote::WorkerCard;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(card) = WorkerCard::decode(Bytes::copy_from_slice(data)) else {
        return;
    };
    let again = WorkerCard::decode(card.encode());
    let again = again.expect("it was read before");
    assert_eq!(again, card);
    assert_eq!(again.digest(), card.digest());
});
