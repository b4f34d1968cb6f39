//! Path rules: which level a directory is, which limits it starts with, which date directories it has.
//!
//! A rule is a list of segments, one per path component. A segment is a placeholder `{name}` (any component, an account
//! of level `name`), `*` (any component, no level), a literal, or text with date tokens `%Y` `%m` `%d` `%b`.

use super::template::Template;
use crate::period::{CivilDate, is_month_name};
use std::collections::BTreeMap;
use std::fmt;

/// The level that pays: its name in rules.
const TENANT: &str = "tenant";

/// Directories that FreeSWITCH's mod_sndfile looks for below the one it records into. They are nobody's account.
const RATE_NAMES: [&[u8]; 4] = [b"8000", b"16000", b"32000", b"48000"];

/// One path rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// One per component, from the mount down.
    pub segments: Vec<Segment>,
    /// The directories of its dates always exist for a look-up.
    pub date_directories: bool,
    /// Limits by level name.
    pub limits: BTreeMap<String, Template>,
}

/// What one path component has to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Segment {
    /// `{name}`: anything; an account of this level.
    Placeholder(String),
    /// `*`: anything; no level.
    Any,
    /// Exactly this.
    Literal(String),
    /// Text with at least one date token.
    Date(Vec<DatePart>),
}

/// A piece of a [`Segment::Date`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DatePart {
    /// `%Y`: four digits.
    Year,
    /// `%m`: 01 to 12.
    Month,
    /// `%d`: 01 to 31.
    Day,
    /// `%b`: Jan to Dec.
    MonthName,
    /// Anything else, as it is.
    Text(String),
}

impl Rule {
    /// A rule without limits, with date directories where its path has a place for them.
    ///
    /// # Errors
    /// Says which segment is wrong and what is allowed.
    pub fn from_layout(path: &str) -> Result<Self, String> {
        let segments = parse_path(path)?;
        let mut rule = Self {
            segments,
            date_directories: false,
            limits: BTreeMap::new(),
        };
        rule.date_directories = rule.has_date_slots();
        Ok(rule)
    }

    /// The path as it is written.
    pub fn path(&self) -> String {
        let segments: Vec<String> = self.segments.iter().map(Segment::to_string).collect();
        segments.join("/")
    }

    /// Names of its levels, outermost first.
    pub fn levels(&self) -> Vec<&str> {
        (0..self.segments.len()).filter_map(|index| self.level(index)).collect()
    }

    pub(super) fn level(&self, index: usize) -> Option<&str> {
        match self.segments.get(index)? {
            Segment::Placeholder(name) => Some(name),
            _ => None,
        }
    }

    pub(super) fn tenant_index(&self) -> Option<usize> {
        (0..self.segments.len()).find(|index| self.level(*index) == Some(TENANT))
    }

    /// The rule says something about this directory: its first segments match all components.
    pub(super) fn governs(&self, components: &[&[u8]]) -> bool {
        self.segments.len() >= components.len() && self.matches_with(components, Segment::matches)
    }

    fn matches_with(&self, components: &[&[u8]], fits: impl Fn(&Segment, &[u8]) -> bool) -> bool {
        let first_placeholder = self
            .segments
            .iter()
            .position(|segment| matches!(segment, Segment::Placeholder(_)));
        self.segments
            .iter()
            .zip(components)
            .enumerate()
            .all(|(index, (segment, component))| {
                let is_account = matches!(segment, Segment::Placeholder(_)) && first_placeholder != Some(index);
                fits(segment, component) && !(is_account && RATE_NAMES.contains(component))
            })
    }

    /// There is a directory below a tenant whose next component is a date or leads to one.
    pub(super) fn has_date_slots(&self) -> bool {
        (0..self.segments.len()).any(|depth| self.date_slot(depth).is_some())
    }

    /// The segment at `depth`, when it lies below the tenant and is a date or leads to one without a choice.
    fn date_slot(&self, depth: usize) -> Option<&Segment> {
        if self.tenant_index()? >= depth {
            return None;
        }
        let fixed = self
            .segments
            .get(depth..)?
            .iter()
            .take_while(|segment| segment.is_fixed());
        let mut dates = fixed.filter(|segment| matches!(segment, Segment::Date(_)));
        dates.next()?;
        self.segments.get(depth)
    }

    pub(super) fn is_date_slot(&self, parent: &[&[u8]]) -> bool {
        self.date_slot(parent.len()).is_some() && self.governs(parent)
    }

    /// The name that has to be in `parent` on this day; `None` when parent is of another day.
    pub(super) fn date_name(&self, parent: &[&[u8]], day: CivilDate) -> Option<String> {
        let next = self.date_slot(parent.len())?;
        let of_the_day = |segment: &Segment, component: &[u8]| match segment {
            Segment::Date(_) => segment.name_on(day).is_some_and(|name| name.as_bytes() == component),
            _ => segment.matches(component),
        };
        if !self.matches_with(parent, of_the_day) {
            return None;
        }
        next.name_on(day)
    }
}

