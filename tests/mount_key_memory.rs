//! Where keys are in the daemon's memory: locked, in no core file, and nowhere else; and gone when they are destroyed.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use common::Mount;
use common::command::text;
use common::damage::{record, tally};

/// Bytes that are looked through at once.
const CHUNK: usize = 1 << 20;

/// A mapping that holds what was looked for.
struct Holder {
    /// As `smaps` has it.
    line: String,
    flags: String,
}

impl Holder {
    fn is_protected(&self) -> bool {
        let has = |flag: &str| self.flags.split(' ').any(|had| had == flag);
        has("lo") && has("dd")
    }
}

/// Every mapping of a process that can be read and holds these bytes.
fn holders(pid: u32, wanted: &[u8]) -> Vec<Holder> {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("the mappings");
    let memory = File::open(format!("/proc/{pid}/mem")).expect("the memory; is ptrace restricted?");
    let (mut found, mut line) = (Vec::new(), "");
    let mut looked_at = 0_u64;
    for row in smaps.lines() {
        let Some(flags) = row.strip_prefix("VmFlags:") else {
            if row.split(' ').next().is_some_and(|range| range.contains('-')) {
                line = row;
            }
            continue;
        };
        let mut words = line.split(' ');
        let (from, to) = words.next().and_then(|range| range.split_once('-')).expect("a range");
        let number = |text| u64::from_str_radix(text, 16).expect("an address");
        if words.next().is_some_and(|rights| rights.starts_with('r'))
            && holds(&memory, number(from), number(to), wanted)
        {
            found.push(Holder {
                line: line.to_owned(),
                flags: flags.trim().to_owned(),
            });
        }
        looked_at += 1;
    }
    assert!(looked_at > 20, "only {looked_at} mappings");
    found
}

fn holds(memory: &File, from: u64, to: u64, wanted: &[u8]) -> bool {
    let mut buffer = vec![0; CHUNK + wanted.len()];
    let mut at = from;
    while at < to {
        let len = buffer.len().min((to - at) as usize);
        // Not every mapping can be read: `vvar` for one.
        let Ok(got) = memory.read_at(&mut buffer[..len], at) else {
            return false;
        };
        if buffer[..got].windows(wanted.len()).any(|window| window == wanted) {
            return true;
        }
        at += CHUNK as u64;
    }
    false
}

#[test]
fn a_key_is_in_locked_memory_alone_and_gone_when_it_is_destroyed() {
    let mount = Mount::new();
    let hex = fs::read_to_string(mount.key_file()).expect("the key");
    let hex = hex.trim();
    let key: Vec<u8> = (0..32)
        .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex digits"))
        .collect();
    for n in 0..20 {
        record(&mount, &format!("acme/{n}.wav"), n, 20_000);
        fs::read(mount.path(&format!("acme/{n}.wav"))).expect("a recording");
    }
    let lines = |found: &[Holder]| -> Vec<String> {
        found
            .iter()
            .map(|holder| format!("{} {}", holder.line, holder.flags))
            .collect()
    };
    let found = holders(mount.pid(), &key);
    assert!(!found.is_empty(), "it has to be somewhere, or the search is wrong");
    assert!(found.iter().all(Holder::is_protected), "{:?}", lines(&found));
    let text_found = holders(mount.pid(), hex.as_bytes());
    assert!(text_found.is_empty(), "{:?}", lines(&text_found));
    tally(&["keys", "rotate", text(&mount.store())]).ends(0);
    tally(&["keys", "destroy", text(&mount.store()), "1", "--yes-destroy", "1"]).ends(0);
    let found = holders(mount.pid(), &key);
    assert!(found.is_empty(), "{:?}", lines(&found));
    mount.finish();
}
