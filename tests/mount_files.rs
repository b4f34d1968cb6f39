//! Reading, writing, growing and cutting files, as programs rely on it. Each case runs on a native directory as well: a case that fails there is wrong itself.

#[macro_use]
mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::{Errno, Mount, make_file, names, read, refused, run, wav};

cases! {
    appending_writes_go_to_the_end
    opening_with_truncation_empties
    an_unlinked_open_file_takes_every_call
    handles_see_each_others_writes
    sizes_are_exact_while_another_handle_writes
    holes_read_as_zeros
    shrinking_and_growing_reads_zeros
    seek_finds_data_and_holes
    copy_file_range_copies
    a_recording_is_appended_to_later
    mappings_read_and_write
    random_reads_and_writes_match_a_model
    read_only_handles_do_not_write
    large_sparse_files
    syncs_answer
}

fn open(path: &Path) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap()
}

fn appending_writes_go_to_the_end(dir: &Path) {
    let path = dir.join("log");
    let append = || OpenOptions::new().append(true).create(true).open(&path).unwrap();
    let (mut first, mut second) = (append(), append());
    first.write_all(b"one ").unwrap();
    second.write_all(b"two ").unwrap();
    first.rewind().unwrap();
    first.write_all(b"three").unwrap();
    assert_eq!(read(&path), b"one two three");
}

fn opening_with_truncation_empties(dir: &Path) {
    let path = dir.join("call");
    make_file(&path, 50_000);
    let reader = File::open(&path).unwrap();
    let mut writer = File::create(&path).unwrap();
    assert_eq!(reader.metadata().unwrap().len(), 0);
    writer.write_all(b"new").unwrap();
    assert_eq!(read(&path), b"new");
    let mut text = String::new();
    (&reader).read_to_string(&mut text).unwrap();
    assert_eq!(text, "new");
}

fn an_unlinked_open_file_takes_every_call(dir: &Path) {
    let script = include_str!("common/unlinked.py");
    let out = run("python3", &["-c", script, common::command::text(&dir.join("unlinked"))]);
    assert_eq!(out.lines().filter(|line| line.starts_with("ok ")).count(), 13, "{out}");
    assert_eq!(out.lines().find(|line| line.starts_with("fail ")), None, "{out}");
    assert!(names(dir).is_empty());
}

fn handles_see_each_others_writes(dir: &Path) {
    let path = dir.join("shared");
    let (first, second) = (open(&path), open(&path));
    let reader = File::open(&path).unwrap();
    let mut expected = Vec::new();
    for step in 0..200_u64 {
        let mut bytes = vec![0; 100 + (step as usize * 37) % 5_000];
        wav::noise(step, 0, &mut bytes);
        let writer = if step % 2 == 0 { &first } else { &second };
        writer.write_all_at(&bytes, expected.len() as u64).unwrap();
        expected.extend(bytes);
        let from = expected.len() * (step as usize % 7) / 8;
        for other in [&first, &second, &reader] {
            let mut seen = vec![0; expected.len() - from];
            other.read_exact_at(&mut seen, from as u64).unwrap();
            assert!(seen == expected[from..], "step {step}");
        }
    }
    assert!(read(&path) == expected);
}

fn sizes_are_exact_while_another_handle_writes(dir: &Path) {
    let path = dir.join("growing");
    let mut writer = File::create(&path).unwrap();
    let reader = File::open(&path).unwrap();
    let mut len = 0;
    for frame in [44, 320, 3_444, 1, 4_047, 4_048, 65_536, 7, 4_096, 160_000] {
        writer.write_all(&vec![7; frame]).unwrap();
        len += frame as u64;
        assert_eq!(path.metadata().unwrap().len(), len, "stat");
        assert_eq!(writer.metadata().unwrap().len(), len, "fstat of the writer");
        assert_eq!(reader.metadata().unwrap().len(), len, "fstat of a reader");
        assert_eq!((&reader).seek(SeekFrom::End(0)).unwrap(), len, "lseek to the end");
    }
    for len in [100_000, 3_808, 44, 0, 5_000] {
        writer.set_len(len).unwrap();
        assert_eq!(
            (path.metadata().unwrap().len(), reader.metadata().unwrap().len()),
            (len, len)
        );
    }
}

