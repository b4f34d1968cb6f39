//! The configuration as it is written: TOML in, the checked form out, and back.
//!
//! Unknown keys are errors. What serde can see is checked while it reads, so that errors carry a line.

use super::rule::{Rule, parse_path};
use super::{Access, Config, ConfigError, Durability, Exception, KeySource, Service, default_rules};
use crate::quota::{Bound, LimitKey, LimitOverrides, Limits};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use toml::Spanned;

/// Longest time between two commits.
const COMMIT_INTERVAL_MAX_S: u32 = 3600;

#[derive(serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
struct FileForm {
    #[serde(default)]
    mount: LimitsForm,
    #[serde(default)]
    durability: DurabilityForm,
    #[serde(default)]
    key: KeyForm,
    #[serde(default)]
    access: AccessForm,
    #[serde(default)]
    service: ServiceForm,
    rules: Option<Vec<RuleForm>>,
    #[serde(default)]
    exceptions: Vec<ExceptionForm>,
}

#[derive(Default, Clone, Copy, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "they are the keys of the file")]
struct LimitsForm {
    max_bytes: Option<BytesForm>,
    max_files: Option<CountForm>,
    max_dirs: Option<CountForm>,
    max_file_size: Option<BytesForm>,
}

#[derive(serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
struct RuleForm {
    path: Spanned<String>,
    date_directories: Option<bool>,
    #[serde(default)]
    limits: BTreeMap<String, LimitsForm>,
}

/// The four limits are written out: serde cannot deny unknown keys of a flattened struct.
#[derive(serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
struct ExceptionForm {
    path: Spanned<String>,
    max_bytes: Option<BytesForm>,
    max_files: Option<CountForm>,
    max_dirs: Option<CountForm>,
    max_file_size: Option<BytesForm>,
}

#[derive(serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
struct DurabilityForm {
    #[serde(deserialize_with = "commit_interval")]
    commit_interval_s: u32,
    sync_on_close: bool,
    strict_overwrite: bool,
}

/// A commit interval: without one nothing would be durable, with 0 the disk would do nothing else.
fn commit_interval<'de, D: Deserializer<'de>>(form: D) -> Result<u32, D::Error> {
    let seconds = u32::deserialize(form)?;
    if (1..=COMMIT_INTERVAL_MAX_S).contains(&seconds) {
        return Ok(seconds);
    }
    Err(de::Error::custom(format!(
        "{seconds} is not allowed; from 1 to {COMMIT_INTERVAL_MAX_S} seconds"
    )))
}

#[derive(Default, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
struct KeyForm {
    file: Option<String>,
}

#[derive(Default, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
struct AccessForm {
    administrators: Option<String>,
}

#[derive(serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
struct ServiceForm {
    threads: u32,
    date_directories: bool,
    date_directory_grace_s: u32,
}

impl Default for DurabilityForm {
    fn default() -> Self {
        let Durability {
            commit_interval_s,
            sync_on_close,
            strict_overwrite,
        } = Durability::default();
        Self {
            commit_interval_s,
            sync_on_close,
            strict_overwrite,
        }
    }
}

impl Default for ServiceForm {
    fn default() -> Self {
        let Service {
            threads,
            date_directories,
            date_directory_grace_s,
        } = Service::default();
        Self {
            threads,
            date_directories,
            date_directory_grace_s,
        }
    }
}

/// A byte count: a number, a text with a unit, or `"none"`.
#[derive(Clone, Copy)]
struct BytesForm(Bound);

/// A count: a number or `"none"`.
#[derive(Clone, Copy)]
struct CountForm(Bound);

impl<'de> Deserialize<'de> for BytesForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let visitor = BoundVisitor {
            expecting: "a byte count such as \"10GiB\" or 500000, or \"none\" (also 0) for no limit",
            key: LimitKey::MaxBytes,
        };
        deserializer.deserialize_any(visitor).map(Self)
    }
}

