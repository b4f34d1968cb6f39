//! A disk in memory below [`Backing`]: a page cache over durable pages, with every version that a
//! page had since it was last made durable. A crash keeps, drops or tears each of them on its own;
//! sizes are older or newer than the data as they like. A kill leaves the page cache as it is.

#![allow(dead_code)] // Two tests share it, and each leaves something out.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use tallyfs::store::backing::Backing;

use crate::rng::Rng;

pub const PAGE: u64 = 4096;
const SECTOR: usize = 512;

type Page = Arc<[u8; PAGE as usize]>;

/// What a page held since it was durable; `None`: no page (cut off, punched or not there yet).
#[derive(Clone)]
struct Version {
    sequence: u64,
    page: Option<Page>,
    /// Gone with a smaller size: a journal never takes the page without the size.
    cut: bool,
}

/// Everything that is on the disk and in the page cache.
#[derive(Clone, Default)]
pub struct State {
    sequence: u64,
    cache: BTreeMap<u64, Page>,
    cache_size: u64,
    durable: BTreeMap<u64, Page>,
    durable_size: u64,
    dirty: BTreeMap<u64, Vec<Version>>,
    sizes: Vec<(u64, u64)>,
}

/// How a crash treats the pages that no sync covered.
#[derive(Clone, Copy, Debug)]
struct Fate {
    drop_percent: u64,
    tear_percent: u64,
}

impl State {
    fn put(&mut self, index: u64, page: Option<Page>) {
        self.put_version(index, page, false);
    }

    fn put_version(&mut self, index: u64, page: Option<Page>, cut: bool) {
        self.sequence += 1;
        let known =
            self.cache.contains_key(&index) || self.durable.contains_key(&index) || self.dirty.contains_key(&index);
        match &page {
            Some(page) => drop(self.cache.insert(index, page.clone())),
            None => drop(self.cache.remove(&index)),
        }
        if page.is_some() || known {
            let version = Version {
                sequence: self.sequence,
                page,
                cut,
            };
            self.dirty.entry(index).or_default().push(version);
        }
    }

    fn set_size(&mut self, size: u64) {
        if size < self.cache_size {
            let first_gone = size.div_ceil(PAGE);
            let cached = self.cache.range(first_gone..).map(|(index, _)| *index);
            let on_disk = self.durable.range(first_gone..).map(|(index, _)| *index);
            let gone: BTreeSet<u64> = cached.chain(on_disk).collect();
            for index in gone {
                self.put_version(index, None, true);
            }
            self.zero_part(size / PAGE, (size % PAGE) as usize, PAGE as usize);
        }
        if size != self.cache_size {
            self.sequence += 1;
            self.cache_size = size;
            self.sizes.push((self.sequence, size));
        }
    }

    fn zero_part(&mut self, index: u64, from: usize, to: usize) {
        if from == 0 && to == PAGE as usize {
            if self.cache.contains_key(&index) {
                self.put(index, None);
            }
        } else if let Some(page) = self.cache.get(&index) {
            let mut page = page.as_ref().to_owned();
            page[from..to].fill(0);
            self.put(index, Some(Arc::new(page)));
        }
    }

