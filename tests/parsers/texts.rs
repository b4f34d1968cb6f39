//! Text that people write: configuration, layouts, amounts, options, keys, and the key ring.

use tallyfs::config::{Config, Rule};
use tallyfs::daemon::key_file;
use tallyfs::daemon::options::MountOptions;
use tallyfs::period::CivilDate;
use tallyfs::quota::LimitOverrides;
use tallyfs::sealed::keyring::KeyRing;
use tallyfs::units::{exact_bytes, format_bytes, parse_bytes};

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

pub fn keyring(bytes: &[u8]) {
    let Ok(ring) = KeyRing::parse(&text(bytes)) else { return };
    let written = ring.to_text().expect("a ring that was read can be written");
    let again = KeyRing::parse(&written).unwrap_or_else(|e| panic!("{e}: {written}"));
    assert_eq!(again.to_text().expect("once more"), written);
}

pub fn config(bytes: &[u8]) {
    let config = match Config::parse("fuzz.toml", &text(bytes)) {
        Ok(config) => config,
        Err(e) => {
            assert!(!e.message.is_empty(), "an error without a word");
            return;
        }
    };
    let written = config.to_toml();
    let again = Config::parse("again.toml", &written).unwrap_or_else(|e| panic!("{e}: {written}"));
    assert_eq!(again, config, "{written}");
    let (today, tomorrow) = (
        CivilDate::from_unix_s(1_795_262_400),
        CivilDate::from_unix_s(1_795_348_800),
    );
    for path in ["", "a", "a/b", "a/2026/11"] {
        let place: Vec<&[u8]> = path
            .split('/')
            .filter(|name| !name.is_empty())
            .map(str::as_bytes)
            .collect();
        let placement = config.placement(&place);
        assert!(placement.policy.limits.bytes != Some(0), "0 is written for no limit");
        let _ = (
            config.date_names(&place, today, tomorrow),
            config.is_past_date(&place, today),
        );
    }
}

pub fn layout(bytes: &[u8]) {
    let Ok(rule) = Rule::from_layout(&text(bytes)) else {
        return;
    };
    let again = Rule::from_layout(&rule.path()).unwrap_or_else(|e| panic!("{e}: {}", rule.path()));
    assert_eq!(again, rule);
}

pub fn units(bytes: &[u8]) {
    let Ok(amount) = parse_bytes(&text(bytes)) else { return };
    assert_eq!(parse_bytes(&exact_bytes(amount)).ok(), Some(amount));
    assert!(!format_bytes(amount).is_empty());
}

pub fn limits(bytes: &[u8]) {
    let Ok(limits) = LimitOverrides::parse(&text(bytes)) else {
        return;
    };
    assert_eq!(LimitOverrides::parse(&limits.to_string()), Ok(limits));
}

pub fn options(bytes: &[u8]) {
    let text = text(bytes);
    let parts: Vec<&str> = text.split('\n').collect();
    let all = MountOptions::parse(&parts);
    if all.is_ok() {
        for part in parts {
            assert!(
                MountOptions::parse(&[part]).is_ok(),
                "{part:?} is refused only when it is alone"
            );
        }
    }
}

pub fn key(bytes: &[u8]) {
    let text = text(bytes);
    if let Err(e) = key_file::from_hex(&text, "the test") {
        let said = e.to_string();
        let secret = text.trim();
        assert!(secret.len() < 8 || !said.contains(secret), "an error repeats the key");
    }
}
