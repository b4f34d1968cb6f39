//! Exit codes: every code that `tallyfs` ends with, and the one place where errors become codes.

use std::fmt;

use crate::daemon::DaemonError;
use crate::daemon::import::ImportError;
use crate::daemon::keeper::KeeperError;
use crate::daemon::layout::LayoutError;
use crate::daemon::mount_point::MountPointError;

/// What a command ends with. Scripts may rely on the numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Code {
    /// Done; for `mount`: unmounted in order.
    Done = 0,
    /// Something failed that has no code of its own; `import`: something did not come along.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The configuration, an environment variable or a `-o` option is wrong.
    Config = 3,
    /// There is no usable store.
    Store = 4,
    /// The store or the mount point is in use.
    InUse = 5,
    /// The key is missing or another one.
    Key = 6,
    /// The mount cannot be made or taken away.
    Mount = 7,
    /// `fsck` and `scrub`: damage is left; `salvage`: not all came back.
    Damage = 8,
}

/// Text for `--help`.
pub const HELP: &str = "Exit codes: 0 done, 1 failed, 2 wrong command line, 3 wrong configuration, \
4 no usable store, 5 in use, 6 no key, 7 cannot mount, 8 damage found (fsck, scrub) or not all saved (salvage)";

/// Why a command ends early: a line for people and a code for scripts.
#[derive(Debug)]
pub struct Failure {
    /// What the program ends with.
    pub code: Code,
    /// `what: why; what to do`.
    pub text: String,
}

impl Failure {
    /// A failure with this code.
    pub fn new(code: Code, text: impl fmt::Display) -> Self {
        let text = text.to_string();
        Self { code, text }
    }
}

impl From<DaemonError> for Failure {
    fn from(error: DaemonError) -> Self {
        let code = match &error {
            DaemonError::Layout(LayoutError::Locked { .. })
            | DaemonError::MountPoint(MountPointError::InUse { .. } | MountPointError::Alive { .. }) => Code::InUse,
            DaemonError::Layout(_) => Code::Store,
            DaemonError::Key(_) => Code::Key,
            DaemonError::Administrators { .. } => Code::Config,
            DaemonError::MountPoint(_) | DaemonError::Mount(_) => Code::Mount,
            _ => Code::Failed,
        };
        Self::new(code, error)
    }
}

impl From<KeeperError> for Failure {
    fn from(error: KeeperError) -> Self {
        let code = match &error {
            KeeperError::GivenUp { .. } => Code::Mount,
            KeeperError::System(_) | KeeperError::Start { .. } => Code::Failed,
        };
        Self::new(code, error)
    }
}

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::Store(error) => error.into(),
            ImportError::Place(error) => Self::new(Code::Failed, error),
        }
    }
}

impl From<LayoutError> for Failure {
    fn from(error: LayoutError) -> Self {
        DaemonError::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_end_with_their_code() {
        let locked = LayoutError::Locked {
            path: "/s".into(),
            holder: crate::daemon::layout::LockNote::default(),
        };
        assert_eq!(Failure::from(locked).code, Code::InUse);
        let none = LayoutError::NoStore("/s".into());
        assert_eq!(Failure::from(none).code, Code::Store);
        let missing = MountPointError::Missing("/m".into());
        let failure = Failure::from(DaemonError::from(missing));
        assert_eq!(failure.code, Code::Mount);
    }
}
