//! Length arithmetic: the plaintext length of a sealed file is readable from its size alone.
//!
//! The size of a sealed backing file, past its last page, is a hole that was never written and says
//! how many bytes of the last block are used. Worked: 1 byte -> 20,481; 3,808 -> 24,288;
//! 3,809 -> 28,673 (one body page, one byte used); 7,856 -> 28,672; 2,880,044 -> 2,938,988.

use super::{BLOCK_PLAIN_BYTES, BODY_BASE, HEAD_PLAIN_BYTES, PAGE_BYTES};

const P0: u64 = HEAD_PLAIN_BYTES as u64;
const P: u64 = BLOCK_PLAIN_BYTES as u64;
const PAGE: u64 = PAGE_BYTES as u64;

/// Sizes with this residue modulo the page size belong to files that are being written.
pub const UNCLEAN_RESIDUE: u64 = PAGE - 1;

/// Longest plaintext whose sealed size, with room ahead, stays below 2^62.
pub const MAX_PLAIN_LENGTH: u64 = 1 << 61;

const _: () = assert!(UNCLEAN_RESIDUE >= P, "a sealed file never has the unclean residue");

/// What the size of a backing file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SizeOnDisk {
    /// A sealed file of this plaintext length.
    Clean(u64),
    /// A file that is being written, or was when its daemon or the machine died.
    Unclean,
    /// A size that no sealed file has.
    Damaged,
}

/// Sealed size of a plaintext length. Lengths above [`MAX_PLAIN_LENGTH`] are the caller's to refuse.
pub const fn sealed_size(plain_length: u64) -> u64 {
    if plain_length == 0 {
        return 0;
    }
    if plain_length <= P0 {
        return BODY_BASE + plain_length;
    }
    let behind_head = plain_length - P0;
    let pages = behind_head.div_ceil(P);
    let used = behind_head - P * (pages - 1);
    BODY_BASE + PAGE * (pages + 1) + if used < P { used } else { 0 }
}

/// What a size on disk means; the inverse of [`sealed_size`].
pub const fn classify(sealed_size: u64) -> SizeOnDisk {
    if sealed_size == 0 {
        return SizeOnDisk::Clean(0);
    }
    if sealed_size % PAGE == UNCLEAN_RESIDUE {
        return SizeOnDisk::Unclean;
    }
    if sealed_size <= BODY_BASE {
        return SizeOnDisk::Damaged;
    }
    let past = sealed_size - BODY_BASE;
    if past <= P0 {
        return SizeOnDisk::Clean(past);
    }
    if past < 2 * PAGE {
        return SizeOnDisk::Damaged;
    }
    let pages = (past - PAGE) / PAGE;
    let residue = (past - PAGE) % PAGE;
    if residue >= P {
        return SizeOnDisk::Damaged;
    }
    SizeOnDisk::Clean(P0 + P * (pages - 1) + if residue > 0 { residue } else { P })
}

/// Where a plaintext length ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End {
    /// The block that the next byte goes to, when block 0 is full; 1 otherwise.
    pub tail_block: u64,
    /// Bytes of that block in use, fewer than a whole block.
    pub tail_bytes: usize,
}

/// The block that an append to a recording of `plain_length` goes to.
pub const fn end_of(plain_length: u64) -> End {
    if plain_length <= P0 {
        return End {
            tail_block: 1,
            tail_bytes: 0,
        };
    }
    let behind_head = plain_length - P0;
    End {
        tail_block: behind_head / P + 1,
        tail_bytes: (behind_head % P) as usize,
    }
}

/// Plaintext offset of the first byte of `block` (1 or more).
pub const fn plain_offset_of(block: u64) -> u64 {
    P0 + (block - 1) * P
}

/// The block of a plaintext offset at or behind the end of block 0.
pub const fn block_of(plain_offset: u64) -> u64 {
    (plain_offset - P0) / P + 1
}

/// A size with the unclean residue at or past `sealed_end`.
pub const fn unclean_size(sealed_end: u64) -> u64 {
    sealed_end / PAGE * PAGE + UNCLEAN_RESIDUE
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_worked_sizes_of_the_format_hold() {
        for (plain, sealed) in [
            (0, 0),
            (1, 20_481),
            (3_808, 24_288),
            (7_856, 28_672),
            (7_855, 32_719),
            (2_880_044, 2_938_988),
        ] {
            assert_eq!(sealed_size(plain), sealed, "length {plain}");
        }
    }

    #[test]
    fn sizes_that_no_sealed_file_has_are_damage() {
        for size in [
            1,
            4096,
            20_480,
            BODY_BASE + P0 + 1,
            BODY_BASE + 8191 - 4095,
            BODY_BASE + 2 * PAGE + P,
        ] {
            assert_eq!(classify(size), SizeOnDisk::Damaged, "size {size}");
        }
        assert_eq!(classify(4095), SizeOnDisk::Unclean);
        assert_eq!(classify(unclean_size(1 << 20)), SizeOnDisk::Unclean);
    }

    proptest! {
        #[test]
        fn size_and_length_are_each_others_inverse(plain in prop_oneof![0u64..40_000, 0u64..MAX_PLAIN_LENGTH]) {
            prop_assert_eq!(classify(sealed_size(plain)), SizeOnDisk::Clean(plain));
        }

        #[test]
        fn every_clean_size_is_the_size_of_its_length(size in prop_oneof![0u64..80_000, 0u64..1 << 60]) {
            if let SizeOnDisk::Clean(plain) = classify(size) {
                prop_assert_eq!(sealed_size(plain), size);
            }
        }

        #[test]
        fn the_end_of_a_length_adds_up(plain in P0..MAX_PLAIN_LENGTH) {
            let end = end_of(plain);
            prop_assert_eq!(plain_offset_of(end.tail_block) + end.tail_bytes as u64, plain);
            prop_assert!(end.tail_bytes < BLOCK_PLAIN_BYTES);
        }
    }
}
