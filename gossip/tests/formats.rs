//! The bytes of `docs/formats/gossip.md`, and what happens to bytes that are not of that form.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use std::{net::SocketAddr, time::Duration};
use trefoil_gossip::{ClusterKey, GossipError, Load, Membership, NodeInfo, NodePhase};
use trefoil_model::{ClusterId, Incarnation, NodeId};

const NOW: Duration = Duration::from_secs(1);

fn address(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn info(node: u64) -> NodeInfo {
    NodeInfo {
        node: NodeId(node),
        name: format!("n{node}"),
        zone: String::new(),
        http: address(80),
        peer: address(node as u16),
        incarnation: Incarnation(1),
        cluster: Some(ClusterId(2)),
        version: "v".into(),
        load: Load {
            series: 3,
            bytes: 4,
        },
        phase: NodePhase::Ready,
    }
}

fn node(id: u64, key: Option<[u8; 32]>) -> Membership {
    let key = key.map(ClusterKey::new);
    Membership::new(info(id), 9, key.as_ref(), id, Duration::ZERO).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Passes datagrams between two nodes until none is left; returns them all.
fn converse(a: &mut Membership, b: &mut Membership) -> Vec<Vec<u8>> {
    let mut seen = Vec::new();
    for _ in 0..20 {
        while let Some((_, bytes)) = a.poll_send() {
            b.handle_datagram(&bytes, NOW).unwrap();
            seen.push(bytes);
        }
        while let Some((_, bytes)) = b.poll_send() {
            a.handle_datagram(&bytes, NOW).unwrap();
            seen.push(bytes);
        }
    }
    seen
}

#[test]
fn golden_datagrams() {
    let (mut a, mut b) = (node(1, None), node(2, None));
    a.announce(address(2));
    let seen = converse(&mut a, &mut b);
    let hello = "546701003ee0d9b602\
        00000000000000010000000000000009047f0000010001";
    let announce = "5467010034a4b1c401\
        00000000000000020000000000000009047f0000010002\
        0000\
        00000000000000010000000000000009047f0000010001\
        07";
    assert_eq!(strip_sum(&hex(&seen[0])), strip_sum(hello));
    assert_eq!(strip_sum(&hex(&seen[1])), strip_sum(announce));
    let description = "01\
        0000000000000001000000000000000900000002\
        02\
        00000000000000000000000000000001\
        00000000000000000000000000000002\
        00000000000000030000000000000004\
        047f0000010050\
        047f0000010001\
        026e31\
        00\
        0176";
    let carriers = seen.iter().filter(|bytes| hex(bytes).contains(description));
    assert!(carriers.count() > 0, "{description}");
    assert_eq!(a.members().count(), 1);
    assert_eq!(b.member(NodeId(1)).map(|m| &m.info), Some(&info(1)));
}

/// The hexadecimal datagram without its checksum (bytes 4 to 8).
fn strip_sum(datagram: &str) -> String {
    format!("{}{}", &datagram[..8], &datagram[16..])
}

#[test]
fn protection_must_agree() {
    let check = |sender: Option<[u8; 32]>, receiver: Option<[u8; 32]>, expected| {
        let (mut a, mut b) = (node(1, sender), node(2, receiver));
        a.announce(address(2));
        let (_, bytes) = a.poll_send().unwrap();
        assert_eq!(b.handle_datagram(&bytes, NOW), expected);
        b.counters()
    };
    assert_eq!(check(None, None, Ok(())).accepted, 1);
    assert_eq!(check(Some([1; 32]), Some([1; 32]), Ok(())).accepted, 1);
    let refused = check(Some([1; 32]), None, Err(GossipError::Sealed));
    assert_eq!(refused.refused_protection, 1);
    let refused = check(None, Some([1; 32]), Err(GossipError::NotSealed));
    assert_eq!(refused.refused_protection, 1);
    let refused = check(Some([1; 32]), Some([2; 32]), Err(GossipError::WrongKey));
    assert_eq!(refused.refused_key, 1);
}

#[test]
fn sealed_datagrams_hide_their_content_and_open_again() {
    let (mut a, mut b) = (node(1, Some([5; 32])), node(2, Some([5; 32])));
    a.announce(address(2));
    let seen = converse(&mut a, &mut b);
    assert_eq!(b.member(NodeId(1)).map(|m| &m.info), Some(&info(1)));
    for bytes in &seen {
        assert_eq!(hex(&bytes[..4]), "54670101");
        assert!(
            !bytes
                .windows(2)
                .skip(4)
                .any(|pair| pair == b"n1" && bytes.len() < 64)
        );
    }
}

#[test]
fn replayed_datagrams_change_nothing() {
    let (mut a, mut b) = (node(1, None), node(2, None));
    a.announce(address(2));
    let seen = converse(&mut a, &mut b);
    let before: Vec<_> = b.members().cloned().collect();
    for bytes in &seen {
        // Half of them were addressed to the other node; those are refused or ignored.
        drop(b.handle_datagram(bytes, NOW));
    }
    assert_eq!(b.members().cloned().collect::<Vec<_>>(), before);
}

#[test]
fn hostile_bytes_never_panic() {
    let mut random = StdRng::seed_from_u64(42);
    let (mut a, mut b) = (node(1, None), node(2, None));
    a.announce(address(2));
    let real = converse(&mut a, &mut b);
    for round in 0..40_000u32 {
        let mut content = if round % 4 == 0 {
            let mut bytes = vec![0; random.random_range(0..200)];
            random.fill_bytes(&mut bytes);
            bytes
        } else {
            let mut bytes = real[random.random_range(0..real.len())][8..].to_vec();
            for _ in 0..random.random_range(0..4) {
                let at = random.random_range(0..bytes.len());
                bytes[at] = random.random();
            }
            bytes.truncate(random.random_range(0..=bytes.len() * 2).min(bytes.len()));
            bytes
        };
        if round % 4 == 0 && !content.is_empty() {
            content[0] = random.random_range(0..5);
        }
        let mut datagram = b"Tg\x01\x00".to_vec();
        datagram.extend_from_slice(&crc32c::crc32c(&content).to_be_bytes());
        datagram.extend_from_slice(&content);
        drop(b.handle_datagram(&datagram, NOW + Duration::from_millis(u64::from(round))));
        b.handle_timeouts(NOW + Duration::from_millis(u64::from(round)));
        while b.poll_send().is_some() {}
        while b.poll_notification().is_some() {}
    }
    assert!(b.members().count() <= 1100);
    // Bytes that are no envelope at all.
    for length in 0..64 {
        let mut bytes = vec![0; length];
        random.fill_bytes(&mut bytes);
        assert!(b.handle_datagram(&bytes, NOW).is_err());
    }
    assert!(b.handle_datagram(&[0; 2000], NOW).is_err());
}

#[test]
fn strangers_are_refused_beyond_the_bound() {
    let mut b = node(60_000, None);
    let mut refused = 0;
    for stranger in 1..=1100u64 {
        let mut a = node(stranger, None);
        a.announce(address(1));
        let (_, hello) = a.poll_send().unwrap();
        b.handle_datagram(&hello, NOW).unwrap();
        let (_, announcement) = b.poll_send().unwrap();
        a.handle_datagram(&announcement, NOW).unwrap();
        while let Some((_, bytes)) = a.poll_send() {
            refused += usize::from(matches!(
                b.handle_datagram(&bytes, NOW),
                Err(GossipError::TooManyMembers { .. })
            ));
        }
        while b.poll_send().is_some() {}
    }
    assert!(refused >= 70, "{refused}");
    assert!(b.members().count() <= 1024);
}

#[test]
fn too_long_texts_are_refused() {
    let mut long = info(1);
    long.name = "x".repeat(65);
    let refused = Membership::new(long.clone(), 1, None, 1, NOW).err();
    assert_eq!(
        refused,
        Some(GossipError::TextTooLong {
            field: "node name",
            bytes: 65,
            bytes_max: 64
        })
    );
    assert!(node(1, None).update_self(long, NOW).is_err());
}
