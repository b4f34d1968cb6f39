//! Overwriting blocks before the last one in place: what has to be durable first, and how the old pages
//! that a write changes in part come to memory with as few reads and waits as possible.

use std::io;
use std::ops::Range;

use crate::sealed::head::State;
use crate::sealed::length::{block_of, plain_offset_of};
use crate::sealed::page::PAYLOAD_AT;
use crate::sealed::{BLOCK_PLAIN_BYTES, PAGE_BYTES, body_offset};
use crate::store::backing::Backing;
use crate::store::error::StoreError;
use crate::store::sealed_file::SealedFile;
use crate::store::sealed_file::pages::{RUN_PAGES, with_scratch};
use crate::store::sealed_file::read::read_full;
use crate::store::sealed_file::rules::{Rule, holds};

const P: usize = BLOCK_PLAIN_BYTES;

/// Where fetching around missed pages begins, and how far it goes in recordings and in larger files.
const FETCH_BYTES_MIN: u64 = 64 << 10;
const FETCH_BYTES_MAX: u64 = 1 << 20;
const FETCH_BYTES_MAX_LARGE: u64 = 128 << 10;
/// From here on a file is large: fetching all of it would cost more than it could save.
const LARGE_FILE_BYTES: u64 = 256 << 20;

/// Blocks before the tail block that one write changes.
#[derive(Clone, Copy)]
struct Run {
    first: u64,
    blocks: usize,
    /// Where in the first block the change begins.
    at: usize,
    bytes: usize,
}

impl Run {
    /// The part of the data that lies in the block of this index, and where in the block.
    fn part(self, index: usize) -> (usize, Range<usize>) {
        let from = if index == 0 { self.at } else { 0 };
        (
            from,
            index * P + from - self.at..self.bytes.min((index + 1) * P - self.at),
        )
    }

    fn keeps_some_of(self, index: usize) -> bool {
        self.part(index).1.len() < P
    }

    /// Pages that are needed as they are, neighbours together: only the first and the last can be.
    fn old_pages(self) -> [Range<usize>; 2] {
        let last = self.blocks - 1;
        let (first_kept, last_kept) = (self.keeps_some_of(0), last > 0 && self.keeps_some_of(last));
        let of_last = last..last + usize::from(last_kept);
        if first_kept && last_kept && last == 1 {
            return [0..2, 2..2];
        }
        [0..usize::from(first_kept), of_last]
    }
}

/// How much is fetched around an old page that is not in memory: nothing for a single change, more and
/// more in a file that is changed all over, whose other pages will soon be asked for.
#[derive(Default)]
pub(super) struct FetchAround {
    bytes: u64,
}

impl FetchAround {
    /// A page at this offset was missed: what to fetch.
    fn missed(&mut self, sealed_offset: u64, sealed_end: u64) -> Range<u64> {
        let window = self.bytes;
        let most = if sealed_end < LARGE_FILE_BYTES {
            FETCH_BYTES_MAX
        } else {
            FETCH_BYTES_MAX_LARGE
        };
        self.bytes = (window * 2).clamp(FETCH_BYTES_MIN, most);
        if window == 0 {
            return sealed_offset..sealed_offset;
        }
        let from = sealed_offset / window * window;
        from..(from + window).min(sealed_end)
    }
}

impl<B: Backing> SealedFile<B> {
    /// Before a page in the middle changes, a durable head vouches for every durable block: should the
    /// page be torn, recovery would end the file there. Costs nothing until the next sync makes more
    /// blocks durable.
    fn vouch_barrier(&mut self) -> Result<(), StoreError> {
        let content = self.content_mut()?;
        let durable = content.durable_through.max(content.syncing_through);
        let whole = content.end().tail_block - 1;
        if content.durable_head_vouches >= durable.min(whole) || !holds(Rule::VouchBarrier) {
            return Ok(());
        }
        if whole > content.durable_through {
            // The next sync makes these durable too, and their tail slots are then free again.
            self.sync_within()?;
        }
        let backing = self.backing.clone();
        self.content_mut()?.write_head(&*backing, State::Open)?;
        self.sync_within()
    }

