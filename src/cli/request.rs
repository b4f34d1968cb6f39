//! What a mount is to do: command line over environment over configuration file.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::args::{KeyArgs, MountArgs, SettingsArgs};
use super::exit::{Code, Failure};
use super::variables;
use crate::config::{Config, KeySource};
use crate::daemon::MountRequest;
use crate::daemon::inheritance::Inheritance;
use crate::daemon::key_file;
use crate::daemon::key_source::{CREDENTIAL, KeyChoice};
use crate::daemon::notify::Notifier;
use crate::daemon::options::MountOptions;
use crate::daemon::reload::Reread;
use crate::quota::{Bound, LimitKey};
use crate::units::parse_bytes;

/// The environment as a function, so that tests have their own.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Merges everything that says how to mount. `-o` counts as command line, after the long options.
///
/// # Errors
/// What cannot be read or understood, each with its name.
pub fn build(args: MountArgs, environment: Environment) -> Result<MountRequest, Failure> {
    let options = MountOptions::parse(&args.options).map_err(|e| Failure::new(Code::Config, e))?;
    let (config, key) = settings(&args.settings, &options, environment)?;
    Ok(MountRequest {
        store: args.store,
        mount_point: args.mount_point,
        options,
        config,
        key,
        credentials: environment("CREDENTIALS_DIRECTORY").map(PathBuf::from),
        notifier: Notifier::from_env(environment),
        inheritance: Inheritance::take(environment),
        // mount(8) waits until it is ready, and keeps nothing after that.
        is_kept: !args.detached,
        reread: None,
    })
}

/// How the configuration is read again as [`build`] reads it; `None` where no file is named, for nothing else can change.
pub fn reread(args: &MountArgs, environment: fn(&str) -> Option<OsString>) -> Option<Reread> {
    let options = MountOptions::parse(&args.options).ok()?;
    let settings = args.settings.clone();
    settings.config.as_ref().or(options.config_file.as_ref())?;
    Some(Box::new(move || {
        config(&settings, &options, &environment).map_err(|failure| failure.text)
    }))
}

/// Configuration and key that a store is used under.
///
/// # Errors
/// As [`build`].
pub fn settings(
    args: &SettingsArgs,
    options: &MountOptions,
    environment: Environment,
) -> Result<(Config, KeyChoice), Failure> {
    let config = config(args, options, environment)?;
    let mut key = args.key.clone();
    if key.key_file.is_empty() {
        key.key_file.extend(options.key_file.clone());
    }
    let key = choose_key(&key, &config.key, environment)?;
    Ok((config, key))
}

/// The configuration as command line, environment and file say together.
///
/// # Errors
/// As [`build`].
pub fn config(args: &SettingsArgs, options: &MountOptions, environment: Environment) -> Result<Config, Failure> {
    let config_file = args.config.as_ref().or(options.config_file.as_ref());
    let mut config = match config_file {
        Some(path) => read_config(path)?,
        None => Config::default(),
    };
    variables::apply(&mut config, environment)?;
    let limit = match args.limit {
        Some(limit) => Some(limit),
        None => lesser_limit(options, environment)?,
    };
    if let Some(limit) = limit {
        let bound = Some(Bound::from_number(limit));
        config.mount.limits = config.mount.limits.with(LimitKey::MaxBytes, bound);
    }
    config
        .add_layouts(&args.layout)
        .map_err(|e| Failure::new(Code::Config, format!("--layout: {e}")))?;
    Ok(config)
}

/// Where keys come from; the first of these that is there: files that were named, a credential of systemd, a command, the
/// environment, the file of the configuration, beside the store.
///
/// # Errors
/// A variable that holds no key.
pub fn choose_key(named: &KeyArgs, configured: &KeySource, environment: Environment) -> Result<KeyChoice, Failure> {
    if !named.key_file.is_empty() {
        return Ok(KeyChoice::Files(named.key_file.clone()));
    }
    let credentials = environment("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    if let Some(dir) = credentials.filter(|dir| dir.join(CREDENTIAL).exists()) {
        return Ok(KeyChoice::Credentials(dir));
    }
    let words = match &named.key_command {
        Some(command) => command.split_whitespace().map(str::to_owned).collect(),
        None => configured.command.clone(),
    };
    if !words.is_empty() {
        return Ok(KeyChoice::Command(words));
    }
    Ok(match (environment_key(environment)?, &configured.file) {
        (Some(key), _) => KeyChoice::Environment(key),
        (None, Some(path)) => KeyChoice::Files(vec![path.clone()]),
        (None, None) => KeyChoice::Beside,
    })
}

/// Reads and checks a configuration file.
///
/// # Errors
/// What cannot be read; what is wrong in it, with its line.
pub fn read_config(path: &Path) -> Result<Config, Failure> {
    let name = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|e| {
        let text = format!("{name}: cannot read the configuration: {e}");
        Failure::new(Code::Config, text)
    })?;
    Config::parse(&name, &text).map_err(|e| Failure::new(Code::Config, e))
}

/// `-o limit=`, then `MAX_STORAGE_GB`.
fn lesser_limit(options: &MountOptions, environment: Environment) -> Result<Option<u64>, Failure> {
    let (name, text) = match (&options.limit, text(environment, "MAX_STORAGE_GB")?) {
        (Some(text), _) => ("-o limit", text.clone()),
        (None, Some(text)) => ("MAX_STORAGE_GB", format!("{}GiB", text.trim())),
        (None, None) => return Ok(None),
    };
    match parse_bytes(&text) {
        Ok(limit) => Ok(Some(limit)),
        Err(e) => Err(Failure::new(Code::Config, format!("{name}: {e}"))),
    }
}

