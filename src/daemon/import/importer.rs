//! The import itself: meets what is in the tree, decides what is to be done about each name, and carries batches out.

use std::ffi::CStr;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use rustix::fs::{FileType, Statx};

use super::SourceFate;
use super::batch::{Batch, Copied, FileItem, LinkItem, Named, Place, SymlinkItem, copy_all, verify_all};
use super::links::{First, Links};
use super::progress::Progress;
use super::remarks::{Kind, Remarks, Tally, Why};
use super::source::{InodeId, Seen, SourceDir, Visitor, inode_id, kind, walk};
use super::sweep::{Shared, Sweep};
use super::target::{Known, Owner, Target, is_half_name};
use crate::daemon::open_store::OpenStore;
use crate::daemon::watchman;
use crate::fs::Attr;

/// What an import works with.
pub struct Importer<'a> {
    opened: &'a mut OpenStore,
    target: Target,
    progress: Progress<'a>,
    fate: SourceFate,
    /// The directories of the store itself, which are no part of any tree.
    store: Vec<InodeId>,
    way: Vec<Arc<Place>>,
    batch: Batch,
    links: Links,
    shared: Shared,
    /// What did not come along.
    pub remarks: Remarks,
    /// What did.
    pub tally: Tally,
}

/// What the store has under a name of the tree.
enum Standing {
    /// Nothing.
    Absent,
    /// The same, as far as length and time of modification tell.
    Same(Known),
}

impl<'a> Importer<'a> {
    /// Into an open store, but for the directories `store`.
    pub fn new(
        opened: &'a mut OpenStore,
        target: Target,
        progress: Progress<'a>,
        fate: SourceFate,
        store: Vec<InodeId>,
    ) -> Self {
        Self {
            opened,
            target,
            progress,
            fate,
            store,
            way: Vec::new(),
            batch: Batch::default(),
            links: Links::default(),
            shared: Shared::default(),
            remarks: Remarks::default(),
            tally: Tally::default(),
        }
    }

    /// Imports what is below `top` into the directory at the path `to` of the store. True when all was met.
    pub fn run(&mut self, top: &Arc<SourceDir>, to: &[u8]) -> bool {
        match self.target.make_way(to) {
            Ok(target) => {
                let place = Arc::new(Place {
                    source: top.clone(),
                    target,
                });
                self.clear(&place);
                self.way.push(place);
            }
            Err(why) => {
                self.remark(top.path(), &why);
                return false;
            }
        }
        let flow = walk(top, self);
        // What is on its way is brought to its end, or given up, also when it is over.
        if flow.is_continue()
            && let Some(place) = self.way.pop()
        {
            self.batch.directories.push(place);
        }
        self.carry_out();
        for (name, count) in self.target.left_out() {
            let detail = format!(
                "{count} files and directories lose their attribute {}: the store keeps those of users (user.) and access \
                 control lists",
                name.display()
            );
            self.remarks.put(b"", Kind::LeftOut, detail);
        }
        let is_complete = flow.is_continue() && !self.progress.is_over();
        if is_complete && self.fate == SourceFate::Goes && !self.shared.is_empty() {
            self.sweep(top, to);
        }
        is_complete
    }

    /// Takes files with several names out of the tree.
    fn sweep(&mut self, top: &Arc<SourceDir>, to: &[u8]) {
        if !self.sync() {
            return;
        }
        match self.target.make_way(to) {
            Ok(target) => {
                let mut sweep = Sweep::new(&self.target, &self.shared, target, &mut self.remarks);
                let _ = walk(top, &mut sweep);
                self.tally.removed += sweep.removed_count;
            }
            Err(why) => self.remark(top.path(), &why),
        }
    }

    /// Makes all that came along durable.
    fn sync(&mut self) -> bool {
        if let Err(source) = self.target.fs().sync_store() {
            let action = "sync; nothing of this is removed".to_owned();
            self.remark(b"", &Why::Store { action, source });
            self.progress.halt();
            return false;
        }
        true
    }

