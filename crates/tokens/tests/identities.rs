//! The two identities of a block: the public one against the field's own code, the private one
//! against what it must never confuse.
#![allow(clippy::unwrap_used)]

use forebay_tokens::{
    BlockChain, BlockIdentity, BlockSize, ContentId, ContentKey, ContentNamespace, FeatureSpan,
    RoutingHash, RoutingSeed, TokenId, feature_routing_hash,
};
use proptest::prelude::*;
use serde_json::Value;

fn namespace(fingerprint: &[u8], salt: &[u8]) -> ContentNamespace {
    ContentNamespace::new(&ContentKey::new([42; 32]), fingerprint, salt)
}

fn chain(seed: RoutingSeed, block_size: u32) -> BlockChain {
    BlockChain::new(
        namespace(b"model", b""),
        seed,
        BlockSize::new(block_size).unwrap(),
    )
}

fn identities(tokens: &[TokenId], block_size: u32) -> Vec<BlockIdentity> {
    let mut chain = chain(RoutingSeed::default(), block_size);
    chain.extend(tokens);
    chain.identities().to_vec()
}

fn hex(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap(), 16).unwrap()
}

#[test]
fn routing_hashes_are_the_fields() {
    let cases: Vec<Value> =
        serde_json::from_str(include_str!("golden/routing_hashes.json")).unwrap();
    assert_eq!(cases.len(), 10);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let tokens: Vec<TokenId> = serde_json::from_value(case["tokens"].clone()).unwrap();
        let block_size = u32::try_from(case["block_size"].as_u64().unwrap()).unwrap();
        let seed = RoutingSeed::new(
            case["lora"].as_str().unwrap(),
            case["salt"].as_str().unwrap(),
        );
        let features = case["features"].as_array().unwrap().iter().flat_map(|at| {
            let block = usize::try_from(at["block"].as_u64().unwrap()).unwrap();
            let hashes = at["hashes"].as_array().unwrap();
            hashes.iter().map(move |hash| FeatureSpan {
                start: block * block_size as usize,
                tokens: 1,
                routing: hex(hash),
                digest: [0; 32],
            })
        });

        let mut chain = chain(seed, block_size).with_features(features.collect());
        chain.extend(&tokens);

        let hashes: Vec<u64> = chain.identities().iter().map(|id| id.routing.0).collect();
        let expected: Vec<u64> = case["routing_hashes"]
            .as_array()
            .unwrap()
            .iter()
            .map(hex)
            .collect();
        assert_eq!(hashes, expected, "{name}");

        if case["features"].as_array().unwrap().is_empty() {
            let blocks = tokens.chunks_exact(block_size as usize);
            let hashes: Vec<u64> = blocks.map(|block| chain.block_hash_of(block).0).collect();
            let expected: Vec<u64> = case["block_hashes"]
                .as_array()
                .unwrap()
                .iter()
                .map(hex)
                .collect();
            assert_eq!(hashes, expected, "{name}");
        }
    }
}

#[test]
fn a_public_collision_is_two_contents() {
    let a = [
        1009, 1029, 1032, 1056, 1077, 1092, 1109, 1117, 1136, 1148, 1160, 1189, 1195, 1214, 1236,
        1252,
    ];
    let b = [
        1002, 1028, 1038, 1050, 1064, 1091, 1098, 1120, 1135, 1155, 1160, 1185, 1206, 1217, 1236,
        1254,
    ];
    let (a, b) = (identities(&a, 16), identities(&b, 16));
    assert_eq!(a[0].routing, RoutingHash(0x075a_004c_1779_538c));
    assert_eq!(b[0].routing, a[0].routing);
    assert_ne!(b[0].content, a[0].content);
}

#[test]
fn contents_are_apart_by_key_model_tenant_and_parent() {
    let id = |namespace: ContentNamespace, parent: Option<ContentId>| {
        namespace.content_id(parent, &[1, 2, 3], std::iter::empty())
    };
    let base = id(namespace(b"model", b"tenant"), None);
    assert_eq!(id(namespace(b"model", b"tenant"), None), base);
    assert_ne!(id(namespace(b"model2", b"tenant"), None), base);
    assert_ne!(id(namespace(b"model", b"tenant2"), None), base);
    assert_ne!(
        id(namespace(b"modelt", b"enant"), None),
        base,
        "the parts do not run together"
    );
    assert_ne!(id(namespace(b"model", b"tenant"), Some(base)), base);
    let other_key = ContentNamespace::new(&ContentKey::new([43; 32]), b"model", b"tenant");
    assert_ne!(id(other_key, None), base);
}

