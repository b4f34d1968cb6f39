//! One recording, as far as its head and its size tell: what fsck and scrub look at first.

use std::fs::File;
use std::sync::Arc;

use super::finding::Kind;
use crate::audio::wav::{Fit, Wav};
use crate::sealed::SealedError;
use crate::sealed::keyring::KeyRing;
use crate::sealed::length::{SizeOnDisk, classify, sealed_size};
use crate::store::backing::Backing;
use crate::store::error::{PageName, StoreError};
use crate::store::sealed_file::{SealedFile, damaged_head_slots, looks_sealed};

/// What is known of one file.
pub struct Examined {
    /// The file, when a head opens.
    pub file: Option<SealedFile<File>>,
    /// What is wrong.
    pub problems: Vec<(Kind, String)>,
}

impl Examined {
    /// Whether something of this kind is wrong.
    pub fn has(&self, kind: Kind) -> bool {
        self.problems.iter().any(|(found, _)| *found == kind)
    }
}

/// Opens a file and compares its head with its size.
pub fn examine(file: File, ring: &Arc<KeyRing>) -> Examined {
    let backing = Arc::new(file);
    let mut problems = Vec::new();
    let loaded = backing
        .size()
        .map_err(StoreError::from)
        .and_then(|size| Ok((size, SealedFile::load_by_head(backing.clone(), ring.clone())?)));
    let (size, file) = match loaded {
        Ok(loaded) => loaded,
        Err(e) => {
            let (kind, detail) = kind_of(&e);
            // A head page that is damaged still shows whose file it is.
            let is_ours = kind == Kind::Stray && looks_sealed(&*backing).unwrap_or(false);
            problems.push(if is_ours {
                (Kind::Head, "no head page opens, and with it no other page".to_owned())
            } else {
                (kind, detail)
            });
            return Examined { file: None, problems };
        }
    };
    let facts = file.head_facts();
    let length = file.plain_length();
    let is_open = facts.is_some_and(|facts| !facts.is_sealed) || classify(size) == SizeOnDisk::Unclean;
    if is_open {
        problems.push((Kind::Unclean, format!("was being written; {length} bytes can be read")));
    } else {
        if size != sealed_size(length) {
            let e = StoreError::SizeDisagrees {
                size_on_disk: size,
                plain_length: length,
            };
            problems.push((Kind::Size, e.to_string()));
        }
        // A slot of a file that was being written may be torn by right.
        match damaged_head_slots(&*backing, ring) {
            Ok(slots) if slots.is_empty() => {}
            Ok(slots) => problems.push((
                Kind::HeadCopy,
                format!("head slots {slots:?} do not open, another one does"),
            )),
            Err(e) => problems.push(kind_of(&e)),
        }
    }
    if let Some(wav) = Wav::parse(file.start()) {
        match wav.fit(length) {
            Fit::Good => {}
            Fit::SaysNothing => problems.push((
                Kind::WavHeader,
                format!("the WAV header says that there is no audio, and there are {length} bytes"),
            )),
            Fit::SaysTooMuch => problems.push((
                Kind::WavHeader,
                format!("the WAV header says more audio than the {length} bytes hold"),
            )),
        }
    }
    Examined {
        file: Some(file),
        problems,
    }
}

/// What kind of thing an error of opening is.
fn kind_of(error: &StoreError) -> (Kind, String) {
    let kind = match error {
        StoreError::Sealed {
            place: PageName::Head,
            cause: SealedError::NotSealed,
        } => Kind::Stray,
        StoreError::Sealed {
            cause: SealedError::KeyMissing(_) | SealedError::KeyDestroyed(_),
            ..
        } => Kind::Key,
        StoreError::Sealed { .. } => Kind::Head,
        StoreError::SizeDisagrees { .. } => Kind::Size,
        _ => Kind::Unreadable,
    };
    (kind, error.to_string())
}
