//! Plaintext length from the size of the sealed file alone, by FORMAT.md section 4.

/// Head slots, tail slots and the place of block 0.
const BODY_START: u64 = 20_480;
const PAGE: u64 = 4096;
/// Plaintext bytes of block 0 and of every other block.
const FIRST_BLOCK: u64 = 3808;
const BLOCK: u64 = 4048;
/// Residue of the size that marks a file which was being written.
const UNCLEAN_RESIDUE: u64 = 4095;

/// What a size on disk says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SizeOnDisk {
    /// A sealed file with this plaintext length.
    Clean(u64),
    /// A file that was being written: only its pages know the length.
    Unclean,
    /// No file of ours has this size.
    Damaged,
}

/// Sorts the size of a sealed file.
pub fn classify(sealed_size: u64) -> SizeOnDisk {
    if sealed_size == 0 {
        return SizeOnDisk::Clean(0);
    }
    if sealed_size % PAGE == UNCLEAN_RESIDUE {
        return SizeOnDisk::Unclean;
    }
    let Some(past) = sealed_size.checked_sub(BODY_START) else {
        return SizeOnDisk::Damaged;
    };
    if (1..=FIRST_BLOCK).contains(&past) {
        return SizeOnDisk::Clean(past);
    }
    let Some(body) = past.checked_sub(PAGE).filter(|&body| body >= PAGE) else {
        return SizeOnDisk::Damaged;
    };
    let (pages, used) = (body / PAGE, body % PAGE);
    match used {
        0 => SizeOnDisk::Clean(FIRST_BLOCK + BLOCK * pages),
        1..BLOCK => SizeOnDisk::Clean(FIRST_BLOCK + BLOCK * (pages - 1) + used),
        _ => SizeOnDisk::Damaged,
    }
}

#[cfg(test)]
pub(super) fn sealed_size(plain_len: u64) -> u64 {
    if plain_len == 0 {
        return 0;
    }
    if plain_len <= FIRST_BLOCK {
        return BODY_START + plain_len;
    }
    let rest = plain_len - FIRST_BLOCK;
    let pages = rest.div_ceil(BLOCK);
    let last = rest - BLOCK * (pages - 1);
    BODY_START + PAGE * (pages + 1) + if last < BLOCK { last } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worked_sizes_of_the_format() {
        let worked = [
            (0, 0),
            (1, 20_481),
            (3808, 24_288),
            (3809, 28_673),
            (7855, 32_719),
            (7856, 28_672),
            (2_880_044, 2_938_988),
        ];
        for (plain, sealed) in worked {
            assert_eq!(sealed_size(plain), sealed, "{plain}");
            assert_eq!(classify(sealed), SizeOnDisk::Clean(plain), "{sealed}");
        }
    }

    #[test]
    fn every_length_comes_back_and_no_other_size_is_clean() {
        let mut clean = 0;
        for size in 0..200_000 {
            match classify(size) {
                SizeOnDisk::Clean(plain) => {
                    assert_eq!(sealed_size(plain), size);
                    clean += 1;
                }
                SizeOnDisk::Unclean => assert_eq!(size % 4096, 4095),
                SizeOnDisk::Damaged => {}
            }
        }
        assert_eq!(
            clean,
            (0..400_000).filter(|&n| sealed_size(n) < 200_000).count()
        );
        assert_eq!(classify(20_480), SizeOnDisk::Damaged);
        assert_eq!(classify(20_480 + 4000), SizeOnDisk::Damaged);
        assert_eq!(classify(1024 * 1024 + 4095), SizeOnDisk::Unclean);
        assert_eq!(classify(u64::MAX), SizeOnDisk::Unclean);
    }
}
