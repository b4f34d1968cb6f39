//! Process-wide limits: no core file that could hold a key, as many open files as allowed.

use std::fs;
use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// No core file of this process, and no tracing by other processes of the same user.
///
/// # Errors
/// The kernel's, when it refuses: the caller must not read a key then.
pub fn disable_core_dumps() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    Ok(())
}

/// Open files of one process that the kernel allows at most, unless it was told otherwise.
const OPEN_FILES_PATH: &str = "/proc/sys/fs/nr_open";

/// Raises the number of open files to what the kernel allows one process, or to the hard limit
/// where the right to pass that is missing, and returns it (`None` = no limit).
///
/// One process holds the files of all who use the mount, each of whom has a limit of its own.
///
/// # Errors
/// The kernel's; the old limit is still in force then.
pub fn raise_open_files() -> io::Result<Option<u64>> {
    let hard = getrlimit(Resource::Nofile).maximum;
    let kernels = fs::read_to_string(OPEN_FILES_PATH).ok();
    let kernels = kernels.and_then(|text| text.trim().parse::<u64>().ok());
    if kernels > hard && hard.is_some() && raise_to(kernels).is_ok() {
        return Ok(kernels);
    }
    raise_to(hard)?;
    Ok(hard)
}

fn raise_to(open_files: Option<u64>) -> io::Result<()> {
    let raised = Rlimit {
        current: open_files,
        maximum: open_files,
    };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_are_raised_as_far_as_the_rights_reach() {
        let before = getrlimit(Resource::Nofile).maximum;
        let raised = raise_open_files().unwrap();
        let after = getrlimit(Resource::Nofile);
        assert_eq!((after.current, after.maximum), (raised, raised));
        let kernels = fs::read_to_string(OPEN_FILES_PATH).unwrap().trim().parse().ok();
        // The right to pass the hard limit is root's, and not every root's.
        assert!(raised == before || raised == kernels, "{raised:?} from {before:?}");
        assert!(raised.is_none() || raised >= before);
    }

    #[test]
    fn core_dumps_are_off_afterwards() {
        disable_core_dumps().unwrap();
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
        let now = rustix::process::dumpable_behavior().unwrap();
        assert_eq!(now, DumpableBehavior::NotDumpable);
    }
}
