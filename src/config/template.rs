//! What the configuration says about the limits of one place, checked ([`Template`]) and as it is written.

use crate::period::Zone;
use crate::quota::{Bound, LimitKey, LimitOverrides, LimitUnit, Steps};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};
use std::fmt;
use toml::Spanned;

/// Limits and what goes with them; what is not written is left to the place above, or to what holds without a file.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Template {
    /// Limits that are written.
    pub limits: LimitOverrides,
    /// Where days begin.
    pub zone: Option<Zone>,
    /// When to warn.
    pub steps: Option<Steps>,
}

/// A struct with the keys of limits and others before them: serde cannot deny unknown keys of a flattened struct.
macro_rules! limits_form {
    ($(#[$meta:meta])* $name:ident { $($extra:ident: $kind:ty,)* }) => {
        $(#[$meta])*
        #[derive(serde::Deserialize, serde::Serialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name {
            $($extra: $kind,)*
            max_bytes: Option<BytesForm>,
            max_files: Option<CountForm>,
            max_dirs: Option<CountForm>,
            max_file_size: Option<BytesForm>,
            reserve_per_recording_bytes: Option<BytesForm>,
            soft_bytes: Option<BytesForm>,
            soft_files: Option<CountForm>,
            grace: Option<TimeForm>,
            time_zone: Option<ZoneForm>,
            warn_percent: Option<StepsForm>,
            day: Option<PeriodForm>,
            month: Option<PeriodForm>,
        }

        impl $name {
            fn read(&self) -> Template {
                let day = self.day.as_ref();
                let month = self.month.as_ref();
                let written = [
                    (LimitKey::MaxBytes, self.max_bytes.map(|form| form.0)),
                    (LimitKey::MaxFiles, self.max_files.map(|form| form.0)),
                    (LimitKey::MaxDirs, self.max_dirs.map(|form| form.0)),
                    (LimitKey::MaxFileSize, self.max_file_size.map(|form| form.0)),
                    (LimitKey::ReservePerRecording, self.reserve_per_recording_bytes.map(|form| form.0)),
                    (LimitKey::SoftBytes, self.soft_bytes.map(|form| form.0)),
                    (LimitKey::SoftFiles, self.soft_files.map(|form| form.0)),
                    (LimitKey::Grace, self.grace.map(|form| form.0)),
                    (LimitKey::DayMaxFiles, day.and_then(|day| day.max_files).map(|form| form.0)),
                    (LimitKey::DayMaxBytes, day.and_then(|day| day.max_bytes).map(|form| form.0)),
                    (LimitKey::MonthMaxFiles, month.and_then(|month| month.max_files).map(|form| form.0)),
                    (LimitKey::MonthMaxBytes, month.and_then(|month| month.max_bytes).map(|form| form.0)),
                ];
                let limits = written.into_iter().fold(LimitOverrides::NONE, |all, (key, bound)| all.with(key, bound));
                Template {
                    limits,
                    zone: self.time_zone.as_ref().map(|form| form.0.clone()),
                    steps: self.warn_percent.as_ref().map(|form| form.0),
                }
            }

            fn write(template: &Template $(, $extra: $kind)*) -> Self {
                let limits = &template.limits;
                Self {
                    $($extra,)*
                    max_bytes: limits.get(LimitKey::MaxBytes).map(BytesForm),
                    max_files: limits.get(LimitKey::MaxFiles).map(CountForm),
                    max_dirs: limits.get(LimitKey::MaxDirs).map(CountForm),
                    max_file_size: limits.get(LimitKey::MaxFileSize).map(BytesForm),
                    reserve_per_recording_bytes: limits.get(LimitKey::ReservePerRecording).map(BytesForm),
                    soft_bytes: limits.get(LimitKey::SoftBytes).map(BytesForm),
                    soft_files: limits.get(LimitKey::SoftFiles).map(CountForm),
                    grace: limits.get(LimitKey::Grace).map(TimeForm),
                    time_zone: template.zone.clone().map(ZoneForm),
                    warn_percent: template.steps.map(StepsForm),
                    day: PeriodForm::of(limits.get(LimitKey::DayMaxFiles), limits.get(LimitKey::DayMaxBytes)),
                    month: PeriodForm::of(limits.get(LimitKey::MonthMaxFiles), limits.get(LimitKey::MonthMaxBytes)),
                }
            }
        }
    };
}

limits_form! {
    #[derive(Default)]
    LimitsForm {}
}

limits_form! {
    ExceptionForm {
        path: Spanned<String>,
    }
}

impl LimitsForm {
    pub(super) fn template(&self) -> Template {
        self.read()
    }

    pub(super) fn of(template: &Template) -> Self {
        Self::write(template)
    }
}

impl ExceptionForm {
    /// Where in the text it stands.
    pub(super) fn at(&self) -> usize {
        self.path.span().start
    }

    pub(super) fn parts(self) -> (String, Template) {
        let template = self.read();
        (self.path.into_inner(), template)
    }

    pub(super) fn of(path: &str, template: &Template) -> Self {
        Self::write(template, Spanned::new(0..0, path.to_owned()))
    }
}

/// Limits of a day or a month.
#[derive(Default, Clone, Copy, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
struct PeriodForm {
    max_files: Option<CountForm>,
    max_bytes: Option<BytesForm>,
}

impl PeriodForm {
    fn of(files: Option<Bound>, bytes: Option<Bound>) -> Option<Self> {
        (files.is_some() || bytes.is_some()).then(|| Self {
            max_files: files.map(CountForm),
            max_bytes: bytes.map(BytesForm),
        })
    }
}

/// A byte count: a number, a text with a unit, or `"none"`.
#[derive(Clone, Copy)]
pub(super) struct BytesForm(pub(super) Bound);

/// A count: a number or `"none"`.
#[derive(Clone, Copy)]
pub(super) struct CountForm(pub(super) Bound);

/// A time: seconds, a text with a unit, or `"none"`.
#[derive(Clone, Copy)]
pub(super) struct TimeForm(pub(super) Bound);

/// The name of a time zone.
struct ZoneForm(Zone);

/// Percents at which to warn.
struct StepsForm(Steps);

impl<'de> Deserialize<'de> for BytesForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BoundVisitor(LimitUnit::Bytes)).map(Self)
    }
}

