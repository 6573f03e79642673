//! The algorithm as the paper writes it down, to measure against.

use lb::maglev::Permutation;

/// `permutation[i][j] = (offset + j * skip) mod M`, for all backends one after the other.
pub(super) fn permutation(walks: &[Permutation], size: u32) -> Vec<u32> {
    let m = u64::from(size);
    let row = |walk: &Permutation| {
        let (offset, skip) = (u64::from(walk.offset), u64::from(walk.skip));
        (0..m).map(move |j| u32::try_from((offset + j * skip) % m).expect("less than M"))
    };
    walks.iter().flat_map(row).collect()
}

/// The paper's second pseudocode: every entry is -1 until its backend's turn comes. What a backend prefers j-th, `preferred`
/// says.
pub(super) fn populate(backends: usize, size: u32, preferred: impl Fn(usize, usize) -> usize) -> Vec<i32> {
    let mut next = vec![0; backends];
    let mut entry = vec![-1; size as usize];
    let mut n = 0;
    loop {
        for (i, next) in next.iter_mut().enumerate() {
            let mut c = preferred(i, *next);
            while entry[c] >= 0 {
                *next += 1;
                c = preferred(i, *next);
            }
            entry[c] = i32::try_from(i).expect("few backends");
            *next += 1;
            n += 1;
            if n == size {
                return entry;
            }
        }
    }
}
