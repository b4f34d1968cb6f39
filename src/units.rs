//! Amounts that accounts are charged with, and byte counts as text and back.

/// What one account counts: plaintext bytes, inodes that are not directories, directories.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Meters {
    /// Sum of plaintext lengths of regular files.
    pub bytes: u64,
    /// Inodes other than directories, each once.
    pub files: u64,
    /// Directories.
    pub dirs: u64,
}
