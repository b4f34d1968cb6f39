//! Writing the two heads of a sealed file anew: with the hash of its content once that is known, or
//! because one of them was damaged. No page of the body and no length changes.

use std::sync::Arc;

use crate::sealed::keyring::KeyLine;
use crate::store::backing::Backing;
use crate::store::error::{PageName, StoreError};
use crate::store::sealed_file::pages::random;
use crate::store::sealed_file::{HeadOnDisk, SealStep, SealedFile, SyncTicket, sealed_error};

impl<B: Backing> SealedFile<B> {
    /// First step of new heads; [`SealedFile::seal_next`] takes the others, and the caller syncs between
    /// them. `None`: the file is not sealed, and sealing writes its heads anyway.
    ///
    /// States a crash can leave, all under the right size: (a) the two old heads, and in the third slot
    /// nothing, or a new one that is torn; (b) a new head, durable, beside the old ones; (c) one old head,
    /// torn or whole, beside it; (d) two new heads. The newest that verifies counts, and old and new tell
    /// the same content; so every state opens to it. Only after a sync of its own does the second copy go
    /// over an old head, and marks of another process are synced before the first slot is written.
    ///
    /// # Errors
    /// [`StoreError::SyncFailed`] after an earlier failure.
    pub fn begin_heads(
        &mut self,
        content_sha256: Option<[u8; 32]>,
    ) -> Result<Option<(SealStep, SyncTicket)>, StoreError> {
        if !self.is_clean() {
            return Ok(None);
        }
        let Some(content) = self.content.as_mut().filter(|c| c.head_on_disk == HeadOnDisk::Sealed) else {
            return Ok(None);
        };
        if let Some(hash) = content_sha256 {
            content.carried.content_sha256 = hash;
        }
        Ok(Some((SealStep::Settled, self.begin_sync()?)))
    }

    /// The SHA-256 of what an open file holds now, for the heads that sealing writes. The next change forgets it, and so
    /// does recovery.
    pub fn know_hash(&mut self, content_sha256: [u8; 32]) {
        if let Some(content) = self.content.as_mut().filter(|c| c.head_on_disk != HeadOnDisk::Sealed) {
            content.carried.content_sha256 = content_sha256;
        }
    }

    /// Wraps the keys of a sealed file under the current KEK, as the first step of new heads; see [`SealedFile::begin_heads`].
    /// `None`: the file is not sealed, and sealing does the same.
    ///
    /// Crash: the states of [`SealedFile::begin_heads`]; heads under the old and the new KEK lie side by side and
    /// tell the same content, so the file opens as long as both KEKs are given. Done again, none is left under the
    /// old one.
    ///
    /// # Errors
    /// A KEK that was not given; errors of the disk. The file opens as before.
    pub fn begin_rewrap(&mut self) -> Result<Option<(SealStep, SyncTicket)>, StoreError> {
        if !self.is_clean() || self.content.is_none() {
            return Ok(None);
        }
        self.rewrap_key()?;
        self.begin_heads(None)
    }

    /// All of it while the caller keeps the lock. False: the file is not sealed, and nothing was done.
    ///
    /// # Errors
    /// As [`SealedFile::begin_rewrap`].
    pub fn rewrap(&mut self) -> Result<bool, StoreError> {
        let begun = self.begin_rewrap()?;
        let is_sealed = begun.is_some();
        self.write_heads(begun)?;
        Ok(is_sealed)
    }

    /// Whose keys the file is under from its next head or first byte on.
    pub fn set_key_line(&mut self, line: KeyLine) {
        self.options.key_line = line;
    }

    /// Has the heads that are written from now on name the KEK of now.
    pub(super) fn rewrap_key(&mut self) -> Result<(), StoreError> {
        let (ring, line) = (self.ring.clone(), self.options.key_line);
        let Some(content) = self.content.as_mut() else {
            return Ok(());
        };
        let old_id = content.key.identity().key_id();
        let new_id = ring.current_in(line);
        if old_id != new_id {
            let nonce = random()?;
            let rewrapped = ring
                .kek(old_id)
                .and_then(|old| content.key.rewrapped(&old, &*ring.kek(new_id)?, new_id, &nonce));
            content.key = Arc::new(rewrapped.map_err(sealed_error(PageName::Head))?);
        }
        Ok(())
    }

    /// All of it while the caller keeps the lock.
    ///
    /// # Errors
    /// Errors of the disk; the file opens as before.
    pub fn renew_heads(&mut self) -> Result<(), StoreError> {
        let begun = self.begin_heads(None)?;
        self.write_heads(begun)
    }

    fn write_heads(&mut self, begun: Option<(SealStep, SyncTicket)>) -> Result<(), StoreError> {
        let Some((mut step, ticket)) = begun else {
            return Ok(());
        };
        let mut ticket = Some(ticket);
        while let Some(now) = ticket {
            let synced = self.backing.sync_data();
            // Not sealed now: the time of sealing stays.
            (step, ticket) = self.seal_next(step, now, synced, 0)?;
        }
        Ok(())
    }
}
