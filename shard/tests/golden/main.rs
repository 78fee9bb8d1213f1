//! The bytes of every journal record, of a checkpoint and of every peer message, as `docs/formats/records.md`
//! draws them. A line of a `.txt` file is a name and the bytes in hexadecimal; a change of one is a change of the
//! format, and needs a new version.

mod examples;

use bytes::Bytes;
use examples::{checkpointed, envelope, messages, records};
use std::fmt::Write as _;
use trefoil_shard::{Faults, Message, Record, Recovery, Settings, decode_message, encode_message};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares all cases at once, so that a failure shows what the file should hold.
fn check<'a>(golden: &str, cases: impl Iterator<Item = (&'a str, Vec<u8>)>) {
    let mut found = String::new();
    for (name, bytes) in cases {
        writeln!(found, "{name} {}", hex(&bytes)).expect("a string takes everything");
    }
    assert_eq!(found, golden, "the bytes of a format have changed");
}

#[test]
fn records_are_pinned() {
    let encode = |record: &Record| {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        bytes
    };
    let cases = records();
    check(
        include_str!("records.txt"),
        cases.iter().map(|(name, record)| (*name, encode(record))),
    );
    for (name, record) in &cases {
        let decoded = Record::decode(&Bytes::from(encode(record)));
        assert_eq!(decoded.as_ref(), Ok(record), "{name}");
    }
}

#[test]
fn messages_are_pinned() {
    let encode = |message: &Message| {
        let mut bytes = Vec::new();
        encode_message(&envelope(), message, &mut bytes);
        bytes
    };
    let cases = messages();
    check(
        include_str!("messages.txt"),
        cases.iter().map(|(name, message)| (*name, encode(message))),
    );
    for (name, message) in &cases {
        let bytes = Bytes::from(encode(message));
        let expected = (envelope(), message.clone());
        assert_eq!(decode_message(&bytes), Ok(expected), "{name}");
    }
}

#[test]
fn a_checkpoint_is_pinned() {
    let (bytes, _) = checkpointed()
        .checkpoint()
        .expect("every deletion is known");
    let cases = [("checkpoint", bytes.clone())];
    check(include_str!("checkpoint.txt"), cases.into_iter());
    let read = |bytes: &[u8]| {
        let bytes = Bytes::copy_from_slice(bytes);
        let (settings, faults) = (Settings::default(), Faults::default());
        Recovery::new(settings, faults, examples::NODE, Some(&bytes)).map(|_| ())
    };
    assert_eq!(read(&bytes), Ok(()));
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        assert!(read(&damaged).is_err(), "byte {at}");
    }
}

/// A reader refuses what another version wrote, and says which.
#[test]
fn other_versions_are_refused() {
    for (name, record) in records() {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        bytes[0] += 1;
        let why = Record::decode(&Bytes::from(bytes)).map_err(|error| error.to_string());
        let expected = "journal record has format version 2, this program reads 1";
        assert_eq!(why, Err(expected.to_owned()), "{name}");
    }
}