#[test]
fn secrets_are_not_printed() {
    let key = ContentKey::new([0xab; 32]);
    assert_eq!(format!("{key:?}"), "ContentKey(secret)");
    let namespace = ContentNamespace::new(&key, b"", b"");
    assert_eq!(format!("{namespace:?}"), "ContentNamespace(secret)");
    let chain = BlockChain::new(
        namespace,
        RoutingSeed::default(),
        BlockSize::new(4).unwrap(),
    );
    assert!(format!("{chain:?}").contains("ContentNamespace(secret)"));
}

#[test]
fn a_feature_marks_every_block_it_touches_and_no_other() {
    let tokens: Vec<TokenId> = (0..16).collect();
    let plain = identities(&tokens, 4);
    let span = |digest| FeatureSpan {
        start: 6,
        tokens: 4,
        routing: 99,
        digest: [digest; 32],
    };
    let with = |span| {
        let mut chain = chain(RoutingSeed::default(), 4).with_features(vec![span]);
        chain.extend(&tokens);
        chain.identities().to_vec()
    };
    let marked = with(span(1));
    assert_eq!(marked[0], plain[0]);
    for block in 1..4 {
        // Blocks 1 and 2 hold its tokens; block 3 comes after them.
        assert_ne!(marked[block].routing, plain[block].routing);
        assert_ne!(marked[block].content, plain[block].content);
    }
    let twin = with(span(2));
    assert_eq!(twin[1].routing, marked[1].routing);
    assert_ne!(
        twin[1].content, marked[1].content,
        "the digest, not the routing hash, names content"
    );
}

#[test]
fn feature_identifiers_are_read_as_engines_write_them() {
    let digest = "0123456789abcdef".repeat(4);
    assert_eq!(feature_routing_hash(&digest), Some(0x0123_4567_89ab_cdef));
    assert_eq!(feature_routing_hash(""), None);
    assert_ne!(
        feature_routing_hash("image-1"),
        feature_routing_hash("image-2")
    );
}

proptest! {
    /// However a sequence grows, its identities are those of its tokens, block by block.
    #[test]
    fn growth_does_not_matter(
        tokens in prop::collection::vec(any::<u32>(), 0..200),
        cuts in prop::collection::vec(0usize..40, 0..40),
        block_size in 1u32..20,
    ) {
        let mut grown = chain(RoutingSeed::default(), block_size);
        let mut rest = &tokens[..];
        for cut in cuts {
            let (head, tail) = rest.split_at(cut.min(rest.len()));
            match head {
                [token] => grown.push(*token),
                _ => grown.extend(head),
            }
            rest = tail;
        }
        grown.extend(rest);

        let namespace = namespace(b"model", b"");
        let mut expected: Vec<BlockIdentity> = Vec::new();
        for block in tokens.chunks_exact(block_size as usize) {
            let hash = RoutingSeed::default().block_hash(block, &[]);
            let parent = expected.last();
            expected.push(BlockIdentity {
                content: namespace.content_id(parent.map(|p| p.content), block, std::iter::empty()),
                routing: parent.map_or(RoutingHash::root(hash), |p| p.routing.child(hash)),
            });
        }
        prop_assert_eq!(grown.identities(), &expected[..]);
        prop_assert_eq!(grown.tail(), tokens.chunks_exact(block_size as usize).remainder());
        prop_assert_eq!(grown.len(), tokens.len());
    }

    /// Long blocks take the path with an allocation, to the same hash.
    #[test]
    fn block_length_does_not_matter(tokens in prop::collection::vec(any::<u32>(), 1..400)) {
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        let expected = xxhash_rust::xxh3::xxh3_64_with_seed(&bytes, 1337);
        prop_assert_eq!(RoutingSeed::default().block_hash(&tokens, &[]).0, expected);
    }
}
