//! Ways to grow a file other than writing, and files that lost their name: all of them are charged.

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, copy_file_range, fallocate};

use common::scan::totals;
use common::{Errno, KIB, Mount, acme_limits, make_file, read, refused, wait, write_until_refused};

const LIMIT: u64 = 1_000_000;

fn limited() -> Mount {
    Mount::with_config(acme_limits(&format!("max_bytes = {LIMIT}")))
}

fn create(path: &Path) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .unwrap()
}

#[test]
fn q27_an_unlinked_open_file_stays_charged_until_its_last_close() {
    let mount = limited();
    let dir = mount.dir("acme");
    let path = dir.join("unlinked");
    let file = create(&path);
    file.write_all_at(&vec![1; 600_000], 0).unwrap();
    let second = File::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(mount.tenant("acme"), totals(600_000, 1, 0));
    let other = create(&dir.join("other"));
    assert_eq!(write_until_refused(&other, 50_000).0, 400_000);
    drop(file);
    assert_eq!(mount.tenant("acme"), totals(LIMIT, 2, 0), "one handle is still open");
    drop(second);
    // The kernel tells of the last close in its own time.
    wait::until("the last close gives the bytes back", || {
        (mount.tenant("acme") == totals(400_000, 1, 0)).then_some(())
    });
    other.write_all_at(&vec![2; 600_000], 400_000).unwrap();
    drop(other);
    assert_eq!(mount.finish().tenants["acme"], totals(LIMIT, 1, 0));
}

#[test]
fn q27_a_name_replaced_by_rename_stays_charged_while_it_is_open() {
    let mount = limited();
    let dir = mount.dir("acme");
    make_file(&dir.join("old"), 300_000);
    make_file(&dir.join("new"), 200_000);
    let file = File::open(dir.join("old")).unwrap();
    fs::rename(dir.join("new"), dir.join("old")).unwrap();
    assert_eq!(mount.tenant("acme"), totals(500_000, 2, 0));
    drop(file);
    wait::until("the last close gives the bytes back", || {
        (mount.tenant("acme") == totals(200_000, 1, 0)).then_some(())
    });
    assert_eq!(mount.finish().tenants["acme"], totals(200_000, 1, 0));
}

#[test]
fn q28_writes_to_an_unlinked_file_are_charged() {
    let mount = limited();
    let path = mount.dir("acme").join("unlinked");
    let file = create(&path);
    fs::remove_file(&path).unwrap();
    let (acknowledged, error) = write_until_refused(&file, 65_536);
    assert_eq!(acknowledged, LIMIT);
    refused::<()>(Err(error), Errno::DQUOT);
    assert_eq!(file.metadata().unwrap().len(), LIMIT);
    refused(create(&mount.path("acme/other")).write(&[1; 4]), Errno::DQUOT);
    file.set_len(0).unwrap();
    fs::write(mount.path("acme/other"), [1; 4]).unwrap();
    drop(file);
    wait::until("the unlinked file is gone", || {
        (mount.tenant("acme").files == 1).then_some(())
    });
    assert_eq!(mount.finish().tenants["acme"], totals(4, 1, 0));
}

#[test]
fn unlinked_open_files_are_gone_after_a_kill() {
    let mut mount = limited();
    let path = mount.dir("acme").join("unlinked");
    let file = create(&path);
    file.write_all_at(&vec![1; 100_000], 0).unwrap();
    fs::remove_file(&path).unwrap();
    mount.kill9();
    assert_eq!(mount.assert_usage_true().tenants["acme"], totals(0, 0, 0));
    drop(file);
    mount.finish();
}

