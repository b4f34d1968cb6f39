//! Which date directories are over, so that the daemon may remove them when they are empty.

use crate::config::Config;
use crate::config::rule::{DatePart, Rule, Segment};
use crate::period::{CivilDate, month_of_name};

impl Config {
    /// Whether directories are placed by rules, so that a move can change what governs them.
    pub fn has_rules(&self) -> bool {
        !self.rules.is_empty() || !self.exceptions.is_empty()
    }

    /// Whether any rule asks for date directories.
    pub fn has_date_directories(&self) -> bool {
        self.service.date_directories && self.rules.iter().any(|rule| rule.date_directories)
    }

    /// Whether names in this directory are tenants of a rule with date directories.
    pub fn is_tenant_slot(&self, components: &[&[u8]]) -> bool {
        let mut rules = self
            .rules
            .iter()
            .filter(|rule| rule.date_directories && rule.governs(components));
        self.service.date_directories && rules.any(|rule| rule.tenant_index() == Some(components.len()))
    }

    /// Whether a directory is a date directory of a rule and every day that it stands for lies before
    /// `day`.
    pub fn is_past_date(&self, components: &[&[u8]], day: CivilDate) -> bool {
        let mut rules = self
            .rules
            .iter()
            .filter(|rule| rule.date_directories && rule.governs(components));
        self.service.date_directories && rules.any(|rule| rule.last_day(components).is_some_and(|last| last < day))
    }
}

impl Rule {
    /// The last day that a directory stands for: `2026/02` for the 28th. `None` unless its own name
    /// is a date and a year is known.
    fn last_day(&self, components: &[&[u8]]) -> Option<CivilDate> {
        if !matches!(self.segments.get(components.len().checked_sub(1)?)?, Segment::Date(_)) {
            return None;
        }
        let (mut year, mut month, mut day) = (None, None, None);
        for (segment, component) in self.segments.iter().zip(components) {
            let Segment::Date(parts) = segment else { continue };
            let mut rest = *component;
            for part in parts {
                let behind = part.strip(rest)?;
                let text = std::str::from_utf8(&rest[..rest.len() - behind.len()]).ok()?;
                match part {
                    DatePart::Year => year = text.parse().ok(),
                    DatePart::Month => month = text.parse().ok(),
                    DatePart::Day => day = text.parse().ok(),
                    DatePart::MonthName => month = month_of_name(text.as_bytes()),
                    DatePart::Text(_) => {}
                }
                rest = behind;
            }
        }
        let (year, month) = (year?, month.unwrap_or(12));
        match day {
            Some(day) => CivilDate::new(year, month, day),
            None => (28..=31).rev().find_map(|day| CivilDate::new(year, month, day)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_past(path: &str) -> bool {
        let text = "[[rules]]\npath = \"{tenant}/archive/%Y/%b/%d\"\ndate_directories = true\n";
        let config = Config::parse("test", text).unwrap();
        let components: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
        config.is_past_date(&components, CivilDate::new(2026, 3, 10).unwrap())
    }

    #[test]
    fn a_directory_is_past_when_its_last_day_is() {
        for path in ["acme/archive/2025", "acme/archive/2026/Feb", "acme/archive/2026/Mar/09"] {
            assert!(is_past(path), "{path}");
        }
        for path in [
            "acme/archive/2026",
            "acme/archive/2026/Mar",
            "acme/archive/2026/Mar/10",
            "acme/archive",
            "acme",
            "acme/x/2025",
        ] {
            assert!(!is_past(path), "{path}");
        }
    }
}
