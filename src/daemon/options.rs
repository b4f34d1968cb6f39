//! The `-o` options of a mount, as fstab and mount(8) hand them over.
//!
//! Pure: text in, checked options out. An option that is not known is an error that names it, for
//! a misspelt `allow_other` must not go unnoticed; those that only mean something to mount(8) or
//! systemd are passed over.

use std::path::PathBuf;

use rustix::mount::MountFlags;

/// Why an option string was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OptionError {
    /// No option has this name.
    #[error("unknown mount option `{0}`; known are: {known}", known = KNOWN.join(", "))]
    Unknown(String),
    /// The option is known to FUSE and not offered here.
    #[error("mount option `{name}` is not offered; {instead}")]
    NotOffered {
        /// The option.
        name: &'static str,
        /// What to use in its place.
        instead: &'static str,
    },
    /// `name=value` without the value.
    #[error("mount option `{0}` needs a value: `{0}=...`")]
    NoValue(&'static str),
    /// A value where none belongs.
    #[error("mount option `{0}` takes no value")]
    HasValue(String),
}

/// Every option with a meaning of ours, for the error text and the help.
pub const KNOWN: &[&str] = &[
    "allow_other",
    "noallow_other",
    "default_permissions",
    "nonempty",
    "ro",
    "rw",
    "config=FILE",
    "limit=SIZE",
    "key_file=FILE",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
    "nodev",
    "dev",
    "nosuid",
    "suid",
    "noexec",
    "exec",
    "sync",
    "async",
    "dirsync",
    "nosymfollow",
    "symfollow",
    "silent",
    "loud",
    "nofail",
    "_netdev",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "defaults",
    "comment=...",
    "x-...",
    "X-...",
];

/// What the `-o` strings of one mount say together; a later option wins over an earlier one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MountOptions {
    /// Flags of mount(2): `nosuid` and `nodev` unless `suid` or `dev` was given.
    pub flags: MountFlags,
    /// Whether others than the one who mounts may use the mount; `None` = as the one who mounts
    /// deserves: yes for root, no for an ordinary user.
    pub allow_other: Option<bool>,
    /// Mount over a directory that holds something.
    pub nonempty: bool,
    /// `config=FILE`.
    pub config_file: Option<PathBuf>,
    /// `limit=SIZE`, as written.
    pub limit: Option<String>,
    /// `key_file=FILE`.
    pub key_file: Option<PathBuf>,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            flags: MountFlags::NOSUID | MountFlags::NODEV,
            allow_other: None,
            nonempty: false,
            config_file: None,
            limit: None,
            key_file: None,
        }
    }
}

impl MountOptions {
    /// Reads option strings in the order in which they were given. In a value, `\,` stands for a
    /// comma and `\\` for a backslash.
    ///
    /// # Errors
    /// The first option that is unknown, not offered or of the wrong form.
    pub fn parse<S: AsRef<str>>(strings: &[S]) -> Result<Self, OptionError> {
        let mut options = Self::default();
        for option in strings.iter().flat_map(|s| split(s.as_ref())) {
            options.apply(&option)?;
        }
        Ok(options)
    }

