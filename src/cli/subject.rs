//! What a path on the command line means: a store, or something below its data directory, named in a
//! mount or by its place in the store.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::exit::{Code, Failure};
use super::request::{self, Environment};
use crate::config::KeySource;
use crate::daemon::key_file;
use crate::daemon::layout::{LayoutError, StorePaths};
use crate::daemon::mount_table::{FS_TYPE, MountTable};
use crate::sealed::keyring::KeyRing;

use super::args::KeyArgs;

/// A store, and where in it.
#[derive(Debug)]
pub struct Subject {
    /// The store.
    pub paths: StorePaths,
    /// Relative to the data directory; empty for all of it.
    pub below: Vec<u8>,
}

/// Finds out what `path` is.
///
/// # Errors
/// When it is neither a store nor in one.
pub fn find(path: &Path) -> Result<Subject, Failure> {
    let wrong = |why: &dyn std::fmt::Display| Failure::new(Code::Store, format!("{}: {why}", path.display()));
    let real = fs::canonicalize(path).map_err(|e| wrong(&e))?;
    let table = MountTable::read().map_err(|e| wrong(&e))?;
    if let Some(entry) = table.holding(&real)
        && entry.fs_type == FS_TYPE
    {
        return Ok(Subject {
            paths: StorePaths::of_existing(&entry.source)?,
            below: below(&real, &entry.mount_point),
        });
    }
    for store in real.ancestors() {
        let paths = match StorePaths::of_existing(store) {
            Ok(paths) => paths,
            // A file on the way up is no store either.
            Err(LayoutError::NoStore(_) | LayoutError::Io { .. }) => continue,
            Err(e) => return Err(e.into()),
        };
        if real != paths.root && !real.starts_with(paths.data()) {
            return Err(wrong(&"not a recording; the recordings of a store are in its `data`"));
        }
        let below = below(&real, &paths.data());
        return Ok(Subject { paths, below });
    }
    Err(wrong(&"neither a store nor in one, nor in the mount of one"))
}

/// A path as in the mount, with or without a slash before it, relative to the data directory.
///
/// # Errors
/// A path that leads upwards, with the name of its option.
pub fn place(option: &str, path: &Path) -> Result<PathBuf, Failure> {
    let mut below = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => below.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                let text = format!("{option} {}: name a path below the mount, without `..`", path.display());
                return Err(Failure::new(Code::Usage, text));
            }
        }
    }
    Ok(below)
}

fn below(path: &Path, root: &Path) -> Vec<u8> {
    path.strip_prefix(root)
        .map_or_else(|_| Vec::new(), |rest| rest.as_os_str().as_bytes().to_vec())
}

/// The keys of an existing store. No core file of this process is written from here on.
///
/// # Errors
/// No key, or another one.
pub fn keys(paths: &StorePaths, args: &KeyArgs, environment: Environment) -> Result<KeyRing, Failure> {
    crate::sys::limits::disable_core_dumps().map_err(|e| {
        let text = format!("cannot switch core files off, which could hold the key: {e}");
        Failure::new(Code::Failed, text)
    })?;
    let choice = request::choose_key(args, &KeySource::default(), environment)?;
    key_file::of_existing(paths, choice).map_err(|e| Failure::new(Code::Key, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::layout::Store;

    #[test]
    fn a_path_in_a_store_is_known_by_its_place_in_the_data() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        Store::open(&root).unwrap().finish_first_use().unwrap();
        let file = root.join("data/acme/call.wav");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "x").unwrap();
        assert_eq!(find(&file).unwrap().below, b"acme/call.wav");
        assert_eq!(find(&root).unwrap().below, b"");
        assert_eq!(find(&root.join("data")).unwrap().below, b"");
        assert_eq!(find(&root.join("version")).unwrap_err().code, Code::Store);
        assert_eq!(find(dir.path()).unwrap_err().code, Code::Store);
    }
}
