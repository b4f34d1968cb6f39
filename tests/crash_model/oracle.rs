//! What a reader may find: the content that was promised by the last good sync, and for every byte
//! the values that later operations gave it.

/// One change of the content.
#[derive(Clone)]
pub enum Change {
    Write { at: u64, data: Vec<u8> },
    Zeros { from: u64, to: u64 },
    Cut { to: u64 },
}

#[derive(Clone)]
struct Logged {
    change: Change,
    length_after: u64,
    /// Blocks before this one were whole: changes there are in place.
    tail_block_before: u64,
}

/// The content as acknowledged, and what is promised of it.
#[derive(Clone, Default)]
pub struct Oracle {
    pub now: Vec<u8>,
    promised: Vec<u8>,
    since: Vec<Logged>,
    /// Counts changes, so that a mark stays good when older ones are forgotten.
    forgotten: u64,
    /// A gap was left since the content began.
    pub holes: bool,
    pub strict: bool,
}

/// The state when a sync began.
#[derive(Clone)]
pub struct Mark {
    content: Vec<u8>,
    changes: u64,
}

/// What was found after a crash: the bytes of every block, or that it does not open.
pub struct Found {
    pub length: u64,
    /// Start, bytes or `None` for an unreadable piece.
    pub pieces: Vec<(u64, u64, Option<Vec<u8>>)>,
}

fn tail_block(length: u64) -> u64 {
    tallyfs::sealed::length::end_of(length).tail_block
}

impl Oracle {
    /// What a recovered file holds is on the disk, so from here on it is promised.
    pub fn recovered(content: Vec<u8>, holes: bool, strict: bool) -> Self {
        Self {
            now: content.clone(),
            promised: content,
            holes,
            strict,
            ..Self::default()
        }
    }

    pub fn length(&self) -> u64 {
        self.now.len() as u64
    }

    /// A change was acknowledged (or begins, for [`Oracle::check`] of crashes in its middle).
    pub fn apply(&mut self, change: Change) {
        let tail_block_before = tail_block(self.length());
        match &change {
            Change::Write { at, data } => {
                let (at, to) = (*at as usize, *at as usize + data.len());
                if at > self.now.len() {
                    self.holes = true;
                }
                if to > self.now.len() {
                    self.now.resize(to, 0);
                }
                self.now[at..to].copy_from_slice(data);
            }
            Change::Zeros { from, to } => {
                let to = *to as usize;
                if to > self.now.len() {
                    self.holes = true;
                    self.now.resize(to, 0);
                }
                self.now[*from as usize..to].fill(0);
            }
            Change::Cut { to } => {
                self.now.truncate(*to as usize);
                self.holes &= *to > 0;
            }
        }
        self.since.push(Logged {
            change,
            length_after: self.now.len() as u64,
            tail_block_before,
        });
    }

    pub fn mark(&self) -> Mark {
        Mark {
            content: self.now.clone(),
            changes: self.forgotten + self.since.len() as u64,
        }
    }

    /// The sync that began at `mark` is done.
    pub fn promise(&mut self, mark: Mark) {
        if mark.changes >= self.forgotten {
            self.since.drain(..(mark.changes - self.forgotten) as usize);
            self.forgotten = mark.changes;
            self.promised = mark.content;
        }
    }

    pub fn promise_now(&mut self) {
        self.promise(self.mark());
    }

    /// After a kill: exactly what was acknowledged, except for the change that was going on.
    pub fn check_kill(&self, before: Option<&Self>, found: &Found) -> Result<(), String> {
        let (low, high) = match before {
            Some(before) => (before.length().min(self.length()), before.length().max(self.length())),
            None => (self.length(), self.length()),
        };
        if found.length < low || found.length > high {
            return Err(format!(
                "after a kill the length is {}, not {low} to {high}",
                found.length
            ));
        }
        for (start, bytes, piece) in &found.pieces {
            let Some(piece) = piece else {
                return Err(format!("after a kill {bytes} bytes at {start} do not open"));
            };
            for (at, &byte) in (*start as usize..).zip(piece) {
                let old = before.and_then(|before| before.now.get(at).copied());
                if self.now.get(at) != Some(&byte) && old != Some(byte) && !(byte == 0 && before.is_some()) {
                    return Err(format!("after a kill byte {at} is {byte}, not {:?}", self.now.get(at)));
                }
            }
        }
        Ok(())
    }

