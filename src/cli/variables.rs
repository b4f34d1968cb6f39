//! Variables of the environment that the quota tracker and IronBucket are configured by, for those who come from there.
//! They stand above the configuration file.

use super::exit::{Code, Failure};
use super::request::{Environment, text};
use crate::config::{Admin, Config};
use crate::quota::{Bound, LimitKey};

const HOST_DEFAULT: &str = "127.0.0.1";
const PORT_DEFAULT: &str = "8183";
/// The level that `BUCKET_QUOTA_BYTES` limits.
const TENANT: &str = "tenant";

/// Puts what is set into the configuration.
///
/// # Errors
/// A value that cannot be understood, with the name of its variable.
pub fn apply(config: &mut Config, environment: Environment) -> Result<(), Failure> {
    listen(config, environment)?;
    let limits = &mut config.tracker.limits;
    if let Some(limit) = number::<u64>(environment, "DEFAULT_MESSAGE_LIMIT", "a whole number; 0 = no limit")? {
        limits.messages = Bound::from_number(limit).limit();
    }
    if let Some(limit) = text(environment, "DEFAULT_BANDWIDTH_LIMIT_GB")? {
        let allowed = "a number of units of 2^30 bytes, such as 100 or 0.5; 0 = no limit";
        let bytes = crate::units::parse_bytes(&format!("{}GiB", limit.trim()))
            .map_err(|_| wrong("DEFAULT_BANDWIDTH_LIMIT_GB", &limit, allowed))?;
        limits.bandwidth_bytes = Bound::from_number(bytes).limit();
    }
    if let Some(resets) = number(environment, "ENABLE_AUTO_RESET", "true or false")? {
        config.tracker.auto_reset = resets;
    }
    if let Some(limit) = number::<u64>(environment, "BUCKET_QUOTA_BYTES", "a number of bytes; 0 = no limit")? {
        limit_tenants(config, Bound::from_number(limit));
    }
    // Usage is saved every second in any case; a value that is none is told all the same.
    number::<u64>(environment, "PERSISTENCE_INTERVAL_SECS", "a number of seconds")?;
    number::<u64>(environment, "QUOTA_FLUSH_INTERVAL_MS", "a number of milliseconds")?;
    Ok(())
}

fn listen(config: &mut Config, environment: Environment) -> Result<(), Failure> {
    let (host, port) = (text(environment, "QUOTA_HOST")?, text(environment, "QUOTA_PORT")?);
    if host.is_none() && port.is_none() {
        return Ok(());
    }
    let host = match host.as_deref() {
        None | Some("localhost") => HOST_DEFAULT.to_owned(),
        Some(host) if host.contains(':') => format!("[{host}]"),
        Some(host) => host.to_owned(),
    };
    let port = port.unwrap_or_else(|| PORT_DEFAULT.to_owned());
    let address = Admin::loopback(&format!("{host}:{port}"));
    config.admin.listen =
        Some(address.map_err(|e| Failure::new(Code::Config, format!("QUOTA_HOST, QUOTA_PORT: {e}")))?);
    Ok(())
}

/// Tenants that have no limit of their own get this one.
fn limit_tenants(config: &mut Config, limit: Bound) {
    for rule in &mut config.rules {
        if !rule.levels().contains(&TENANT) {
            continue;
        }
        let template = rule.limits.entry(TENANT.to_owned()).or_default();
        if template.limits.get(LimitKey::MaxBytes).is_none() {
            template.limits = std::mem::take(&mut template.limits).with(LimitKey::MaxBytes, Some(limit));
        }
    }
}

fn number<T: std::str::FromStr>(environment: Environment, name: &str, allowed: &str) -> Result<Option<T>, Failure> {
    let Some(value) = text(environment, name)? else {
        return Ok(None);
    };
    value.trim().parse().map(Some).map_err(|_| wrong(name, &value, allowed))
}

fn wrong(name: &str, value: &str, allowed: &str) -> Failure {
    Failure::new(Code::Config, format!("{name}: '{value}' is not allowed; {allowed}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Tracker;

    fn applied(variables: &[(&str, &str)]) -> Result<Config, Failure> {
        let mut config = Config::default();
        let environment = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.into())
        };
        apply(&mut config, &environment)?;
        Ok(config)
    }

    #[test]
    fn names_of_the_quota_tracker_and_of_ironbucket_count() {
        assert_eq!(applied(&[]).unwrap(), Config::default());
        let config = applied(&[
            ("QUOTA_PORT", "9000"),
            ("DEFAULT_MESSAGE_LIMIT", "7"),
            ("DEFAULT_BANDWIDTH_LIMIT_GB", "0.5"),
            ("ENABLE_AUTO_RESET", "false"),
            ("BUCKET_QUOTA_BYTES", "1000"),
            ("PERSISTENCE_INTERVAL_SECS", "60"),
        ])
        .unwrap();
        assert_eq!(config.admin.listen.unwrap().to_string(), "127.0.0.1:9000");
        let Tracker { limits, auto_reset } = config.tracker;
        assert_eq!(
            (limits.messages, limits.bandwidth_bytes, auto_reset),
            (Some(7), Some(1 << 29), false)
        );
        assert_eq!(config.placement(&[b"acme"]).policy.limits.bytes, Some(1000));
        assert_eq!(config.placement(&[]).policy.limits.bytes, None);
        assert_eq!(
            applied(&[("QUOTA_HOST", "::1")])
                .unwrap()
                .admin
                .listen
                .unwrap()
                .to_string(),
            "[::1]:8183"
        );
    }

    #[test]
    fn what_is_no_value_is_named() {
        for (name, value) in [
            ("QUOTA_HOST", "0.0.0.0"),
            ("QUOTA_PORT", "http"),
            ("DEFAULT_MESSAGE_LIMIT", "many"),
            ("DEFAULT_BANDWIDTH_LIMIT_GB", "-1"),
            ("ENABLE_AUTO_RESET", "maybe"),
            ("QUOTA_FLUSH_INTERVAL_MS", "1s"),
        ] {
            let failure = applied(&[(name, value)]).unwrap_err();
            assert!(failure.text.contains(name), "{}", failure.text);
        }
    }
}