#[test]
fn q29_truncate_up_is_charged_in_full() {
    let mount = limited();
    let file = create(&mount.dir("acme").join("sparse"));
    file.set_len(900_000).unwrap();
    assert_eq!(mount.tenant("acme").bytes, 900_000);
    refused(file.set_len(LIMIT + 1), Errno::DQUOT);
    refused(file.set_len(1 << 50), Errno::DQUOT);
    assert_eq!(file.metadata().unwrap().len(), 900_000);
    assert_eq!(mount.tenant("acme").bytes, 900_000);
    file.set_len(LIMIT).unwrap();
    assert_eq!(
        read(&mount.path("acme/sparse")),
        vec![0; usize::try_from(LIMIT).unwrap()]
    );
    file.set_len(10).unwrap();
    drop(file);
    assert_eq!(mount.finish().tenants["acme"], totals(10, 1, 0));
}

#[test]
fn q29_truncate_by_path_is_charged_too() {
    let mount = limited();
    let path = mount.dir("acme").join("sparse");
    make_file(&path, 100);
    common::run("truncate", &["-s", "900000", common::command::text(&path)]);
    assert_eq!(mount.tenant("acme").bytes, 900_000);
    assert!(!common::succeeds(
        "truncate",
        &["-s", "1000001", common::command::text(&path)]
    ));
    assert_eq!(mount.finish().tenants["acme"], totals(900_000, 1, 0));
}

#[test]
fn q30_fallocate_is_all_or_nothing() {
    let mount = limited();
    let file = create(&mount.dir("acme").join("allocated"));
    file.write_all_at(&[1; 1_000], 0).unwrap();
    assert_eq!(
        fallocate(&file, FallocateFlags::empty(), 0, LIMIT + 1),
        Err(Errno::DQUOT)
    );
    assert_eq!(
        fallocate(&file, FallocateFlags::empty(), 500_000, 500_001),
        Err(Errno::DQUOT)
    );
    assert_eq!(
        file.metadata().unwrap().len(),
        1_000,
        "a refused fallocate changes nothing"
    );
    assert_eq!(mount.tenant("acme").bytes, 1_000);
    fallocate(&file, FallocateFlags::empty(), 0, 400_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 400_000);
    fallocate(&file, FallocateFlags::empty(), 0, 10).unwrap();
    assert_eq!(mount.tenant("acme").bytes, 400_000);
    let mut content = vec![0; 400_000];
    file.read_exact_at(&mut content, 0).unwrap();
    assert!(content[..1_000].iter().all(|&byte| byte == 1) && content[1_000..].iter().all(|&byte| byte == 0));
    drop(file);
    assert_eq!(mount.finish().tenants["acme"], totals(400_000, 1, 0));
}

#[test]
fn q31_keep_size_and_holes_are_no_way_around_the_limit() {
    let mount = limited();
    let file = create(&mount.dir("acme").join("allocated"));
    file.write_all_at(&vec![1; 100_000], 0).unwrap();
    let call = |flags, offset, len| fallocate(&file, flags, offset, len);
    call(FallocateFlags::KEEP_SIZE, 0, 100_000).unwrap();
    assert_eq!(call(FallocateFlags::KEEP_SIZE, 50_000, 100_000), Err(Errno::OPNOTSUPP));
    assert_eq!(call(FallocateFlags::KEEP_SIZE, 0, 1 << 40), Err(Errno::OPNOTSUPP));
    assert_eq!(call(FallocateFlags::COLLAPSE_RANGE, 0, 4_096), Err(Errno::OPNOTSUPP));
    assert_eq!(call(FallocateFlags::INSERT_RANGE, 0, 4_096), Err(Errno::OPNOTSUPP));
    call(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 10_000, 20_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 100_000);
    assert_eq!(mount.tenant("acme").bytes, 100_000, "no refund for a hole");
    let mut content = vec![9; 100_000];
    file.read_exact_at(&mut content, 0).unwrap();
    let expected: Vec<u8> = (0..100_000)
        .map(|at| u8::from(!(10_000..30_000).contains(&at)))
        .collect();
    assert!(content == expected, "zeros in the hole, ones around it");
    drop(file);
    assert_eq!(mount.finish().tenants["acme"], totals(100_000, 1, 0));
}

