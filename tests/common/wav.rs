//! Audio for tests: WAV files, and noise that can be made again from a seed and an offset.

const RATE: u32 = 8_000;

/// Length of the header of [`header`].
pub const HEADER_BYTES: u64 = 44;

/// A 44-byte header for `data_len` bytes of 8 kHz mono audio with 16-bit samples.
pub fn header(data_len: u32) -> Vec<u8> {
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((36 + data_len).to_le_bytes());
    bytes.extend(b"WAVEfmt ");
    bytes.extend(16_u32.to_le_bytes());
    bytes.extend([1, 0, 1, 0]);
    bytes.extend(RATE.to_le_bytes());
    bytes.extend((RATE * 2).to_le_bytes());
    bytes.extend([2, 0, 16, 0]);
    bytes.extend(b"data");
    bytes.extend(data_len.to_le_bytes());
    bytes
}

/// A whole recording of `data_len` bytes of noise.
pub fn file(seed: u64, data_len: u32) -> Vec<u8> {
    let mut bytes = header(data_len);
    let mut data = vec![0; data_len as usize];
    noise(seed, HEADER_BYTES, &mut data);
    bytes.extend(data);
    bytes
}

/// Fills `buffer` with the noise of `seed` that belongs at `offset`.
pub fn noise(seed: u64, offset: u64, buffer: &mut [u8]) {
    for (at, byte) in (offset..).zip(buffer) {
        *byte = scramble(seed, at / 8).to_le_bytes()[(at % 8) as usize];
    }
}

/// A number that looks random and follows from the two given.
pub fn scramble(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ n.wrapping_add(0xD1B5_4A32_D192_ED03);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Length of the audio that a player finds; panics when the header is broken or claims more than is there.
#[track_caller]
pub fn playable_bytes(file: &[u8]) -> u64 {
    let number = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().expect("four bytes"));
    assert_eq!(&file[0..4], b"RIFF");
    assert_eq!(&file[8..16], b"WAVEfmt ");
    assert_eq!(&file[36..40], b"data");
    assert_eq!(u64::from(number(4)) + 8, file.len() as u64, "RIFF length and size");
    let data_len = u64::from(number(40));
    assert_eq!(data_len + HEADER_BYTES, file.len() as u64, "data length and size");
    data_len
}