    /// Overwrites blocks before the tail block, in place.
    pub(super) fn overwrite_run(&mut self, plain_offset: u64, data: &[u8]) -> Result<usize, StoreError> {
        self.in_place_barrier()?;
        self.vouch_barrier()?;
        let run = self.run_of(plain_offset, data.len())?;
        if self.options.strict_overwrite && holds(Rule::CopyAside) {
            self.copy_aside(run.first)?;
        }
        let generation = self.content_mut()?.next_generation();
        let pages = with_scratch(run.blocks * PAGE_BYTES, |scratch| {
            for old in run.old_pages() {
                self.read_old(run.first, old, scratch)?;
            }
            for (i, page) in scratch.chunks_exact_mut(PAGE_BYTES).enumerate() {
                let block = run.first + i as u64;
                let (from, in_data) = run.part(i);
                let part = &data[in_data];
                let content = self.content_mut()?;
                if part.len() == P {
                    content.seal_body(generation, block, part, page)?;
                } else {
                    page[PAYLOAD_AT + from..PAYLOAD_AT + from + part.len()].copy_from_slice(part);
                    content.seal_body_in_place(generation, block, page)?;
                }
            }
            Ok::<_, StoreError>(self.backing.write_at(scratch, body_offset(run.first))? / PAGE_BYTES)
        })?;
        if pages == 0 {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC).into());
        }
        self.content_mut()?.since_sync.wrote(run.first, pages, generation);
        if self.options.strict_overwrite {
            // The page is there, so this write is acknowledged; a failure is remembered, and until it is
            // made up for the old page stays where it is.
            match self.sync_backing() {
                Ok(()) => self.content_mut()?.tails.aside = None,
                Err(e) => log::debug!("a sync after overwriting block {}: {e}", run.first),
            }
        }
        Ok(run.bytes.min(pages * P - run.at))
    }

    /// As much of a write as goes in one run.
    fn run_of(&mut self, plain_offset: u64, bytes: usize) -> Result<Run, StoreError> {
        let first = block_of(plain_offset);
        let at = (plain_offset - plain_offset_of(first)) as usize;
        let limit = if self.options.strict_overwrite { 1 } else { RUN_PAGES };
        let behind = self.content_mut()?.end().tail_block - first;
        let blocks = (at + bytes)
            .div_ceil(P)
            .min(limit)
            .min(usize::try_from(behind).unwrap_or(limit));
        let bytes = bytes.min(blocks * P - at);
        Ok(Run {
            first,
            blocks,
            at,
            bytes,
        })
    }

    /// Reads neighbouring pages of a run that begins with block `first` and opens each in its place.
    fn read_old(&mut self, first: u64, which: Range<usize>, run: &mut [u8]) -> Result<(), StoreError> {
        if which.is_empty() {
            return Ok(());
        }
        let first = first + which.start as u64;
        let pages = &mut run[which.start * PAGE_BYTES..which.end * PAGE_BYTES];
        if !self.backing.read_cached(pages, body_offset(first))? {
            let around = self.fetch_around.missed(body_offset(first), self.sealed_end());
            if !around.is_empty() {
                self.backing.fetch(around.start, around.end - around.start);
            }
            read_full(&*self.backing, pages, body_offset(first))?;
        }
        for (block, page) in (first..).zip(pages.chunks_exact_mut(PAGE_BYTES)) {
            self.open_block(block, page)?;
        }
        Ok(())
    }

    /// Strict overwrite: the old page goes to a tail slot and is durable there before the body page
    /// changes. The slot is free again after the sync that follows the overwrite.
    fn copy_aside(&mut self, block: u64) -> Result<(), StoreError> {
        let whole = self.read_block(block)?;
        self.rewrite_tail_if_needed()?;
        self.sync_within()?;
        let backing = self.backing.clone();
        let content = self.content_mut()?;
        let spare = (0..crate::sealed::SLOT_COUNT as u8)
            .find(|&slot| Some(slot) != content.tails.durable && Some(slot) != content.tails.current)
            .expect("at most two slots are in use after a sync");
        content.write_aside(&*backing, spare, block, &whole)?;
        content.tails.aside = Some(spare);
        self.sync_backing()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_that_a_run_keeps_in_part_are_read_with_one_call_when_they_are_neighbours() {
        let run = |at: usize, bytes: usize| Run {
            first: 7,
            blocks: (at + bytes).div_ceil(P),
            at,
            bytes,
        };
        let old = |run: Run| run.old_pages().map(|range| (!range.is_empty()).then_some(range));
        assert_eq!(old(run(0, P)), [None, None], "one whole block");
        assert_eq!(old(run(0, 3 * P)), [None, None], "three whole blocks");
        assert_eq!(old(run(0, 1)), [Some(0..1), None]);
        assert_eq!(old(run(P - 1, 1)), [Some(0..1), None]);
        assert_eq!(old(run(100, 4096)), [Some(0..2), None], "4 KiB over two blocks");
        assert_eq!(old(run(0, P + 1)), [None, Some(1..2)]);
        assert_eq!(old(run(1, 2 * P - 1)), [Some(0..1), None]);
        assert_eq!(old(run(1, 3 * P)), [Some(0..1), Some(3..4)]);
    }

    #[test]
    fn the_parts_of_a_run_cover_its_data_once() {
        for (at, bytes) in [
            (0_usize, 1_usize),
            (0, P),
            (P - 1, 2),
            (100, 4096),
            (17, 5 * P),
            (0, 65_536),
        ] {
            let run = Run {
                first: 1,
                blocks: (at + bytes).div_ceil(P),
                at,
                bytes,
            };
            let mut next = 0;
            for index in 0..run.blocks {
                let (from, part) = run.part(index);
                assert_eq!(part.start, next);
                assert_eq!((at + part.start) % P, from);
                assert!(!part.is_empty() && from + part.len() <= P);
                next = part.end;
            }
            assert_eq!(next, bytes);
        }
    }

    #[test]
    fn fetching_begins_at_the_second_miss_and_grows_to_its_bound() {
        let mut fetch = FetchAround::default();
        let small = 40 << 20;
        assert!(fetch.missed(5 << 20, small).is_empty(), "a single change");
        assert_eq!(
            fetch.missed((5 << 20) + 4096, small),
            5 << 20..(5 << 20) + FETCH_BYTES_MIN
        );
        for _ in 0..8 {
            fetch.missed(0, small);
        }
        assert_eq!(fetch.missed(small - 4096, small), small - FETCH_BYTES_MAX..small);
        let odd = small - 4096;
        assert_eq!(
            fetch.missed(odd - 4096, odd),
            small - FETCH_BYTES_MAX..odd,
            "never past the end"
        );
        let large = LARGE_FILE_BYTES;
        fetch.missed(0, large);
        assert_eq!(fetch.missed(0, large), 0..FETCH_BYTES_MAX_LARGE);
    }
}
