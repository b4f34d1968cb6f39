//! Full parallel scan. Cold, it waits for the disk, so threads outnumber processors; work is
//! taken from one stack of directories and of slices of large directories, newest first, which
//! keeps the stack short. No descriptor is held for a directory that waits.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread;

use parking_lot::{Condvar, Mutex};

use super::error::Error;
use super::list::{Absent, Counted, Found, Listing, Opened, Probe, Root, child, to_path};
use crate::db::DirRow;
use crate::id::Ino;
use crate::units::Meters;

const THREAD_COUNT: usize = 8;
/// Entries that one thread looks at in one piece.
const SLICE_LEN: usize = 2048;

/// Counts everything under `data`.
///
/// # Errors
/// [`Error::Read`] for the first directory or file that the disk would not show.
pub fn scan(data: BorrowedFd<'_>, probe: Probe<'_>) -> Result<Counted, Error> {
    let begun = (probe.now)();
    let root = Root::new(data)?;
    let queue = Queue::new(Task::Directory {
        parent: root.ino,
        name: Vec::new(),
        path: Vec::new(),
    });
    let parts = thread::scope(|scope| {
        let work = || {
            let mut part = Part::default();
            let mut buffer = Vec::new();
            queue.work(|task| part.run(task, &root, probe, &mut buffer));
            part
        };
        let threads: Vec<_> = (1..THREAD_COUNT).map(|_| scope.spawn(work)).collect();
        let mut parts = vec![work()];
        for thread in threads {
            match thread.join() {
                Ok(part) => parts.push(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        parts
    });
    if let Some(error) = queue.state.into_inner().error {
        return Err(error);
    }
    let mut whole = Part::default();
    for part in parts {
        whole.dirs.extend(part.dirs);
        whole.slices.extend(part.slices);
        whole.found.absorb(part.found);
    }
    whole.complete_rows();
    let elapsed = (probe.now)().saturating_sub(begun);
    Ok(whole.found.into_counted(whole.dirs, Vec::new(), elapsed))
}

/// A piece of work.
enum Task {
    Directory { parent: Ino, name: Vec<u8>, path: Vec<u8> },
    Slice { dir: Arc<Large>, range: Range<usize> },
}

/// A directory whose entries are shared out.
struct Large {
    opened: Opened,
    path: Vec<u8>,
    listing: Listing,
}

/// What one thread found.
#[derive(Default)]
struct Part {
    dirs: Vec<DirRow>,
    /// Figures that belong to a directory whose row may be in another part.
    slices: Vec<(Ino, Meters)>,
    found: Found,
}

impl Part {
    /// Does one task; returns those that came out of it.
    fn run(&mut self, task: Task, root: &Root<'_>, probe: Probe<'_>, buffer: &mut Vec<u8>) -> Result<Vec<Task>, Error> {
        match task {
            Task::Directory { parent, name, path } => self.directory(parent, name, path, root, probe, buffer),
            Task::Slice { dir, range } => {
                let own = dir
                    .listing
                    .count(range, &dir.opened, &dir.path, root, &mut self.found)?;
                self.slices.push((dir.opened.ino, own));
                Ok(Vec::new())
            }
        }
    }

    fn directory(
        &mut self,
        parent: Ino,
        name: Vec<u8>,
        path: Vec<u8>,
        root: &Root<'_>,
        probe: Probe<'_>,
        buffer: &mut Vec<u8>,
    ) -> Result<Vec<Task>, Error> {
        let opened = match root.open(&path)? {
            Ok(opened) => opened,
            Err(Absent::Vanished) => return Ok(Vec::new()),
            Err(Absent::Foreign) => {
                self.found.foreign.push(to_path(&path));
                return Ok(Vec::new());
            }
        };
        let listing = Listing::read(&opened, &path, buffer)?;
        self.found.directories_read += 1;
        let ino = opened.ino;
        let mut row = DirRow {
            ino,
            generation: (probe.generation)(opened.fd.as_fd()),
            parent,
            name,
            own: Meters::default(),
            limits: (probe.limits)(opened.fd.as_fd()),
        };
        let below = |name: &Vec<u8>| Task::Directory {
            parent: ino,
            path: child(&path, name),
            name: name.clone(),
        };
        let mut tasks: Vec<Task> = listing.subdirs.iter().map(below).collect();
        let all = 0..listing.others_len();
        if all.len() <= SLICE_LEN {
            row.own = listing.count(all, &opened, &path, root, &mut self.found)?;
        } else {
            let dir = Arc::new(Large { opened, path, listing });
            tasks.extend(all.clone().step_by(SLICE_LEN).map(|start| Task::Slice {
                dir: Arc::clone(&dir),
                range: start..all.end.min(start + SLICE_LEN),
            }));
        }
        self.dirs.push(row);
        Ok(tasks)
    }

    /// Brings in what other threads found: figures of slices, and each row for its parent.
    fn complete_rows(&mut self) {
        self.dirs.sort_unstable_by_key(|row| row.ino);
        let position = |dirs: &[DirRow], ino| dirs.binary_search_by_key(&ino, |row| row.ino);
        for (ino, own) in self.slices.drain(..) {
            if let Ok(at) = position(&self.dirs, ino) {
                self.dirs[at].own.bytes += own.bytes;
                self.dirs[at].own.files += own.files;
            }
        }
        for row in 0..self.dirs.len() {
            let parent = self.dirs[row].parent;
            if parent != self.dirs[row].ino
                && let Ok(at) = position(&self.dirs, parent)
            {
                self.dirs[at].own.dirs += 1;
            }
        }
    }
}

/// Tasks to do, and the end of all when none is left and none is being done.
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    tasks: Vec<Task>,
    running: usize,
    error: Option<Error>,
    /// No more work is begun: there was an error or a panic.
    stopped: bool,
}

impl Queue {
    fn new(first: Task) -> Self {
        Self {
            state: Mutex::new(State {
                tasks: vec![first],
                running: 0,
                error: None,
                stopped: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// Works until all is done, by this thread and the others.
    fn work(&self, mut run: impl FnMut(Task) -> Result<Vec<Task>, Error>) {
        while let Some(task) = self.next() {
            let mut done = Done {
                queue: self,
                outcome: None,
            };
            done.outcome = Some(run(task));
        }
    }

    fn next(&self) -> Option<Task> {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return None;
            }
            if let Some(task) = state.tasks.pop() {
                state.running += 1;
                return Some(task);
            }
            if state.running == 0 {
                return None;
            }
            self.changed.wait(&mut state);
        }
    }
}

/// Reports a task as done, also when it panicked: the other threads must not wait for it.
struct Done<'a> {
    queue: &'a Queue,
    outcome: Option<Result<Vec<Task>, Error>>,
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        state.running -= 1;
        let woken = match self.outcome.take() {
            Some(Ok(tasks)) => {
                let new = tasks.len();
                state.tasks.extend(tasks);
                new > 1 || state.running == 0
            }
            Some(Err(error)) => {
                state.error.get_or_insert(error);
                state.stopped = true;
                true
            }
            None => {
                state.stopped = true;
                true
            }
        };
        drop(state);
        if woken {
            self.queue.changed.notify_all();
        }
    }
}
