//! WAV headers as recorders leave them: whether their lengths fit the file, and what would mend them.
//!
//! A recorder writes the header first, with lengths of zero, and again when it is done; one that was
//! killed leaves the zeros. Nothing here decides about anything but the two lengths: bytes of audio are
//! never judged, and a header that is not understood is left alone.

/// Bytes before the first chunk: `RIFF`, length, `WAVE`.
const RIFF_HEADER_BYTES: usize = 12;
/// Name and length of a chunk.
const CHUNK_HEADER_BYTES: usize = 8;
/// Bytes of the RIFF header that its length does not count.
const UNCOUNTED_BYTES: u64 = 8;
/// Lengths from here on mean "as long as it goes", which players know.
const STREAMED: u32 = 0x7fff_0000;

const RIFF_LENGTH_AT: u64 = 4;

/// Format tag of A-law samples.
const TAG_A_LAW: u16 = 6;
/// Format tag of µ-law samples.
const TAG_MU_LAW: u16 = 7;

/// A header with its chunks up to the audio.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wav {
    tag: u16,
    bits: u16,
    /// Bytes of one sample of all channels.
    frame_bytes: u64,
    /// Where the audio begins.
    data_at: u64,
    riff_says: u32,
    data_says: u32,
    /// The first bytes of the audio name another chunk that ends where the file does or before.
    chunk_follows: Option<u64>,
}

/// How the lengths of a header fit the length of its file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fit {
    /// A player finds all of the audio, or the header says on purpose that it goes on to the end.
    Good,
    /// The header says that there is no audio, and there is.
    SaysNothing,
    /// The header says more than there is.
    SaysTooMuch,
}

/// Four bytes to put over those at `offset`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patch {
    /// Where in the file.
    pub offset: u64,
    /// What belongs there.
    pub bytes: [u8; 4],
}

impl Wav {
    /// The header that `start`, the first bytes of a file, holds. `None`: no WAV, or its audio does not
    /// begin within `start`.
    pub fn parse(start: &[u8]) -> Option<Self> {
        if start.get(..4)? != b"RIFF" || start.get(8..RIFF_HEADER_BYTES)? != b"WAVE" {
            return None;
        }
        let mut format = None;
        let mut at = RIFF_HEADER_BYTES;
        loop {
            let name = start.get(at..at + 4)?;
            let length = u32_at(start, at + 4)?;
            let content = at + CHUNK_HEADER_BYTES;
            if name == b"data" {
                let (tag, frame_bytes, bits) = format?;
                return Some(Self {
                    tag,
                    bits,
                    frame_bytes: u64::from(frame_bytes),
                    data_at: content as u64,
                    riff_says: u32_at(start, 4)?,
                    data_says: length,
                    chunk_follows: chunk_end(start, content),
                });
            }
            if name == b"fmt " {
                format = Some((
                    u16_at(start, content)?,
                    u16_at(start, content + 12)?,
                    u16_at(start, content + 14)?,
                ));
            }
            // Chunks begin at even offsets.
            let padded = usize::try_from(u64::from(length) + u64::from(length % 2)).ok()?;
            at = content.checked_add(padded)?;
        }
    }

    /// How the header fits a file of `file_bytes`.
    pub fn fit(&self, file_bytes: u64) -> Fit {
        let there = file_bytes.saturating_sub(self.data_at);
        if self.data_says == 0 {
            let empty = there == 0 || self.chunk_follows.is_some_and(|end| end <= file_bytes);
            return if empty { Fit::Good } else { Fit::SaysNothing };
        }
        if u64::from(self.data_says) > there && self.data_says < STREAMED {
            return Fit::SaysTooMuch;
        }
        Fit::Good
    }

    /// What makes the header of a file of `file_bytes` tell its audio: whole samples of all channels up to
    /// the end. Empty when the lengths fit, or when a header cannot tell so much.
    pub fn mend(&self, file_bytes: u64) -> Vec<Patch> {
        if self.fit(file_bytes) == Fit::Good {
            return Vec::new();
        }
        let there = file_bytes.saturating_sub(self.data_at);
        let audio = there - there % self.frame_bytes.max(1);
        let riff = self.data_at - UNCOUNTED_BYTES + audio + audio % 2;
        let (Ok(audio), Ok(riff)) = (u32::try_from(audio), u32::try_from(riff)) else {
            return Vec::new();
        };
        let patches = [
            (RIFF_LENGTH_AT, self.riff_says, riff),
            (self.data_at - 4, self.data_says, audio),
        ];
        let wrong = patches.iter().filter(|(_, says, is)| says != is);
        wrong
            .map(|&(offset, _, is)| Patch {
                offset,
                bytes: is.to_le_bytes(),
            })
            .collect()
    }

    /// The byte that is silence where audio is missing.
    pub fn silence(&self) -> u8 {
        match (self.tag, self.bits) {
            (TAG_A_LAW, _) => 0xd5,
            (TAG_MU_LAW, _) => 0xff,
            // Samples of 8 bits have their middle at 128.
            (1, 8) => 0x80,
            _ => 0,
        }
    }

