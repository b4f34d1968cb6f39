//! Who gets notices, checked ([`Alerts`], [`Receiver`]) and as it is written.

use super::template::{CountForm, TimeForm};
use super::{Alerts, NoticeKind, Receiver, Way};
use crate::quota::Bound;
use hyper::Uri;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// Three days: a weekend.
const GIVE_UP_AFTER_DEFAULT_S: u64 = 3 * 86_400;
/// Seconds that one attempt may take.
const TIME_LIMIT_DEFAULT_S: u64 = 10;
const TIME_LIMIT_MAX_S: u64 = 60;
/// Longer names are none that anybody types.
const NAME_CHARS_MAX: usize = 64;
/// Longest mail address (RFC 5321).
const ADDRESS_BYTES_MAX: usize = 254;
/// `https://` takes the library that the fast cipher comes from.
const HAS_TLS: bool = cfg!(feature = "aws-lc");

impl Default for Alerts {
    fn default() -> Self {
        Self {
            external_url: String::new(),
            give_up_after_s: Some(GIVE_UP_AFTER_DEFAULT_S),
            attempts_max: None,
            receivers: Vec::new(),
        }
    }
}

#[derive(serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AlertsForm {
    external_url: String,
    give_up_after: TimeForm,
    attempts_max: CountForm,
    receivers: Vec<ReceiverForm>,
}

impl Default for AlertsForm {
    fn default() -> Self {
        Self::of(&Alerts::default())
    }
}

#[derive(serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
struct ReceiverForm {
    name: Spanned<String>,
    url: Option<String>,
    secret_file: Option<String>,
    ca_file: Option<String>,
    exec: Option<Vec<String>>,
    sendmail: Option<String>,
    from: Option<String>,
    to: Option<Vec<String>>,
    kinds: Option<Vec<NoticeKind>>,
    tenant: Option<String>,
    time_limit: Option<TimeForm>,
}

impl AlertsForm {
    /// What is wrong, and where in the text.
    pub(super) fn alerts(self) -> Result<Alerts, (usize, String)> {
        let mut names = HashSet::new();
        let mut receivers = Vec::new();
        for form in self.receivers {
            let (at, name) = (form.name.span().start, form.name.get_ref().clone());
            let wrong = |message: String| (at, format!("alerts.receivers: '{name}': {message}"));
            let receiver = form.receiver().map_err(wrong)?;
            if !names.insert(receiver.name.clone()) {
                return Err(wrong("this name stands twice; each receiver has its own".to_owned()));
            }
            receivers.push(receiver);
        }
        Ok(Alerts {
            external_url: self.external_url,
            give_up_after_s: self.give_up_after.0.limit(),
            attempts_max: self.attempts_max.0.limit(),
            receivers,
        })
    }

    pub(super) fn of(alerts: &Alerts) -> Self {
        let bound = |limit: Option<u64>| limit.map_or(Bound::Unlimited, Bound::At);
        Self {
            external_url: alerts.external_url.clone(),
            give_up_after: TimeForm(bound(alerts.give_up_after_s)),
            attempts_max: CountForm(bound(alerts.attempts_max)),
            receivers: alerts.receivers.iter().map(ReceiverForm::of).collect(),
        }
    }
}

impl ReceiverForm {
    fn receiver(self) -> Result<Receiver, String> {
        let name = self.name.get_ref().clone();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(is_plain) {
            return Err(format!(
                "this is no name of a receiver; allowed: up to {NAME_CHARS_MAX} letters, digits, '.', '_' and '-'"
            ));
        }
        let time_limit_s = self
            .time_limit
            .map_or(Some(TIME_LIMIT_DEFAULT_S), |time| time.0.limit());
        let time_limit_s = time_limit_s.filter(|seconds| (1..=TIME_LIMIT_MAX_S).contains(seconds));
        let (kinds, tenant) = (self.kinds.clone().unwrap_or_default(), self.tenant.clone());
        Ok(Receiver {
            name,
            kinds,
            tenant: tenant.map(|path| path.trim_matches('/').to_owned()),
            time_limit_s: time_limit_s
                .ok_or_else(|| format!("time_limit: allowed are 1 to {TIME_LIMIT_MAX_S} seconds"))?,
            way: self.way()?,
        })
    }

