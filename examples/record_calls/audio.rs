//! Audio that can be made again from a call's number, so that every byte read back can be checked.
//!
//! The byte at a file offset depends on the call and the offset alone: after a refused buffer the next one simply continues at
//! the length of the file, and a reader needs no record of what was written. The first 44 bytes are the WAV header.

/// Length of the canonical WAV header that libsndfile writes.
pub const HEADER_BYTES: u64 = 44;
/// Bytes of one second of 8 kHz mono audio with 16-bit samples.
pub const BYTES_PER_SECOND: u64 = 16_000;

/// Fills `buffer` with the audio of `seed` that belongs at `file_offset`.
pub fn fill(seed: u64, file_offset: u64, buffer: &mut [u8]) {
    let mut done = 0;
    while done < buffer.len() {
        let at = file_offset + done as u64;
        let word = mix(seed, at / 8).to_le_bytes();
        let from = (at % 8) as usize;
        let count = (8 - from).min(buffer.len() - done);
        buffer[done..done + count].copy_from_slice(&word[from..from + count]);
        done += count;
    }
}

/// The first offset at which `read` differs from the audio that belongs at `file_offset`; header bytes are not judged.
pub fn first_difference(seed: u64, file_offset: u64, read: &[u8]) -> Option<u64> {
    let mut expected = vec![0; read.len()];
    fill(seed, file_offset, &mut expected);
    let skipped = HEADER_BYTES.saturating_sub(file_offset).min(read.len() as u64) as usize;
    let differs = (skipped..read.len()).find(|&i| read[i] != expected[i])?;
    Some(file_offset + differs as u64)
}

/// A WAV header (8 kHz, mono, 16 bits) for a file of `file_len` bytes; `None` is the header written before the length is known.
pub fn header(file_len: Option<u64>) -> [u8; HEADER_BYTES as usize] {
    let (riff_len, data_len) = match file_len {
        Some(len) => (len.saturating_sub(8), len.saturating_sub(HEADER_BYTES)),
        None => (8, 0),
    };
    let field = |len: u64| u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = [0; HEADER_BYTES as usize];
    bytes[0..4].copy_from_slice(b"RIFF");
    bytes[4..8].copy_from_slice(&field(riff_len));
    bytes[8..16].copy_from_slice(b"WAVEfmt ");
    bytes[16..20].copy_from_slice(&16_u32.to_le_bytes());
    bytes[20..22].copy_from_slice(&1_u16.to_le_bytes());
    bytes[22..24].copy_from_slice(&1_u16.to_le_bytes());
    bytes[24..28].copy_from_slice(&8_000_u32.to_le_bytes());
    bytes[28..32].copy_from_slice(&field(BYTES_PER_SECOND));
    bytes[32..34].copy_from_slice(&2_u16.to_le_bytes());
    bytes[34..36].copy_from_slice(&16_u16.to_le_bytes());
    bytes[36..40].copy_from_slice(b"data");
    bytes[40..44].copy_from_slice(&field(data_len));
    bytes
}

/// Scrambles two numbers into one (the finaliser of splitmix64).
pub fn mix(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ n.wrapping_add(0xD1B5_4A32_D192_ED03);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
