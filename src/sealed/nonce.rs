//! Nonces of one file's pages: a random 64-bit epoch and a 32-bit counter that only moves forward.
//!
//! No page is ever sealed twice under one nonce: the counter advances before sealing, also when the
//! write that follows is short or fails. The caller brings a new random epoch at each opening for
//! writing, at each commit tick, and when [`NonceSource::next`] says that the counter is used up.

use super::NONCE_BYTES;

/// The nonces that are left in one epoch.
pub struct NonceSource {
    epoch: [u8; 8],
    next: Option<u32>,
}

impl NonceSource {
    /// A source over a fresh random epoch.
    pub const fn new(epoch: [u8; 8]) -> Self {
        Self { epoch, next: Some(0) }
    }

    /// A source that has to be given an epoch before its first nonce.
    pub const fn exhausted() -> Self {
        Self {
            epoch: [0; 8],
            next: None,
        }
    }

    /// The next nonce, or `None` when a new epoch is needed.
    #[allow(clippy::should_implement_trait)] // It is asked again after `None`, with a new epoch.
    pub fn next(&mut self) -> Option<[u8; NONCE_BYTES]> {
        let counter = self.next?;
        self.next = counter.checked_add(1);
        let mut nonce = [0; NONCE_BYTES];
        nonce[..8].copy_from_slice(&self.epoch);
        nonce[8..].copy_from_slice(&counter.to_le_bytes());
        Some(nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_move_forward_and_end() {
        let mut source = NonceSource {
            epoch: [7; 8],
            next: Some(u32::MAX - 1),
        };
        assert_eq!(
            source.next().map(|n| n[8..].to_vec()),
            Some((u32::MAX - 1).to_le_bytes().to_vec())
        );
        assert!(source.next().is_some());
        assert!(source.next().is_none(), "a used-up epoch gives no nonce twice");
        assert!(NonceSource::exhausted().next().is_none());
    }
}
