//! What is on its way into the store together, so that the number of syncs does not grow with that of files.
//!
//! Stages, each over the whole batch: files are copied under names of ours; all are sealed and durable; each is read back
//! and its hash compared with what was read from the tree; then they get their names, links and directories after them;
//! and, when the tree is to go, all that is synced before anything of it is removed.
//!
//! States a kill or a power cut can leave: halves under names of ours, which the next run clears; whole files under their
//! own names; directories without their attributes, which the next run sets; names in the tree that could have gone.

use std::ffi::CString;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use sha2::{Digest, Sha256};

use super::progress::Progress;
use super::remarks::Why;
use super::source::{self, InodeId, Seen, SourceDir, Stretch};
use super::target::{Half, Known, Owner, Target};

/// Files in a batch: each holds two descriptors until it is sealed.
const FILES_MAX: usize = 256;
/// Bytes of files that end a batch.
const BYTES_MAX: u64 = 256 << 20;
/// Directories and names of other kinds that end a batch: they hold descriptors of the tree.
const OTHERS_MAX: usize = 256;
/// Plaintext of one read or write.
const CHUNK_BYTES: usize = 1 << 20;
/// Threads that copy; the disk takes no more.
const THREADS_MAX: usize = 4;

/// What the zeros of a hole are hashed from.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// A directory of the tree, and the one of the store that it becomes.
pub struct Place {
    /// In the tree.
    pub source: Arc<SourceDir>,
    /// In the store.
    pub target: Known,
}

/// A name in a directory of the tree.
#[derive(Clone)]
pub struct Named {
    /// The directory.
    pub place: Arc<Place>,
    /// The name.
    pub name: CString,
    /// What it was when it was met.
    pub seen: Seen,
}

impl Named {
    /// Below the tree, for messages.
    pub fn path(&self) -> Vec<u8> {
        self.place.source.path_of(&self.name)
    }
}

/// A file to be copied, or compared.
pub struct FileItem {
    /// Where.
    pub named: Named,
    /// Bytes when it was met.
    pub size: u64,
    /// What the store has of it: only compared.
    pub there: Option<Known>,
    /// The inode, when it has several names.
    pub links_id: Option<InodeId>,
}

/// A symbolic link to be made.
pub struct SymlinkItem {
    /// Where.
    pub named: Named,
    /// Its attributes.
    pub stat: rustix::fs::Statx,
}

/// A further name of a file that is in this batch or an earlier one.
pub struct LinkItem {
    /// Where.
    pub named: Named,
    /// Bytes of the file.
    pub size: u64,
    /// The file.
    pub links_id: InodeId,
}

/// What waits.
#[derive(Default)]
pub struct Batch {
    /// Files.
    pub files: Vec<FileItem>,
    /// Symbolic links.
    pub symlinks: Vec<SymlinkItem>,
    /// Further names.
    pub links: Vec<LinkItem>,
    /// Directories in which nothing is left to do but what waits here.
    pub directories: Vec<Arc<Place>>,
    /// Names that may go from the tree once the store is synced.
    pub done: Vec<Named>,
    bytes: u64,
}

impl Batch {
    /// One more file.
    pub fn file(&mut self, item: FileItem) {
        self.bytes = self.bytes.saturating_add(item.size);
        self.files.push(item);
    }

    /// Whether it is to be carried out before more comes.
    pub fn is_full(&self) -> bool {
        let others = self.symlinks.len() + self.links.len() + self.directories.len() + self.done.len();
        self.files.len() >= FILES_MAX || self.bytes >= BYTES_MAX || others >= OTHERS_MAX
    }
}

/// A file that was read to its end.
pub struct Copied {
    /// The new file; `None`: one that was there is only compared.
    half: Option<Half>,
    seen: Seen,
    length: u64,
    content_sha256: [u8; 32],
    owner: Owner,
}

impl Copied {
    /// The new file, when there is one.
    pub fn half(self) -> Option<Half> {
        self.half
    }

    /// What the file was in the tree when its last byte had been read.
    pub fn seen(&self) -> Seen {
        self.seen
    }

    /// Bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether its owner was kept.
    pub fn owner(&self) -> Owner {
        self.owner
    }
}

/// Copies files beside each other.
pub fn copy_all(target: &Target, progress: &Progress<'_>, files: &[FileItem]) -> Vec<Result<Copied, Why>> {
    side_by_side(files.len(), |at, buffer| {
        let item = &files[at];
        if progress.is_over() {
            return Err(Why::Stopped);
        }
        let mut read_bytes = 0;
        let copied = copy(target, progress, item, buffer, &mut read_bytes);
        if copied.is_err() {
            progress.bytes(item.size.saturating_sub(read_bytes));
        }
        if copied.as_ref().is_err_and(Why::ends_all) {
            progress.halt();
        }
        copied
    })
}

