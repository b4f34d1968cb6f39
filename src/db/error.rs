//! What can go wrong with the database, said so that a person knows what to do.
//! Every variant names the file; none is raised for a file that was merely set aside.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;
use rusqlite::ffi::SQLITE_IOERR_SHMSIZE;

/// A failed database operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{}: another program holds the database locked; stop it, or wait, and try again", path.display()
    )]
    Locked { path: PathBuf },
    #[error("{}: the database cannot be written; check its owner, its mode and whether the file system is mounted read-only", path.display())]
    ReadOnly { path: PathBuf },
    #[error("{}: no space left for the database; free space on its file system", path.display())]
    DiskFull { path: PathBuf },
    #[error("{}: the database has schema {found}, this program knows up to {known}; use the newer version of tallyfs", path.display())]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("{}: the database is damaged: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("{}: {operation}: {source}", path.display())]
    Io {
        path: PathBuf,
        operation: &'static str,
        source: io::Error,
    },
    #[error("{}: {operation}: {source}", path.display())]
    Sqlite {
        path: PathBuf,
        operation: &'static str,
        source: rusqlite::Error,
    },
}

impl Error {
    /// Sorts what SQLite said into the kinds that a person can act on.
    pub(super) fn sqlite(path: &Path, operation: &'static str, source: rusqlite::Error) -> Self {
        let path = path.to_path_buf();
        if is_about_the_text(&source) {
            let reason = source.to_string();
            return Self::Damaged { path, reason };
        }
        let extended = source.sqlite_error().map(|e| e.extended_code);
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked { path },
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Self::ReadOnly { path },
            Some(ErrorCode::DiskFull) => Self::DiskFull { path },
            // The index of the log beside the database could not grow.
            Some(ErrorCode::SystemIoFailure) if extended == Some(SQLITE_IOERR_SHMSIZE) => Self::DiskFull { path },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged {
                path,
                reason: source.to_string(),
            },
            _ => Self::Sqlite {
                path,
                operation,
                source,
            },
        }
    }

    pub(super) fn io(path: &Path, operation: &'static str, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => Self::ReadOnly { path },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::Io {
                path,
                operation,
                source,
            },
        }
    }

    /// The file itself is bad: no retry will help, it has to be set aside.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }
}

/// Our SQL fits our tables: when it is found wrong, a table or column is missing. SQLite says so
/// with or without the place in the text.
fn is_about_the_text(source: &rusqlite::Error) -> bool {
    match source {
        rusqlite::Error::SqlInputError { .. } => true,
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.starts_with("no such "),
        _ => false,
    }
}
