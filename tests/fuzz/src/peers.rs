//! What nodes send each other: envelopes of messages and journal records, bodies of parcels, datagrams.

use crate::{Target, from_hex};
use bytes::Bytes;
use std::{net::SocketAddr, time::Duration};
use trefoil_gossip::{Load, Membership, NodeInfo, NodePhase};
use trefoil_model::{Incarnation, Labels, NodeId, ShardId, ShardSet};
use trefoil_shard::{Parcel, Record, decode_message, encode_message};
use trefoil_store_metrics::{BodyReader, BodyWriter};

/// Bytes in front of the meta: version, length, checksum (docs/formats/peer.md).
const ENVELOPE_HEADER_BYTES: usize = 9;

pub(crate) const MESSAGE: Target = Target {
    name: "message",
    run: |bytes| {
        let bytes = with_checksum(bytes);
        if let Ok((envelope, message)) = decode_message(&bytes) {
            let mut again = Vec::new();
            encode_message(&envelope, &message, &mut again);
            let read = decode_message(&Bytes::from(again));
            assert!(read.is_ok_and(|read| read == (envelope, message)));
        }
    },
    seeds: || golden(include_str!("../../../shard/tests/golden/messages.txt")),
};

pub(crate) const RECORD: Target = Target {
    name: "record",
    run: |bytes| {
        let bytes = with_checksum(bytes);
        if let Ok(record) = Record::decode(&bytes) {
            let mut again = Vec::new();
            record.encode(&mut again);
            assert!(Record::decode(&Bytes::from(again)).is_ok_and(|read| read == record));
        }
        Parcel::decode(&bytes).ok();
    },
    seeds: || golden(include_str!("../../../shard/tests/golden/records.txt")),
};

pub(crate) const BODY: Target = Target {
    name: "body",
    run: |bytes| {
        // As it came, and as what was compressed.
        read_body(bytes);
        if let Some((version, content)) = bytes.split_first()
            && let Ok(frame) = zstd::bulk::compress(content, 1)
        {
            let length = (content.len() as u32).to_le_bytes();
            read_body(&[&[*version][..], &length, &frame].concat());
        }
    },
    seeds: || {
        let mut writer = BodyWriter::new().expect("memory for a compressor");
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "a")]);
        let samples = [(1_000, 1.0), (2_000, 1.5)];
        let added = writer.add_series(ShardId(3), labels.canonical(), samples);
        let body = added.and_then(|()| writer.finish()).expect("a small body");
        let plain =
            zstd::bulk::decompress(&body[5..], 1 << 20).expect("it was compressed just now");
        vec![[&body[..1], &plain].concat(), body]
    },
};

pub(crate) const DATAGRAM: Target = Target {
    name: "datagram",
    run: |bytes| {
        let mut node = member(1);
        // Several datagrams, each behind its length.
        let mut rest = bytes;
        let mut now = Duration::from_secs(1);
        while let Some((&[low, high], behind)) = rest.split_first_chunk::<2>() {
            let length = usize::from(u16::from_le_bytes([low, high])).min(behind.len());
            let (datagram, behind) = behind.split_at(length);
            node.handle_datagram(datagram, now).ok();
            node.handle_timeouts(now);
            while node.poll_send().is_some() {}
            while node.poll_notification().is_some() {}
            now += Duration::from_millis(300);
            rest = behind;
        }
    },
    seeds: || {
        let (mut one, mut other) = (member(2), member(1));
        one.announce(address(1));
        let mut seed = Vec::new();
        for _ in 0..4 {
            while let Some((_, datagram)) = one.poll_send() {
                seed.extend((datagram.len() as u16).to_le_bytes());
                seed.extend(&datagram);
                other
                    .handle_datagram(&datagram, Duration::from_secs(1))
                    .ok();
            }
            while let Some((_, datagram)) = other.poll_send() {
                one.handle_datagram(&datagram, Duration::from_secs(1)).ok();
            }
        }
        vec![seed]
    },
};

/// The bytes with the checksum that an envelope must have.
fn with_checksum(bytes: &[u8]) -> Bytes {
    let mut bytes = bytes.to_vec();
    if bytes.len() >= ENVELOPE_HEADER_BYTES {
        let checksum = crc32c::crc32c(&bytes[ENVELOPE_HEADER_BYTES..]);
        bytes[5..9].copy_from_slice(&checksum.to_le_bytes());
    }
    Bytes::from(bytes)
}

/// The bytes of a golden file: lines of a name and hexadecimal digits.
fn golden(text: &str) -> Vec<Vec<u8>> {
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.map(|(_, hex)| from_hex(hex)).collect()
}

fn read_body(bytes: &[u8]) {
    let mut reader = BodyReader::new().expect("memory for a decompressor");
    let Ok(mut body) = reader.open(bytes) else {
        return;
    };
    let all = ShardSet::all(64);
    while let Ok(Some(series)) = body.next_series(&all) {
        assert!(Labels::from_canonical(series.canonical).is_ok());
    }
    body.metadata(&all).ok();
}

fn address(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn member(number: u16) -> Membership {
    let info = NodeInfo {
        node: NodeId(u64::from(number)),
        name: "n".to_owned(),
        zone: String::new(),
        http: address(80),
        peer: address(number),
        incarnation: Incarnation(1),
        cluster: None,
        version: "v".to_owned(),
        load: Load {
            series: 3,
            bytes: 4,
        },
        phase: NodePhase::Ready,
    };
    Membership::new(info, 9, None, 7, Duration::ZERO).expect("its texts are short")
}
