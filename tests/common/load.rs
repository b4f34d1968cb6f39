//! Writers in processes of their own: the limit must hold between processes as between threads.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::command::text;

/// Writes chunks into one file until it is refused ten times in a row, checks its own size, prints what was acknowledged.
const WRITER: &str = r"
import errno, os, sys
path, chunk = sys.argv[1], int(sys.argv[2])
sys.stdin.read()
fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
acknowledged, refused = 0, 0
while refused < 10:
    try:
        count = os.write(fd, b'w' * chunk)
        if count == 0: sys.exit('write answered 0')
        acknowledged, refused = acknowledged + count, 0
    except OSError as e:
        if e.errno not in (errno.EDQUOT, errno.ENOSPC): raise
        refused += 1
if os.fstat(fd).st_size != acknowledged: sys.exit('size is not what was acknowledged')
print(acknowledged)
";

/// Creates empty files in a directory until it is refused ten times in a row, prints how many it made.
const CREATOR: &str = r"
import errno, os, sys
prefix = sys.argv[1]
sys.stdin.read()
made, refused, tried = 0, 0, 0
while refused < 10:
    tried += 1
    try:
        os.close(os.open(prefix + str(tried), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        made, refused = made + 1, 0
    except OSError as e:
        if e.errno not in (errno.EDQUOT, errno.ENOSPC): raise
        refused += 1
print(made)
";

/// Runs `processes` writers of files in `dir` at once; what each had acknowledged.
#[track_caller]
pub fn writers(dir: &Path, processes: u64, chunk_of: impl Fn(u64) -> u64) -> Vec<u64> {
    together(processes, |n| {
        let path = dir.join(format!("writer-{n}"));
        python(WRITER, &[text(&path), &chunk_of(n).to_string()])
    })
}

/// Runs `processes` creators in `dir` at once; how many files each made.
#[track_caller]
pub fn creators(dir: &Path, processes: u64) -> Vec<u64> {
    together(processes, |n| {
        python(CREATOR, &[text(&dir.join(format!("creator-{n}-")))])
    })
}

/// All processes wait on their standard input; closing it starts them.
#[track_caller]
fn together(processes: u64, start: impl Fn(u64) -> Child) -> Vec<u64> {
    let mut children: Vec<_> = (0..processes).map(start).collect();
    for child in &mut children {
        drop(child.stdin.take());
    }
    children
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().expect("a started process ends");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}: {errors}", output.status);
            let printed = String::from_utf8_lossy(&output.stdout);
            printed.trim().parse().unwrap_or_else(|_| panic!("printed {printed}"))
        })
        .collect()
}

#[track_caller]
fn python(script: &str, args: &[&str]) -> Child {
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=10", "180", "python3", "-c", script])
        .args(args);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().expect("python3 runs")
}
