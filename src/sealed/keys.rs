//! Keys of one file: KEK -> wrap key -> DEK -> page key, and the 128 clear bytes that say so.
//!
//! KEK (key ring, by key id) -> wrap key = HKDF-SHA256(KEK, salt = file id, info "wrap") -> DEK, random
//! per file -> page key = HKDF-SHA256(DEK, salt = file id, info "page"). The key commitment in the
//! identity binds the DEK, so that no page opens under two keys.

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use super::aead::Aead;
use super::{NONCE_BYTES, SealedError, TAG_BYTES};

/// First bytes of every head page.
pub const MAGIC: [u8; 8] = *b"TallyFS\0";
/// The format that this module reads and writes.
pub const FORMAT_VERSION: u16 = 1;
/// Cipher suite 1: AES-256-GCM.
pub const SUITE_AES_256_GCM: u8 = 1;
/// Bytes of the clear part of a head page.
pub const IDENTITY_BYTES: usize = 128;

const WRAP_NONCE: std::ops::Range<usize> = 32..44;
const WRAPPED_DEK: std::ops::Range<usize> = 44..76;
const WRAP_TAG: std::ops::Range<usize> = 76..92;
const COMMITMENT: std::ops::Range<usize> = 92..124;
const WRAP_AAD: std::ops::Range<usize> = 0..32;
const FILE_ID: std::ops::Range<usize> = 16..32;

/// Memory that holds a key and wipes it when dropped.
pub trait KeyMemory: Send + Sync {
    /// The key. Not to be copied.
    fn expose(&self) -> &[u8; 32];
}

impl KeyMemory for Zeroizing<[u8; 32]> {
    fn expose(&self) -> &[u8; 32] {
        self
    }
}

/// A key encryption key. Wiped when dropped; never printed.
pub struct Kek(Box<dyn KeyMemory>);

impl Kek {
    /// The key that `memory` holds, left where it is.
    pub fn held_by(memory: impl KeyMemory + 'static) -> Self {
        Self(Box::new(memory))
    }

    /// Takes the key's bytes over and wipes the source.
    pub fn take(bytes: &mut [u8; 32]) -> Self {
        let kek = Self::held_by(Zeroizing::new(*bytes));
        bytes.zeroize();
        kek
    }

    /// A value that tells whether a given key is this one without telling the key.
    pub fn check_value(&self, salt: &[u8]) -> [u8; 16] {
        let mut value = [0; 16];
        expand(
            &Hkdf::<Sha256>::new(Some(salt), self.0.expose()),
            &[b"tallyfs key check v1"],
            &mut value,
        );
        value
    }
}

impl Kek {
    /// A key for another purpose, which `info` names; nothing leads back from it.
    pub fn derive(&self, info: &[u8], out: &mut [u8; 32]) {
        expand(&Hkdf::<Sha256>::new(None, self.0.expose()), &[info], out);
    }
}

/// Random numbers that a new file's keys are made of; the caller draws them from the system.
pub struct FileRandom {
    /// File id.
    pub file_id: [u8; 16],
    /// Data encryption key.
    pub dek: Zeroizing<[u8; 32]>,
    /// Nonce of the wrap.
    pub wrap_nonce: [u8; NONCE_BYTES],
}

/// The clear bytes 0 to 127 of every head page of one file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Identity(pub [u8; IDENTITY_BYTES]);

