//! Which write rules hold: all of them, always. A build with the feature `rule-switches` can take one
//! out, so that the crash model can show that it notices; no product is built with it.

/// A rule of the format's sections 5 and 6 that the crash model takes out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// 1: the tail is in its slot before a write is acknowledged.
    TailBeforeAck,
    /// 2: a durable slot is never written.
    SpareDurableSlot,
    /// 2: a slot that a running sync may be writing is never written.
    SpareSyncingSlot,
    /// 2: marks flip to what was written before the sync began.
    MarksOfTheBeginning,
    /// 3: an open head before the first change of a sealed file.
    OpenHead,
    /// 3: that head is durable before a page in place changes.
    InPlaceBarrier,
    /// 3: a durable head vouches for the durable blocks before a page in the middle changes.
    VouchBarrier,
    /// 4: a failed sync is remembered.
    RememberFailedSync,
    /// 4: what was written since the last good sync is written again after a failed one.
    WriteAgain,
    /// 4: only a page that reads back as it was written is; an older one is not taken for it.
    CheckAgain,
    /// 5: a sync between the tail's body page and the sealed head.
    SyncBeforeSealedHead,
    /// 5: sealing stops when somebody changed the file meanwhile.
    StopWhenOvertaken,
    /// 5: the sealed head is durable before the tail slots go and the size is set.
    SyncBeforeSize,
    /// 5: a second copy of the sealed head.
    SecondHead,
    /// 6: marks of another process are synced first.
    SyncUnknownMarks,
    /// 7: a durable tail slot before the body page of the tail block is overwritten.
    CoverTail,
    /// 7: strict overwriting copies the page aside first.
    CopyAside,
    /// 8: a floor in the head of a cut.
    CutFloor,
    /// 8: that head is durable before the size shrinks.
    SyncBeforeShrink,
    /// 8: the shrink is durable before the file grows.
    SyncAfterShrink,
    /// 8: the size is durably zero before new content.
    SyncAfterClear,
    /// 9: a head tells the length of a file with holes, when one is made and at every sync (the first
    /// alone would do for power cuts; the second keeps what is vouched for fresh).
    HolesHead,
    /// 9: a short block is padded before a later one is written.
    PadShortBlock,
    /// Section 6: a fence behind a recovered end.
    Fence,
    /// Section 6: the fence is durable before the first change.
    SyncFence,
    /// Section 6: tails vouch for the blocks before them.
    TailsVouch,
}

#[cfg(feature = "rule-switches")]
thread_local! {
    static BROKEN: std::cell::Cell<Option<Rule>> = const { std::cell::Cell::new(None) };
}

/// Takes one rule out for the calling thread, or puts it back.
#[cfg(feature = "rule-switches")]
pub fn break_rule(rule: Option<Rule>) {
    BROKEN.set(rule);
}

/// Whether a rule holds.
#[cfg(feature = "rule-switches")]
pub fn holds(rule: Rule) -> bool {
    BROKEN.get() != Some(rule)
}

/// Whether a rule holds: it does.
#[cfg(not(feature = "rule-switches"))]
#[inline]
pub const fn holds(_: Rule) -> bool {
    true
}
