//! Fuzz targets: every decoder of bytes from outside, each a function of the bytes alone.
//!
//! A target panics when a promise is broken: the decoder panics, takes more memory than it may, or does not read back
//! what it has written. `tests/fuzz/run` lets libFuzzer look for such bytes; `cargo test` runs every target over its seeds, over
//! what was found before (`corpus/`), and over mutations of both.
//!
//! Checksums are no protection against an attacker and hide the code behind them, so targets put them right first.

mod blocks;
mod ingest;
mod pages;
mod peers;
mod query;

/// One decoder under attack.
pub struct Target {
    /// As in `corpus/NAME.txt` and on the command line.
    pub name: &'static str,
    /// Decodes the bytes and checks what comes out.
    pub run: fn(&[u8]),
    /// Good inputs to begin from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets, by name.
pub const TARGETS: &[Target] = &[
    blocks::BLOCKS,
    ingest::INFLUX,
    ingest::JSON_LINES,
    ingest::OPEN_METRICS,
    ingest::OTLP,
    ingest::OTLP_JSON,
    ingest::PROTOBUF,
    ingest::REMOTE_WRITE,
    ingest::SYMBOLS,
    ingest::TEXT,
    pages::PAGES,
    peers::BODY,
    peers::DATAGRAM,
    peers::MESSAGE,
    peers::RECORD,
    query::PARTS,
    query::PROMQL,
];

/// The target of a name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Bytes written as hexadecimal digits; anything else is skipped.
#[must_use]
pub fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|c| c.to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    digits
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}
