//! STUB
use crate::period::CivilDate;
use crate::quota::Limits;
pub struct Placement {
    pub level: Option<String>,
    pub is_tenant: bool,
    pub limits: Limits,
}
#[derive(Default)]
pub struct Durability {
    pub commit_interval_s: u64,
    pub sync_on_close: bool,
    pub strict_overwrite: bool,
}
#[derive(Default)]
pub struct Service {
    pub threads: usize,
    pub date_directories: bool,
    pub date_directory_grace_s: u64,
}
#[derive(Default)]
pub struct Config {
    pub durability: Durability,
    pub service: Service,
}
impl Config {
    pub fn has_rules(&self) -> bool {
        false
    }
    pub fn placement(&self, c: &[&[u8]]) -> Placement {
        Placement {
            level: None,
            is_tenant: c.len() == 1,
            limits: Limits::NONE,
        }
    }
    pub fn date_names(&self, _c: &[&[u8]], _t: CivilDate, _m: CivilDate) -> Vec<Vec<u8>> {
        vec![]
    }
    pub fn is_date_slot(&self, _c: &[&[u8]]) -> bool {
        false
    }
    pub fn has_date_directories(&self) -> bool {
        false
    }
    pub fn is_past_date(&self, _c: &[&[u8]], _t: CivilDate) -> bool {
        false
    }
}
