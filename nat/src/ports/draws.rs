//! Several draws out of one random number.

/// SplitMix64 from a number that the caller drew: equal numbers give equal draws.
pub(crate) struct Draws(pub(crate) u64);

impl Draws {
    /// Uniform in `0..bound`, `bound` being above 0, by multiplication.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        u32::try_from((u64::from(bound) * (z >> 32)) >> 32).unwrap_or(0)
    }
}
