//! SplitMix64 (Steele, Lea, Flood 2014). Written out because the load must stay the same bytes in
//! every version, which the generators of the `rand` crate do not promise.

/// A generator whose sequence is fixed for ever by its seed.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// The generator number `stream` under `seed`; streams do not resemble each other.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self(seed);
        let base = random.next();
        Self(base ^ stream.wrapping_mul(0xd134_2543_de82_ef95))
    }

    /// All 64 bits random.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0.0..1.0`, with 53 random bits.
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in `0..below`; the bias of the remainder does not matter for a load.
    pub(super) fn below(&mut self, below: u64) -> u64 {
        self.next() % below.max(1)
    }
}

#[test]
fn golden_sequence() {
    let mut random = Random(0);
    assert_eq!(random.next(), 0xe220_a839_7b1d_cdaf);
    assert_eq!(random.next(), 0x6e78_9e6a_a1b9_65f4);
}