    /// Where the audio begins.
    pub fn data_at(&self) -> u64 {
        self.data_at
    }
}

/// Where the chunk at `at` ends, if the bytes there look like the beginning of one.
fn chunk_end(start: &[u8], at: usize) -> Option<u64> {
    let name = start.get(at..at + 4)?;
    let is_name = name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b' ');
    is_name.then_some(())?;
    Some((at + CHUNK_HEADER_BYTES) as u64 + u64::from(u32_at(start, at + 4)?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A header of 8 kHz mono with 16-bit samples that says `data` bytes.
    fn header(tag: u16, bits: u16, data: u32) -> Vec<u8> {
        let mut bytes = b"RIFF".to_vec();
        bytes.extend(data.saturating_add(36).to_le_bytes());
        bytes.extend(b"WAVEfmt ");
        bytes.extend(16_u32.to_le_bytes());
        bytes.extend(tag.to_le_bytes());
        bytes.extend([1, 0]);
        bytes.extend(8000_u32.to_le_bytes());
        bytes.extend(16000_u32.to_le_bytes());
        bytes.extend((bits / 8).to_le_bytes());
        bytes.extend(bits.to_le_bytes());
        bytes.extend(b"data");
        bytes.extend(data.to_le_bytes());
        bytes
    }

    fn mended(mut bytes: Vec<u8>, file_bytes: u64) -> Vec<u8> {
        for patch in Wav::parse(&bytes).unwrap().mend(file_bytes) {
            let at = patch.offset as usize;
            bytes[at..at + 4].copy_from_slice(&patch.bytes);
        }
        bytes
    }

    #[test]
    fn a_header_of_zero_length_gets_the_length_of_the_file() {
        let start = header(1, 16, 0);
        let wav = Wav::parse(&start).unwrap();
        assert_eq!(wav.fit(44), Fit::Good, "nothing was recorded");
        assert_eq!(wav.fit(1044), Fit::SaysNothing);
        assert_eq!(mended(start.clone(), 1044), header(1, 16, 1000));
        assert_eq!(mended(start, 1045), header(1, 16, 1000), "half a sample is none");
    }

    #[test]
    fn a_header_that_says_more_than_is_there_gets_what_is_there() {
        let start = header(1, 16, 5000);
        assert_eq!(Wav::parse(&start).unwrap().fit(1044), Fit::SaysTooMuch);
        assert_eq!(mended(start, 1044), header(1, 16, 1000));
    }

    #[test]
    fn lengths_that_fit_or_are_meant_to_be_open_stay() {
        for (says, file_bytes) in [(1000, 1044), (1000, 1200), (u32::MAX, 1044), (STREAMED, 90)] {
            let wav = Wav::parse(&header(1, 16, says)).unwrap();
            assert_eq!(wav.fit(file_bytes), Fit::Good, "{says} in {file_bytes}");
            assert_eq!(wav.mend(file_bytes), []);
        }
    }

    #[test]
    fn an_empty_data_chunk_before_another_chunk_is_no_mistake() {
        let mut start = header(1, 16, 0);
        start.extend(b"LIST");
        start.extend(4_u32.to_le_bytes());
        start.extend(b"INFO");
        assert_eq!(Wav::parse(&start).unwrap().fit(start.len() as u64), Fit::Good);
        assert_eq!(
            Wav::parse(&start).unwrap().fit(54),
            Fit::SaysNothing,
            "it does not fit either"
        );
    }

    #[test]
    fn silence_depends_on_the_samples() {
        let silence = |tag, bits| Wav::parse(&header(tag, bits, 0)).unwrap().silence();
        assert_eq!(
            [silence(1, 16), silence(1, 8), silence(6, 8), silence(7, 8)],
            [0, 0x80, 0xd5, 0xff]
        );
    }

    #[test]
    fn chunks_before_the_audio_are_stepped_over_with_their_padding() {
        let plain = header(1, 16, 0);
        let mut start = plain[..36].to_vec();
        start.extend(b"fact");
        start.extend(3_u32.to_le_bytes());
        start.extend([1, 2, 3, 0]);
        start.extend(&plain[36..]);
        let wav = Wav::parse(&start).unwrap();
        assert_eq!(wav.data_at(), 56);
        assert_eq!(wav.mend(156)[1].offset, 52);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), file_bytes: u64, cut in 0usize..60) {
            if let Some(wav) = Wav::parse(&bytes) {
                wav.mend(file_bytes);
            }
            let mut start = header(1, 16, 7);
            start.truncate(cut);
            start.extend(bytes);
            if let Some(wav) = Wav::parse(&start) {
                for patch in wav.mend(file_bytes) {
                    prop_assert!(patch.offset + 4 <= start.len() as u64);
                }
            }
        }
    }
}
