//! One recording's life: operations, syncs that run beside them, sealing in steps, kills and power
//! cuts; every state on the way is crashed and looked at.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use tallyfs::sealed::keyring::KeyRing;
use tallyfs::sealed::keys::Kek;
use tallyfs::sealed::length::plain_offset_of;

use tallyfs::store::backing::Backing;
use tallyfs::store::error::StoreError;
use tallyfs::store::sealed_file::{SealStep, SealedFile, SyncTicket, WriteOptions};

use crate::disk::{Disk, Faults, State};
use crate::oracle::{Change, Found, Mark, Oracle};
use crate::rng::{Rng, content};

const MOST_BYTES: u64 = 90_000;

pub type File = SealedFile<Disk>;

/// What a history may do.
#[derive(Clone, Copy)]
#[allow(clippy::struct_excessive_bools)] // Each is one independent choice of a history.
pub struct Options {
    pub strict: bool,
    /// Gaps and lengthening, which allow holes.
    pub holes: bool,
    /// Overwrites in the middle.
    pub overwrites: bool,
    pub failing_syncs: bool,
    pub steps: u64,
    /// Crash images of every state that is looked at.
    pub images_per_state: u64,
}

impl Options {
    /// A mix that depends on the seed.
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0xabcd);
        Self {
            strict: rng.one_in(2),
            holes: rng.one_in(3),
            overwrites: rng.one_in(2),
            failing_syncs: rng.one_in(6),
            steps: 20 + rng.below(50),
            images_per_state: 2,
        }
    }
}

#[derive(Default, Clone, Copy)]
pub struct Counts {
    pub images: u64,
    pub kills: u64,
    pub histories: u64,
    /// Good syncs after failed ones.
    pub made_up: u64,
}

/// A loss, with what happened before.
pub struct Loss {
    pub what: String,
    pub log: Vec<String>,
}

enum Running {
    Sync,
    Seal(SealStep),
}

struct InFlight {
    running: Running,
    ticket: SyncTicket,
    sequence: u64,
    mark: Mark,
    /// Failed syncs when it began.
    failed_before: u64,
}

pub struct History {
    rng: Rng,
    options: Options,
    ring: Arc<KeyRing>,
    disk: Arc<Disk>,
    file: File,
    oracle: Oracle,
    /// As `oracle`, without the promises of the step that is going on.
    in_step: Oracle,
    in_flight: Option<InFlight>,
    writes: u64,
    log: Vec<String>,
    /// Failed syncs of the disk that were made up for: since then a sync was good, or the content is new.
    settled: u64,
    /// Pages that a failed sync left clean were dropped from the cache: what was not promised may be gone.
    evicted: bool,
    /// The power went since both heads were written for certain.
    was_cut: bool,
    /// A change failed half-way: what the reader may see is no longer known, the history ends.
    over: bool,
    pub counts: Counts,
}

pub fn ring() -> Arc<KeyRing> {
    Arc::new(KeyRing::create(Kek::take(&mut [7; 32]), [1; 16], 0))
}

/// Reads all of a file, block by block where it has to.
pub fn read_all(file: &File) -> Found {
    let length = file.plain_length();
    let mut whole = vec![0; length as usize];
    if file.read(0, &mut whole).is_ok_and(|bytes| bytes as u64 == length) {
        return Found {
            length,
            pieces: vec![(0, length, Some(whole))],
        };
    }
    let mut pieces = Vec::new();
    let (mut at, mut block) = (0, 1);
    while at < length {
        let to = plain_offset_of(block).min(length);
        let mut piece = vec![0; (to - at) as usize];
        let good = file.read(at, &mut piece).is_ok_and(|bytes| bytes == piece.len());
        pieces.push((at, to - at, good.then_some(piece)));
        at = to;
        block += 1;
    }
    Found { length, pieces }
}

fn whole(found: &Found) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for (_, _, piece) in &found.pieces {
        bytes.extend_from_slice(piece.as_ref()?);
    }
    Some(bytes)
}