fn holes_read_as_zeros(dir: &Path) {
    let path = dir.join("holes");
    let file = open(&path);
    let mut expected = vec![0; 500_000];
    for at in [0_usize, 3_807, 50_000, 123_456, 499_990] {
        file.write_all_at(b"ten bytes!", at as u64).unwrap();
        expected[at..at + 10].copy_from_slice(b"ten bytes!");
    }
    assert!(read(&path) == expected);
    drop(file);
    assert!(read(&path) == expected);
}

fn shrinking_and_growing_reads_zeros(dir: &Path) {
    let path = dir.join("cut");
    make_file(&path, 100_000);
    let mut expected = read(&path);
    let file = open(&path);
    for (cut, grown) in [
        (60_001, 70_000),
        (7_856, 50_000),
        (7_000, 7_001),
        (3_808, 20_000),
        (100, 5_000),
        (0, 10),
    ] {
        file.set_len(cut as u64).unwrap();
        expected.truncate(cut);
        file.set_len(grown as u64).unwrap();
        expected.resize(grown, 0);
        assert!(read(&path) == expected, "cut to {cut}, grown to {grown}");
    }
}

fn seek_finds_data_and_holes(dir: &Path) {
    let path = dir.join("sparse");
    let file = open(&path);
    file.write_all_at(&[1; 10_000], 0).unwrap();
    file.set_len(1_000_000).unwrap();
    file.write_all_at(&[1; 10_000], 900_000).unwrap();
    let seek = |from| rustix::fs::seek(&file, from);
    // A file system may know no holes, but what it calls a hole must hold no data, and the end is one.
    let (mut at, mut found) = (0, 0);
    while let Ok(data) = seek(rustix::fs::SeekFrom::Data(at)) {
        assert!(data >= at);
        let hole = seek(rustix::fs::SeekFrom::Hole(data)).unwrap();
        assert!(hole > data && hole <= 1_000_000);
        found += (data..hole)
            .filter(|at| *at < 10_000 || (900_000..910_000).contains(at))
            .count();
        at = hole;
    }
    assert_eq!(found, 20_000, "every data byte lies in what is called data");
    assert_eq!(seek(rustix::fs::SeekFrom::Data(1_000_000)), Err(Errno::NXIO));
    let last = seek(rustix::fs::SeekFrom::Hole(999_999)).unwrap();
    assert!((999_999..=1_000_000).contains(&last));
}

fn copy_file_range_copies(dir: &Path) {
    make_file(&dir.join("from"), 200_000);
    let source = File::open(dir.join("from")).unwrap();
    let target = open(&dir.join("to"));
    let (mut from, mut to) = (1_000, 500);
    while rustix::fs::copy_file_range(&source, Some(&mut from), &target, Some(&mut to), 1 << 20).unwrap() > 0 {}
    assert_eq!((from, to), (200_000, 199_500));
    let copied = read(&dir.join("to"));
    assert!(copied[..500] == [0; 500] && copied[500..] == read(&dir.join("from"))[1_000..]);
}

fn a_recording_is_appended_to_later(dir: &Path) {
    let path = dir.join("call.wav");
    let whole = wav::file(5, 300_000);
    let mut len = 44 + 12_345;
    fs::write(&path, &whole[..len]).unwrap();
    for more in [1, 65_536, 3, 4_048, 100_001] {
        let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut field = [0; 4];
        file.read_exact(&mut field).unwrap();
        assert_eq!(&field, b"RIFF");
        file.seek(SeekFrom::Start(40)).unwrap();
        file.read_exact(&mut field).unwrap();
        assert_eq!(file.seek(SeekFrom::End(0)).unwrap(), len as u64);
        file.write_all(&whole[len..len + more]).unwrap();
        len += more;
        file.seek(SeekFrom::Start(40)).unwrap();
        file.write_all(&whole[40..44]).unwrap();
    }
    assert!(read(&path) == whole[..len]);
}

fn mappings_read_and_write(dir: &Path) {
    let path = dir.join("mapped");
    make_file(&path, 100_000);
    let mut expected = read(&path);
    let out = run(
        "python3",
        &["-c", include_str!("common/mapped.py"), common::command::text(&path)],
    );
    assert_eq!(out.trim(), "ok");
    expected[5_000..5_006].copy_from_slice(b"mapped");
    expected[99_990..99_996].copy_from_slice(b"second");
    assert!(read(&path) == expected);
}

