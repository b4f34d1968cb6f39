//! What accounts use, and of which limits.

use std::cmp::Ordering;
use std::sync::Arc;

use prometheus_client::registry::{Registry, Unit};

use super::super::Services;
use super::super::request::path_of;
use super::samples::{Gauges, Labels};
use crate::quota::{Account, Meter, MeterState};

/// Accounts with figures of their own; beyond that those that are nearest to a limit are told and the rest only counted, so
/// that no scrape grows without bound.
const ACCOUNTS_MAX: usize = 1000;

/// One of the figures of a meter.
type Figure = fn(&MeterState) -> Option<u64>;
const USED: Figure = |state| Some(state.used);
const LIMIT: Figure = |state| state.limit;

/// An account that is told.
struct Told {
    path: Arc<str>,
    physical_bytes: Option<u64>,
    states: Vec<(Meter, MeterState)>,
}

/// Registers them.
pub fn put(services: &Services, registry: &mut Registry) {
    let ledger = services.fs.ledger();
    let watched = ledger.watched();
    let all_count = watched.len();
    let now_s = ledger.now_s();
    let fullest = fullest(watched, ACCOUNTS_MAX, now_s);
    let omitted_count = all_count - fullest.len();
    let physical = &services.books.physical;
    let told: Vec<Told> = fullest
        .iter()
        .map(|account| look_at(account, physical.of(account.ino()), now_s))
        .collect();
    put_now(&told, registry);
    put_periods(&told, registry);
    registry.register_with_unit(
        "account_used",
        "Share of a limit that is used, 1 where nothing more fits; the largest of an account decides which accounts are told",
        Unit::Other("ratio".to_owned()),
        Gauges(gather(&told, |path, meter, state| {
            let share = share(state.used, state.limit?);
            Some((vec![("path", path.clone()), ("meter", meter.key().into())], share))
        })),
    );
    registry.register(
        "accounts",
        "Tenants, the mount, and directories with limits",
        Gauges::one(all_count as u64),
    );
    registry.register(
        "accounts_omitted",
        "Those of them that have no figures of their own here, because there are too many",
        Gauges::one(omitted_count as u64),
    );
}

fn put_now(told: &[Told], registry: &mut Registry) {
    let each = |wanted: Meter, figure: Figure| {
        Gauges(gather(told, |path, meter, state| {
            let value = figure(state).filter(|_| meter == wanted)?;
            Some((vec![("path", path.clone())], value))
        }))
    };
    registry.register_with_unit(
        "account_used",
        "Plaintext below a directory",
        Unit::Bytes,
        each(Meter::Bytes, USED),
    );
    let physical = told.iter().filter_map(|told| {
        let labels: Labels = vec![("path", told.path.clone())];
        Some((labels, told.physical_bytes?))
    });
    registry.register_with_unit(
        "account_physical",
        "What the sealed files of the mount or a tenant take in the store, looked up now and then",
        Unit::Bytes,
        Gauges(physical.collect()),
    );
    registry.register_with_unit(
        "account_limit",
        "Hard limit of the plaintext below a directory, where there is one",
        Unit::Bytes,
        each(Meter::Bytes, LIMIT),
    );
    registry.register(
        "account_used_files",
        "Files below a directory",
        each(Meter::Files, USED),
    );
    registry.register(
        "account_limit_files",
        "Hard limit of the files below a directory, where there is one",
        each(Meter::Files, LIMIT),
    );
    registry.register(
        "account_used_directories",
        "Directories below a directory",
        each(Meter::Dirs, USED),
    );
    registry.register(
        "account_limit_directories",
        "Hard limit of the directories below a directory, where there is one",
        each(Meter::Dirs, LIMIT),
    );
}

fn put_periods(told: &[Told], registry: &mut Registry) {
    let each = |in_bytes: bool, figure: Figure| {
        Gauges(gather(told, |path, meter, state| {
            let period = match meter {
                Meter::DayFiles | Meter::DayBytes => "day",
                Meter::MonthFiles | Meter::MonthBytes => "month",
                _ => return None,
            };
            let value = figure(state).filter(|_| meter.is_bytes() == in_bytes)?;
            Some((vec![("path", path.clone()), ("period", period.into())], value))
        }))
    };
    registry.register_with_unit(
        "account_period_used",
        "New plaintext of the day or month, in the account's time zone",
        Unit::Bytes,
        each(true, USED),
    );
    registry.register_with_unit(
        "account_period_limit",
        "Limit of new plaintext in a day or month, where there is one",
        Unit::Bytes,
        each(true, LIMIT),
    );
    registry.register(
        "account_period_used_files",
        "New files of the day or month, in the account's time zone",
        each(false, USED),
    );
    registry.register(
        "account_period_limit_files",
        "Limit of new files in a day or month, where there is one",
        each(false, LIMIT),
    );
}

