//! Warnings before a limit refuses: one for each step that usage passes on its way up, given again only after usage
//! has fallen well below it.

use super::limits::{Meter, Reason};
use std::fmt;

/// A warning may be given again once usage has fallen this many points below its step.
const REARMED_BELOW: u64 = 5;
/// More steps than anybody can act on.
const STEPS_MAX: usize = 16;

/// Shares of a limit at which a warning is due, in percent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Steps {
    percents: [u8; STEPS_MAX],
    count: usize,
}

impl Steps {
    /// Takes steps in any order; none of them: no warnings.
    ///
    /// # Errors
    /// Says what is allowed.
    pub fn new(percents: &[u8]) -> Result<Self, String> {
        let mut sorted = percents.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let allowed = sorted.iter().all(|percent| (1..=100).contains(percent));
        if !allowed || sorted.len() > STEPS_MAX {
            return Err(format!(
                "{percents:?} are no steps of warnings; allowed: up to {STEPS_MAX} whole numbers from 1 to 100"
            ));
        }
        let mut steps = Self {
            percents: [0; STEPS_MAX],
            count: sorted.len(),
        };
        steps.percents[..sorted.len()].copy_from_slice(&sorted);
        Ok(steps)
    }

    /// From the lowest up.
    pub fn percents(&self) -> &[u8] {
        &self.percents[..self.count]
    }

    /// The highest step that is reached, 0 below all of them.
    fn reached(&self, used: u64, limit: u64) -> u8 {
        let reached = |percent: &&u8| u128::from(used) * 100 >= u128::from(limit) * u128::from(**percent);
        self.percents().iter().rfind(reached).copied().unwrap_or(0)
    }
}

impl Default for Steps {
    fn default() -> Self {
        Self::new(&[80]).unwrap_or(Self {
            percents: [0; STEPS_MAX],
            count: 0,
        })
    }
}

/// The highest step that was warned of, by meter.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Warned([u8; Meter::ALL.len()]);

impl Warned {
    /// The highest step that was warned of; 0: none.
    pub(super) fn percent(&self, meter: Meter) -> u8 {
        self.0[meter as usize]
    }

    /// A warning that is due now.
    pub(super) fn crossing(&mut self, meter: Meter, used: u64, limit: Option<u64>, steps: &Steps) -> Option<EventKind> {
        let warned = &mut self.0[meter as usize];
        let Some(limit) = limit else {
            *warned = 0;
            return None;
        };
        let reached = steps.reached(used, limit);
        if reached > *warned {
            *warned = reached;
            return Some(EventKind::Warning {
                meter,
                percent: reached,
                used,
                limit,
            });
        }
        // Still warned of: steps that usage has not left by enough.
        let near = |percent: &&u8| {
            **percent <= *warned
                && u128::from(used) * 100
                    > u128::from(limit) * u128::from(u64::from(**percent).saturating_sub(REARMED_BELOW))
        };
        *warned = steps.percents().iter().rfind(near).copied().unwrap_or(0);
        None
    }

    /// Reads what [`Warned`] displays: `bytes=80 day.files=95`. What is not known is left out.
    pub fn parse(text: &str) -> Self {
        let mut warned = Self::default();
        for word in text.split_ascii_whitespace() {
            let read = word
                .split_once('=')
                .and_then(|(key, percent)| Some((Meter::named(key)?, percent.parse().ok()?)));
            if let Some((meter, percent)) = read {
                warned.0[meter as usize] = percent;
            }
        }
        warned
    }
}

impl fmt::Display for Warned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gap = "";
        for meter in Meter::ALL {
            let percent = self.0[meter as usize];
            if percent > 0 {
                write!(f, "{gap}{}={percent}", meter.key())?;
                gap = " ";
            }
        }
        Ok(())
    }
}

/// Something about an account that somebody should know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// Usage passed a step on its way up.
    Warning {
        /// Of what.
        meter: Meter,
        /// The step.
        percent: u8,
        /// What is used.
        used: u64,
        /// Of which limit.
        limit: u64,
    },
    /// Usage passed a soft limit.
    OverSoft {
        /// Of what.
        meter: Meter,
        /// What is used.
        used: u64,
        /// The soft limit.
        limit: u64,
        /// When it refuses, seconds since 1970; `None`: never.
        grace_ends_s: Option<i64>,
    },
    /// Usage fell below a soft limit again, or that limit is gone.
    BelowSoft {
        /// Of what.
        meter: Meter,
        /// What is used.
        used: u64,
        /// Since when it was passed, seconds since 1970.
        since_s: i64,
    },
    /// A limit refuses requests. Told once for a burst.
    Refused {
        /// Of what.
        meter: Meter,
        /// Which kind of limit.
        reason: Reason,
        /// What is used.
        used: u64,
        /// The limit.
        limit: u64,
        /// What was asked for on top.
        wanted: u64,
    },
    /// The clock has gone ahead by more than a day, and that counts from now on.
    Leapt {
        /// By how many days.
        days: i64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is warned of, as usage of a limit of 1,000 goes along these figures.
    fn warnings(steps: &[u8], path: &[u64]) -> Vec<u8> {
        let (steps, mut warned) = (Steps::new(steps).unwrap(), Warned::default());
        let mut given = Vec::new();
        for &used in path {
            let event = warned.crossing(Meter::Bytes, used, Some(1000), &steps);
            if let Some(EventKind::Warning { percent, .. }) = event {
                given.push(percent);
            }
            warned = Warned::parse(&warned.to_string());
        }
        given
    }

    #[test]
    fn each_crossing_warns_once_and_again_only_from_five_points_below() {
        assert_eq!(warnings(&[80, 95], &[799, 800, 810, 799, 801, 751, 900]), [80]);
        assert_eq!(warnings(&[80, 95], &[800, 750, 800]), [80, 80]);
        assert_eq!(warnings(&[80, 95], &[100, 960, 940, 960, 900, 949, 950]), [95, 95]);
        assert_eq!(warnings(&[80, 95], &[960, 0, 960]), [95, 95]);
        assert_eq!(warnings(&[], &[2000]), [] as [u8; 0]);
        assert_eq!(warnings(&[100], &[999, 1000, 3000]), [100]);
    }

    #[test]
    fn steps_are_sorted_and_bad_ones_say_what_is_allowed() {
        assert_eq!(Steps::new(&[95, 80, 95]).unwrap().percents(), [80, 95]);
        for bad in [
            &[0][..],
            &[101],
            &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17],
        ] {
            assert!(Steps::new(bad).unwrap_err().contains("from 1 to 100"));
        }
    }
}
