//! AES-256-GCM behind one seam, so that the cipher's crate is a choice of the build.
//!
//! Both crates make and accept the same bytes; `tests` below open with each what the other sealed.

use super::{NONCE_BYTES, SealedError, TAG_BYTES};

/// An AES-256-GCM key, ready to use. Implementations wipe it when dropped.
pub trait Aead: Sized + Send + Sync + 'static {
    /// Prepares a 256-bit key.
    ///
    /// # Errors
    /// [`SealedError::CipherFails`] when the cipher cannot take it.
    fn new(key: &[u8; 32]) -> Result<Self, SealedError>;

    /// Seals `text` in place and returns the tag.
    ///
    /// # Errors
    /// [`SealedError::CipherFails`] when the cipher refuses; `text` must then be thrown away.
    fn seal(&self, nonce: &[u8; NONCE_BYTES], aad: &[u8], text: &mut [u8]) -> Result<[u8; TAG_BYTES], SealedError>;

    /// Opens `text` in place.
    ///
    /// # Errors
    /// [`SealedError::TagFails`] when the tag does not verify; `text` then holds nothing of use.
    fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), SealedError>;

    /// Seals the first `front_bytes` of `page` where they are, `text` right behind them, and puts the tag
    /// behind that: what [`Aead::seal`] makes of both in a row, without copying `text` first.
    ///
    /// # Errors
    /// [`SealedError::CipherFails`] when the cipher refuses; `page` must then be thrown away.
    fn seal_behind(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        page: &mut [u8],
        front_bytes: usize,
        text: &[u8],
    ) -> Result<(), SealedError> {
        let tag_at = front_bytes + text.len();
        page[front_bytes..tag_at].copy_from_slice(text);
        let tag = self.seal(nonce, aad, &mut page[..tag_at])?;
        page[tag_at..tag_at + TAG_BYTES].copy_from_slice(&tag);
        Ok(())
    }

    /// Opens `sealed` into `text` of the same length.
    ///
    /// # Errors
    /// [`SealedError::TagFails`] when the tag does not verify; `text` then holds nothing of use.
    fn open_to(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        sealed: &[u8],
        tag: &[u8; TAG_BYTES],
        text: &mut [u8],
    ) -> Result<(), SealedError> {
        text.copy_from_slice(sealed);
        self.open(nonce, aad, text, tag)
    }
}

/// The cipher of this build.
#[cfg(feature = "aws-lc")]
pub type Cipher = aws_lc::AwsLc;
/// The cipher of this build.
#[cfg(not(feature = "aws-lc"))]
pub type Cipher = pure::Pure;

/// AES-256-GCM by aws-lc-rs.
#[cfg(feature = "aws-lc")]
pub mod aws_lc {
    use super::{Aead, NONCE_BYTES, SealedError, TAG_BYTES};
    use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

    /// A key of aws-lc-rs, which wipes it when dropped.
    pub struct AwsLc(LessSafeKey);

    impl Aead for AwsLc {
        fn new(key: &[u8; 32]) -> Result<Self, SealedError> {
            let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| SealedError::CipherFails)?;
            Ok(Self(LessSafeKey::new(key)))
        }

        fn seal(&self, nonce: &[u8; NONCE_BYTES], aad: &[u8], text: &mut [u8]) -> Result<[u8; TAG_BYTES], SealedError> {
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let tag = self
                .0
                .seal_in_place_separate_tag(nonce, Aad::from(aad), text)
                .map_err(|_| SealedError::CipherFails)?;
            tag.as_ref().try_into().map_err(|_| SealedError::CipherFails)
        }

        fn open(
            &self,
            nonce: &[u8; NONCE_BYTES],
            aad: &[u8],
            text: &mut [u8],
            tag: &[u8; TAG_BYTES],
        ) -> Result<(), SealedError> {
            let nonce = Nonce::assume_unique_for_key(*nonce);
            self.0
                .open_in_place_separate_tag(nonce, Aad::from(aad), tag, text)
                .map(|_| ())
                .map_err(|_| SealedError::TagFails)
        }

        fn seal_behind(
            &self,
            nonce: &[u8; NONCE_BYTES],
            aad: &[u8],
            page: &mut [u8],
            front_bytes: usize,
            text: &[u8],
        ) -> Result<(), SealedError> {
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let (front, behind) = page[..front_bytes + text.len() + TAG_BYTES].split_at_mut(front_bytes);
            self.0
                .seal_in_place_scatter(nonce, Aad::from(aad), front, text, behind)
                .map_err(|_| SealedError::CipherFails)
        }