impl History {
    pub fn new(seed: u64, options: Options) -> Self {
        let disk = Disk::new(State::default(), seed);
        let ring = ring();
        let file = File::new_empty(disk.clone(), ring.clone(), write_options(options));
        disk.snapshot_one_in(6);
        Self {
            rng: Rng::new(seed),
            options,
            ring,
            disk,
            file,
            oracle: Oracle::recovered(Vec::new(), false, options.strict),
            in_step: Oracle::default(),
            in_flight: None,
            writes: seed << 20,
            log: Vec::new(),
            settled: 0,
            evicted: false,
            was_cut: false,
            over: false,
            counts: Counts::default(),
        }
    }

    pub fn run(&mut self) -> Result<(), Loss> {
        self.counts.histories += 1;
        for _ in 0..self.options.steps {
            let outcome = self.step();
            outcome.map_err(|what| Loss {
                what,
                log: self.log.clone(),
            })?;
            if self.over {
                break;
            }
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        let before = self.oracle.clone();
        let was_evicted = self.evicted;
        self.in_step = before.clone();
        if self.options.failing_syncs && self.rng.one_in(4) {
            self.disk.set_faults(Faults {
                fail_sync_in: Some(self.rng.below(3)),
                ..Faults::default()
            });
        }
        let choice = self.rng.below(100);
        match choice {
            0..34 => self.append()?,
            34..42 => self.rewrite_header()?,
            42..46 => self.overwrite()?,
            46..49 => self.gap()?,
            49..55 => self.shrink()?,
            55..57 => self.lengthen()?,
            57..59 => self.zero_range()?,
            59..68 => self.sync()?,
            68..78 => self.begin_sync()?,
            78..86 => self.begin_seal()?,
            86..89 => self.seal_whole()?,
            89..91 => self.disk.write_back(),
            91..95 => self.kill()?,
            95..97 => self.power_cut()?,
            _ => self.compare()?,
        }
        self.disk.set_faults(Faults::default());
        if self.is_tainted() && self.rng.one_in(4) {
            self.evicted |= self.disk.evict();
        }
        if self.in_flight.is_some() && self.rng.percent(45) {
            self.finish()?;
        }
        self.look(&before, was_evicted)
    }

    fn changes(&mut self, change: Change) {
        self.in_step.apply(change.clone());
        self.oracle.apply(change);
    }

    fn note(&mut self, text: &str) {
        self.log.push(format!("{text} (length {})", self.file.plain_length()));
    }

    /// Crashes the states on the way through this step and the one after it.
    fn look(&mut self, before: &Oracle, was_evicted: bool) -> Result<(), String> {
        for state in self.disk.take_snapshots() {
            self.crash_images(&state, &self.in_step.clone())?;
            if !self.over && !self.evicted && !was_evicted {
                self.killed_image(state, Some(before))?;
            }
        }
        if self.rng.percent(60) {
            let state = self.disk.state();
            self.crash_images(&state, &self.oracle.clone())?;
        }
        Ok(())
    }

    fn killed_image(&mut self, state: State, before: Option<&Oracle>) -> Result<(), String> {
        self.counts.kills += 1;
        let file = self.load(&Disk::new(state, 0))?;
        let found = read_all(&file);
        check_hash(&file, &found)?;
        self.oracle.check_kill(before, &found)
    }

    fn load(&self, disk: &Arc<Disk>) -> Result<File, String> {
        File::load(disk.clone(), self.ring.clone(), write_options(self.options)).map_err(|e| format!("load: {e}"))
    }

    fn crash_images(&mut self, state: &State, oracle: &Oracle) -> Result<(), String> {
        for _ in 0..self.options.images_per_state {
            self.counts.images += 1;
            let image = state.crash(&mut self.rng);
            let disk = Disk::new(image, self.rng.next());
            let file = self.load(&disk)?;
            let found = read_all(&file);
            check_hash(&file, &found)?;
            oracle.check(&found)?;
            if self.rng.percent(20) {
                self.live_on(&disk, file, &found)?;
            }
        }
        Ok(())
    }

    /// A recovered file goes on: it can be written, sealed and crashed again.
    fn live_on(&mut self, disk: &Arc<Disk>, file: File, found: &Found) -> Result<(), String> {
        let Some(content) = whole(found) else {
            return live_on_damaged(file);
        };
        let options = Options {
            steps: 0,
            failing_syncs: false,
            ..self.options
        };
        let mut next = Self {
            rng: Rng::new(self.rng.next()),
            options,
            ring: self.ring.clone(),
            disk: disk.clone(),
            file,
            oracle: Oracle::recovered(content, self.oracle.holes || self.options.holes, self.options.strict),
            in_step: Oracle::default(),
            in_flight: None,
            writes: self.writes + (1 << 19),
            log: Vec::new(),
            settled: 0,
            evicted: false,
            was_cut: true,
            over: false,
            counts: Counts::default(),
        };
        let steps = 1 + self.rng.below(6);
        let outcome = next.second_life(steps);
        self.counts.images += next.counts.images;
        self.counts.kills += next.counts.kills;
        if outcome.is_err() {
            self.log.push("-- recovered from a power cut, then:".to_owned());
            self.log.append(&mut next.log);
        }
        outcome
    }

    fn second_life(&mut self, steps: u64) -> Result<(), String> {
        for _ in 0..steps {
            match self.rng.below(8) {
                0..4 => self.append()?,
                4 => self.rewrite_header()?,
                5 => self.shrink()?,
                6 => self.sync()?,
                _ => self.seal_whole()?,
            }
            self.counts.images += 1;
            let disk = Disk::new(self.disk.state().crash(&mut self.rng), 1);
            let file = self.load(&disk)?;
            self.oracle
                .check(&read_all(&file))
                .map_err(|e| format!("second crash: {e}"))?;
        }
        self.seal_whole()?;
        self.compare()
    }

    fn write(&mut self, at: u64, bytes: usize, name: &str) -> Result<(), String> {
        self.writes += 1;
        let data = content(self.writes, bytes);
        let change = Change::Write { at, data: data.clone() };
        let before = self.oracle.clone();
        self.changes(change);
        let outcome = self.file.write(at, &data);
        self.note(&format!("{name} {bytes} at {at}: {outcome:?}"));
        match outcome {
            Ok(written) if written == bytes => Ok(()),
            Ok(written) => {
                self.oracle = before;
                self.oracle.apply(Change::Write {
                    at,
                    data: data[..written].to_vec(),
                });
                Ok(())
            }
            Err(e) => self.refused(before, &format!("write: {e}")),
        }
    }

    fn append(&mut self) -> Result<(), String> {
        let at = self.oracle.length();
        if at > MOST_BYTES {
            return self.shrink();
        }
        let to_block = plain_offset_of(tallyfs::sealed::length::end_of(at).tail_block + 1) - at;
        let bytes = match self.rng.below(10) {
            0..4 => 320,
            4 => self.rng.pick(&[1, 44, 160, 3808, 4048, 7856]),
            5 => 16_384,
            6 => to_block.min(8000) as usize,
            7 => 1 + self.rng.below(9000) as usize,
            8 => 1 + self.rng.below(2000) as usize,
            _ => (to_block.min(8000) as usize)
                .saturating_sub(self.rng.below(300) as usize)
                .max(1),
        };
        self.write(at, bytes, "append")
    }

    fn rewrite_header(&mut self) -> Result<(), String> {
        if self.oracle.length() < 44 {
            return self.append();
        }
        self.write(0, 44, "header")
    }

    fn overwrite(&mut self) -> Result<(), String> {
        let length = self.oracle.length();
        if !self.options.overwrites || length == 0 {
            return self.append();
        }
        let at = self.rng.below(length);
        let bytes = 1 + self.rng.below(10_000) as usize;
        self.write(at, bytes, "overwrite")
    }

    fn gap(&mut self) -> Result<(), String> {
        let length = self.oracle.length();
        if !self.options.holes || length > MOST_BYTES {
            return self.append();
        }
        let at = length + 1 + self.rng.below(12_000);
        let bytes = 1 + self.rng.below(6000) as usize;
        self.write(at, bytes, "gap")
    }

    fn set_length(&mut self, to: u64, change: Change, name: &str) -> Result<(), String> {
        let shrinks = to < self.oracle.length();
        let before = self.oracle.clone();
        self.changes(change);
        let outcome = self.file.set_plain_length(to);
        self.note(&format!("{name} to {to}: {outcome:?}"));
        match outcome {
            Ok(()) => {
                if shrinks {
                    self.promise_all();
                }
                Ok(())
            }
            Err(e) => self.refused(before, &format!("{name}: {e}")),
        }
    }

    fn shrink(&mut self) -> Result<(), String> {
        let length = self.oracle.length();
        if length == 0 {
            return self.append();
        }
        let to = match self.rng.below(5) {
            0 | 1 => 0,
            2 => plain_offset_of(1 + self.rng.below(20)).min(length - 1),
            _ => self.rng.below(length),
        };
        self.set_length(to, Change::Cut { to }, "cut")
    }

    fn lengthen(&mut self) -> Result<(), String> {
        let from = self.oracle.length();
        if !self.options.holes || from > MOST_BYTES {
            return self.append();
        }
        let to = from + 1 + self.rng.below(15_000);
        self.set_length(to, Change::Zeros { from, to }, "lengthen")
    }

    fn zero_range(&mut self) -> Result<(), String> {
        let length = self.oracle.length();
        if !self.options.overwrites || length == 0 {
            return self.append();
        }
        let from = self.rng.below(length);
        let to = (from + 1 + self.rng.below(9000)).min(length);
        let before = self.oracle.clone();
        self.changes(Change::Zeros { from, to });
        let outcome = self.file.zero_range(from, to - from);
        self.note(&format!("zero {from} to {to}: {outcome:?}"));
        match outcome {
            Ok(()) => Ok(()),
            Err(e) => self.refused(before, &format!("zero_range: {e}")),
        }
    }

    fn sync(&mut self) -> Result<(), String> {
        if self.in_flight.is_some() {
            self.finish()?;
        }
        let mark = self.oracle.mark();
        let outcome = self.file.sync_now();
        self.note(&format!("sync: {outcome:?}"));
        match outcome {
            Ok(()) => self.promise(mark)?,
            Err(_) if self.is_tainted() => {}
            Err(e) => return Err(format!("sync: {e}")),
        }
        Ok(())
    }

    fn begin_sync(&mut self) -> Result<(), String> {
        if self.in_flight.is_some() {
            return self.finish();
        }
        let mark = self.oracle.mark();
        let ticket = match self.file.begin_sync() {
            Ok(ticket) => ticket,
            Err(_) if self.is_tainted() => return Ok(()),
            Err(e) => return Err(format!("begin_sync: {e}")),
        };
        self.note("begin sync");
        self.put_in_flight(Running::Sync, ticket, mark);
        Ok(())
    }

    fn put_in_flight(&mut self, running: Running, ticket: SyncTicket, mark: Mark) {
        self.in_flight = Some(InFlight {
            running,
            ticket,
            sequence: self.disk.begin_flush(),
            mark,
            failed_before: self.disk.failed_syncs(),
        });
    }

    fn begin_seal(&mut self) -> Result<(), String> {
        if self.in_flight.is_some() {
            return self.finish();
        }
        let mark = self.oracle.mark();
        match self.file.seal_tail() {
            Ok((step, Some(ticket))) => {
                self.note(&format!("seal: {step:?}"));
                self.put_in_flight(Running::Seal(step), ticket, mark);
                Ok(())
            }
            Ok((_, None)) => Ok(()),
            Err(_) if self.is_tainted() => Ok(()),
            Err(e) => Err(format!("seal_tail: {e}")),
        }
    }

    /// The sync that runs ends; sealing takes its next step.
    fn finish(&mut self) -> Result<(), String> {
        let Some(in_flight) = self.in_flight.take() else {
            return Ok(());
        };
        let fails = self.options.failing_syncs && self.rng.one_in(8);
        let synced = if fails {
            self.disk.fail_flush(in_flight.sequence);
            Err(std::io::Error::from_raw_os_error(libc::EIO))
        } else {
            self.disk.finish_flush(in_flight.sequence);
            Ok(())
        };
        let outcome = match in_flight.running {
            Running::Sync => self
                .file
                .finish_sync(in_flight.ticket, synced)
                .map(|()| (SealStep::Sealed, None)),
            Running::Seal(step) => self.file.seal_next(step, in_flight.ticket, synced, 77),
        };
        let shown = outcome.as_ref().map(|(step, _)| *step);
        self.note(&format!("finish: {shown:?}"));
        match outcome {
            Ok((step, ticket)) => {
                self.promise(in_flight.mark)?;
                if let Some(ticket) = ticket {
                    let mark = self.oracle.mark();
                    self.put_in_flight(Running::Seal(step), ticket, mark);
                }
                Ok(())
            }
            // A failure meanwhile may be this one's, also when it was made up for.
            Err(_) if self.is_tainted() || self.disk.failed_syncs() > in_flight.failed_before => Ok(()),
            Err(e) => Err(format!("finish: {e}")),
        }
    }

    fn seal_whole(&mut self) -> Result<(), String> {
        while self.in_flight.is_some() {
            self.finish()?;
        }
        // A power cut amid new heads may have left one good copy: repairing writes both.
        if std::mem::take(&mut self.was_cut) && self.file.is_clean() {
            match self.file.renew_heads() {
                Ok(()) => self.note("renew the heads"),
                Err(_) if self.is_tainted() => return Ok(()),
                Err(e) => return Err(format!("renew_heads: {e}")),
            }
        }
        self.begin_seal()?;
        while self.in_flight.is_some() {
            self.finish()?;
        }
        match (self.is_tainted(), self.file.is_clean()) {
            (true, _) => Ok(()),
            (false, true) => {
                self.damage_a_head()?;
                match self.rng.below(4) {
                    0..2 => self.record_hash(),
                    2 => self.change_key(),
                    _ => Ok(()),
                }
            }
            (false, false) => Err("sealing left the file unclean".into()),
        }
    }

    /// The hash of a sealed file goes into its heads; what comes next may overtake it.
    fn record_hash(&mut self) -> Result<(), String> {
        let hash = Sha256::digest(&self.oracle.now).into();
        let mark = self.oracle.mark();
        let (step, ticket) = match self.file.begin_heads(Some(hash)) {
            Ok(Some(begun)) => begun,
            Ok(None) => return Ok(()),
            Err(_) if self.is_tainted() => return Ok(()),
            Err(e) => return Err(format!("begin_heads: {e}")),
        };
        self.note("record the hash");
        self.put_in_flight(Running::Seal(step), ticket, mark);
        if self.rng.one_in(2) {
            return Ok(());
        }
        while self.in_flight.is_some() {
            self.finish()?;
        }
        if self.is_tainted() {
            return Ok(());
        }
        let facts = self.file.head_facts();
        if facts.is_none_or(|facts| facts.content_sha256 != hash || !self.file.is_clean()) {
            return Err("the hash is not in the head".into());
        }
        self.damage_a_head()
    }

    /// The heads of a sealed file come under another key. On the way it opens with both, at the end without the old one.
    fn change_key(&mut self) -> Result<(), String> {
        let old = self.ring.current_id();
        let mut bytes = [9; 32];
        bytes[..4].copy_from_slice(&old.to_le_bytes());
        let next = self.ring.with_key(Kek::take(&mut bytes), None, [1; 16], 0);
        self.ring.replace(next.map_err(|e| format!("a new key: {e}"))?.0);
        let mark = self.oracle.mark();
        let (step, ticket) = match self.file.begin_rewrap() {
            Ok(Some(begun)) => begun,
            Ok(None) => return Ok(()),
            Err(_) if self.is_tainted() => return Ok(()),
            Err(e) => return Err(format!("begin_rewrap: {e}")),
        };
        self.note("change the key");
        self.put_in_flight(Running::Seal(step), ticket, mark);
        if self.rng.one_in(2) {
            return Ok(());
        }
        while self.in_flight.is_some() {
            self.finish()?;
        }
        if self.is_tainted() || !self.file.is_clean() {
            return Ok(());
        }
        let alone = self.ring.without_key(old, 0).map_err(|e| e.to_string())?;
        let image = Disk::new(self.disk.state().crash(&mut self.rng), 0);
        let file = File::load(image, Arc::new(alone), write_options(self.options))
            .map_err(|e| format!("load without the old key: {e}"))?;
        self.oracle.check(&read_all(&file))
    }

    /// A sealed file survives a bad sector in any one head slot.
    fn damage_a_head(&mut self) -> Result<(), String> {
        let disk = Disk::new(self.disk.state(), 0);
        let slot = self.rng.below(3);
        let size = disk.size().map_err(|e| e.to_string())?;
        if size > 0 {
            disk.write_at(&[0xee; 4096], slot * 4096).map_err(|e| e.to_string())?;
        }
        let file = self.load(&disk)?;
        self.oracle
            .check_kill(None, &read_all(&file))
            .map_err(|e| format!("head {slot} damaged: {e}"))
    }

    /// The daemon dies and comes back; the page cache stays.
    fn kill(&mut self) -> Result<(), String> {
        if self.is_tainted() {
            return Ok(());
        }
        self.in_flight = None;
        self.file = self.load(&self.disk.clone())?;
        self.note("kill");
        self.oracle.check_kill(None, &read_all(&self.file))
    }

    /// The power goes; life goes on with what is left.
    fn power_cut(&mut self) -> Result<(), String> {
        let image = self.disk.state().crash(&mut self.rng);
        let disk = Disk::new(image, self.rng.next());
        let file = self.load(&disk)?;
        let found = read_all(&file);
        self.oracle.check(&found)?;
        let Some(content) = whole(&found) else { return Ok(()) };
        self.disk = disk;
        self.disk.snapshot_one_in(6);
        self.file = file;
        self.in_flight = None;
        self.settled = 0;
        self.evicted = false;
        self.was_cut = true;
        self.oracle = Oracle::recovered(content, self.oracle.holes, self.options.strict);
        self.note("power cut");
        Ok(())
    }

    fn is_tainted(&self) -> bool {
        self.disk.failed_syncs() > self.settled
    }

    /// A change was refused because of a failed sync: nothing of it is there, or all of it.
    fn refused(&mut self, before: Oracle, what: &str) -> Result<(), String> {
        if !self.is_tainted() {
            return Err(what.to_owned());
        }
        match whole(&read_all(&self.file)) {
            Some(bytes) if bytes == self.oracle.now => {}
            Some(bytes) if bytes == before.now => self.oracle = before,
            _ => self.over = true,
        }
        Ok(())
    }

    /// A sync was good: what an earlier one lost must be written again by now.
    fn promise(&mut self, mark: Mark) -> Result<(), String> {
        self.oracle.promise(mark);
        self.counts.made_up += u64::from(self.is_tainted());
        self.settled = self.disk.failed_syncs();
        if std::mem::take(&mut self.evicted) {
            self.compare().map_err(|e| format!("after a good sync: {e}"))?;
        }
        Ok(())
    }

    fn promise_all(&mut self) {
        self.oracle.promise_now();
        self.settled = self.disk.failed_syncs();
        self.evicted = false;
    }

    fn compare(&mut self) -> Result<(), String> {
        if self.evicted {
            return Ok(());
        }
        match whole(&read_all(&self.file)) {
            Some(bytes) if bytes == self.oracle.now => Ok(()),
            Some(bytes) => {
                let at = bytes.iter().zip(&self.oracle.now).position(|(a, b)| a != b);
                let (is, should) = (bytes.len(), self.oracle.now.len());
                Err(format!(
                    "a live read differs first at {at:?}; length {is}, should be {should}"
                ))
            }
            None => Err("a live read fails".into()),
        }
    }
}

fn write_options(options: Options) -> WriteOptions {
    WriteOptions {
        strict_overwrite: options.strict,
        ..WriteOptions::default()
    }
}

/// Whatever the power or a kill took: a head that tells a hash tells the one of the content.
fn check_hash(file: &File, found: &Found) -> Result<(), String> {
    let Some(told) = file.head_facts().filter(|facts| facts.content_sha256 != [0; 32]) else {
        return Ok(());
    };
    match whole(found).map(|bytes| <[u8; 32]>::from(Sha256::digest(bytes))) {
        Some(hash) if hash != told.content_sha256 => Err("the head tells the hash of another content".into()),
        _ => Ok(()),
    }
}

/// A file with pages torn by overwrites in place can still be appended to and sealed.
fn live_on_damaged(mut file: File) -> Result<(), String> {
    let result = file.write(0, b"RIFF").and_then(|_| file.sync_now());
    match result {
        Ok(()) | Err(StoreError::Sealed { .. }) => Ok(()),
        Err(e) => Err(format!("a damaged file cannot be written: {e}")),
    }
}