/// Reads back what was written, through the store's own decryption, and compares it with what was read. What could not be
/// made durable is left for the next run.
pub fn verify_all(target: &Target, files: &[FileItem], copied: Vec<Result<Copied, Why>>) -> Vec<Result<Copied, Why>> {
    let checked = side_by_side(files.len(), |at, buffer| {
        let Ok(copied) = &copied[at] else { return Ok(()) };
        let number = match (&copied.half, &files[at].there) {
            (Some(half), _) if target.fs().is_unsealed(half.number()) => return Err(Why::Stopped),
            (Some(half), _) => half.number(),
            (None, Some(there)) => there.number,
            (None, None) => return Err(Why::Unverified),
        };
        let found = target.hash(number, buffer)?;
        if found == (copied.length, copied.content_sha256) {
            Ok(())
        } else if copied.half.is_some() {
            Err(Why::Unverified)
        } else {
            Err(Why::Exists(
                "the store has a file of this name, length and time with another content".to_owned(),
            ))
        }
    });
    let both = copied.into_iter().zip(checked);
    both.map(|(copied, checked)| copied.and_then(|copied| checked.map(|()| copied)))
        .collect()
}

fn copy(
    target: &Target,
    progress: &Progress<'_>,
    item: &FileItem,
    buffer: &mut [u8],
    read_bytes: &mut u64,
) -> Result<Copied, Why> {
    let Named { place, name, seen } = &item.named;
    let file = place.source.open(name).map_err(Why::source("open it"))?;
    let look = || crate::store::tree::stat_fd(&file).map_err(Why::source("look at it"));
    let stat = look()?;
    if Seen::of(&stat) != *seen {
        return Err(Why::Changed);
    }
    let mut half = match item.there {
        Some(_) => None,
        None => Some(target.begin(&place.target, name, item.size)?),
    };
    let mut hash = Sha256::new();
    let length = source::read(&file, item.size, buffer, Why::source("read it"), |stretch| {
        if progress.is_over() {
            return Err(Why::Stopped);
        }
        let bytes = match stretch {
            Stretch::Data(plain_offset, data) => {
                hash.update(data);
                if let Some(half) = &half {
                    target.write(half, plain_offset, data)?;
                }
                data.len() as u64
            }
            Stretch::Hole(bytes) => {
                hash_zeros(&mut hash, bytes);
                bytes
            }
        };
        *read_bytes += bytes;
        progress.bytes(bytes);
        Ok(())
    })?;
    let content_sha256 = hash.finalize().into();
    let mut owner = Owner::Kept;
    if let Some(half) = &mut half {
        target.close(half, length, content_sha256)?;
        owner = target.give_attributes(half.number(), std::os::fd::AsFd::as_fd(&file), &stat)?;
    }
    // Last of all: content and attributes belong together.
    if Seen::of(&look()?) != *seen || length != item.size {
        return Err(Why::Changed);
    }
    Ok(Copied {
        half,
        seen: *seen,
        length,
        content_sha256,
        owner,
    })
}

fn hash_zeros(hash: &mut Sha256, mut bytes: u64) {
    while bytes > 0 {
        let most = usize::try_from(bytes).map_or(ZEROS.len(), |bytes| bytes.min(ZEROS.len()));
        hash.update(&ZEROS[..most]);
        bytes -= most as u64;
    }
}

/// Does `work` for every number below `count`, on as many threads as there are cores; answers in the order of numbers.
fn side_by_side<T: Send>(count: usize, work: impl Fn(usize, &mut [u8]) -> T + Sync) -> Vec<T> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let next = AtomicUsize::new(0);
    let run = || {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut answers = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return answers;
            }
            answers.push((at, work(at, &mut buffer)));
        }
    };
    let mut answers: Vec<(usize, T)> = thread::scope(|scope| {
        let threads = cores.min(THREADS_MAX).min(count);
        // One is this thread itself, so that it goes on when no other can be started.
        let others: Vec<_> = (1..threads)
            .filter_map(|_| thread::Builder::new().spawn_scoped(scope, run).ok())
            .collect();
        let mut answers = run();
        for other in others {
            match other.join() {
                Ok(more) => answers.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        answers
    });
    answers.sort_unstable_by_key(|(at, _)| *at);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_many_threads_come_in_order() {
        let answers = side_by_side(1000, |at, _| at * 3);
        assert!(answers.iter().enumerate().all(|(at, answer)| *answer == at * 3));
        assert_eq!(answers.len(), 1000);
        assert!(side_by_side(0, |at, _| at).is_empty());
    }

    #[test]
    fn zeros_of_a_hole_are_hashed_as_any_others() {
        let mut hash = Sha256::new();
        hash_zeros(&mut hash, 100_000);
        assert_eq!(hash.finalize(), Sha256::digest(vec![0; 100_000]));
    }
}