        fn open_to(
            &self,
            nonce: &[u8; NONCE_BYTES],
            aad: &[u8],
            sealed: &[u8],
            tag: &[u8; TAG_BYTES],
            text: &mut [u8],
        ) -> Result<(), SealedError> {
            let nonce = Nonce::assume_unique_for_key(*nonce);
            self.0
                .open_separate_gather(nonce, Aad::from(aad), sealed, tag, text)
                .map_err(|_| SealedError::TagFails)
        }
    }
}

/// AES-256-GCM by the aes-gcm crate, in Rust alone.
#[cfg(feature = "pure")]
pub mod pure {
    use super::{Aead, NONCE_BYTES, SealedError, TAG_BYTES};
    use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};

    /// A key of the aes-gcm crate.
    pub struct Pure(Aes256Gcm);

    impl Aead for Pure {
        fn new(key: &[u8; 32]) -> Result<Self, SealedError> {
            Aes256Gcm::new_from_slice(key)
                .map(Self)
                .map_err(|_| SealedError::CipherFails)
        }

        fn seal(&self, nonce: &[u8; NONCE_BYTES], aad: &[u8], text: &mut [u8]) -> Result<[u8; TAG_BYTES], SealedError> {
            self.0
                .encrypt_inout_detached(nonce.into(), aad, text.into())
                .map(Into::into)
                .map_err(|_| SealedError::CipherFails)
        }

        fn open(
            &self,
            nonce: &[u8; NONCE_BYTES],
            aad: &[u8],
            text: &mut [u8],
            tag: &[u8; TAG_BYTES],
        ) -> Result<(), SealedError> {
            self.0
                .decrypt_inout_detached(nonce.into(), aad, text.into(), tag.into())
                .map_err(|_| SealedError::TagFails)
        }
    }
}

#[cfg(all(test, feature = "aws-lc", feature = "pure"))]
mod tests {
    use super::{Aead, aws_lc::AwsLc, pure::Pure};

    fn seals_what_other_opens<A: Aead, B: Aead>() {
        let (one, other) = (A::new(&[3; 32]).expect("key"), B::new(&[3; 32]).expect("key"));
        for bytes in [0usize, 1, 16, 4048, 4072] {
            let plain: Vec<u8> = (0..bytes).map(|i| (i * 7) as u8).collect();
            let mut text = plain.clone();
            let tag = one.seal(&[9; 12], b"aad", &mut text).expect("seals");
            let mut same = plain.clone();
            assert_eq!(other.seal(&[9; 12], b"aad", &mut same).expect("seals"), tag);
            assert_eq!(same, text);
            other.open(&[9; 12], b"aad", &mut text, &tag).expect("opens");
            assert_eq!(text, plain);
            assert!(
                other.open(&[9; 12], b"axd", &mut same, &tag).is_err(),
                "the AAD is bound"
            );
        }
    }

    fn the_ways_that_copy_nothing_give_the_same_bytes<A: Aead, B: Aead>() {
        let (one, other) = (A::new(&[3; 32]).expect("key"), B::new(&[3; 32]).expect("key"));
        for (front_bytes, bytes) in [(0usize, 1usize), (20, 4048), (20, 0), (1, 15), (16, 16), (20, 1000)] {
            let plain: Vec<u8> = (0..front_bytes + bytes).map(|i| (i * 7) as u8).collect();
            let mut text = plain.clone();
            let tag = one.seal(&[9; 12], b"aad", &mut text).expect("seals");
            let mut page = plain[..front_bytes].to_vec();
            page.resize(plain.len() + tag.len() + 3, 0xee);
            other
                .seal_behind(&[9; 12], b"aad", &mut page, front_bytes, &plain[front_bytes..])
                .expect("seals");
            assert_eq!(page, [&text[..], &tag[..], &[0xee; 3][..]].concat());
            let mut opened = vec![0; plain.len()];
            other
                .open_to(&[9; 12], b"aad", &text, &tag, &mut opened)
                .expect("opens");
            assert_eq!(opened, plain);
            text[front_bytes / 2] ^= 1;
            assert!(other.open_to(&[9; 12], b"aad", &text, &tag, &mut opened).is_err());
        }
    }

    #[test]
    fn each_cipher_crate_seals_and_opens_without_a_copy_as_the_other_does_with_one() {
        the_ways_that_copy_nothing_give_the_same_bytes::<AwsLc, Pure>();
        the_ways_that_copy_nothing_give_the_same_bytes::<Pure, AwsLc>();
    }

    #[test]
    fn each_cipher_crate_opens_what_the_other_sealed() {
        seals_what_other_opens::<AwsLc, Pure>();
        seals_what_other_opens::<Pure, AwsLc>();
    }
}
