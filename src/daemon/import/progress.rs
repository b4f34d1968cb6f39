//! How far an import has come, told while it runs, and how much there is to do, counted before.

use std::ffi::CStr;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{FileType, Statx};

use super::source::{SourceDir, Visitor, kind, walk};

/// Who watches an import.
pub struct Watch<'a> {
    /// Set from outside: what is on its way is finished or given up, and the store is put away.
    pub stop: &'a AtomicBool,
    /// Called again and again, by any thread.
    pub show: &'a (dyn Fn(&Shown) + Sync),
}

/// How far it has come.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Shown {
    /// Names that are no directories, done in one way or another.
    pub done_count: u64,
    /// All of them.
    pub count: u64,
    /// Bytes of files that were read or passed over.
    pub done_bytes: u64,
    /// All of them.
    pub bytes: u64,
}

/// Names and bytes, counted as they are done.
pub struct Progress<'a> {
    watch: &'a Watch<'a>,
    total: Sum,
    done_count: AtomicU64,
    done_bytes: AtomicU64,
    halted: AtomicBool,
}

impl<'a> Progress<'a> {
    /// Of so much.
    pub fn new(watch: &'a Watch<'a>, total: Sum) -> Self {
        Self {
            watch,
            total,
            done_count: AtomicU64::new(0),
            done_bytes: AtomicU64::new(0),
            halted: AtomicBool::new(false),
        }
    }

    /// Bytes were read or passed over.
    pub fn bytes(&self, bytes: u64) {
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.show();
    }

    /// A name is done.
    pub fn one_done(&self) {
        self.done_count.fetch_add(1, Ordering::Relaxed);
        self.show();
    }

    fn show(&self) {
        (self.watch.show)(&Shown {
            done_count: self.done_count.load(Ordering::Relaxed),
            count: self.total.count,
            done_bytes: self.done_bytes.load(Ordering::Relaxed),
            bytes: self.total.bytes,
        });
    }

    /// It makes no sense to go on.
    pub fn halt(&self) {
        self.halted.store(true, Ordering::Release);
    }

    /// Nothing new is begun any more.
    pub fn is_over(&self) -> bool {
        self.halted.load(Ordering::Acquire) || self.watch.stop.load(Ordering::Acquire)
    }
}

/// Names that are no directories, and the bytes of the files among them.
#[derive(Clone, Copy, Default)]
pub struct Sum {
    count: u64,
    bytes: u64,
}

/// Counts a tree. What cannot be looked at is left for the import itself to tell.
pub fn survey(top: &Arc<SourceDir>, stop: &AtomicBool) -> Sum {
    let mut counting = Counting {
        sum: Sum::default(),
        stop,
    };
    let _ = walk(top, &mut counting);
    counting.sum
}

struct Counting<'a> {
    sum: Sum,
    stop: &'a AtomicBool,
}

impl Counting<'_> {
    fn flow(&self) -> ControlFlow<()> {
        if self.stop.load(Ordering::Acquire) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

impl Visitor for Counting<'_> {
    fn enter(&mut self, _: &Arc<SourceDir>) -> ControlFlow<(), bool> {
        self.flow()?;
        ControlFlow::Continue(true)
    }

    fn leave(&mut self, _: &Arc<SourceDir>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn meet(&mut self, _: &Arc<SourceDir>, _: &CStr, stat: &Statx) -> ControlFlow<()> {
        self.sum.count += 1;
        if kind(stat) == FileType::RegularFile {
            self.sum.bytes = self.sum.bytes.saturating_add(stat.stx_size);
        }
        self.flow()
    }

    fn fail(&mut self, _: &[u8], _: io::Error) {}
}
