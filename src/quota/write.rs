//! How much of a write fits: pure arithmetic, no accounts.

/// A cut write ends on a multiple of this: one frame of 16-bit stereo, or audio after the cut is noise.
pub(super) const FRAME_BYTES: u64 = 4;

/// A write that is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriteAsk {
    /// Where it begins, in plaintext.
    pub plain_offset: u64,
    /// How many bytes.
    pub size: u64,
    /// Length of the file before.
    pub old_length: u64,
}

impl WriteAsk {
    fn end(self) -> u64 {
        self.plain_offset.saturating_add(self.size)
    }

    /// By how much the file grows, a hole before the write included. A write of nothing makes no hole.
    pub(super) fn growth(self) -> u64 {
        if self.size == 0 {
            return 0;
        }
        self.end().saturating_sub(self.old_length)
    }

    /// The write cut so that the file stays within `file_size` (to the byte; what lies inside the length already is not
    /// cut). `None` when nothing of it is left.
    pub(super) fn within_file_size(self, file_size: u64) -> Option<Self> {
        let end = self.end().min(file_size.max(self.old_length));
        let size = end.checked_sub(self.plain_offset).filter(|size| *size > 0)?;
        Some(Self { size, ..self })
    }

    /// The write cut so that the file grows by `room` at most, its end on a whole frame; the part inside the length is
    /// always taken. `None` when nothing of it is left.
    pub(super) fn within_room(self, room: u64) -> Option<Self> {
        if self.growth() <= room {
            return Some(self);
        }
        // No overflow: the growth is larger than the room.
        let frame_end = (self.old_length + room) / FRAME_BYTES * FRAME_BYTES;
        let end = frame_end.max(self.old_length);
        let size = end.checked_sub(self.plain_offset).filter(|size| *size > 0)?;
        Some(Self { size, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The largest acceptable size, found by trying all.
    fn by_trial(ask: WriteAsk, room: u64) -> Option<u64> {
        let acceptable = |size: &u64| {
            let end = ask.plain_offset + size;
            let grows = end > ask.old_length;
            let fits = end.saturating_sub(ask.old_length) <= room;
            let whole = *size == ask.size;
            fits && (whole || !grows || end.is_multiple_of(FRAME_BYTES))
        };
        if ask.size == 0 {
            return Some(0);
        }
        (1..=ask.size).rev().find(acceptable)
    }

    proptest! {
        #[test]
        fn room_is_used_as_far_as_whole_frames_go(plain_offset in 0_u64..40, size in 0_u64..40, old_length in 0_u64..40, room in 0_u64..50) {
            let ask = WriteAsk { plain_offset, size, old_length };
            prop_assert_eq!(ask.within_room(room).map(|cut| cut.size), by_trial(ask, room));
        }

        #[test]
        fn file_size_is_used_to_the_byte(plain_offset in 0_u64..40, size in 1_u64..40, old_length in 0_u64..40, file_size in 0_u64..90) {
            let ask = WriteAsk { plain_offset, size, old_length };
            let expected = (1..=size).rev().find(|size| plain_offset + size <= file_size.max(old_length));
            prop_assert_eq!(ask.within_file_size(file_size).map(|cut| cut.size), expected);
        }
    }

    #[test]
    fn the_end_of_numbers_is_no_special_case() {
        let ask = WriteAsk {
            plain_offset: u64::MAX - 1,
            size: 100,
            old_length: u64::MAX - 4,
        };
        assert_eq!(ask.growth(), 4);
        assert_eq!(ask.within_room(3), None);
        assert_eq!(ask.within_room(4), Some(ask));
    }
}