    fn write(&mut self, bytes: &[u8], offset: u64) {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let (index, from) = (at / PAGE, (at % PAGE) as usize);
            let part = (PAGE as usize - from).min(bytes.len() - done);
            let mut page = self.cache.get(&index).map_or([0; PAGE as usize], |page| **page);
            page[from..from + part].copy_from_slice(&bytes[done..done + part]);
            self.put(index, Some(Arc::new(page)));
            done += part;
        }
        let end = offset + bytes.len() as u64;
        if end > self.cache_size {
            self.sequence += 1;
            self.cache_size = end;
            self.sizes.push((self.sequence, end));
        }
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let bytes = self.cache_size.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let mut done = 0;
        while done < bytes {
            let at = offset + done as u64;
            let (index, from) = (at / PAGE, (at % PAGE) as usize);
            let part = (PAGE as usize - from).min(bytes - done);
            match self.cache.get(&index) {
                Some(page) => buffer[done..done + part].copy_from_slice(&page[from..from + part]),
                None => buffer[done..done + part].fill(0),
            }
            done += part;
        }
        bytes
    }

    fn make_durable(&mut self, index: u64, page: Option<Page>) {
        match page {
            Some(page) => drop(self.durable.insert(index, page)),
            None => drop(self.durable.remove(&index)),
        }
    }

    /// Everything up to `sequence` is durable: each page as it was then or, when it was written to
    /// meanwhile, a mix with what came later (which the next crash makes of its versions).
    fn flush(&mut self, sequence: u64) {
        for (index, versions) in std::mem::take(&mut self.dirty) {
            let old = versions.partition_point(|version| version.sequence <= sequence);
            if old > 0 {
                self.make_durable(index, versions[old - 1].page.clone());
            }
            if old < versions.len() {
                self.dirty.insert(index, versions[old..].to_vec());
            }
        }
        let old = self.sizes.partition_point(|(at, _)| *at <= sequence);
        if old > 0 {
            self.durable_size = self.sizes[old - 1].1;
            self.sizes.drain(..old);
        }
    }

    /// A sync that fails: some pages reach the disk, the others are clean in the cache and will never
    /// be written unless somebody writes them again. What is cut off or punched is a change of the
    /// journal, which is not lost this way.
    fn fail_flush(&mut self, sequence: u64, rng: &mut Rng) {
        let keep_percent = rng.pick(&[0, 50, 90]);
        for (index, versions) in std::mem::take(&mut self.dirty) {
            let journaled = versions.iter().rposition(|version| version.page.is_none());
            let safe = journaled.map_or(0, |last| last + 1);
            // A page that was written to while the sync ran may have gone with it, too.
            let among = if rng.one_in(2) { sequence } else { self.sequence };
            let tried = versions.partition_point(|version| version.sequence <= among).max(safe);
            let reached = tried > safe && rng.percent(keep_percent);
            if reached {
                self.make_durable(index, versions[tried - 1].page.clone());
            }
            let mut left = if reached { Vec::new() } else { versions[..safe].to_vec() };
            left.extend_from_slice(&versions[tried..]);
            if !left.is_empty() {
                self.dirty.insert(index, left);
            }
        }
    }

    /// Memory runs short: some pages that are clean go from the cache and come back as they are on
    /// the disk. Returns whether one is not what it was.
    fn evict(&mut self, rng: &mut Rng) -> bool {
        let lost: Vec<u64> = self
            .cache
            .iter()
            .filter(|(index, page)| !self.dirty.contains_key(index) && self.durable.get(index) != Some(page))
            .map(|(index, _)| *index)
            .filter(|_| rng.one_in(2))
            .collect();
        for index in &lost {
            match self.durable.get(index).cloned() {
                Some(page) => drop(self.cache.insert(*index, page)),
                None => drop(self.cache.remove(index)),
            }
        }
        !lost.is_empty()
    }

    /// Background write-back of some pages.
    fn write_back(&mut self, rng: &mut Rng) {
        let some: Vec<u64> = self.dirty.keys().copied().filter(|_| rng.one_in(3)).collect();
        for index in some {
            if self.dirty[&index].iter().any(|version| version.cut) {
                continue;
            }
            if let Some(last) = self.dirty.remove(&index).and_then(|versions| versions.last().cloned()) {
                self.make_durable(index, last.page);
            }
        }
    }

    /// One of the states that the disk can be in after the power went.
    pub fn crash(&self, rng: &mut Rng) -> Self {
        let mut fates = [Fate {
            drop_percent: 0,
            tear_percent: 0,
        }; 4];
        for fate in &mut fates {
            *fate = Fate {
                drop_percent: rng.pick(&[0, 10, 50, 90, 100]),
                tear_percent: rng.pick(&[0, 0, 30, 90]),
            };
        }
        let sizes: Vec<(u64, u64)> = std::iter::once((0, self.durable_size))
            .chain(self.sizes.iter().copied())
            .collect();
        let (size_sequence, size) = match rng.below(4) {
            0 => sizes[0],
            1 => rng.pick(&sizes),
            _ => sizes[sizes.len() - 1],
        };
        let mut pages = self.durable.clone();
        for (&index, versions) in &self.dirty {
            // Heads, tails, and the body in two parts, so that whole groups live or die together.
            let group = match index {
                0..3 => 0,
                3..6 => 1,
                _ => 2 + (index / 8 % 2) as usize,
            };
            let survivor = survivor(self.durable.get(&index), versions, size_sequence, fates[group], rng);
            match survivor {
                Some(page) => drop(pages.insert(index, page)),
                None => drop(pages.remove(&index)),
            }
        }
        pages.split_off(&size.div_ceil(PAGE));
        if let Some(page) = pages.get_mut(&(size / PAGE)) {
            let mut cut = **page;
            cut[(size % PAGE) as usize..].fill(0);
            *page = Arc::new(cut);
        }
        Self {
            sequence: 0,
            cache: pages.clone(),
            cache_size: size,
            durable: pages,
            durable_size: size,
            dirty: BTreeMap::new(),
            sizes: Vec::new(),
        }
    }

    /// What a power cut leaves for certain.
    pub fn durable_alone(&self) -> Self {
        Self {
            cache: self.durable.clone(),
            cache_size: self.durable_size,
            durable: self.durable.clone(),
            durable_size: self.durable_size,
            ..Self::default()
        }
    }

    /// Whether a page here is neither what it was when it was last durable nor what it became.
    pub fn has_torn_page(&self, before: &Self) -> bool {
        self.cache.iter().any(|(index, page)| {
            let versions = before
                .dirty
                .get(index)
                .into_iter()
                .flatten()
                .map(|version| version.page.as_ref());
            let mut known = versions.chain([before.durable.get(index)]);
            !known.any(|known| known.is_some_and(|known| known == page)) && page.iter().any(|&byte| byte != 0)
        })
    }

    /// The pages from the first to the last.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (index, page) in &self.cache {
            bytes.resize((index * PAGE) as usize, 0);
            bytes.extend_from_slice(&page[..]);
        }
        bytes
    }

    /// All pages in the cache, for tests that look at what is on disk.
    pub fn pages(&self) -> impl Iterator<Item = (u64, &[u8; PAGE as usize])> {
        self.cache.iter().map(|(index, page)| (*index, page.as_ref()))
    }
}