#[test]
fn zero_range_zeroes_and_grows_only_within_the_limit() {
    let mount = limited();
    let file = create(&mount.dir("acme").join("zeroed"));
    file.write_all_at(&vec![1; 100_000], 0).unwrap();
    fallocate(&file, FallocateFlags::ZERO_RANGE, 50_000, 10_000).unwrap();
    assert_eq!(
        fallocate(&file, FallocateFlags::ZERO_RANGE, 50_000, LIMIT),
        Err(Errno::DQUOT)
    );
    assert_eq!(mount.tenant("acme").bytes, 100_000);
    let content = read(&mount.path("acme/zeroed"));
    assert!((0..100_000).all(|at| (content[at] == 0) == (50_000..60_000).contains(&at)));
    drop(file);
    mount.finish();
}

#[test]
fn q32_truncate_to_the_same_size_is_free_at_the_limit() {
    let mount = limited();
    let path = mount.dir("acme").join("full");
    let file = create(&path);
    assert_eq!(write_until_refused(&file, 65_536).0, LIMIT);
    let content = read(&path);
    file.set_len(LIMIT).unwrap();
    assert!(read(&path) == content);
    refused(file.set_len(LIMIT + 1), Errno::DQUOT);
    drop(file);
    assert_eq!(mount.finish().tenants["acme"], totals(LIMIT, 1, 0));
}

#[test]
fn q50_copying_into_a_full_account_stops_at_the_limit() {
    let mount = limited();
    let source_path = mount.dir("globex").join("source");
    make_file(&source_path, 600 * KIB);
    let source = File::open(&source_path).unwrap();
    let target = create(&mount.dir("acme").join("target"));
    target.write_all_at(&vec![1; 700_000], 0).unwrap();
    let (mut from, mut to) = (0, 700_000);
    let mut copied = 0;
    let error = loop {
        match copy_file_range(&source, Some(&mut from), &target, Some(&mut to), 65_536) {
            Ok(0) => panic!("nothing stopped the copy"),
            Ok(count) => copied += count as u64,
            Err(error) => break error,
        }
    };
    assert_eq!(error, Errno::DQUOT);
    assert_eq!(copied, 300_000);
    assert_eq!(target.metadata().unwrap().len(), LIMIT);
    assert!(read(&mount.path("acme/target"))[700_000..] == read(&source_path)[..300_000]);
    drop((source, target));
    assert_eq!(mount.finish().tenants["acme"], totals(LIMIT, 1, 0));
}

#[test]
fn q51_a_shared_mapping_works_at_the_limit_and_cannot_grow_the_file() {
    let mount = limited();
    let path = mount.dir("acme").join("mapped");
    let file = create(&path);
    assert_eq!(write_until_refused(&file, 65_536).0, LIMIT);
    let script = "import mmap, os, sys\nfd = os.open(sys.argv[1], os.O_RDWR)\nm = mmap.mmap(fd, 0)\nm[500000:500004] = b'MAPS'\nm.flush()\nm.close()";
    common::run("python3", &["-c", script, common::command::text(&path)]);
    assert_eq!(&read(&path)[500_000..500_004], b"MAPS");
    assert_eq!(file.metadata().unwrap().size(), LIMIT);
    drop(file);
    assert_eq!(mount.finish().tenants["acme"], totals(LIMIT, 1, 0));
}

#[test]
fn opening_with_truncation_gives_the_bytes_back() {
    let mount = limited();
    let path = mount.dir("acme").join("call");
    make_file(&path, 800_000);
    let mut file = File::create(&path).unwrap();
    assert_eq!(mount.tenant("acme"), totals(0, 1, 0));
    file.write_all(&vec![1; 900_000]).unwrap();
    drop(file);
    assert_eq!(mount.finish().tenants["acme"], totals(900_000, 1, 0));
}
