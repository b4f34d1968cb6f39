//! Codes over rows of the database, so that nobody without the store's key can write one that counts.
//!
//! Code = HMAC-SHA256 under a key of its own (HKDF-SHA256 of the KEK, info "tallyfs rows v1"), over one
//! letter for the table and the fields in a fixed order; the one field without a fixed width comes last.

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::SealedError;
use super::keyring::KeyRing;

/// A code over one row.
pub type RowMac = [u8; 32];

/// What the database knows of a sealed file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SealedFields {
    /// Inode number.
    pub ino: u64,
    /// Random id of the file.
    pub file_id: [u8; 16],
    /// Of its head.
    pub generation: u64,
    /// Zeros while it is not known.
    pub content_sha256: [u8; 32],
    /// Size of the backing file.
    pub sealed_size: u64,
    /// Unix seconds.
    pub sealed_at_s: u64,
}

/// Makes and checks codes with one key.
pub struct RowKey {
    key_id: u32,
    prk: Zeroizing<[u8; 32]>,
}

impl RowKey {
    /// The key for new rows.
    ///
    /// # Errors
    /// The current key was not given.
    pub fn current(ring: &KeyRing) -> Result<Self, SealedError> {
        Self::of(ring, ring.current_id())
    }

    /// The key of rows that were made under a certain KEK.
    ///
    /// # Errors
    /// That key was not given.
    pub fn of(ring: &KeyRing, key_id: u32) -> Result<Self, SealedError> {
        let mut prk = Zeroizing::new([0; 32]);
        ring.kek(key_id)?.derive(b"tallyfs rows v1", &mut prk);
        Ok(Self { key_id, prk })
    }

    /// Which KEK it comes from.
    pub fn key_id(&self) -> u32 {
        self.key_id
    }

    /// Code over what is known of a sealed file.
    pub fn sealed(&self, row: &SealedFields) -> RowMac {
        self.mac(&[
            b"S",
            &row.ino.to_le_bytes(),
            &row.file_id,
            &row.generation.to_le_bytes(),
            &row.content_sha256,
            &row.sealed_size.to_le_bytes(),
            &row.sealed_at_s.to_le_bytes(),
        ])
    }

    /// Code over the place of an inode.
    pub fn place(&self, ino: u64, parent: u64, name: &[u8]) -> RowMac {
        self.mac(&[b"P", &ino.to_le_bytes(), &parent.to_le_bytes(), name])
    }

    /// One block of HKDF-Expand is HMAC-SHA256 over the fields and a byte of value 1.
    fn mac(&self, fields: &[&[u8]]) -> RowMac {
        let mut mac = [0; 32];
        let from = Hkdf::<Sha256>::from_prk(&self.prk[..]).expect("32 bytes are a key");
        from.expand_multi_info(fields, &mut mac)
            .expect("HKDF gives up to 8,160 bytes");
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealed::keys::Kek;

    fn key(byte: u8) -> RowKey {
        let ring = KeyRing::create(Kek::take(&mut [byte; 32]), [1; 16], 0);
        RowKey::current(&ring).unwrap()
    }

    #[test]
    fn every_field_and_the_key_change_the_code() {
        let row = SealedFields {
            ino: 1,
            file_id: [2; 16],
            generation: 3,
            content_sha256: [4; 32],
            sealed_size: 5,
            sealed_at_s: 6,
        };
        let others = [
            SealedFields { ino: 9, ..row },
            SealedFields {
                file_id: [9; 16],
                ..row
            },
            SealedFields { generation: 9, ..row },
            SealedFields {
                content_sha256: [9; 32],
                ..row
            },
            SealedFields { sealed_size: 9, ..row },
            SealedFields { sealed_at_s: 9, ..row },
        ];
        let mut codes: Vec<_> = others.iter().map(|row| key(7).sealed(row)).collect();
        codes.push(key(7).sealed(&row));
        codes.push(key(8).sealed(&row));
        codes.push(key(7).place(1, 2, b"a"));
        codes.push(key(7).place(1, 3, b"a"));
        codes.push(key(7).place(1, 2, b"b"));
        let count = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), count);
        assert_eq!(key(7).sealed(&row), key(7).sealed(&row));
    }
}