/// Figures in the order of the accounts.
fn gather<V>(told: &[Told], figure: impl Fn(&Arc<str>, Meter, &MeterState) -> Option<(Labels, V)>) -> Vec<(Labels, V)> {
    let of_one = |told: &Told| -> Vec<(Labels, V)> {
        let states = told.states.iter();
        states
            .filter_map(|(meter, state)| figure(&told.path, *meter, state))
            .collect()
    };
    told.iter().flat_map(of_one).collect()
}

fn look_at(account: &Account, physical_bytes: Option<u64>, now_s: i64) -> Told {
    let states = Meter::ALL.into_iter();
    Told {
        path: path_of(account).into(),
        physical_bytes,
        states: states
            .filter_map(|meter| Some((meter, account.state_of(meter, now_s)?)))
            .collect(),
    }
}

/// As many as may be told: those nearest to a limit, and of those as near the ones that use most. The mount is always
/// among them.
fn fullest(accounts: Vec<Arc<Account>>, count_max: usize, now_s: i64) -> Vec<Arc<Account>> {
    if accounts.len() <= count_max {
        return accounts;
    }
    let ranked = accounts.into_iter().map(|account| {
        let rank = (account.is_root(), largest_share(&account, now_s), account.total().bytes);
        (rank, account)
    });
    let mut ranked: Vec<((bool, f64, u64), Arc<Account>)> = ranked.collect();
    let by_rank =
        |(a, _): &((bool, f64, u64), _), (b, _): &((bool, f64, u64), _)| b.partial_cmp(a).unwrap_or(Ordering::Equal);
    ranked.select_nth_unstable_by(count_max, by_rank);
    ranked.truncate(count_max);
    ranked.into_iter().map(|(_, account)| account).collect()
}

/// Of all its limits; 0 without any.
fn largest_share(account: &Account, now_s: i64) -> f64 {
    let limits = account.limits();
    if limits.is_none() {
        return 0.0;
    }
    let limited = Meter::ALL
        .into_iter()
        .filter(|meter| limits.get(meter.hard_limit()).is_some());
    let shares = limited.filter_map(|meter| {
        let state = account.state_of(meter, now_s)?;
        Some(share(state.used, state.limit?))
    });
    shares.fold(0.0, f64::max)
}

#[expect(clippy::cast_precision_loss, reason = "a share is told to fifteen places")]
fn share(used: u64, limit: u64) -> f64 {
    if limit == 0 {
        return 1.0;
    }
    used as f64 / limit as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Ino;
    use crate::quota::{Ledger, Limits};
    use crate::units::Meters;

    /// A tenant with so many bytes of so many.
    fn tenant(ledger: &Arc<Ledger>, ino: u64, used: u64, limit: Option<u64>) -> Arc<Account> {
        let account = ledger.insert(ledger.root(), Ino(ino), 0, format!("t{ino}").as_bytes());
        ledger.set_level(&account, Some("tenant"), true);
        let limits = Limits {
            bytes: limit,
            ..Limits::NONE
        };
        ledger.set_limits(&account, limits);
        ledger.charge_forced(&account, Meters::of_bytes(used));
        account
    }

    #[test]
    fn those_nearest_to_a_limit_are_told_and_the_mount() {
        let ledger = Ledger::new(Ino(1), Limits::NONE);
        for (ino, used, limit) in [
            (2, 1_000_000, None),
            (3, 95, Some(100)),
            (4, 999, Some(1_000_000)),
            (5, 0, Some(0)),
            (6, 5_000_000, None),
        ] {
            tenant(&ledger, ino, used, limit);
        }
        let told = |count_max| {
            let told = fullest(ledger.watched(), count_max, ledger.now_s());
            let mut inos: Vec<u64> = told.iter().map(|account| account.ino().0).collect();
            inos.sort_unstable();
            inos
        };
        assert_eq!(told(3), [1, 3, 5]);
        assert_eq!(told(4), [1, 3, 4, 5]);
        assert_eq!(told(5), [1, 3, 4, 5, 6]);
        assert_eq!(told(6), [1, 2, 3, 4, 5, 6]);
        assert_eq!(told(7), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_limit_of_nothing_is_used_up() {
        assert_eq!(
            [share(0, 0), share(5, 10), share(0, 10)].map(f64::to_bits),
            [1.0, 0.5, 0.0].map(f64::to_bits)
        );
    }
}
