//! What can be wrong with sealed bytes, said precisely enough to name the culprit.

/// Why sealed bytes could not be opened, or plaintext not be sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealedError {
    /// The bytes do not begin with the magic of a head page.
    #[error("not a sealed recording (no head page)")]
    NotSealed,
    /// A head page of a format that this program does not know.
    #[error("format version {0} is newer than this program knows; use a newer tallyfs")]
    NewerVersion(u16),
    /// A head page sealed by an unknown cipher suite.
    #[error("cipher suite {0} is not known")]
    UnknownSuite(u8),
    /// No key with this id is in the key ring, or its key was not given.
    #[error("key {0} is needed and was not given")]
    KeyMissing(u32),
    /// The key was destroyed on purpose.
    #[error("key {0} was destroyed, and with it every recording under it")]
    KeyDestroyed(u32),
    /// The wrapped key does not open: wrong key, or a damaged head page.
    #[error("the wrapped key does not open under key {0}")]
    WrapFails(u32),
    /// The key commitment does not match the key.
    #[error("the key commitment does not match")]
    CommitmentFails,
    /// The tag of a page does not verify.
    #[error("the tag does not verify")]
    TagFails,
    /// The tag verifies but the content makes no sense.
    #[error("impossible field: {0}")]
    Impossible(&'static str),
    /// The cipher refused to work.
    #[error("the cipher failed")]
    CipherFails,
    /// The key ring file cannot be read.
    #[error("key ring: {0}")]
    KeyRing(String),
}
