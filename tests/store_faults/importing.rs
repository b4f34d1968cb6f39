//! An import into a store whose disk fails: what is not durable, or does not read back as it was written, gets no name
//! and takes nothing out of the tree.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use tallyfs::config::Config;
use tallyfs::daemon::import::{ImportRequest, Imported, Remark, SourceFate, Watch, import};
use tallyfs::daemon::key_source::KeyChoice;
use tallyfs::store::fault_points::{Call, Fate, arm};

/// How files that are not whole are named.
const HALF: &str = ".tallyfs-import-";

struct Tree {
    temp: tempfile::TempDir,
}

impl Tree {
    /// One recording of several pages.
    fn new() -> Self {
        let temp = tempfile::tempdir().expect("a directory");
        fs::create_dir(temp.path().join("old")).expect("a tree");
        fs::write(temp.path().join("old/call.wav"), vec![7; 100_000]).expect("a recording");
        Self { temp }
    }

    fn data(&self) -> PathBuf {
        self.temp.path().join("store/data")
    }

    /// Imports all of it and takes it away, while `plan` decides about every call on the disk.
    fn import(&self, plan: impl FnMut(Call) -> Fate + 'static) -> Imported {
        let request = ImportRequest {
            tree: self.temp.path().join("old"),
            store: self.temp.path().join("store"),
            to: Vec::new(),
            fate: SourceFate::Goes,
            config: Config::default(),
            key: KeyChoice::Beside,
        };
        let watch = Watch {
            stop: &AtomicBool::new(false),
            show: &|_| (),
        };
        arm(Some(Box::new(plan)));
        let imported = import(request, &watch);
        arm(None);
        imported.expect("the store can be used")
    }

    /// Names in the store but for those of files that are not whole.
    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.data()).expect("the store").map(|entry| {
            let name = entry.expect("an entry").file_name();
            name.to_string_lossy().into_owned()
        });
        names.filter(|name| !name.starts_with(HALF)).collect()
    }

    /// Nothing was imported or taken away, for this reason; a run on a good disk does both.
    #[track_caller]
    fn assert_nothing_came(&self, imported: &Imported, reason: &str) {
        let told: Vec<&Remark> = imported.remarks.list().iter().collect();
        assert!(told.iter().any(|remark| remark.detail.contains(reason)), "{told:?}");
        assert_eq!(self.names(), Vec::<String>::new());
        assert_eq!((imported.tally.files, imported.tally.removed), (0, 0));
        assert!(self.temp.path().join("old/call.wav").exists());
        let again = self.import(|_| Fate::Goes);
        assert_eq!(again.remarks.list().len(), 0, "{:?}", again.remarks.list());
        assert_eq!((again.tally.files, self.names()), (1, vec!["call.wav".to_owned()]));
        assert!(!self.temp.path().join("old/call.wav").exists());
    }
}

/// What is half in the store.
fn half(data: &Path) -> Option<PathBuf> {
    let mut paths = fs::read_dir(data).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    paths.find(|path| path.to_string_lossy().contains(HALF))
}

/// Changes a byte of what is half in the store. False when there is nothing.
fn damage_half(data: &Path) -> bool {
    let Some(half) = half(data) else { return false };
    let file = fs::File::options().read(true).write(true).open(half).expect("it opens");
    let (mut byte, middle) = ([0], file.metadata().expect("its size").len() / 2);
    file.read_exact_at(&mut byte, middle).expect("a byte");
    file.write_all_at(&[!byte[0]], middle).expect("another byte");
    true
}

#[test]
fn what_cannot_be_made_durable_gets_no_name() {
    let tree = Tree::new();
    let data = tree.data();
    let imported = tree.import(move |call| match call {
        Call::Sync if half(&data).is_some() => Fate::Fails(libc::EIO),
        _ => Fate::Goes,
    });
    assert!(!imported.complete);
    tree.assert_nothing_came(&imported, "could not be made durable");
}

#[test]
fn what_does_not_read_back_as_it_was_written_gets_no_name() {
    let tree = Tree::new();
    let data = tree.data();
    let (mut synced, mut damaged) = (false, false);
    let imported = tree.import(move |call| {
        synced |= call == Call::Sync;
        // Sealed, and about to be read back.
        if call == Call::Open && synced && !damaged {
            damaged = damage_half(&data);
        }
        Fate::Goes
    });
    tree.assert_nothing_came(&imported, "read");
}