    fn way(self) -> Result<Way, String> {
        let Self {
            url,
            secret_file,
            ca_file,
            exec,
            sendmail,
            from,
            to,
            ..
        } = self;
        if url.is_none() && (secret_file.is_some() || ca_file.is_some()) {
            return Err("secret_file and ca_file belong to a url; name one".to_owned());
        }
        if sendmail.is_none() && (from.is_some() || to.is_some()) {
            return Err("from and to belong to sendmail; name the program, such as /usr/sbin/sendmail".to_owned());
        }
        match (url, exec, sendmail) {
            (Some(url), None, None) => Ok(Way::Webhook {
                url: check_url(url)?,
                secret_file: secret_file.map(PathBuf::from),
                ca_file: ca_file.map(PathBuf::from),
            }),
            (None, Some(command), None) => {
                check_program(command.first().map_or("", String::as_str), "exec")?;
                if command.iter().any(|word| word.contains('\0')) {
                    return Err("exec: a word holds a zero byte; no program takes that".to_owned());
                }
                Ok(Way::Exec { command })
            }
            (None, None, Some(program)) => {
                check_program(&program, "sendmail")?;
                let to = to.unwrap_or_default();
                if to.is_empty() {
                    return Err("to: nobody is named; allowed: to = [\"ops@example.com\"]".to_owned());
                }
                to.iter().chain(&from).try_for_each(|address| check_address(address))?;
                let program = PathBuf::from(program);
                Ok(Way::Mail { program, from, to })
            }
            _ => Err("a receiver has exactly one of url, exec and sendmail".to_owned()),
        }
    }

    fn of(receiver: &Receiver) -> Self {
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        let mut form = Self {
            name: Spanned::new(0..0, receiver.name.clone()),
            url: None,
            secret_file: None,
            ca_file: None,
            exec: None,
            sendmail: None,
            from: None,
            to: None,
            kinds: (!receiver.kinds.is_empty()).then(|| receiver.kinds.clone()),
            tenant: receiver.tenant.clone(),
            time_limit: Some(TimeForm(Bound::At(receiver.time_limit_s))),
        };
        match &receiver.way {
            Way::Webhook {
                url,
                secret_file,
                ca_file,
            } => {
                form.url = Some(url.clone());
                form.secret_file = secret_file.as_ref().map(text);
                form.ca_file = ca_file.as_ref().map(text);
            }
            Way::Exec { command } => form.exec = Some(command.clone()),
            Way::Mail { program, from, to } => {
                form.sendmail = Some(text(program));
                form.from.clone_from(from);
                form.to = Some(to.clone());
            }
        }
        form
    }
}

/// The text is not repeated: somebody may have put a password there.
fn check_url(url: String) -> Result<String, String> {
    let allowed = "allowed: http://HOST[:PORT]/PATH or https://HOST[:PORT]/PATH";
    let uri: Uri = url.parse().map_err(|_| format!("url: this is none; {allowed}"))?;
    let host = uri.host().unwrap_or_default();
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    if authority.contains('@') {
        return Err("url: no user or password here; the signature by secret_file says who sends".to_owned());
    }
    if host.is_empty() || url.contains('#') {
        return Err(format!("url: this is none; {allowed}"));
    }
    match uri.scheme_str() {
        Some("http") => Ok(url),
        Some("https") if HAS_TLS => Ok(url),
        Some("https") => Err(
            "url: this program was built without TLS (feature aws-lc); use http:// to a proxy of \
                              this machine"
                .to_owned(),
        ),
        _ => Err(format!("url: this is none; {allowed}")),
    }
}

fn check_program(path: &str, key: &str) -> Result<(), String> {
    if Path::new(path).is_absolute() && !path.contains('\0') {
        return Ok(());
    }
    Err(format!(
        "{key}: '{path}' is no program; allowed: an absolute path such as /usr/local/bin/page"
    ))
}

/// What goes into a header and onto a command line as it is.
fn check_address(address: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_ascii_graphic() && !"<>,;:\"()[]\\".contains(c);
    let parts = address.split_once('@');
    let is_good = parts.is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty() && !domain.contains('@'));
    if is_good && address.len() <= ADDRESS_BYTES_MAX && address.chars().all(is_plain) && !address.starts_with('-') {
        return Ok(());
    }
    Err(format!("'{address}' is no mail address; allowed: ops@example.com"))
}
