//! The configuration as it is written: TOML in, the checked form out, and back.
//!
//! Unknown keys are errors. What serde can see is checked while it reads, so that errors carry a line.

use super::admin::{AdminForm, TrackerForm};
use super::alerts::AlertsForm;
use super::rule::{Rule, parse_path};
use super::template::{ExceptionForm, LimitsForm};
use super::{Access, Config, ConfigError, Durability, Exception, KeySource, Service, default_rules};
use serde::de::{self, Deserialize, Deserializer};
use std::collections::{BTreeMap, HashSet};
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
    #[serde(default)]
    admin: AdminForm,
    #[serde(default)]
    tracker: TrackerForm,
    #[serde(default)]
    alerts: AlertsForm,
    rules: Option<Vec<RuleForm>>,
    #[serde(default)]
    exceptions: Vec<ExceptionForm>,
}

#[derive(serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
struct RuleForm {
    path: Spanned<String>,
    date_directories: Option<bool>,
    #[serde(default)]
    limits: BTreeMap<String, LimitsForm>,
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
    #[serde(default)]
    command: Vec<String>,
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
        mount: form.mount.template(),
        rules,
        exceptions: exceptions.collect::<Result<_, _>>()?,
        durability: Durability {
            commit_interval_s,
            sync_on_close,
            strict_overwrite,
        },
        key: KeySource {
            file: form.key.file.map(Into::into),
            command: form.key.command,
        },
        access: Access {
            administrators: form.access.administrators,
        },
        service: Service {
            threads,
            date_directories,
            date_directory_grace_s,
        },
        admin: form.admin.admin(),
        tracker: form.tracker.tracker(),
        alerts: form.alerts.alerts().map_err(|(at, message)| Wrong { at, message })?,
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
        .map(|(level, limits)| (level, limits.template()))
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
    let at = form.at();
    let (path, template) = form.parts();
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
    Ok(Exception { path, template })
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
        mount: LimitsForm::of(&config.mount),
        durability: DurabilityForm {
            commit_interval_s,
            sync_on_close,
            strict_overwrite,
        },
        key: KeyForm {
            file: config.key.file.as_ref().map(|file| file.to_string_lossy().into_owned()),
            command: config.key.command.clone(),
        },
        access: AccessForm {
            administrators: config.access.administrators.clone(),
        },
        service: ServiceForm {
            threads,
            date_directories,
            date_directory_grace_s,
        },
        admin: AdminForm::of(&config.admin),
        tracker: TrackerForm::of(config.tracker),
        alerts: AlertsForm::of(&config.alerts),
        rules: Some(config.rules.iter().map(rule_form).collect()),
        exceptions: config
            .exceptions
            .iter()
            .map(|exception| ExceptionForm::of(&exception.path, &exception.template))
            .collect(),
    };
    toml::to_string(&form).expect("texts, numbers and tables are TOML")
}

fn rule_form(rule: &Rule) -> RuleForm {
    let limits = rule
        .limits
        .iter()
        .map(|(level, template)| (level.clone(), LimitsForm::of(template)));
    RuleForm {
        path: Spanned::new(0..0, rule.path()),
        date_directories: Some(rule.date_directories),
        limits: limits.collect(),
    }
}
