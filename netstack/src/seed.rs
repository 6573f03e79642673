//! The only door for randomness: a [`Seed`] from the caller, from which every table derives a key of its own.

use core::hash::BuildHasher;
use core::hash::Hasher;

use siphasher::sip::SipHasher13;

/// 32 bytes of entropy chosen by the caller. The same seed gives the same behaviour, to the byte.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub [u8; 32]);

impl core::fmt::Debug for Seed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // A seed guards hash tables against crafted collisions: it stays out of logs.
        f.write_str("Seed(..)")
    }
}

impl Seed {
    /// A seed for tests and simulations.
    pub const fn from_u64(value: u64) -> Self {
        let mut bytes = [0; 32];
        let v = value.to_le_bytes();
        let mut i = 0;
        while i < 8 {
            bytes[i] = v[i];
            i += 1;
        }
        Self(bytes)
    }

    /// A number that depends on the whole seed and on `label`, so that no two users share a key.
    pub fn derive(&self, label: &str) -> u64 {
        let key = |at: usize| -> u64 {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&self.0[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let mut hasher = SipHasher13::new_with_keys(key(0), key(8));
        hasher.write(&self.0[16..]);
        hasher.write(label.as_bytes());
        hasher.finish()
    }

    /// The hasher that tables keyed by outside bytes use.
    pub fn hasher(&self, label: &str) -> TableHasher {
        TableHasher {
            key: (self.derive(label), self.derive("second key") ^ self.derive(label).rotate_left(32)),
        }
    }

    /// A small generator for jitter and identifiers; not for secrets.
    pub fn rng(&self, label: &str) -> Rng {
        Rng { state: self.derive(label) }
    }
}

/// Builds SipHash-1-3 with a key from the seed: outside parties choose the keys of our tables, so the hash must
/// not be predictable.
#[derive(Clone, Copy, Debug)]
pub struct TableHasher {
    key: (u64, u64),
}

impl BuildHasher for TableHasher {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.key.0, self.key.1)
    }
}

/// SplitMix64: a deterministic sequence from one derived key.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..bound` (`bound` > 0), by multiplication; the bias is below 2^-32 for bounds that fit 32 bits.
    pub fn below(&mut self, bound: u32) -> u32 {
        let high = (u64::from(bound) * (self.next_u64() >> 32)) >> 32;
        u32::try_from(high).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_seeds_separate() {
        let a = Seed::from_u64(1);
        assert_eq!(a.derive("fdb"), Seed::from_u64(1).derive("fdb"));
        assert_ne!(a.derive("fdb"), a.derive("neighbor"));
        assert_ne!(a.derive("fdb"), Seed::from_u64(2).derive("fdb"));
        let mut late = [0; 32];
        late[31] = 1;
        assert_ne!(Seed([0; 32]).derive("fdb"), Seed(late).derive("fdb"));
    }

    #[test]
    fn below_stays_below() {
        let mut rng = Seed::from_u64(7).rng("test");
        let mut seen = [0u32; 5];
        for _ in 0..5000 {
            seen[rng.below(5) as usize] += 1;
        }
        assert!(seen.iter().all(|&n| n > 800), "{seen:?}");
    }
}