/// A variable's text; an empty one counts as not set.
pub(super) fn text(environment: Environment, name: &str) -> Result<Option<String>, Failure> {
    let Some(value) = environment(name).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    match value.into_string() {
        Ok(text) => Ok(Some(text)),
        // The value is not repeated: it may be a key.
        Err(value) => {
            drop(Zeroizing::new(value.into_encoded_bytes()));
            Err(Failure::new(
                Code::Config,
                format!("{name}: not plain text; set it again"),
            ))
        }
    }
}

fn environment_key(environment: Environment) -> Result<Option<key_file::KekBytes>, Failure> {
    let Some(hex) = text(environment, "ENCRYPTION_KEY")?.map(Zeroizing::new) else {
        return Ok(None);
    };
    match key_file::from_hex(&hex, "ENCRYPTION_KEY") {
        Ok(key) => Ok(Some(key)),
        Err(e) => Err(Failure::new(Code::Key, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command};
    use clap::Parser;

    const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn request(words: &[&str], variables: &[(&str, &str)]) -> Result<MountRequest, Failure> {
        let words = ["tallyfs", "mount", "/s", "/m"].iter().chain(words);
        let Command::Mount(args) = Cli::try_parse_from(words).unwrap().command else {
            panic!("not mount")
        };
        build(args, &|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.into())
        })
    }

    /// `None`: unlimited, whether or not that is written.
    fn limit(words: &[&str], variables: &[(&str, &str)]) -> Option<u64> {
        request(words, variables)
            .unwrap()
            .config
            .mount
            .limits
            .get(LimitKey::MaxBytes)
            .and_then(Bound::limit)
    }

    #[test]
    fn the_command_line_wins_over_options_environment_and_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t.toml");
        fs::write(&file, "[mount]\nmax_bytes = \"1GiB\"\n").unwrap();
        let config = ["--config", file.to_str().unwrap()];
        let variables = [("MAX_STORAGE_GB", "2")];
        assert_eq!(limit(&config, &[]), Some(1 << 30));
        assert_eq!(limit(&config, &variables), Some(2 << 30));
        let with_option = [&config[..], &["-o", "limit=3GiB"]].concat();
        assert_eq!(limit(&with_option, &variables), Some(3 << 30));
        let with_flag = [&with_option[..], &["--limit", "4GiB"]].concat();
        assert_eq!(limit(&with_flag, &variables), Some(4 << 30));
        let none = [&with_option[..], &["--limit", "0"]].concat();
        assert_eq!(limit(&none, &variables), None);
    }

    #[test]
    fn the_key_comes_from_the_nearest_source() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t.toml");
        fs::write(&file, "[key]\nfile = \"/from/toml\"\n").unwrap();
        let config = ["--config", file.to_str().unwrap()];
        let variables = [("ENCRYPTION_KEY", KEY)];
        let source = |words: &[&str], variables: &[(&str, &str)]| match request(words, variables).unwrap().key {
            KeyChoice::Files(files) => files.iter().map(|file| file.display().to_string()).collect(),
            KeyChoice::Credentials(dir) => dir.display().to_string(),
            KeyChoice::Command(words) => words.join("|"),
            KeyChoice::Environment(_) => "environment".into(),
            KeyChoice::Beside => "beside".into(),
        };
        assert_eq!(source(&[], &[]), "beside");
        assert_eq!(source(&config, &[]), "/from/toml");
        assert_eq!(source(&config, &variables), "environment");
        assert_eq!(source(&["-o", "key_file=/o"], &variables), "/o");
        let both = ["--key-file", "/flag", "-o", "key_file=/o"];
        assert_eq!(source(&both, &variables), "/flag");
        let command = ["--key-command", "/bin/unwrap it"];
        assert_eq!(source(&command, &variables), "/bin/unwrap|it");
        fs::write(dir.path().join("tallyfs.key"), KEY).unwrap();
        let credentials = dir.path().to_str().unwrap();
        let both = [variables[0], ("CREDENTIALS_DIRECTORY", credentials)];
        assert_eq!(source(&command, &both), credentials);
        assert_eq!(source(&["--key-file", "/flag"], &both), "/flag");
        assert_eq!(source(&["--key-file", "/a", "--key-file", "/b"], &both), "/a/b");
    }

    #[test]
    fn a_wrong_variable_is_named_and_a_key_not_repeated() {
        let Err(failure) = request(&[], &[("MAX_STORAGE_GB", "lots")]) else {
            panic!("taken")
        };
        assert!(failure.text.starts_with("MAX_STORAGE_GB: "));
        let Err(failure) = request(&[], &[("ENCRYPTION_KEY", &KEY[1..])]) else {
            panic!("taken")
        };
        assert_eq!(failure.code, Code::Key);
        assert!(failure.text.starts_with("ENCRYPTION_KEY: "));
        assert!(!failure.text.contains(&KEY[1..9]), "{}", failure.text);
    }

    #[test]
    fn layouts_become_rules_with_date_directories() {
        let made = request(&["--layout", "{tenant}/rec/%Y/%m/%d"], &[]).unwrap();
        assert!(made.config.rules[0].date_directories);
        assert!(request(&["--layout", "%Q"], &[]).is_err());
    }

    #[test]
    fn an_unknown_option_ends_with_the_code_for_configuration() {
        let Err(failure) = request(&["-o", "alow_other"], &[]) else {
            panic!("taken")
        };
        assert_eq!(failure.code, Code::Config);
        assert!(failure.text.contains("alow_other"));
    }
}
