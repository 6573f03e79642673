//! Sizes of tables: primes, so that every step from every beginning visits every slot.

/// Sizes to choose from. 65537 and 655373 are those that the paper measures.
pub const SIZES: [u32; 13] =
    [251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_537, 131_071, 262_139, 524_287, 655_373];

/// The largest size that is taken: such a table has 32 MiB.
pub const LARGEST: u32 = 16_777_213;

/// Slots for each backend with which no share is more than a hundredth off.
const SLOTS_PER_BACKEND: u64 = 100;

/// The size for so many backends: the first of [`SIZES`] with at least 100 slots for each or, for more backends than
/// those are made for, the next prime; never more than [`LARGEST`].
pub fn size_for(backends: usize) -> u32 {
    let wanted = (backends as u64).saturating_mul(SLOTS_PER_BACKEND);
    match SIZES.into_iter().find(|&size| u64::from(size) >= wanted) {
        Some(size) => size,
        None => next_prime(u32::try_from(wanted).unwrap_or(LARGEST).min(LARGEST)),
    }
}

/// The first prime that is not less.
pub(super) fn next_prime(from: u32) -> u32 {
    (from..).find(|&n| is_prime(n)).unwrap_or(LARGEST)
}

pub(super) fn is_prime(n: u32) -> bool {
    let divisors = (2..).take_while(|d: &u32| u64::from(*d) * u64::from(*d) <= u64::from(n));
    n >= 2 && divisors.into_iter().all(|d| !n.is_multiple_of(d))
}
