//! What somebody did, as the statistics of a month count it.

/// A kind of operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OperationKind {
    /// A file was opened to be read.
    Read,
    /// A file that was there was opened to be written.
    Write,
    /// A file came to be.
    Create,
    /// A name of a file went.
    Delete,
    /// A directory was listed.
    List,
    /// A name was looked up and found, or attributes were asked for; what the kernel remembers is not asked for.
    Stat,
    /// A limit refused.
    Denied,
}

impl OperationKind {
    /// All of them, in the order of their rows.
    pub const ALL: [Self; 7] = [
        Self::Read,
        Self::Write,
        Self::Create,
        Self::Delete,
        Self::List,
        Self::Stat,
        Self::Denied,
    ];

    /// Its name for machines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Create => "create",
            Self::Delete => "delete",
            Self::List => "list",
            Self::Stat => "stat",
            Self::Denied => "denied",
        }
    }
}

/// How often each was done.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct OperationCounts(pub [u64; OperationKind::ALL.len()]);

impl OperationCounts {
    /// One of them.
    pub fn of(&self, operation: OperationKind) -> u64 {
        self.0[operation as usize]
    }

    /// Nothing was done.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// Both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let mut sum = self;
        for (count, more) in sum.0.iter_mut().zip(other.0) {
            *count = count.saturating_add(more);
        }
        sum
    }
}