fn survivor(base: Option<&Page>, versions: &[Version], size_sequence: u64, fate: Fate, rng: &mut Rng) -> Option<Page> {
    let candidates: Vec<Option<Page>> = std::iter::once(base.cloned())
        .chain(
            versions
                .iter()
                .filter(|v| !v.cut || v.sequence < size_sequence)
                .map(|version| version.page.clone()),
        )
        .collect();
    if rng.percent(fate.tear_percent) {
        let mut page = [0; PAGE as usize];
        let (mut at, mut held) = (0, 0);
        while at < page.len() {
            // Runs of sectors of one version.
            let run = SECTOR * (1 + rng.below(6) as usize);
            let to = (at + run).min(page.len());
            held = if rng.one_in(3) {
                held
            } else {
                rng.below(candidates.len() as u64) as usize
            };
            if let Some(from) = &candidates[held] {
                page[at..to].copy_from_slice(&from[at..to]);
            }
            at = to;
        }
        return Some(Arc::new(page));
    }
    if rng.percent(fate.drop_percent) {
        return base.cloned();
    }
    let kept = if rng.one_in(4) {
        rng.below(candidates.len() as u64) as usize
    } else {
        candidates.len() - 1
    };
    candidates[kept].clone()
}

/// What goes wrong next.
#[derive(Default)]
pub struct Faults {
    /// Writes and size changes until one fails with this errno; then all do, when `persistent`.
    pub fail_in: Option<(u64, i32)>,
    pub persistent: bool,
    /// Writes until one is short.
    pub short_in: Option<u64>,
    /// Syncs until one fails.
    pub fail_sync_in: Option<u64>,
}

struct Inner {
    state: State,
    faults: Faults,
    rng: Rng,
    /// One in so many calls leaves a snapshot of the state before it; 0: none.
    snapshot_one_in: u64,
    snapshots: Vec<State>,
    /// Every page written since the last look, when somebody looks.
    written: Option<Vec<(u64, Vec<u8>)>>,
    failed_syncs: u64,
}

/// The disk as the engine sees it.
pub struct Disk(Mutex<Inner>);

impl Disk {
    pub fn new(state: State, seed: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Inner {
            state,
            faults: Faults::default(),
            rng: Rng::new(seed),
            snapshot_one_in: 0,
            snapshots: Vec::new(),
            written: None,
            failed_syncs: 0,
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no test panics inside the disk")
    }

    pub fn state(&self) -> State {
        self.inner().state.clone()
    }

    pub fn set_faults(&self, faults: Faults) {
        self.inner().faults = faults;
    }

    pub fn snapshot_one_in(&self, calls: u64) {
        self.inner().snapshot_one_in = calls;
    }

    pub fn take_snapshots(&self) -> Vec<State> {
        std::mem::take(&mut self.inner().snapshots)
    }

    /// The pages written since the last call, by offset.
    pub fn take_written(&self) -> Vec<(u64, Vec<u8>)> {
        self.inner().written.replace(Vec::new()).unwrap_or_default()
    }

    pub fn write_back(&self) {
        let inner = &mut *self.inner();
        inner.state.write_back(&mut inner.rng);
    }

    /// A sync that runs beside writers: begins now.
    pub fn begin_flush(&self) -> u64 {
        self.inner().state.sequence
    }

    /// It is done.
    pub fn finish_flush(&self, sequence: u64) {
        self.inner().state.flush(sequence);
    }

    /// It failed.
    pub fn fail_flush(&self, sequence: u64) {
        let inner = &mut *self.inner();
        inner.failed_syncs += 1;
        inner.state.fail_flush(sequence, &mut inner.rng);
    }

    /// Syncs that failed until now.
    pub fn failed_syncs(&self) -> u64 {
        self.inner().failed_syncs
    }

    /// Memory runs short; whether a page is not what it was.
    pub fn evict(&self) -> bool {
        let inner = &mut *self.inner();
        inner.state.evict(&mut inner.rng)
    }
}

impl Inner {
    fn called(&mut self) {
        if self.snapshot_one_in > 0 && self.rng.one_in(self.snapshot_one_in) {
            self.snapshots.push(self.state.clone());
        }
    }