    fn apply(&mut self, option: &str) -> Result<(), OptionError> {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        };
        if is_for_others(name) {
            return Ok(());
        }
        if self.apply_with_value(name, value)? {
            return Ok(());
        }
        let change = switch(name).ok_or_else(|| OptionError::Unknown(option.to_owned()))??;
        if value.is_some() {
            return Err(OptionError::HasValue(name.to_owned()));
        }
        match change {
            Switch::Set(flag) => self.flags |= flag,
            Switch::Clear(flag) => self.flags -= flag,
            Switch::AllowOther(yes) => self.allow_other = Some(yes),
            Switch::Nonempty => self.nonempty = true,
            Switch::Nothing => {}
        }
        Ok(())
    }

    /// Takes `name` if it is one of those with a value.
    fn apply_with_value(&mut self, name: &str, value: Option<&str>) -> Result<bool, OptionError> {
        let needed = |name| value.filter(|v| !v.is_empty()).ok_or(OptionError::NoValue(name));
        match name {
            "config" => self.config_file = Some(needed("config")?.into()),
            "limit" => self.limit = Some(needed("limit")?.into()),
            "key_file" | "key-file" => self.key_file = Some(needed("key_file")?.into()),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// What an option without a value does.
enum Switch {
    Set(MountFlags),
    Clear(MountFlags),
    AllowOther(bool),
    Nonempty,
    Nothing,
}

/// The meaning of a switch; `None` = no such option.
fn switch(name: &str) -> Option<Result<Switch, OptionError>> {
    use Switch::{AllowOther, Clear, Nonempty, Nothing, Set};
    Some(Ok(match name {
        "allow_other" => AllowOther(true),
        "noallow_other" => AllowOther(false),
        "nonempty" => Nonempty,
        "ro" => Set(MountFlags::RDONLY),
        "rw" => Clear(MountFlags::RDONLY),
        "noatime" => Set(MountFlags::NOATIME),
        "atime" => Clear(MountFlags::NOATIME),
        "diratime" => Clear(MountFlags::NODIRATIME),
        "nodiratime" => Set(MountFlags::NODIRATIME),
        "relatime" => Set(MountFlags::RELATIME),
        "norelatime" => Clear(MountFlags::RELATIME),
        "strictatime" => Set(MountFlags::STRICTATIME),
        "nostrictatime" => Clear(MountFlags::STRICTATIME),
        "lazytime" => Set(MountFlags::LAZYTIME),
        "nolazytime" => Clear(MountFlags::LAZYTIME),
        "nosymfollow" => Set(MountFlags::NOSYMFOLLOW),
        "symfollow" => Clear(MountFlags::NOSYMFOLLOW),
        "silent" => Set(MountFlags::SILENT),
        "loud" => Clear(MountFlags::SILENT),
        "nodev" => Set(MountFlags::NODEV),
        "dev" => Clear(MountFlags::NODEV),
        "nosuid" => Set(MountFlags::NOSUID),
        "suid" => Clear(MountFlags::NOSUID),
        "noexec" => Set(MountFlags::NOEXEC),
        "exec" => Clear(MountFlags::NOEXEC),
        "sync" => Set(MountFlags::SYNCHRONOUS),
        "async" => Clear(MountFlags::SYNCHRONOUS),
        "dirsync" => Set(MountFlags::DIRSYNC),
        "default_permissions" => Nothing,
        _ => return not_offered(name).map(Err),
    }))
}

/// Options of FUSE and mount(8) that are known and have no place here.
fn not_offered(name: &str) -> Option<OptionError> {
    let (name, instead) = match name {
        "allow_root" => ("allow_root", "use `allow_other`: file modes decide who may do what"),
        "auto_unmount" => (
            "auto_unmount",
            "leave it out: the daemon unmounts when it ends, and the next start clears a mount whose daemon was killed",
        ),
        "remount" => (
            "remount",
            "run `mount -i -o remount,... MOUNTPOINT`, which changes what is mounted",
        ),
        "fsname" => ("fsname", "leave it out: the mount table shows the store"),
        "subtype" => ("subtype", "leave it out: the type is always fuse.tallyfs"),
        "max_read" => (
            "max_read",
            "leave it out: requests are as large as the kernel makes them",
        ),
        "context" | "fscontext" | "defcontext" | "rootcontext" => {
            ("context", "leave it out: SELinux labels are not kept")
        }
        _ => return None,
    };
    Some(OptionError::NotOffered { name, instead })
}

/// Options for mount(8), systemd and people.
fn is_for_others(name: &str) -> bool {
    const WORDS: [&str; 11] = [
        "nofail", "_netdev", "auto", "noauto", "user", "nouser", "users", "owner", "group", "defaults", "comment",
    ];
    WORDS.contains(&name) || name.starts_with("x-") || name.starts_with("X-")
}

/// Splits at commas that no backslash precedes; empty parts are left out.
pub fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let last = parts.last_mut().expect("there is always a part");
        match c {
            ',' => parts.push(String::new()),
            '\\' => last.push(chars.next().unwrap_or('\\')),
            c => last.push(c),
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// One option as [`split`] takes it.
pub fn quote(option: &str) -> String {
    let mut quoted = String::with_capacity(option.len());
    for c in option.chars() {
        if matches!(c, ',' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<MountOptions, OptionError> {
        MountOptions::parse(&[text])
    }

    #[test]
    fn no_option_means_nosuid_and_nodev() {
        let options = parse("").unwrap();
        assert_eq!(options, MountOptions::default());
        assert_eq!(options.flags, MountFlags::NOSUID | MountFlags::NODEV);
    }

    #[test]
    fn flags_are_those_of_mount() {
        let options = parse("ro,noatime,noexec,sync,dirsync,suid,dev").unwrap();
        let expected = MountFlags::RDONLY
            | MountFlags::NOATIME
            | MountFlags::NOEXEC
            | MountFlags::SYNCHRONOUS
            | MountFlags::DIRSYNC;
        assert_eq!(options.flags, expected);
    }

    #[test]
    fn a_later_option_wins() {
        let options = MountOptions::parse(&["allow_other,ro", "noallow_other,rw"]).unwrap();
        assert_eq!(options.allow_other, Some(false));
        assert!(!options.flags.contains(MountFlags::RDONLY));
    }

    #[test]
    fn values_may_hold_commas_and_backslashes() {
        let options = parse(r"config=/etc/a\,b.toml,key_file=/k\\1,limit=5Gi").unwrap();
        assert_eq!(options.config_file, Some("/etc/a,b.toml".into()));
        assert_eq!(options.key_file, Some(r"/k\1".into()));
        assert_eq!(options.limit.as_deref(), Some("5Gi"));
    }

    #[test]
    fn a_quoted_option_is_one_again() {
        for option in ["ro", r"config=/a,b\c,", r"\", ","] {
            assert_eq!(split(&quote(option)), [option]);
        }
    }

    #[test]
    fn options_for_fstab_are_passed_over() {
        let text = "defaults,nofail,_netdev,auto,noauto,user,x-systemd.automount,\
                    x-systemd.requires=/srv,comment=calls";
        assert_eq!(parse(text), Ok(MountOptions::default()));
    }

    #[test]
    fn an_unknown_option_is_named_with_the_known_ones() {
        let message = parse("allow_otter").unwrap_err().to_string();
        assert!(message.contains("`allow_otter`"), "{message}");
        assert!(message.contains("allow_other"), "{message}");
        assert!(parse("size=5").is_err());
    }

    #[test]
    fn every_known_switch_is_taken() {
        for name in KNOWN {
            let text = name.replace("FILE", "/f").replace("SIZE", "1Gi");
            assert!(parse(&text).is_ok(), "{name}");
        }
    }

    #[test]
    fn what_is_not_offered_is_refused_with_what_to_do() {
        for (option, advice) in [
            ("allow_root", "use `allow_other`"),
            ("auto_unmount", "leave it out"),
            ("remount", "mount -i -o remount"),
            ("fsname=calls", "leave it out"),
            ("context=system_u:object_r:tmp_t:s0", "SELinux"),
        ] {
            let message = parse(option).unwrap_err().to_string();
            let name = option.split('=').next().unwrap();
            assert!(message.contains(&format!("`{name}`")), "{message}");
            assert!(message.contains(advice), "{message}");
        }
    }

    #[test]
    fn values_are_asked_for_where_they_belong() {
        assert_eq!(parse("config="), Err(OptionError::NoValue("config")));
        assert_eq!(parse("limit"), Err(OptionError::NoValue("limit")));
        assert_eq!(parse("ro=1"), Err(OptionError::HasValue("ro".into())));
    }
}
