//! Configuration: TOML as written (`form`) and the checked form ([`Config`]).
//!
//! Pure: the caller reads the file and the environment, and applies overrides to the public fields. Path rules are in
//! `rule`; a limit of 0 or `"none"` in a file is unlimited.

mod admin;
mod alerts;
mod form;
mod past;
mod reload;
mod rule;
mod template;

pub use admin::{Admin, AdminSocket, Scope, Token, Tracker};
pub use rule::{DatePart, Rule, Segment};
pub use template::Template;

use crate::period::CivilDate;
use crate::quota::{Limits, Policy};
use std::fmt;
use std::path::PathBuf;

/// Rules that hold when none are written. They name levels and the usual layouts, limit nothing and make no directories.
const DEFAULT_LAYOUTS: [&str; 3] = ["{tenant}/%Y/%m/%d", "{tenant}/archive/%Y/%b/%d", "{tenant}/%Y-%m-%d"];

/// The checked configuration. `Default` is what holds without a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Limits of the mount as a whole; its time zone and steps of warnings are those of all places that name none.
    pub mount: Template,
    /// Path rules, the first match decides.
    pub rules: Vec<Rule>,
    /// Limits of single directories, over those of the rules.
    pub exceptions: Vec<Exception>,
    /// What a power cut may cost.
    pub durability: Durability,
    /// Where the key comes from.
    pub key: KeySource,
    /// Who may steer.
    pub access: Access,
    /// The daemon.
    pub service: Service,
    /// The interface for programs.
    pub admin: Admin,
    /// Counters that programs feed.
    pub tracker: Tracker,
    /// Who gets notices.
    pub alerts: Alerts,
}

/// Who gets notices, and for how long is tried.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alerts {
    /// What links in notices begin with; empty: none.
    pub external_url: String,
    /// A notice that was not taken for so long is given up, in seconds; `None`: never.
    pub give_up_after_s: Option<u64>,
    /// So many attempts at most; `None`: time alone decides.
    pub attempts_max: Option<u64>,
    /// In the order of the file.
    pub receivers: Vec<Receiver>,
}

/// Somebody who gets notices.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Receiver {
    /// One of its own; what waits for it is kept under this name.
    pub name: String,
    /// How.
    pub way: Way,
    /// Of these alone; empty: of all.
    pub kinds: Vec<NoticeKind>,
    /// Path of a tenant: what is about it alone.
    pub tenant: Option<String>,
    /// Seconds that one attempt may take.
    pub time_limit_s: u64,
}

/// How a notice gets to a receiver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Way {
    /// An HTTP request.
    Webhook {
        /// `http://` or `https://`.
        url: String,
        /// File with the secret that requests are signed with; `None`: they are not.
        secret_file: Option<PathBuf>,
        /// Certificates that are trusted instead of the system's.
        ca_file: Option<PathBuf>,
    },
    /// A program.
    Exec {
        /// Its absolute path, and arguments.
        command: Vec<String>,
    },
    /// A mail, through a program that takes it as `sendmail` does.
    Mail {
        /// Its absolute path.
        program: PathBuf,
        /// Sender; `None`: `tallyfs` at this machine.
        from: Option<String>,
        /// Recipients.
        to: Vec<String>,
    },
}

/// What a notice is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// A warning step is reached.
    NearLimit,
    /// A soft limit is passed, or usage is below it again.
    OverSoft,
    /// A limit refuses.
    Refused,
    /// The clock went ahead.
    Clock,
    /// Usage cannot be saved, or can be again.
    Database,
    /// Somebody asked for it.
    Test,
}

/// Limits of one directory that replace those of the rule, each on its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exception {
    /// Path relative to the mount.
    pub path: String,
    /// What replaces the template.
    pub template: Template,
}

/// When data becomes durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Durability {
    /// Recordings are synced this often while they grow; 0 = never by itself.
    pub commit_interval_s: u32,
    /// The last close waits for the disk.
    pub sync_on_close: bool,
    /// Overwrites in place wait for the copy that a torn write is mended from.
    pub strict_overwrite: bool,
}

/// Where the key comes from.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct KeySource {
    /// Key file; `None` leaves the other sources.
    pub file: Option<PathBuf>,
    /// A program and its arguments that prints the key; empty = none.
    pub command: Vec<String>,
}

/// Who may steer.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Access {
    /// Group whose members may set limits, by name or number; without one, root and the daemon's own user alone.
    pub administrators: Option<String>,
}

/// The daemon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Service {
    /// Threads that answer requests; 0 = chosen by the number of cores.
    pub threads: u32,
    /// Date directories are made on demand, where a rule says so.
    pub date_directories: bool,
    /// Directories younger than this get none: a caller may be making them.
    pub date_directory_grace_s: u32,
}

impl Default for Durability {
    fn default() -> Self {
        Self {
            commit_interval_s: 5,
            sync_on_close: false,
            strict_overwrite: false,
        }
    }
}

