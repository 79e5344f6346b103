//! The form in which an instance is kept outside of this process.

use bytes::Bytes;
use forebay_protocols::discovery::InstanceRecord;
use forebay_tokens::WorkerId;
use prost::Message as _;

use super::Instance;
use crate::names::EndpointId;

/// Why a record is not what its name says.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    /// It is something else.
    #[error("it is no record of an instance")]
    Foreign(#[source] prost::DecodeError),
    /// It is the record of another instance.
    #[error("it is the record of {worker:016x} behind {endpoint:?}")]
    Misplaced {
        /// The endpoint that it names.
        endpoint: String,
        /// The worker that it names.
        worker: u64,
    },
}

/// The record of an instance that is there, kept by `owner` and living by `lease`.
pub(crate) fn record(instance: &Instance, owner: u64, lease: u64) -> InstanceRecord {
    InstanceRecord {
        endpoint: instance.endpoint.to_string(),
        worker: instance.worker.0,
        address: instance.address.clone(),
        card: instance.card.to_vec(),
        owner,
        leaving: false,
        lease,
    }
}

/// Reads the record that was found under the name of `endpoint` and `worker`.
pub(super) fn read(
    bytes: &[u8],
    endpoint: &EndpointId,
    worker: WorkerId,
) -> Result<InstanceRecord, RecordError> {
    let record = InstanceRecord::decode(bytes).map_err(RecordError::Foreign)?;
    if record.worker != worker.0 || record.endpoint != endpoint.to_string() {
        return Err(RecordError::Misplaced {
            endpoint: record.endpoint,
            worker: record.worker,
        });
    }
    Ok(record)
}

/// The instance of a record that was read under the name of `endpoint`.
pub(super) fn instance(record: InstanceRecord, endpoint: &EndpointId) -> Instance {
    Instance {
        endpoint: endpoint.clone(),
        worker: WorkerId(record.worker),
        address: record.address,
        card: Bytes::from(record.card),
    }
}

/// Whether an address can be that of its instance: over TCP and NATS it ends with the instance's
/// endpoint and worker. Whether it is, is the peer's to confirm.
pub(super) fn names_its_instance(instance: &Instance) -> bool {
    let target = match instance.address.split_once(':') {
        Some(("tcp", rest)) => {
            let path = rest
                .strip_prefix("//")
                .and_then(|rest| rest.split_once('/'));
            path.map(|(_, path)| path.split_once('?').map_or(path, |(target, _)| target))
        }
        Some(("nats", rest)) => rest.split_once('@').map(|(target, _)| target),
        _ => return true,
    };
    let expected = format!("{}/{}", instance.endpoint, name(instance.worker));
    target == Some(expected.as_str())
}

/// The name of a worker's record.
pub(super) fn name(worker: WorkerId) -> String {
    format!("{:016x}", worker.0)
}

/// The worker whose record has this name.
pub(super) fn worker(name: &str) -> Option<WorkerId> {
    let is_plain = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    let is_name = name.len() == 16 && name.as_bytes().iter().all(is_plain);
    let worker = u64::from_str_radix(name, 16).ok().filter(|_| is_name);
    worker.map(WorkerId)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_record_is_what_its_name_says() {
        let endpoint = EndpointId::new("a", "b", "c").unwrap();
        let instance = Instance {
            endpoint: endpoint.clone(),
            worker: WorkerId(0xab),
            address: "here".to_owned(),
            card: Bytes::from_static(b"card"),
        };
        let bytes = record(&instance, 1, 2).encode_to_vec();
        let read_back = read(&bytes, &endpoint, WorkerId(0xab)).unwrap();
        assert_eq!((read_back.owner, read_back.lease), (1, 2));
        assert_eq!(super::instance(read_back, &endpoint), instance);

        let other = EndpointId::new("a", "b", "d").unwrap();
        assert!(read(&bytes, &other, WorkerId(0xab)).is_err());
        assert!(read(&bytes, &endpoint, WorkerId(0xac)).is_err());
        assert!(read(b"", &endpoint, WorkerId(0)).is_err());
        assert!(read(b"\xff\xff", &endpoint, WorkerId(0)).is_err());
    }

    #[test]
    fn an_address_names_its_instance() {
        let of = |address: &str| Instance {
            endpoint: EndpointId::new("a", "b", "c").unwrap(),
            worker: WorkerId(0xab),
            address: address.to_owned(),
            card: Bytes::new(),
        };
        for good in [
            "tcp://[::1]:80/a/b/c/00000000000000ab",
            "tcp://host:80/a/b/c/00000000000000ab?identity=w",
            "nats:a/b/c/00000000000000ab@0000000000000001",
            "process:a/b/c/ab",
        ] {
            assert!(names_its_instance(&of(good)), "{good}");
        }
        for bad in [
            "tcp:",
            "tcp://host:80",
            "tcp://host:80/a/b/c/00000000000000ac",
            "tcp://host:80/a/b/d/00000000000000ab?identity=w",
            "tcp://host:80/a/b/c/00000000000000ab/",
            "nats:a/b/c/00000000000000ab",
            "nats:a/b/c/00000000000000ac@0000000000000001",
        ] {
            assert!(!names_its_instance(&of(bad)), "{bad}");
        }
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for id in [0, 0xab, u64::MAX] {
            assert_eq!(worker(&name(WorkerId(id))), Some(WorkerId(id)));
        }
        for bad in ["", "ab", "00000000000000AB", "+0000000000000ab", ".tmp"] {
            assert_eq!(worker(bad), None, "{bad}");
        }
    }

    proptest! {
        /// Whatever is found under a name: what is read of it is of that name, and its address is
        /// looked at without trouble.
        #[test]
        fn any_bytes_are_a_record_of_their_name_or_none(
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            noise in proptest::collection::vec(any::<u8>(), 0..80),
            is_noise: bool,
        ) {
            let endpoint = EndpointId::new("a", "b", "c").unwrap();
            let address = "tcp://[::1]:80/a/b/c/00000000000000ab?identity=w".to_owned();
            let (worker, card) = (WorkerId(0xab), Bytes::from_static(b"card"));
            let instance = Instance { endpoint: endpoint.clone(), worker, address, card };
            let mut bytes = record(&instance, 1, 2).encode_to_vec();
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let bytes = if is_noise { noise } else { bytes };
            if let Ok(record) = read(&bytes, &endpoint, worker) {
                let instance = super::instance(record, &endpoint);
                prop_assert_eq!(instance.worker, worker);
                names_its_instance(&instance);
            }
        }

        #[test]
        fn any_text_names_one_worker_or_none(text in "[0-9a-fA-F.+]{14,18}|.{0,20}") {
            if let Some(worker) = worker(&text) {
                prop_assert_eq!(name(worker), text);
            }
        }
    }
}