impl Segment {
    fn is_fixed(&self) -> bool {
        matches!(self, Self::Literal(_) | Self::Date(_))
    }

    fn matches(&self, component: &[u8]) -> bool {
        match self {
            Self::Placeholder(_) | Self::Any => true,
            Self::Literal(text) => text.as_bytes() == component,
            Self::Date(parts) => {
                let rest = parts.iter().try_fold(component, |rest, part| part.strip(rest));
                rest.is_some_and(<[u8]>::is_empty)
            }
        }
    }

    /// The name on this day, for a segment that leaves no choice.
    fn name_on(&self, day: CivilDate) -> Option<String> {
        match self {
            Self::Placeholder(_) | Self::Any => None,
            Self::Literal(text) => Some(text.clone()),
            Self::Date(parts) => Some(parts.iter().map(|part| part.on(day)).collect()),
        }
    }
}

impl DatePart {
    fn on(&self, day: CivilDate) -> String {
        match self {
            Self::Year => format!("{:04}", day.year),
            Self::Month => format!("{:02}", day.month),
            Self::Day => format!("{:02}", day.day),
            Self::MonthName => day.month_name().to_owned(),
            Self::Text(text) => text.clone(),
        }
    }

    /// What follows this part at the beginning of `text`.
    pub(super) fn strip<'a>(&self, text: &'a [u8]) -> Option<&'a [u8]> {
        let (width, valid): (usize, fn(&[u8]) -> bool) = match self {
            Self::Year => (4, |digits| number(digits).is_some()),
            Self::Month => (2, |digits| number(digits).is_some_and(|n| (1..=12).contains(&n))),
            Self::Day => (2, |digits| number(digits).is_some_and(|n| (1..=31).contains(&n))),
            Self::MonthName => (3, is_month_name),
            Self::Text(literal) => return text.strip_prefix(literal.as_bytes()),
        };
        let (head, rest) = text.split_at_checked(width)?;
        valid(head).then_some(rest)
    }
}

fn number(digits: &[u8]) -> Option<u32> {
    let only_digits = digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| only_digits)?.parse().ok()
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Placeholder(name) => write!(f, "{{{name}}}"),
            Self::Any => f.write_str("*"),
            Self::Literal(text) => f.write_str(&text.replace('%', "%%")),
            Self::Date(parts) => parts.iter().try_for_each(|part| match part {
                DatePart::Year => f.write_str("%Y"),
                DatePart::Month => f.write_str("%m"),
                DatePart::Day => f.write_str("%d"),
                DatePart::MonthName => f.write_str("%b"),
                DatePart::Text(text) => f.write_str(&text.replace('%', "%%")),
            }),
        }
    }
}

/// Reads the path of a rule.
pub(super) fn parse_path(path: &str) -> Result<Vec<Segment>, String> {
    let allowed = "allowed: components separated by '/', each {name}, *, a name, or text with %Y %m %d %b (%% for a \
                   percent sign), such as {tenant}/archive/%Y/%b/%d";
    let mut segments: Vec<Segment> = Vec::new();
    for text in path.split('/') {
        let segment = parse_segment(text).map_err(|reason| format!("path '{path}': {reason}; {allowed}"))?;
        if matches!(segment, Segment::Placeholder(_)) && segments.contains(&segment) {
            return Err(format!("path '{path}': {segment} stands twice; each level once"));
        }
        segments.push(segment);
    }
    Ok(segments)
}

fn parse_segment(text: &str) -> Result<Segment, String> {
    if text == "*" {
        return Ok(Segment::Any);
    }
    if let Some(name) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        let valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        return match name {
            "" => Err("a placeholder without a name".to_owned()),
            _ if name.chars().all(valid) => Ok(Segment::Placeholder(name.to_owned())),
            _ => Err(format!(
                "placeholder '{text}' has other characters than letters, digits, '_' and '-'"
            )),
        };
    }
    if text.is_empty() || text == "." || text == ".." {
        return Err(format!("component '{text}' is no name"));
    }
    if text.contains(['{', '}', '*', '\0']) {
        return Err(format!("'{text}' mixes a placeholder with text"));
    }
    let parts = parse_date_parts(text)?;
    match parts.as_slice() {
        [DatePart::Text(literal)] => Ok(Segment::Literal(literal.clone())),
        _ => Ok(Segment::Date(parts)),
    }
}

fn parse_date_parts(text: &str) -> Result<Vec<DatePart>, String> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            literal.push(c);
            continue;
        }
        let token = match rest.next() {
            Some('%') => {
                literal.push('%');
                continue;
            }
            Some('Y') => DatePart::Year,
            Some('m') => DatePart::Month,
            Some('d') => DatePart::Day,
            Some('b') => DatePart::MonthName,
            other => {
                return Err(format!(
                    "unknown token '%{}'",
                    other.map(String::from).unwrap_or_default()
                ));
            }
        };
        if !literal.is_empty() {
            parts.push(DatePart::Text(std::mem::take(&mut literal)));
        }
        parts.push(token);
    }
    if !literal.is_empty() {
        parts.push(DatePart::Text(literal));
    }
    Ok(parts)
}
