//! A tenant's figures in the JSON that IronBucket has for a bucket: what its `.quota` and `.stats/YYYY-MM.json` files
//! hold, here and in the interface for programs.

use serde::Serialize;
use utoipa::ToSchema;

use super::ledger::Usage;
use super::operations::{OperationCounts, OperationKind};

/// As IronBucket's `.quota` file has it.
#[derive(Serialize, ToSchema)]
pub struct BucketQuota {
    /// Bytes; `null`: unlimited.
    pub max_size_bytes: Option<u64>,
    /// Bytes of plaintext.
    pub current_usage_bytes: u64,
    /// Everything that is not a directory.
    pub object_count: u64,
    /// RFC 3339, UTC.
    pub last_updated: String,
}

impl BucketQuota {
    /// From the figures of one instant.
    pub fn new(usage: &Usage, last_updated: String) -> Self {
        Self {
            max_size_bytes: usage.limits.bytes,
            current_usage_bytes: usage.total.bytes,
            object_count: usage.total.files,
            last_updated,
        }
    }
}

/// As IronBucket's `.stats/YYYY-MM.json` has it.
#[derive(Serialize, ToSchema)]
pub struct BucketStats {
    /// Files opened to be read.
    pub get_count: u64,
    /// Files that came to be, or were opened to be written.
    pub put_count: u64,
    /// Names removed.
    pub delete_count: u64,
    /// Directories opened to be listed.
    pub list_count: u64,
    /// Look-ups and attributes, as far as the kernel asked.
    pub head_count: u64,
    /// Nothing is uploaded in parts here: always 0.
    pub multipart_count: u64,
    /// RFC 3339, UTC.
    pub last_updated: String,
}

impl BucketStats {
    /// From what was done in a month.
    pub fn new(counts: OperationCounts, last_updated: String) -> Self {
        Self {
            get_count: counts.of(OperationKind::Read),
            put_count: counts.of(OperationKind::Create) + counts.of(OperationKind::Write),
            delete_count: counts.of(OperationKind::Delete),
            list_count: counts.of(OperationKind::List),
            head_count: counts.of(OperationKind::Stat),
            multipart_count: 0,
            last_updated,
        }
    }
}