impl<'de> Deserialize<'de> for CountForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let visitor = BoundVisitor {
            expecting: "a whole number, or \"none\" (also 0) for no limit",
            key: LimitKey::MaxFiles,
        };
        deserializer.deserialize_any(visitor).map(Self)
    }
}

struct BoundVisitor {
    expecting: &'static str,
    /// Whose texts are read; those of all sizes are alike, and those of all counts.
    key: LimitKey,
}

impl Visitor<'_> for BoundVisitor {
    type Value = Bound;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Bound, E> {
        let number = u64::try_from(number)
            .map_err(|_| E::custom(format!("{number} is negative; allowed: {}", self.expecting)))?;
        self.visit_u64(number)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Bound, E> {
        Ok(Bound::from_number(number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Bound, E> {
        self.key.parse(text).map_err(E::custom)
    }
}

impl Serialize for BytesForm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&LimitKey::MaxBytes.exact(self.0))
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

impl LimitsForm {
    fn overrides(self) -> LimitOverrides {
        LimitOverrides {
            bytes: self.max_bytes.map(|form| form.0),
            files: self.max_files.map(|form| form.0),
            dirs: self.max_dirs.map(|form| form.0),
            file_size: self.max_file_size.map(|form| form.0),
        }
    }

    fn limits(self) -> Limits {
        self.overrides().over(Limits::NONE)
    }

    fn of(limits: LimitOverrides) -> Self {
        Self {
            max_bytes: limits.bytes.map(BytesForm),
            max_files: limits.files.map(CountForm),
            max_dirs: limits.dirs.map(CountForm),
            max_file_size: limits.file_size.map(BytesForm),
        }
    }

    fn of_limits(limits: Limits) -> Self {
        Self::of(LimitOverrides {
            bytes: limits.bytes.map(Bound::At),
            files: limits.files.map(Bound::At),
            dirs: limits.dirs.map(Bound::At),
            file_size: limits.file_size.map(Bound::At),
        })
    }
}

/// A semantic error at a place in the text.
struct Wrong {
    at: usize,
    message: String,
}

pub(super) fn parse(file: &str, text: &str) -> Result<Config, ConfigError> {
    let error = |at: Option<usize>, message: String| ConfigError {
        file: file.to_owned(),
        line: at.map(|at| 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()),
        message,
    };
    let form: FileForm = toml::from_str(text).map_err(|problem| {
        let key = problem.span().and_then(|span| key_at(text, span.start));
        let at_key = key.map(|key| format!("{key}: ")).unwrap_or_default();
        error(
            problem.span().map(|span| span.start),
            format!("{at_key}{}", problem.message().trim_end()),
        )
    })?;
    check(form).map_err(|wrong| error(Some(wrong.at), wrong.message))
}

/// The key of a line, for messages that do not name it.
fn key_at(text: &str, at: usize) -> Option<&str> {
    let start = text.get(..at)?.rfind('\n').map_or(0, |newline| newline + 1);
    let (key, _) = text.get(start..)?.lines().next()?.split_once('=')?;
    let key = key.trim();
    (!key.is_empty() && !key.starts_with('#')).then_some(key)
}

fn check(form: FileForm) -> Result<Config, Wrong> {
    let rules = match form.rules {
        Some(rules) => rules.into_iter().map(check_rule).collect::<Result<_, _>>()?,
        None => default_rules(),
    };
    let mut paths = HashSet::new();
    let exceptions = form
        .exceptions
        .into_iter()
        .map(|form| check_exception(form, &mut paths));
    let DurabilityForm {
        commit_interval_s,
        sync_on_close,
        strict_overwrite,
    } = form.durability;
    let ServiceForm {
        threads,
        date_directories,
        date_directory_grace_s,
    } = form.service;
    Ok(Config {
        mount: form.mount.limits(),
        rules,
        exceptions: exceptions.collect::<Result<_, _>>()?,
        durability: Durability {
            commit_interval_s,
            sync_on_close,
            strict_overwrite,
        },
        key: KeySource {
            file: form.key.file.map(Into::into),
        },
        access: Access {
            administrators: form.access.administrators,
        },
        service: Service {
            threads,
            date_directories,
            date_directory_grace_s,
        },
    })
}

fn check_rule(form: RuleForm) -> Result<Rule, Wrong> {
    let at = form.path.span().start;
    let wrong = |message: String| Wrong {
        at,
        message: format!("rules: {message}"),
    };
    let segments = parse_path(form.path.get_ref()).map_err(wrong)?;
    let limits = form
        .limits
        .into_iter()
        .map(|(level, limits)| (level, limits.limits()))
        .collect();
    let mut rule = Rule {
        segments,
        date_directories: false,
        limits,
    };
    if let Some(unknown) = rule
        .limits
        .keys()
        .find(|level| !rule.levels().contains(&level.as_str()))
    {
        let (path, levels) = (rule.path(), rule.levels().join(", "));
        return Err(wrong(format!(
            "limits.{unknown}: path '{path}' has no level of this name; allowed: {levels}"
        )));
    }
    let possible = rule.has_date_slots();
    if form.date_directories == Some(true) && !possible {
        let path = rule.path();
        return Err(wrong(format!(
            "date_directories: path '{path}' has no date below {{tenant}}; allowed with a path such as {{tenant}}/%Y/%m/%d"
        )));
    }
    rule.date_directories = form.date_directories.unwrap_or(possible);
    Ok(rule)
}

fn check_exception(form: ExceptionForm, paths: &mut HashSet<String>) -> Result<Exception, Wrong> {
    let at = form.path.span().start;
    let ExceptionForm {
        path,
        max_bytes,
        max_files,
        max_dirs,
        max_file_size,
    } = form;
    let path = path.into_inner();
    let is_name = |component: &str| !matches!(component, "" | "." | "..") && !component.contains('\0');
    if !path.split('/').all(is_name) {
        let message = format!(
            "exceptions: path '{path}' is no path below the mount; allowed: names separated by '/', such as acme/sales"
        );
        return Err(Wrong { at, message });
    }
    if !paths.insert(path.clone()) {
        return Err(Wrong {
            at,
            message: format!("exceptions: path '{path}' stands twice; each directory once"),
        });
    }
    let limits = LimitsForm {
        max_bytes,
        max_files,
        max_dirs,
        max_file_size,
    }
    .overrides();
    Ok(Exception { path, limits })
}

pub(super) fn to_toml(config: &Config) -> String {
    let Durability {
        commit_interval_s,
        sync_on_close,
        strict_overwrite,
    } = config.durability;
    let Service {
        threads,
        date_directories,
        date_directory_grace_s,
    } = config.service;
    let form = FileForm {
        mount: LimitsForm::of_limits(config.mount),
        durability: DurabilityForm {
            commit_interval_s,
            sync_on_close,
            strict_overwrite,
        },
        key: KeyForm {
            file: config.key.file.as_ref().map(|file| file.to_string_lossy().into_owned()),
        },
        access: AccessForm {
            administrators: config.access.administrators.clone(),
        },
        service: ServiceForm {
            threads,
            date_directories,
            date_directory_grace_s,
        },
        rules: Some(config.rules.iter().map(rule_form).collect()),
        exceptions: config.exceptions.iter().map(exception_form).collect(),
    };
    toml::to_string(&form).expect("texts, numbers and tables are TOML")
}

fn rule_form(rule: &Rule) -> RuleForm {
    let limits = rule
        .limits
        .iter()
        .map(|(level, limits)| (level.clone(), LimitsForm::of_limits(*limits)));
    RuleForm {
        path: Spanned::new(0..0, rule.path()),
        date_directories: Some(rule.date_directories),
        limits: limits.collect(),
    }
}

fn exception_form(exception: &Exception) -> ExceptionForm {
    let LimitsForm {
        max_bytes,
        max_files,
        max_dirs,
        max_file_size,
    } = LimitsForm::of(exception.limits);
    let path = Spanned::new(0..0, exception.path.clone());
    ExceptionForm {
        path,
        max_bytes,
        max_files,
        max_dirs,
        max_file_size,
    }
}
