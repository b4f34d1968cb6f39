//! A disk that hangs on one file: every request on the others is answered before it goes on.

use std::ffi::OsStr;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use tallyfs::fs::{Errno, NewMode, RenameKind};
use tallyfs::id::Fh;
use tallyfs::store::fault_points::{Call, Fate, arm};

use crate::world::{Mounted, READ_WRITE, ROOT};

/// Long enough for a loaded machine; reaching it is a failure.
const DEADLINE: Duration = Duration::from_mins(1);

/// Does `stuck` on a thread whose first `call` on the disk hangs until `others` is done.
fn hanging<T: Send>(call: Call, stuck: impl FnOnce() -> T + Send, others: impl FnOnce()) -> T {
    thread::scope(|scope| {
        let (reached, in_disk) = channel();
        let (open, gate) = channel();
        let (late, was_late) = channel();
        let stuck = scope.spawn(move || {
            let mut hung = false;
            arm(Some(Box::new(move |asked| {
                if asked == call && !std::mem::replace(&mut hung, true) {
                    reached.send(()).expect("the test waits for it");
                    if gate.recv_timeout(DEADLINE).is_err() {
                        late.send(()).expect("the test asks for it");
                    }
                }
                Fate::Goes
            })));
            let answer = stuck();
            arm(None);
            answer
        });
        in_disk.recv_timeout(DEADLINE).expect("the disk is reached");
        others();
        // Nobody takes it any more when the others had to wait for the deadline.
        let _: Result<(), _> = open.send(());
        let answer = stuck.join().expect("no panic");
        assert!(
            was_late.try_recv().is_err(),
            "the others waited for the file that hangs"
        );
        answer
    })
}

fn create(mounted: &Mounted, name: &str) -> Fh {
    let made = mounted
        .fs
        .create(1, OsStr::new(name), NewMode::exactly(0o640), READ_WRITE, ROOT);
    let fh = made.expect("a file").1.fh;
    mounted.write(fh, 0, &[7; 9000]).expect("its first bytes");
    fh
}

/// Everything that a call does, on files that do not hang.
fn everything_else(mounted: &Mounted, other: Fh) {
    let fs = &mounted.fs;
    mounted.write(other, 9000, &[8; 320]).expect("write");
    assert_eq!(mounted.read_all(other).expect("read").len(), 9320);
    let number = mounted.number(1, "other").expect("lookup").expect("there");
    assert_eq!(fs.getattr(number).expect("getattr").size, 9320);
    fs.fsync(other).expect("fsync");
    let new = create(mounted, "new");
    fs.mkdir(1, OsStr::new("dir"), NewMode::exactly(0o755), ROOT)
        .expect("mkdir");
    fs.rename(1, OsStr::new("new"), 1, OsStr::new("moved"), RenameKind::Replace)
        .expect("rename");
    fs.unlink(1, OsStr::new("moved")).expect("unlink");
    fs.release(new).expect("close");
    fs.rmdir(1, OsStr::new("dir")).expect("rmdir");
}

fn with_stuck(call: Call, stuck: impl FnOnce(&Mounted, Fh) -> Result<(), Errno> + Send) {
    let mounted = Mounted::new(false);
    let (slow, other) = (create(&mounted, "slow"), create(&mounted, "other"));
    let answer = hanging(
        call,
        || stuck(&mounted, slow),
        || {
            everything_else(&mounted, other);
            // Also the committer comes by, and makes the others durable.
            let status = mounted.fs.commit_tick();
            assert_eq!(status.failed_count, 0);
            mounted.fs.release(other).expect("close");
            assert_eq!(
                mounted.fs.commit_tick().sealed_count,
                1,
                "the other file is sealed meanwhile"
            );
        },
    );
    assert_eq!(answer, Ok(()));
}

#[test]
fn an_fsync_that_hangs_holds_up_no_other_file() {
    with_stuck(Call::Sync, |mounted, slow| mounted.fs.fsync(slow));
}

#[test]
fn a_write_that_hangs_holds_up_no_other_file() {
    with_stuck(Call::Write, |mounted, slow| {
        mounted.write(slow, 9000, &[9; 320]).map(drop)
    });
}

#[test]
fn a_read_that_hangs_holds_up_no_other_file() {
    with_stuck(Call::Read, |mounted, slow| mounted.read_all(slow).map(drop));
}

#[test]
fn a_create_that_hangs_holds_up_no_other_file() {
    with_stuck(Call::Create, |mounted, _| {
        let made = mounted
            .fs
            .create(1, OsStr::new("late"), NewMode::exactly(0o640), READ_WRITE, ROOT);
        made.map(drop)
    });
}

#[test]
fn a_tick_that_hangs_on_one_file_holds_up_no_write_and_no_fsync_of_another() {
    let mounted = Mounted::new(false);
    let files = [create(&mounted, "one"), create(&mounted, "other")];
    let synced = |fh: Fh, done: Sender<()>| {
        let fs = mounted.fs.clone();
        thread::spawn(move || {
            fs.fsync(fh).expect("fsync");
            // The second one comes when nobody waits any more.
            let _ = done.send(());
        })
    };
    let mut waiting = Vec::new();
    hanging(
        Call::Sync,
        || mounted.fs.commit_tick(),
        || {
            for fh in files {
                mounted.write(fh, 9000, &[8; 320]).expect("write");
            }
            everything_else_by_name(&mounted);
            let (done, one_is) = channel();
            waiting = files.map(|fh| synced(fh, done.clone())).into();
            one_is
                .recv_timeout(DEADLINE / 2)
                .expect("the file that does not hang is synced");
        },
    );
    for thread in waiting {
        thread.join().expect("no panic");
    }
}

fn everything_else_by_name(mounted: &Mounted) {
    let new = create(mounted, "new");
    mounted.fs.unlink(1, OsStr::new("new")).expect("unlink");
    mounted.fs.release(new).expect("close");
}
