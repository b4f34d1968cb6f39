//! Saving what is left of a damaged recording: plaintext where pages open, silence where they do not.
//!
//! Only reads. The length is the one that the head tells, so that what follows a lost page keeps its
//! place in time.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::sync::Arc;

use crate::audio::wav::Wav;
use crate::sealed::BLOCK_PLAIN_BYTES;
use crate::sealed::keyring::KeyRing;
use crate::store::error::StoreError;
use crate::store::sealed_file::{SealedFile, Stretch};

/// What came out.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Salvaged {
    /// Bytes written, silence included.
    pub bytes: u64,
    /// Bytes of them that are silence.
    pub lost_bytes: u64,
    /// Stretches that they lie in.
    pub lost_stretches: u64,
    /// The WAV header got the length that the audio has.
    pub header_mended: bool,
}

/// Why nothing came out.
#[derive(Debug, thiserror::Error)]
pub enum SalvageError {
    /// No head page opens, and with it the keys of the file are gone.
    #[error("{0}; without a head page there is no key to any other page, so nothing can be saved")]
    Unreadable(StoreError),
    /// The output.
    #[error("writing: {0}")]
    Output(io::Error),
}

/// Writes what can be read of `sealed` to `out`, which is empty.
///
/// # Errors
/// [`SalvageError`].
pub fn salvage(sealed: File, ring: Arc<KeyRing>, out: &mut File) -> Result<Salvaged, SalvageError> {
    let file = SealedFile::load_by_head(Arc::new(sealed), ring).map_err(SalvageError::Unreadable)?;
    let wav = Wav::parse(file.start());
    // No stretch is longer than a block.
    let silence = [wav.map_or(0, |wav| wav.silence()); BLOCK_PLAIN_BYTES];
    let mut done = Salvaged::default();
    let mut last_lost_end = None;
    let copied = file.read_through(|stretch| match stretch {
        Stretch::Good(plaintext) => {
            done.bytes += plaintext.len() as u64;
            out.write_all(plaintext)
        }
        Stretch::Lost {
            plain_offset, bytes, ..
        } => {
            done.lost_stretches += u64::from(last_lost_end != Some(plain_offset));
            last_lost_end = Some(plain_offset + bytes as u64);
            done.lost_bytes += bytes as u64;
            done.bytes += bytes as u64;
            out.write_all(&silence[..bytes])
        }
    });
    copied.map_err(SalvageError::Output)?;
    for patch in wav.map(|wav| wav.mend(done.bytes)).unwrap_or_default() {
        let put = out
            .seek(SeekFrom::Start(patch.offset))
            .and_then(|_| out.write_all(&patch.bytes));
        put.map_err(SalvageError::Output)?;
        done.header_mended = true;
    }
    out.sync_all().map_err(SalvageError::Output)?;
    Ok(done)
}