    /// After a power cut.
    pub fn check(&self, found: &Found) -> Result<(), String> {
        let lengths = || std::iter::once(self.promised.len() as u64).chain(self.since.iter().map(|l| l.length_after));
        let (low, high) = (lengths().min().unwrap_or(0), lengths().max().unwrap_or(0));
        // A torn overwrite in place may be what is now the last block.
        let torn_end = found.length < low
            && tail_block(low - 1) == tail_block(found.length)
            && self.may_be_torn(found.length, low - found.length);
        if !torn_end && found.length < low || found.length > high {
            return Err(format!("the length is {}, allowed is {low} to {high}", found.length));
        }
        for (start, bytes, piece) in &found.pieces {
            match piece {
                Some(piece) => self.check_piece(*start, piece)?,
                None if self.may_be_torn(*start, *bytes) => {}
                None => return Err(format!("{bytes} bytes at {start} do not open")),
            }
        }
        Ok(())
    }

    fn check_piece(&self, start: u64, piece: &[u8]) -> Result<(), String> {
        let from = start as usize;
        if self.since.is_empty() {
            if self.promised.get(from..from + piece.len()) == Some(piece) {
                return Ok(());
            }
        } else if self.since.iter().all(|l| !l.touches(start, piece.len() as u64))
            && self.promised.get(from..from + piece.len()) == Some(piece)
        {
            return Ok(());
        }
        for (at, &byte) in (from..).zip(piece) {
            if self.promised.get(at) != Some(&byte) && !self.was_given(at as u64, byte) {
                return Err(format!(
                    "byte {at} is {byte}, a value that it never had since it was promised as {:?} (now {:?})",
                    self.promised.get(at),
                    self.now.get(at)
                ));
            }
        }
        // The promised value is no longer allowed where it was cut off... only a sync forgets it.
        Ok(())
    }

    fn was_given(&self, at: u64, byte: u8) -> bool {
        let in_hole = self.holes || self.since.iter().any(|l| matches!(l.change, Change::Cut { .. }));
        let unpromised = at >= self.promised.len() as u64
            || self
                .since
                .iter()
                .any(|l| matches!(l.change, Change::Cut { to } if to <= at));
        if byte == 0 && in_hole && unpromised {
            return true;
        }
        self.since.iter().any(|logged| match &logged.change {
            Change::Write { at: from, data } => at.checked_sub(*from).and_then(|i| data.get(i as usize)) == Some(&byte),
            Change::Zeros { from, to } => byte == 0 && (*from..*to).contains(&at),
            Change::Cut { .. } => false,
        })
    }

    /// Without strict overwriting, a page that was overwritten in place since it was promised.
    fn may_be_torn(&self, start: u64, bytes: u64) -> bool {
        !self.strict
            && self.since.iter().any(|logged| {
                let (from, to) = logged.range();
                let p0 = tallyfs::sealed::HEAD_PLAIN_BYTES as u64;
                let in_place_end = tallyfs::sealed::length::plain_offset_of(logged.tail_block_before);
                to > p0 && start >= p0 && from.max(p0) < start + bytes && start < to && start < in_place_end
            })
    }
}

impl Logged {
    fn range(&self) -> (u64, u64) {
        match &self.change {
            Change::Write { at, data } => (*at, *at + data.len() as u64),
            Change::Zeros { from, to } => (*from, *to),
            Change::Cut { to } => (*to, u64::MAX),
        }
    }

    fn touches(&self, start: u64, bytes: u64) -> bool {
        let (from, to) = self.range();
        from < start + bytes && start < to
    }
}