    fn remark(&mut self, path: &[u8], why: &Why) {
        let is_for_the_next_run = match why {
            Why::Stopped => true,
            Why::FirstName(_) => self.progress.is_over(),
            _ => false,
        };
        if is_for_the_next_run {
            return;
        }
        if why.ends_all() {
            self.progress.halt();
        }
        self.remarks.add(path, why);
    }

    fn place(&self) -> Option<&Arc<Place>> {
        self.way.last()
    }

    fn clear(&mut self, place: &Place) {
        if let Err(why) = self.target.clear_halves(&place.target) {
            self.remark(place.source.path(), &why);
        }
    }

    fn carry_out_when_full(&mut self) -> ControlFlow<()> {
        if self.batch.is_full() {
            self.carry_out();
        }
        if self.progress.is_over() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    /// What the store has under a name; an error when it is something else.
    fn standing(&self, named: &Named, stat: &Statx) -> Result<Standing, Why> {
        let Some((known, attr)) = self.target.find(&named.place.target, &named.name)? else {
            return Ok(Standing::Absent);
        };
        if attr.kind != kind(stat) {
            return Err(Why::Exists("the store has something of another kind there".to_owned()));
        }
        let is_same = match attr.kind {
            FileType::RegularFile => is_as_long_and_old(&attr, stat),
            FileType::Symlink => {
                let target = named.place.source.link_target(&named.name);
                let target = target.map_err(Why::source("read the symbolic link"))?;
                self.target.link_target(&known)? == target.as_encoded_bytes()
            }
            _ => false,
        };
        if is_same {
            Ok(Standing::Same(known))
        } else {
            Err(Why::Exists(differs(&attr, stat)))
        }
    }

    fn meet_file(&mut self, named: Named, stat: &Statx) {
        let links_id = (stat.stx_nlink > 1).then(|| inode_id(stat));
        let size = stat.stx_size;
        if let Some(id) = links_id
            && self.links.is_known(id)
        {
            self.batch.links.push(LinkItem {
                named,
                size,
                links_id: id,
            });
            return;
        }
        let (there, first) = match self.standing(&named, stat) {
            Ok(Standing::Absent) => (None, First::Waiting),
            // What is removed has to be there by its content, not by its looks.
            Ok(Standing::Same(known)) if self.fate == SourceFate::Goes => (Some(known), First::Waiting),
            Ok(Standing::Same(known)) => {
                self.tally.already_there += 1;
                self.settled(size);
                self.begin_links(links_id, &named, First::At(known));
                return;
            }
            Err(why) => {
                self.remark(&named.path(), &why);
                self.settled(size);
                self.begin_links(links_id, &named, First::Lost);
                return;
            }
        };
        self.begin_links(links_id, &named, first);
        self.batch.file(FileItem {
            named,
            size,
            there,
            links_id,
        });
    }

    fn begin_links(&mut self, links_id: Option<InodeId>, named: &Named, first: First) {
        if let Some(id) = links_id {
            self.links.begin(id, named.path(), named.seen.names(), first);
        }
    }

    /// A name is done whose bytes were not read.
    fn settled(&self, bytes: u64) {
        self.progress.bytes(bytes);
        self.progress.one_done();
    }

    fn meet_symlink(&mut self, named: Named, stat: &Statx) {
        match self.standing(&named, stat) {
            Ok(Standing::Absent) => self.batch.symlinks.push(SymlinkItem { named, stat: *stat }),
            Ok(Standing::Same(_)) => {
                self.tally.already_there += 1;
                self.settled(0);
                self.batch.done.push(named);
            }
            Err(why) => {
                self.remark(&named.path(), &why);
                self.settled(0);
            }
        }
    }

    /// Carries out what waits.
    fn carry_out(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        let copied = copy_all(&self.target, &self.progress, &batch.files);
        let all_are_sealed = self.seal();
        let copied = verify_all(&self.target, &batch.files, copied);
        let mut done = batch.done;
        for (item, copied) in batch.files.into_iter().zip(copied) {
            self.publish(item, copied, &mut done);
        }
        for item in batch.symlinks {
            self.make_symlink(item, &mut done);
        }
        for item in &batch.links {
            self.make_link(item);
        }
        for place in &batch.directories {
            self.finish_directory(place);
        }
        if !all_are_sealed {
            return;
        }
        let ledger = self.target.fs().ledger();
        watchman::tell(&ledger.tick(), ledger.now_s());
        if let Err(e) = self.opened.save() {
            log::warn!("{e}; it is tried again");
        }
        if self.fate == SourceFate::Goes {
            self.remove(&done, &batch.directories);
        }
    }

    /// Makes what was copied durable, before any of it gets its name. False: not all of it is; the rest comes along, and
    /// nothing more is begun.
    fn seal(&mut self) -> bool {
        let unsealed_count = self.target.fs().seal_all();
        if unsealed_count > 0 {
            // The log has the reasons.
            let source = io::Error::other(format!("{unsealed_count} files could not be made durable"));
            let action = "go on".to_owned();
            self.remark(b"", &Why::Store { action, source });
            self.progress.halt();
        }
        unsealed_count == 0
    }

    fn publish(&mut self, item: FileItem, copied: Result<Copied, Why>, done: &mut Vec<Named>) {
        let published = copied.and_then(|copied| {
            let (bytes, owner, seen) = (copied.length(), copied.owner(), copied.seen());
            match (copied.half(), item.there) {
                (Some(half), _) => {
                    let known = self.target.publish(half, &item.named.name)?;
                    self.tally.files += 1;
                    self.tally.bytes += bytes;
                    self.count_owner(owner);
                    Ok((known, seen))
                }
                (None, Some(there)) => {
                    self.tally.already_there += 1;
                    Ok((there, seen))
                }
                (None, None) => Err(Why::Unverified),
            }
        });
        let first = match published {
            Ok((known, seen)) => {
                match item.links_id {
                    Some(id) => self.shared.add(id, seen, known.number),
                    None => done.push(Named { seen, ..item.named }),
                }
                First::At(known)
            }
            Err(why) => {
                self.remark(&item.named.path(), &why);
                First::Lost
            }
        };
        if let Some(id) = item.links_id {
            self.links.settle(id, first);
        }
        self.progress.one_done();
    }

    fn count_owner(&mut self, owner: Owner) {
        self.tally.owners_not_kept += u64::from(owner == Owner::Ours);
    }

    fn make_symlink(&mut self, item: SymlinkItem, done: &mut Vec<Named>) {
        let Named { place, name, .. } = &item.named;
        let target = place
            .source
            .link_target(name)
            .map_err(Why::source("read the symbolic link"));
        let made = target.and_then(|target| self.target.symlink(&place.target, name, &target, &item.stat));
        match made {
            Ok(owner) => {
                self.tally.symlinks += 1;
                self.count_owner(owner);
                done.push(item.named);
            }
            Err(why) => self.remark(&item.named.path(), &why),
        }
        self.progress.one_done();
    }

    fn make_link(&mut self, item: &LinkItem) {
        let Named { place, name, .. } = &item.named;
        let made = match self.links.find(item.links_id) {
            Err(first) => Err(Why::FirstName(first)),
            Ok(file) => match self.target.find(&place.target, name) {
                Err(why) => Err(why),
                Ok(None) => self.target.link(file, &place.target, name).map(|_| true),
                Ok(Some((there, _))) if there.number == file.number => Ok(false),
                Ok(Some(_)) => Err(Why::Exists("the store has another file of this name".to_owned())),
            },
        };
        match made {
            Ok(is_new) => {
                self.tally.hard_links += u64::from(is_new);
                self.tally.already_there += u64::from(!is_new);
            }
            Err(why) => self.remark(&item.named.path(), &why),
        }
        self.links.one_less(item.links_id);
        self.settled(item.size);
    }

    /// All in a directory has come: its own attributes are not moved by anything any more.
    fn finish_directory(&mut self, place: &Place) {
        let source = &place.source;
        match self
            .target
            .give_attributes(place.target.number, source.fd(), source.stat())
        {
            Ok(owner) => self.count_owner(owner),
            Err(why) => {
                self.remark(source.path(), &why);
                self.shared.kept.insert(inode_id(source.stat()));
            }
        }
    }

    /// Takes out of the tree what the store has. Nothing is removed before the copies and their names are durable.
    fn remove(&mut self, done: &[Named], directories: &[Arc<Place>]) {
        if done.is_empty() && directories.is_empty() || !self.sync() {
            return;
        }
        for named in done {
            match named.place.source.remove(&named.name, &named.seen) {
                Ok(true) => self.tally.removed += 1,
                Ok(false) => self.remark(&named.path(), &Why::NotRemoved),
                Err(source) => self.remark(&named.path(), &Why::Left(source)),
            }
        }
        for place in directories {
            if self.shared.kept.contains(&inode_id(place.source.stat())) {
                continue;
            }
            match place.source.remove_itself() {
                Ok(gone) => self.tally.removed += u64::from(gone),
                Err(source) => self.remark(place.source.path(), &Why::Left(source)),
            }
        }
    }
}

impl Visitor for Importer<'_> {
    fn enter(&mut self, dir: &Arc<SourceDir>) -> ControlFlow<(), bool> {
        self.carry_out_when_full()?;
        if self.store.contains(&inode_id(dir.stat())) {
            self.remark(dir.path(), &Why::Special("the store itself"));
            return ControlFlow::Continue(false);
        }
        let (Some(above), Some(name)) = (self.place(), dir.name()) else {
            return ControlFlow::Continue(false);
        };
        match self.target.directory(&above.target, name) {
            Ok((target, is_new)) => {
                let place = Arc::new(Place {
                    source: dir.clone(),
                    target,
                });
                if is_new {
                    self.tally.directories += 1;
                } else {
                    self.clear(&place);
                }
                self.way.push(place);
                ControlFlow::Continue(true)
            }
            Err(why) => {
                self.remark(dir.path(), &why);
                ControlFlow::Continue(false)
            }
        }
    }