impl<'de> Deserialize<'de> for CountForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BoundVisitor(LimitUnit::Count)).map(Self)
    }
}

impl<'de> Deserialize<'de> for TimeForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BoundVisitor(LimitUnit::Time)).map(Self)
    }
}

impl<'de> Deserialize<'de> for ZoneForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Zone::named(&name).map(Self).map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for StepsForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let percents = Vec::<u8>::deserialize(deserializer)?;
        Steps::new(&percents).map(Self).map_err(de::Error::custom)
    }
}

/// Reads limits of one unit.
struct BoundVisitor(LimitUnit);

impl BoundVisitor {
    fn allowed(&self) -> &'static str {
        match self.0 {
            LimitUnit::Bytes => "a byte count such as \"10GiB\" or 500000, or \"none\" (also 0) for no limit",
            LimitUnit::Count => "a whole number, or \"none\" (also 0) for no limit",
            LimitUnit::Time => "a time such as \"7d\" or 3600 (seconds), or \"none\" (also 0) for one that never ends",
        }
    }
}

impl Visitor<'_> for BoundVisitor {
    type Value = Bound;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.allowed())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Bound, E> {
        let number = u64::try_from(number)
            .map_err(|_| E::custom(format!("{number} is negative; allowed: {}", self.allowed())))?;
        self.visit_u64(number)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Bound, E> {
        Ok(Bound::from_number(number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Bound, E> {
        self.0.parse(text).map_err(E::custom)
    }
}

impl Serialize for BytesForm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&LimitUnit::Bytes.exact(self.0))
    }
}

impl Serialize for CountForm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Bound::Unlimited => serializer.serialize_str("none"),
            // As text: a count above 2^63 is no TOML number.
            Bound::At(count) => match i64::try_from(count) {
                Ok(count) => serializer.serialize_i64(count),
                Err(_) => serializer.serialize_str(&count.to_string()),
            },
        }
    }
}

impl Serialize for TimeForm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&LimitUnit::Time.exact(self.0))
    }
}

impl Serialize for ZoneForm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl Serialize for StepsForm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.percents().serialize(serializer)
    }
}
