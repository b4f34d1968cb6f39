//! Where tree, store and key lie, looked at before anything is made: none may lie in another, or an import would take in
//! what it writes, or remove the key.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Why a tree cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// It is no directory, or cannot be looked at.
    #[error("{path}: cannot import it: {source}; name the directory whose content is to be imported")]
    Source {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// One lies in the other.
    #[error("{tree}: it must not lie in the store {store}, nor the store in it; name a directory beside the store")]
    Nested {
        /// The directory.
        tree: PathBuf,
        /// The store.
        store: PathBuf,
    },
    /// The key would be imported, and removed with the rest.
    #[error("{key}: the key file lies in {tree}, which is to be imported; move the key away first")]
    Key {
        /// The key file.
        key: PathBuf,
        /// The directory.
        tree: PathBuf,
    },
}

/// The real path of the directory that is to be imported.
///
/// # Errors
/// [`PlaceError::Source`].
pub fn tree(path: &Path) -> Result<PathBuf, PlaceError> {
    let failed = |source| PlaceError::Source {
        path: path.to_owned(),
        source,
    };
    let real = fs::canonicalize(path).map_err(failed)?;
    if real.is_dir() {
        Ok(real)
    } else {
        Err(failed(io::ErrorKind::NotADirectory.into()))
    }
}

/// Refuses a store in the tree, and a tree in the store, whether the store is there yet or not.
///
/// # Errors
/// [`PlaceError::Nested`].
pub fn apart(tree: &Path, store: &Path) -> Result<(), PlaceError> {
    let store = real(store);
    if tree.starts_with(&store) || store.starts_with(tree) {
        return Err(PlaceError::Nested {
            tree: tree.to_owned(),
            store,
        });
    }
    Ok(())
}

/// Refuses a key file in the tree.
///
/// # Errors
/// [`PlaceError::Key`].
pub fn key_outside(tree: &Path, key: &Path) -> Result<(), PlaceError> {
    let key = real(key);
    if key.starts_with(tree) {
        return Err(PlaceError::Key {
            key,
            tree: tree.to_owned(),
        });
    }
    Ok(())
}

/// The real path, also of what is to be made in a directory that is there.
pub fn real(path: &Path) -> PathBuf {
    if let Ok(real) = fs::canonicalize(path) {
        return real;
    }
    let above = match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    match (fs::canonicalize(above), path.file_name()) {
        (Ok(above), Some(name)) => above.join(name),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_lies_in_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        let old = top.join("old");
        fs::create_dir_all(old.join("acme")).unwrap();
        fs::create_dir_all(top.join("store/data")).unwrap();
        std::os::unix::fs::symlink(&old, top.join("link")).unwrap();
        assert_eq!(tree(&top.join("link")).unwrap(), old);
        assert!(tree(&top.join("nowhere")).is_err());
        assert!(apart(&old, &top.join("store")).is_ok());
        assert!(apart(&old, &top.join("old store")).is_ok(), "a name that begins alike");
        assert!(apart(&old, &old).is_err());
        assert!(apart(&old, &old.join("acme/new store")).is_err());
        assert!(apart(&old, &top.join("link/new store")).is_err());
        assert!(apart(&top.join("store/data"), &top.join("store")).is_err());
        assert!(key_outside(&old, &top.join("store.key")).is_ok());
        assert!(key_outside(&old, &top.join("link/store.key")).is_err());
    }
}