impl Identity {
    /// Reads the clear part of a head page.
    ///
    /// # Errors
    /// [`SealedError::NotSealed`], [`SealedError::NewerVersion`], [`SealedError::UnknownSuite`].
    pub fn parse(page: &[u8]) -> Result<Self, SealedError> {
        let bytes: [u8; IDENTITY_BYTES] = page
            .get(..IDENTITY_BYTES)
            .and_then(|b| b.try_into().ok())
            .ok_or(SealedError::NotSealed)?;
        if bytes[..8] != MAGIC {
            return Err(SealedError::NotSealed);
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if version != FORMAT_VERSION {
            return Err(SealedError::NewerVersion(version));
        }
        if bytes[10] != SUITE_AES_256_GCM {
            return Err(SealedError::UnknownSuite(bytes[10]));
        }
        Ok(Self(bytes))
    }

    /// Id of the KEK that wraps the DEK.
    pub fn key_id(&self) -> u32 {
        u32::from_le_bytes([self.0[12], self.0[13], self.0[14], self.0[15]])
    }

    /// The random id of the file.
    pub fn file_id(&self) -> [u8; 16] {
        self.0[FILE_ID].try_into().expect("the range has 16 bytes")
    }
}

/// One file's page key with the identity that leads to it.
pub struct FileKey<C> {
    identity: Identity,
    pages: C,
}

impl<C: Aead> FileKey<C> {
    /// Keys for a new file, wrapped under `kek`.
    ///
    /// # Errors
    /// [`SealedError::CipherFails`] when the cipher refuses.
    pub fn create(kek: &Kek, key_id: u32, random: &FileRandom) -> Result<Self, SealedError> {
        let mut bytes = [0; IDENTITY_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[10] = SUITE_AES_256_GCM;
        bytes[12..16].copy_from_slice(&key_id.to_le_bytes());
        bytes[FILE_ID].copy_from_slice(&random.file_id);
        bytes[WRAP_NONCE].copy_from_slice(&random.wrap_nonce);
        let mut wrapped = Zeroizing::new(*random.dek);
        let tag =
            wrap_cipher::<C>(kek, &random.file_id)?.seal(&random.wrap_nonce, &bytes[WRAP_AAD], &mut wrapped[..])?;
        bytes[WRAPPED_DEK].copy_from_slice(&wrapped[..]);
        bytes[WRAP_TAG].copy_from_slice(&tag);
        bytes[COMMITMENT].copy_from_slice(&commitment(&random.dek, &random.file_id)?);
        let pages = page_cipher(&random.dek, &random.file_id)?;
        Ok(Self {
            identity: Identity(bytes),
            pages,
        })
    }

    /// The same keys of the same file, wrapped under another KEK; no page but the heads has to change.
    ///
    /// # Errors
    /// As [`FileKey::unwrap_identity`] for `old`; [`SealedError::CipherFails`] when the cipher refuses.
    pub fn rewrapped(&self, old: &Kek, new: &Kek, new_id: u32, nonce: &[u8; NONCE_BYTES]) -> Result<Self, SealedError> {
        let dek = unwrap_dek::<C>(&self.identity, old)?;
        let file_id = self.identity.file_id();
        let mut bytes = self.identity.0;
        bytes[12..16].copy_from_slice(&new_id.to_le_bytes());
        bytes[WRAP_NONCE].copy_from_slice(nonce);
        let mut wrapped = Zeroizing::new(*dek);
        let tag = wrap_cipher::<C>(new, &file_id)?.seal(nonce, &bytes[WRAP_AAD], &mut wrapped[..])?;
        bytes[WRAPPED_DEK].copy_from_slice(&wrapped[..]);
        bytes[WRAP_TAG].copy_from_slice(&tag);
        let pages = page_cipher(&dek, &file_id)?;
        Ok(Self {
            identity: Identity(bytes),
            pages,
        })
    }

    /// Unwraps the keys of an existing file.
    ///
    /// # Errors
    /// [`SealedError::WrapFails`] for a wrong KEK or changed bytes, [`SealedError::CommitmentFails`].
    pub fn unwrap_identity(identity: Identity, kek: &Kek) -> Result<Self, SealedError> {
        let dek = unwrap_dek::<C>(&identity, kek)?;
        let pages = page_cipher(&dek, &identity.file_id())?;
        Ok(Self { identity, pages })
    }

    /// The clear bytes of every head page of this file.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The cipher under the page key.
    pub fn pages(&self) -> &C {
        &self.pages
    }
}

fn expand(from: &Hkdf<Sha256>, info: &[&[u8]], out: &mut [u8]) {
    from.expand_multi_info(info, out).expect("HKDF gives up to 8,160 bytes");
}

/// The DEK that an identity wraps, if it is the one that the identity is bound to.
fn unwrap_dek<C: Aead>(identity: &Identity, kek: &Kek) -> Result<Zeroizing<[u8; 32]>, SealedError> {
    let bytes = &identity.0;
    let file_id = identity.file_id();
    let nonce: [u8; NONCE_BYTES] = bytes[WRAP_NONCE].try_into().expect("the range has 12 bytes");
    let tag: [u8; TAG_BYTES] = bytes[WRAP_TAG].try_into().expect("the range has 16 bytes");
    let mut dek = Zeroizing::new([0; 32]);
    dek.copy_from_slice(&bytes[WRAPPED_DEK]);
    wrap_cipher::<C>(kek, &file_id)?
        .open(&nonce, &bytes[WRAP_AAD], &mut dek[..], &tag)
        .map_err(|_| SealedError::WrapFails(identity.key_id()))?;
    if commitment(&dek, &file_id)? != bytes[COMMITMENT] {
        return Err(SealedError::CommitmentFails);
    }
    Ok(dek)
}

fn wrap_cipher<C: Aead>(kek: &Kek, file_id: &[u8; 16]) -> Result<C, SealedError> {
    let mut key = Zeroizing::new([0; 32]);
    expand(
        &Hkdf::<Sha256>::new(Some(file_id), kek.0.expose()),
        &[b"wrap"],
        &mut key[..],
    );
    C::new(&key)
}

fn page_cipher<C: Aead>(dek: &[u8; 32], file_id: &[u8; 16]) -> Result<C, SealedError> {
    let mut key = Zeroizing::new([0; 32]);
    expand(&Hkdf::<Sha256>::new(Some(file_id), dek), &[b"page"], &mut key[..]);
    C::new(&key)
}

fn commitment(dek: &[u8; 32], file_id: &[u8; 16]) -> Result<[u8; 32], SealedError> {
    let mut value = [0; 32];
    let from = Hkdf::<Sha256>::from_prk(dek).map_err(|_| SealedError::CipherFails)?;
    expand(&from, &[b"tallyfs commit v1", file_id], &mut value);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealed::aead::Cipher;

    fn random() -> FileRandom {
        FileRandom {
            file_id: [1; 16],
            dek: Zeroizing::new([2; 32]),
            wrap_nonce: [3; 12],
        }
    }

    #[test]
    fn a_wrong_kek_and_every_changed_identity_byte_are_noticed() {
        let key = FileKey::<Cipher>::create(&Kek::take(&mut [5; 32]), 7, &random()).expect("creates");
        assert!(FileKey::<Cipher>::unwrap_identity(*key.identity(), &Kek::take(&mut [5; 32])).is_ok());
        assert!(FileKey::<Cipher>::unwrap_identity(*key.identity(), &Kek::take(&mut [6; 32])).is_err());
        for at in 0..124 {
            let mut bytes = key.identity().0;
            bytes[at] ^= 1;
            let opened = Identity::parse(&bytes)
                .and_then(|identity| FileKey::<Cipher>::unwrap_identity(identity, &Kek::take(&mut [5; 32])));
            assert!(opened.is_err(), "a flip at byte {at} went unnoticed");
        }
    }

    #[test]
    fn a_rewrapped_key_opens_under_the_new_kek_alone_and_opens_the_same_pages() {
        let (old, new) = (Kek::take(&mut [5; 32]), Kek::take(&mut [6; 32]));
        let key = FileKey::<Cipher>::create(&old, 7, &random()).expect("creates");
        let rewrapped = key.rewrapped(&old, &new, 8, &[9; 12]).expect("rewraps");
        assert_eq!(rewrapped.identity().key_id(), 8);
        assert_eq!(rewrapped.identity().file_id(), key.identity().file_id());
        assert!(FileKey::<Cipher>::unwrap_identity(*rewrapped.identity(), &old).is_err());
        let opened = FileKey::<Cipher>::unwrap_identity(*rewrapped.identity(), &new).expect("opens");
        let mut text = *b"a recording";
        let tag = key.pages().seal(&[1; 12], b"", &mut text).expect("seals");
        opened
            .pages()
            .open(&[1; 12], b"", &mut text, &tag)
            .expect("the same page key");
        assert_eq!(&text, b"a recording");
        assert!(
            key.rewrapped(&new, &old, 8, &[9; 12]).is_err(),
            "the old KEK has to be the right one"
        );
    }

    #[test]
    fn taking_a_kek_wipes_its_source() {
        let mut source = [5; 32];
        let _kek = Kek::take(&mut source);
        assert_eq!(source, [0; 32]);
    }
}
