//! Every write rule is needed: taken out alone, the model finds a loss.

use tallyfs::store::sealed_file::rules::{Rule, break_rule};

const RULES: [(Rule, u64); 25] = [
    (Rule::TailBeforeAck, 2_000),
    (Rule::SpareDurableSlot, 2_000),
    (Rule::SpareSyncingSlot, 200_000),
    (Rule::MarksOfTheBeginning, 200_000),
    (Rule::OpenHead, 2_000),
    (Rule::InPlaceBarrier, 200_000),
    (Rule::VouchBarrier, 200_000),
    (Rule::RememberFailedSync, 200_000),
    (Rule::WriteAgain, 200_000),
    (Rule::CheckAgain, 200_000),
    (Rule::SyncBeforeSealedHead, 200_000),
    (Rule::StopWhenOvertaken, 200_000),
    (Rule::SyncBeforeSize, 200_000),
    (Rule::SecondHead, 200_000),
    (Rule::SyncUnknownMarks, 200_000),
    (Rule::CoverTail, 200_000),
    (Rule::CopyAside, 200_000),
    (Rule::CutFloor, 200_000),
    (Rule::SyncBeforeShrink, 200_000),
    (Rule::SyncAfterShrink, 200_000),
    (Rule::SyncAfterClear, 200_000),
    (Rule::HolesHead, 200_000),
    (Rule::PadShortBlock, 200_000),
    (Rule::Fence, 200_000),
    (Rule::SyncFence, 200_000),
];

/// Puts the rule back whatever happens.
struct Broken;

impl Drop for Broken {
    fn drop(&mut self) {
        break_rule(None);
    }
}

#[test]
fn every_rule_taken_out_alone_loses_something() {
    let mut missed = Vec::new();
    for (rule, within) in RULES {
        let _broken = Broken;
        break_rule(Some(rule));
        match crate::run(1, within) {
            Err((seed, counts, what)) => {
                let first = what.lines().next().unwrap_or_default();
                println!("{rule:?}: found after {} images (seed {seed}): {first}", counts.images);
            }
            Ok(counts) => {
                println!("{rule:?}: NOT found in {} images", counts.images);
                missed.push(rule);
            }
        }
    }
    assert!(
        missed.is_empty(),
        "the model does not notice that these are gone: {missed:?}"
    );
}

#[test]
fn a_tail_that_vouches_for_nothing_loses_what_lies_behind_a_bad_block() {
    let _broken = Broken;
    break_rule(Some(Rule::TailsVouch));
    assert!(crate::damaged_in_the_middle().is_err());
}