fn random_reads_and_writes_match_a_model(dir: &Path) {
    const SPAN: u64 = 60_000;
    let path = dir.join("model");
    let mut file = open(&path);
    let mut model: Vec<u8> = Vec::new();
    for step in 0..1_500 {
        let random = wav::scramble(77, step);
        let at = (random >> 16) % SPAN;
        let len = (random >> 40) as usize % if step % 10 == 0 { 20_000 } else { 600 };
        match random % 16 {
            0..=6 => {
                let mut bytes = vec![0; len];
                wav::noise(step, 0, &mut bytes);
                file.write_all_at(&bytes, at).unwrap();
                let end = at as usize + len;
                if len > 0 {
                    model.resize(model.len().max(end), 0);
                    model[at as usize..end].copy_from_slice(&bytes);
                }
            }
            7..=12 => {
                let mut bytes = vec![0; len];
                let count = file.read_at(&mut bytes, at).unwrap();
                let from = (at as usize).min(model.len());
                let until = (at as usize + len).min(model.len()).max(from);
                assert!(
                    bytes[..count] == model[from..until],
                    "step {step}: read {count} at {at}"
                );
            }
            13 => {
                file.set_len(at).unwrap();
                model.resize(at as usize, 0);
            }
            14 => file = open(&path),
            _ => assert_eq!(path.metadata().unwrap().len(), model.len() as u64, "step {step}"),
        }
    }
    assert!(read(&path) == model);
}

fn read_only_handles_do_not_write(dir: &Path) {
    let path = dir.join("file");
    make_file(&path, 10);
    let file = File::open(&path).unwrap();
    refused((&file).write(b"x"), Errno::BADF);
    refused(file.set_len(3), Errno::INVAL);
    let writer = OpenOptions::new().write(true).open(&path).unwrap();
    refused((&writer).read(&mut [0; 4]), Errno::BADF);
    assert_eq!(read(&path).len(), 10);
}

fn large_sparse_files(dir: &Path) {
    let path = dir.join("large");
    let file = open(&path);
    file.set_len(8 << 30).unwrap();
    file.write_all_at(b"near the end", (8 << 30) - 100).unwrap();
    let mut bytes = [9; 12];
    file.read_exact_at(&mut bytes, 4 << 30).unwrap();
    assert_eq!(bytes, [0; 12]);
    file.read_exact_at(&mut bytes, (8 << 30) - 100).unwrap();
    assert_eq!(&bytes, b"near the end");
    assert_eq!(path.metadata().unwrap().len(), 8 << 30);
    file.set_len(10).unwrap();
}

fn syncs_answer(dir: &Path) {
    let file = open(&dir.join("file"));
    file.write_all_at(&[1; 10_000], 0).unwrap();
    file.sync_data().unwrap();
    file.sync_all().unwrap();
    file.write_all_at(&[2; 44], 0).unwrap();
    file.sync_all().unwrap();
    File::open(dir).unwrap().sync_all().unwrap();
    rustix::fs::syncfs(&file).unwrap();
    File::open(dir.join("file")).unwrap().sync_all().unwrap();
}

#[test]
fn sealed_lengths_are_exact_at_every_edge_of_the_format() {
    let mut mount = Mount::new();
    let dir = mount.dir("acme");
    let edges = [3_808_u64, 3_808 + 4_048, 3_808 + 2 * 4_048, 4_096, 8_192, 65_536];
    let lengths: Vec<u64> = edges
        .into_iter()
        .flat_map(|edge| edge - 2..=edge + 2)
        .chain([0, 1])
        .collect();
    for &len in &lengths {
        make_file(&dir.join(len.to_string()), len);
    }
    mount.remount();
    for &len in &lengths {
        let path = dir.join(len.to_string());
        assert_eq!(path.metadata().unwrap().len(), len);
        let mut expected = vec![0; usize::try_from(len).unwrap()];
        wav::noise(len, 0, &mut expected);
        assert!(read(&path) == expected, "{len} bytes");
    }
    assert_eq!(mount.finish().total.bytes, lengths.iter().sum::<u64>());
}
