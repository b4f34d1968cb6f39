//! Being another user for a while, without another process.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// Only root can be several users.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Does `work` as a user without rights whose own group has the same number, and who is in `groups`. Ids and rights are
/// those of a thread; this one ends with the work.
pub fn as_user<T: Send>(user: u32, groups: &[u32], work: impl FnOnce() -> T + Send) -> T {
    let groups: Vec<Gid> = groups.iter().map(|&group| Gid::from_raw(group)).collect();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
            set_thread_groups(&groups).expect("root chooses its groups");
            set_thread_res_gid(gid, gid, gid).expect("root chooses its group");
            set_thread_res_uid(uid, uid, uid).expect("root becomes anyone");
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Lets everyone through to a directory that only its maker could reach.
#[track_caller]
pub fn open_the_way_to(dir: &Path) {
    for above in dir.ancestors() {
        let mode = above
            .metadata()
            .expect("the way to a test directory")
            .permissions()
            .mode();
        if mode & 0o001 == 0 {
            fs::set_permissions(above, fs::Permissions::from_mode(0o755)).expect("it is the test's own");
        }
    }
}