impl Default for Service {
    fn default() -> Self {
        Self {
            threads: 0,
            date_directories: true,
            date_directory_grace_s: 5,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mount: Template::default(),
            rules: default_rules(),
            exceptions: Vec::new(),
            durability: Durability::default(),
            key: KeySource::default(),
            access: Access::default(),
            service: Service::default(),
            admin: Admin::default(),
            tracker: Tracker::default(),
            alerts: Alerts::default(),
        }
    }
}

fn default_rules() -> Vec<Rule> {
    let quiet = |path: &&str| {
        let rule = Rule::from_layout(path).expect("the default layouts are valid");
        Rule {
            date_directories: false,
            ..rule
        }
    };
    DEFAULT_LAYOUTS.iter().map(quiet).collect()
}

/// What is wrong with a configuration, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// The file as the caller names it.
    pub file: String,
    /// Line, from 1, where known.
    pub line: Option<usize>,
    /// Key and what is allowed.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

impl std::error::Error for ConfigError {}

/// What the configuration says about one directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placement<'a> {
    /// Name of its level, when it stands where a rule has a placeholder.
    pub level: Option<&'a str>,
    /// It is a tenant.
    pub is_tenant: bool,
    /// Its limits, where its days begin and when to warn.
    pub policy: Policy,
}

impl Config {
    /// Reads a configuration. `file` is named in errors.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line and what is allowed.
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        form::parse(file, text)
    }

    /// The effective form. Reads back as the same configuration (a key file's name that is no UTF-8, which only an
    /// override can give, is shown lossy).
    pub fn to_toml(&self) -> String {
        form::to_toml(self)
    }

    /// Puts rules for these layouts before the others, with date directories on: `--layout`.
    ///
    /// # Errors
    /// Says which layout is wrong and what is allowed.
    pub fn add_layouts(&mut self, layouts: &[String]) -> Result<(), String> {
        let added: Vec<Rule> = layouts
            .iter()
            .map(|path| Rule::from_layout(path))
            .collect::<Result<_, _>>()?;
        self.rules.splice(0..0, added);
        Ok(())
    }

    /// Level, tenant and limits of a directory, by its path components below the mount; none of them: the mount.
    pub fn placement(&self, components: &[&[u8]]) -> Placement<'_> {
        let Some(last) = components.len().checked_sub(1) else {
            return Placement {
                level: None,
                is_tenant: false,
                policy: self.policy(components, Some(&self.mount)),
            };
        };
        let rule = self.rules.iter().find(|rule| rule.governs(components));
        let level = rule.and_then(|rule| rule.level(last));
        let is_tenant = rule.map_or(last == 0, |rule| rule.tenant_index() == Some(last));
        let template = level.zip(rule).and_then(|(level, rule)| rule.limits.get(level));
        Placement {
            level,
            is_tenant,
            policy: self.policy(components, template),
        }
    }

    /// What the exception of a directory says over the template of its level.
    fn policy(&self, components: &[&[u8]], level: Option<&Template>) -> Policy {
        let here = |exception: &&Exception| {
            exception
                .path
                .split('/')
                .map(str::as_bytes)
                .eq(components.iter().copied())
        };
        let exception = self.exceptions.iter().find(here).map(|exception| &exception.template);
        let mut policy = Policy {
            limits: Limits::NONE,
            zone: self.mount.zone.clone().unwrap_or_default(),
            steps: self.mount.steps.unwrap_or_default(),
        };
        for template in [level, exception].into_iter().flatten() {
            policy.limits = template.limits.over(policy.limits);
            policy.zone = template.zone.clone().unwrap_or(policy.zone);
            policy.steps = template.steps.unwrap_or(policy.steps);
        }
        policy
    }

    /// Names that have to exist in a directory today and tomorrow: the next segments of rules with date directories, on the
    /// way to and through their dates. Empty for most directories.
    pub fn date_names(&self, parent: &[&[u8]], today: CivilDate, tomorrow: CivilDate) -> Vec<String> {
        let mut names = Vec::new();
        for rule in self.dated_rules(parent) {
            for day in [today, tomorrow] {
                if let Some(name) = rule.date_name(parent, day).filter(|name| !names.contains(name)) {
                    names.push(name);
                }
            }
        }
        names
    }

    /// True where [`Config::date_names`] has an answer on some day: there a name that does not exist now may exist
    /// tomorrow without anybody making it, so it must not be remembered as absent.
    pub fn is_date_slot(&self, parent: &[&[u8]]) -> bool {
        self.dated_rules(parent).any(|rule| rule.is_date_slot(parent))
    }

    /// Rules with date directories that match `parent` and see the same levels above it as the first of them does:
    /// `acme/archive/2026` of an archive rule is not also an agent that has days of its own.
    fn dated_rules<'a>(&'a self, parent: &'a [&[u8]]) -> impl Iterator<Item = &'a Rule> {
        let on = self.service.date_directories;
        let mut matching = self
            .rules
            .iter()
            .filter(move |rule| on && rule.date_directories && rule.governs(parent));
        let first = matching.next();
        let levels = move |rule: &'a Rule| (0..parent.len()).map(move |index| rule.level(index));
        let agrees = move |rule: &&'a Rule| first.is_some_and(|first| levels(first).eq(levels(rule)));
        first.into_iter().chain(matching.filter(agrees))
    }
}

#[cfg(test)]
mod tests;