    fn leave(&mut self, _: &Arc<SourceDir>) -> ControlFlow<()> {
        self.batch.directories.extend(self.way.pop());
        self.carry_out_when_full()
    }

    fn meet(&mut self, dir: &Arc<SourceDir>, name: &CStr, stat: &Statx) -> ControlFlow<()> {
        let Some(place) = self.place().cloned() else {
            return ControlFlow::Break(());
        };
        let named = Named {
            place,
            name: name.to_owned(),
            seen: Seen::of(stat),
        };
        let left_out = match kind(stat) {
            FileType::RegularFile if is_half_name(name.to_bytes()) => Some(Why::Leftover),
            FileType::RegularFile => {
                self.meet_file(named, stat);
                None
            }
            FileType::Symlink => {
                self.meet_symlink(named, stat);
                None
            }
            FileType::Fifo => Some(Why::Special("a fifo")),
            FileType::Socket => Some(Why::Special("a socket")),
            _ => Some(Why::Special("a device")),
        };
        if let Some(why) = left_out {
            self.remark(&dir.path_of(name), &why);
            self.settled(stat.stx_size);
        }
        self.carry_out_when_full()
    }

    fn fail(&mut self, path: &[u8], e: io::Error) {
        self.remark(path, &Why::source("look at it")(e));
    }
}

fn is_as_long_and_old(attr: &Attr, stat: &Statx) -> bool {
    attr.size == stat.stx_size && attr.mtime == (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec)
}

fn differs(attr: &Attr, stat: &Statx) -> String {
    if attr.kind != FileType::RegularFile {
        return "the store has another symbolic link of this name".to_owned();
    }
    if attr.size == stat.stx_size {
        return "the store has another file of this name, of the same length and another time".to_owned();
    }
    format!(
        "the store has another file of this name, of {} bytes and not {}",
        attr.size, stat.stx_size
    )
}
