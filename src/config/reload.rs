//! What of a configuration can be put into force while the daemon runs, and what counts from its next start on.

use crate::config::Config;

impl Config {
    /// This configuration with all of `read` that counts at once: limits, rules, exceptions, date directories, and whether
    /// the last close waits for the disk. Named is what differs and stays as it is until the daemon starts anew.
    pub fn reloaded(&self, read: Self) -> (Self, Vec<&'static str>) {
        let mut next = self.clone();
        let mut waiting = Vec::new();
        let mut differs = |name, is_same: bool| {
            if !is_same {
                waiting.push(name);
            }
        };
        // Every field is named here, so that a new one has to be decided about.
        let Self {
            mount,
            rules,
            exceptions,
            durability,
            key,
            access,
            service,
            admin,
            tracker,
            alerts,
        } = read;
        let was = (&self.durability, &self.service);
        differs(
            "durability.commit_interval_s",
            was.0.commit_interval_s == durability.commit_interval_s,
        );
        differs(
            "durability.strict_overwrite",
            was.0.strict_overwrite == durability.strict_overwrite,
        );
        differs("key", self.key == key);
        differs("access", self.access == access);
        differs("service.threads", was.1.threads == service.threads);
        differs("admin", self.admin == admin);
        differs("tracker", self.tracker == tracker);
        differs("alerts", self.alerts == alerts);
        next.mount = mount;
        next.rules = rules;
        next.exceptions = exceptions;
        next.durability.sync_on_close = durability.sync_on_close;
        next.service.date_directories = service.date_directories;
        next.service.date_directory_grace_s = service.date_directory_grace_s;
        (next, waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = r#"
[mount]
max_bytes = "1GiB"
[durability]
commit_interval_s = 7
sync_on_close = true
strict_overwrite = true
[key]
file = "/k"
[access]
administrators = "root"
[service]
threads = 3
date_directories = false
date_directory_grace_s = 9
[admin]
open_to_readers = true
[tracker]
auto_reset = false
[alerts]
external_url = "http://here/"
[[exceptions]]
path = "acme"
max_files = 5
"#;

    #[test]
    fn limits_count_at_once_and_the_rest_is_named() {
        let read = Config::parse("t", ALL).unwrap();
        let was = Config::default();
        let (next, waiting) = was.reloaded(read.clone());
        assert_eq!(
            waiting,
            [
                "durability.commit_interval_s",
                "durability.strict_overwrite",
                "key",
                "access",
                "service.threads",
                "admin",
                "tracker",
                "alerts"
            ]
        );
        assert_eq!((&next.mount, &next.exceptions), (&read.mount, &read.exceptions));
        assert!(next.durability.sync_on_close);
        assert!(!next.service.date_directories);
        assert_eq!(next.service.date_directory_grace_s, 9);
        // What is not in force is not told as if it were.
        assert_eq!(next.service.threads, was.service.threads);
        assert_eq!((&next.alerts, &next.key), (&was.alerts, &was.key));
    }

    #[test]
    fn the_same_again_changes_nothing_and_names_nothing() {
        let config = Config::parse("t", ALL).unwrap();
        assert_eq!(config.reloaded(config.clone()), (config, vec![]));
    }
}