    fn fault(&mut self) -> io::Result<()> {
        let Some((left, errno)) = self.faults.fail_in else {
            return Ok(());
        };
        if left > 0 {
            self.faults.fail_in = Some((left - 1, errno));
            return Ok(());
        }
        if !self.faults.persistent {
            self.faults.fail_in = None;
        }
        Err(io::Error::from_raw_os_error(errno))
    }

    /// How many of `bytes` a write takes: all, or some whole pages (the kernel copies a page at once
    /// and reserves its space before).
    fn short(&mut self, bytes: usize) -> usize {
        let Some(left) = self.faults.short_in else { return bytes };
        if left > 0 {
            self.faults.short_in = Some(left - 1);
            return bytes;
        }
        self.faults.short_in = None;
        self.rng.below((bytes / PAGE as usize) as u64) as usize * PAGE as usize
    }
}

impl Backing for Disk {
    fn read_at(&self, buffer: &mut [u8], sealed_offset: u64) -> io::Result<usize> {
        Ok(self.inner().state.read(buffer, sealed_offset))
    }

    fn write_at(&self, bytes: &[u8], sealed_offset: u64) -> io::Result<usize> {
        assert!(
            sealed_offset.is_multiple_of(PAGE) && bytes.len().is_multiple_of(PAGE as usize),
            "pages are written whole"
        );
        let inner = &mut *self.inner();
        inner.called();
        inner.fault()?;
        let taken = inner.short(bytes.len());
        inner.state.write(&bytes[..taken], sealed_offset);
        if let Some(written) = inner.written.as_mut() {
            let pages = bytes[..taken].chunks(PAGE as usize).enumerate();
            written.extend(pages.map(|(i, page)| (sealed_offset + i as u64 * PAGE, page.to_vec())));
        }
        Ok(taken)
    }

    fn set_size(&self, sealed_size: u64) -> io::Result<()> {
        let inner = &mut *self.inner();
        inner.called();
        inner.fault()?;
        inner.state.set_size(sealed_size);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.inner().state.cache_size)
    }

    fn sync_data(&self) -> io::Result<()> {
        let inner = &mut *self.inner();
        inner.called();
        let sequence = inner.state.sequence;
        match inner.faults.fail_sync_in {
            Some(0) => {
                inner.faults.fail_sync_in = None;
                inner.failed_syncs += 1;
                inner.state.fail_flush(sequence, &mut inner.rng);
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            Some(left) => inner.faults.fail_sync_in = Some(left - 1),
            None => {}
        }
        inner.state.flush(sequence);
        Ok(())
    }

    fn punch(&self, sealed_offset: u64, bytes: u64) -> io::Result<()> {
        let inner = &mut *self.inner();
        inner.called();
        let mut at = sealed_offset;
        let end = (sealed_offset + bytes).min(inner.state.cache_size.next_multiple_of(PAGE));
        while at < end {
            let to = ((at / PAGE + 1) * PAGE).min(end);
            let from = (at % PAGE) as usize;
            inner.state.zero_part(at / PAGE, from, from + (to - at) as usize);
            at = to;
        }
        Ok(())
    }

    fn next_data(&self, sealed_offset: u64) -> io::Result<Option<u64>> {
        let state = &self.inner().state;
        let next = state
            .cache
            .range(sealed_offset / PAGE..)
            .next()
            .map(|(index, _)| index * PAGE);
        Ok(next.map(|at| at.max(sealed_offset)).filter(|&at| at < state.cache_size))
    }

    fn next_hole(&self, sealed_offset: u64) -> io::Result<u64> {
        let state = &self.inner().state;
        if sealed_offset >= state.cache_size {
            return Err(io::Error::from_raw_os_error(libc::ENXIO));
        }
        let mut index = sealed_offset / PAGE;
        while state.cache.contains_key(&index) {
            index += 1;
        }
        Ok((index * PAGE).max(sealed_offset).min(state.cache_size))
    }
}
