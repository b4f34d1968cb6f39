//! Bytes of a dirty log; the table is in the module above. Pure.

use crate::id::Ino;

pub(super) const HEADER_LEN: usize = 48;
pub(super) const RECORD_LEN: usize = 16;
const MAGIC: [u8; 8] = *b"TLYDIRTY";
const VERSION: u32 = 1;
const CHECKED_LEN: usize = 40;

const _: () = assert!(HEADER_LEN.is_multiple_of(RECORD_LEN) && CHECKED_LEN + 8 == HEADER_LEN);

/// Name of a log file, which is the first epoch written to it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct LogName(pub u64);

impl LogName {
    pub(super) fn file_name(self) -> String {
        format!("dirty-{}.log", self.0)
    }

    /// Name while the header is being written.
    pub(super) fn unborn_name(self) -> String {
        format!("dirty-{}.tmp", self.0)
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        let digits = name.strip_prefix("dirty-")?.strip_suffix(".log")?;
        digits.parse().ok().map(Self)
    }

    pub(super) fn is_unborn(name: &str) -> bool {
        name.strip_prefix("dirty-")
            .is_some_and(|rest| rest.strip_suffix(".tmp").is_some())
    }
}

/// A log that was read back.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Parsed {
    pub boot_id: [u8; 16],
    pub inos: Vec<Ino>,
}

pub(super) fn header(boot_id: &[u8; 16], name: LogName) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..32].copy_from_slice(boot_id);
    bytes[32..40].copy_from_slice(&name.0.to_le_bytes());
    let check = check(&bytes[..CHECKED_LEN]);
    bytes[CHECKED_LEN..].copy_from_slice(&check.to_le_bytes());
    bytes
}

pub(super) fn record(ino: Ino, name: LogName) -> [u8; RECORD_LEN] {
    let mut bytes = [0; RECORD_LEN];
    bytes[..8].copy_from_slice(&ino.0.to_le_bytes());
    bytes[8..].copy_from_slice(&record_check(ino, name).to_le_bytes());
    bytes
}

/// `None` for a file that is not wholly a log of that name. A last record that was cut short or
/// is wrong was torn by a kill, before anything it announced: it is dropped.
pub(super) fn parse(bytes: &[u8], name: LogName) -> Option<Parsed> {
    let (head, records) = bytes.split_at_checked(HEADER_LEN)?;
    let boot_id = head[16..32].try_into().ok()?;
    if head != header(&boot_id, name) {
        return None;
    }
    let (whole, _cut) = records.as_chunks::<RECORD_LEN>();
    let mut inos = Vec::with_capacity(whole.len());
    for (at, bytes) in whole.iter().enumerate() {
        let ino = Ino(u64::from_le_bytes(bytes[..8].try_into().ok()?));
        if *bytes == record(ino, name) {
            inos.push(ino);
        } else if at + 1 < whole.len() {
            return None;
        }
    }
    Some(Parsed { boot_id, inos })
}

fn record_check(ino: Ino, name: LogName) -> u64 {
    mix(mix(name.0) ^ ino.0)
}

fn check(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |state, &byte| mix(state ^ u64::from(byte)))
}

/// Finaliser of SplitMix64: every bit of the input moves every bit of the output.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: LogName = LogName(7);

    fn log(inos: &[u64]) -> Vec<u8> {
        let mut bytes = header(&[9; 16], NAME).to_vec();
        for &ino in inos {
            bytes.extend_from_slice(&record(Ino(ino), NAME));
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Vec<u64>> {
        parse(bytes, NAME).map(|log| log.inos.iter().map(|ino| ino.0).collect())
    }

    #[test]
    fn every_cut_of_the_records_keeps_the_whole_ones() {
        let bytes = log(&[1, u64::MAX, 3]);
        for len in HEADER_LEN..=bytes.len() {
            let whole = (len - HEADER_LEN) / RECORD_LEN;
            assert_eq!(
                read(&bytes[..len]),
                Some([1, u64::MAX, 3][..whole].to_vec())
            );
        }
    }

    #[test]
    fn any_damaged_byte_before_the_last_record_makes_it_unreadable() {
        let bytes = log(&[1, 2, 3]);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            let last = at >= bytes.len() - RECORD_LEN;
            assert_eq!(read(&bad), last.then(|| vec![1, 2]), "byte {at}");
        }
        assert_eq!(read(&bytes[..HEADER_LEN - 1]), None);
        assert_eq!(parse(&bytes, LogName(8)), None);
    }

    #[test]
    fn names_read_back() {
        assert_eq!(LogName::parse(&NAME.file_name()), Some(NAME));
        assert_eq!(LogName::parse(&NAME.unborn_name()), None);
        assert_eq!(LogName::parse("dirty-x.log"), None);
        assert!(LogName::is_unborn(&NAME.unborn_name()));
    }
}
