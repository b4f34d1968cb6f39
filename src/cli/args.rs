//! The arguments of `tallyfs`, as clap reads them. No file is opened here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::units::parse_bytes;

/// Environment variables that stand for options.
const ENVIRONMENT_HELP: &str = "\
Environment:
  RECORDINGS_PATH  mount point, where none is named
  MAX_STORAGE_GB   limit in units of 2^30 bytes, where --limit is not given
  ENCRYPTION_KEY   the key as 64 hex digits, where --key-file is not given
  QUOTA_DATA_DIR   store, where none is named
  QUOTA_HOST, QUOTA_PORT                                 `admin.listen` of the configuration
  DEFAULT_MESSAGE_LIMIT, DEFAULT_BANDWIDTH_LIMIT_GB, ENABLE_AUTO_RESET   `[tracker]` of the configuration
  BUCKET_QUOTA_BYTES   max_bytes of every tenant that has none in the configuration
  PERSISTENCE_INTERVAL_SECS, QUOTA_FLUSH_INTERVAL_MS     taken, without effect: usage is saved every second
  RUST_LOG         what is logged to standard error: error, warn, info (default)";

/// What `import` does in detail.
const IMPORT_HELP: &str = "\
What comes along: names, content, owner, mode, times, user attributes, access control lists, symbolic links, names that
are one file, holes; the attributes of DIR itself go to the directory that its content goes to. Sockets, fifos and devices
are left out. A file appears under its name when it is whole, durable and read back; until then it is
.tallyfs-import-... in its directory, and what a killed run left of those the next one clears away. A file that is there,
as long and as old, is passed over; another one is left as it is and told. What a limit refuses is told with the limit.

Environment: ENCRYPTION_KEY, MAX_STORAGE_GB and BUCKET_QUOTA_BYTES as for `tallyfs mount`.

It ends with 1 when anything did not come along, or it was stopped (Ctrl-C): run it again to go on.";

/// A file system for call recordings: counts every byte before it exists and seals it as it is
/// written.
#[derive(Parser, Debug)]
#[command(name = "tallyfs", version, after_help = super::exit::HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Mount a store and serve it until it is unmounted; the store and its key are made at first use
    #[command(after_help = ENVIRONMENT_HELP)]
    Mount(MountArgs),
    /// Take away what a daemon that was killed left at a mount point
    Unmount {
        /// The mount point
        mount_point: PathBuf,
        /// Only a mount of tallyfs whose daemon is dead; one that is served is left alone, for `umount`
        #[arg(long, required = true)]
        dead: bool,
    },
    /// Say whether a store is mounted, where and by whom
    Status(StatusArgs),
    /// Say how much a store, or a directory in a mount, holds
    Usage(UsageArgs),
    /// Read and set limits of directories in a mount
    #[command(subcommand)]
    Quota(QuotaCommand),
    /// Say what became of notices, try dead ones again, test receivers
    #[command(subcommand)]
    Alerts(AlertsCommand),
    /// Make a token for the HTTP interface, and the lines of the configuration that let it in
    Token {
        /// Its name, for the log
        name: String,
        /// What it may do: read, quota (feed counters), admin (set limits)
        #[arg(long = "scope", value_name = "SCOPE", default_value = "read")]
        scopes: Vec<String>,
        /// The only tenant that it may ask about
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Seal what lies in a directory into a store that is not mounted, and verify it; run again, it goes on
    #[command(after_help = IMPORT_HELP)]
    Import(ImportArgs),
    /// Check a store that is not mounted: structure, lengths, keys, copies, usage
    Fsck(FsckArgs),
    /// Read everything, beside a mount or without one: every page, every hash, old copies put back
    Scrub(ScrubArgs),
    /// Save what can be read of a damaged recording, with silence in place of the rest
    Salvage(SalvageArgs),
    /// End with 0 once a mount has answered; asked by the daemon itself
    #[command(hide = true)]
    Answers {
        /// The mount point
        point: PathBuf,
    },
    /// List, add, change and destroy keys
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Check a configuration file and print its effective form
    CheckConfig {
        /// The TOML file
        file: PathBuf,
    },
}

/// Arguments of `mount`.
#[derive(Args, Debug)]
pub struct MountArgs {
    /// Directory with the sealed recordings
    #[arg(env = "QUOTA_DATA_DIR")]
    pub store: PathBuf,
    /// Directory where the recordings appear
    #[arg(env = "RECORDINGS_PATH")]
    pub mount_point: PathBuf,
    /// Mount options, with commas between them; may be given again
    #[arg(short = 'o', value_name = "OPTIONS", action = clap::ArgAction::Append)]
    pub options: Vec<String>,
    /// Limits and key.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// Keep the mount alive when its daemon dies or is upgraded: the next one takes it over. Needs root
    #[arg(long)]
    pub supervise: bool,
    /// With --supervise: give up after so many daemons in a row that ended within a second
    #[arg(long, value_name = "COUNT", default_value_t = 10, requires = "supervise", value_parser = clap::value_parser!(u32).range(1..))]
    pub give_up_after: u32,
    /// Stay in the foreground, which is the way of this command; `mount -t tallyfs` goes into the background
    #[arg(short = 'f', long)]
    pub foreground: bool,
    /// Leave terminal and directory, and log to the system's log too: for `mount.tallyfs`
    #[arg(long, hide = true)]
    pub detached: bool,
}

/// What a store is used under, mounted or not.
#[derive(Args, Clone, Debug)]
pub struct SettingsArgs {
    /// Most plaintext bytes in the whole mount, such as 500GiB; 0 = no limit
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = parse_bytes)]
    pub limit: Option<u64>,
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The key.
    #[command(flatten)]
    pub key: KeyArgs,
    /// Path layout with date directories, such as "{tenant}/%Y/%m/%d"; may be given again
    #[arg(long, value_name = "LAYOUT", action = clap::ArgAction::Append)]
    pub layout: Vec<String>,
}

/// Arguments of `import`.
#[derive(Args, Debug)]
pub struct ImportArgs {
    /// The directory whose content is imported
    pub dir: PathBuf,
    /// The store, which must not be mounted; made, with its key, where there is none
    pub store: PathBuf,
    /// Directory below the mount that it goes to; made where it is missing
    #[arg(long, value_name = "PATH")]
    pub to: Option<PathBuf>,
    /// Remove each file from DIR once its copy is verified and durable, and the directories that are empty then
    #[arg(long)]
    pub remove_source: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Limits and key.
    #[command(flatten)]
    pub settings: SettingsArgs,
}

/// Arguments of `status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// The store
    pub store: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `usage`.
#[derive(Args, Debug)]
pub struct UsageArgs {
    /// A store, a mount point, or a directory in a mount
    #[arg(value_name = "STORE|DIR")]
    pub path: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The commands of `quota`.
#[derive(Subcommand, Debug)]
pub enum QuotaCommand {
    /// Say what a directory uses, its limits, and who refused last
    Get {
        /// A directory in a mount
        dir: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Set limits of a directory; they count at once
    Set {
        /// A directory in a mount
        dir: PathBuf,
        /// max_bytes, max_files, max_dirs, max_file_size, soft_bytes, soft_files, grace, day.max_files, day.max_bytes,
        /// month.max_files or month.max_bytes, and a size such as 5GiB, a count, a time such as 7d, `none`, or `default` for
        /// the configuration's
        #[arg(value_name = "LIMIT=VALUE", required = true)]
        limits: Vec<String>,
    },
    /// List a directory and those below it with usage and limits
    Report(QuotaReportArgs),
    /// List tenants, the mount, and directories with limits; asks the running daemon
    List {
        /// What to list.
        #[command(flatten)]
        args: AskArgs,
        /// Accounts of this level alone, such as `tenant`
        #[arg(long)]
        level: Option<String>,
    },
    /// List what needs attention: full, over a soft limit, near a limit; ends with 1 when there is something
    Check(AskArgs),
    /// Show the fullest accounts, again and again
    Top {
        /// Whom to ask.
        #[command(flatten)]
        args: AskArgs,
        /// Seconds between two looks
        #[arg(long, value_name = "SECONDS", default_value_t = 2)]
        interval: u64,
        /// So many looks, then end; 0 = until it is stopped
        #[arg(long, value_name = "TIMES", default_value_t = 0)]
        times: u64,
    },
    /// Begin the day and the month of a directory anew
    Reset(AskArgs),
    /// Usage day by day, the newest first
    History {
        /// Whom to ask about.
        #[command(flatten)]
        args: AskArgs,
        /// So many days back
        #[arg(long, default_value_t = 30)]
        days: u32,
    },
    /// Print the limits that were set on directories, as `load` reads them
    Dump(AskArgs),
    /// Set the limits of a dump, read from standard input
    Load(AskArgs),
}

/// The commands of `alerts`.
#[derive(Subcommand, Debug)]
pub enum AlertsCommand {
    /// List notices for receivers, the newest first
    List {
        /// Whom to ask.
        #[command(flatten)]
        store: DaemonArgs,
        /// Those alone that were given up
        #[arg(long)]
        dead: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Send a test notice to a receiver and say what it answered
    Test {
        /// Whom to ask.
        #[command(flatten)]
        store: DaemonArgs,
        /// Its name
        receiver: String,
        /// Send it from here, by this configuration; no daemon has to run
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Try notices again that were given up
    Retry {
        /// Whom to ask.
        #[command(flatten)]
        store: DaemonArgs,
        /// One, for all its receivers
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        id: Option<String>,
        /// All of them
        #[arg(long)]
        all: bool,
    },
}

/// Which daemon to ask.
#[derive(Args, Debug)]
pub struct DaemonArgs {
    /// A store, or a mount point
    #[arg(value_name = "STORE|DIR")]
    pub path: PathBuf,
    /// The daemon's socket, where `admin.socket` names another one than STORE/admin.sock
    #[arg(long, value_name = "FILE")]
    pub socket: Option<PathBuf>,
}

/// Whom to ask.
#[derive(Args, Debug)]
pub struct AskArgs {
    /// A store, a mount point, or a directory in a mount
    #[arg(value_name = "STORE|DIR")]
    pub path: PathBuf,
    /// The daemon's socket, where `admin.socket` names another one than STORE/admin.sock
    #[arg(long, value_name = "FILE")]
    pub socket: Option<PathBuf>,
    /// Print JSON
    #[arg(long, conflicts_with = "csv")]
    pub json: bool,
    /// Print CSV
    #[arg(long)]
    pub csv: bool,
}

/// Arguments of `quota report`.
#[derive(Args, Debug)]
pub struct QuotaReportArgs {
    /// A mount point, or a directory in a mount
    pub dir: PathBuf,
    /// How many levels below DIR
    #[arg(long, value_name = "LEVELS", default_value_t = 1)]
    pub depth: u32,
    /// Print JSON
    #[arg(long, conflicts_with = "csv")]
    pub json: bool,
    /// Print CSV
    #[arg(long)]
    pub csv: bool,
}

/// Where the key comes from.
#[derive(Args, Debug, Clone)]
pub struct KeyArgs {
    /// File with the key, or several, one a line; may be given again (default: a credential of systemd named
    /// tallyfs.key, a key command, ENCRYPTION_KEY, else STORE.key)
    #[arg(long, value_name = "FILE", action = clap::ArgAction::Append)]
    pub key_file: Vec<PathBuf>,
    /// Program that prints the key, with arguments between spaces; run without a shell
    #[arg(long, value_name = "COMMAND")]
    pub key_command: Option<String>,
}

/// Arguments of `fsck`.
#[derive(Args, Debug)]
pub struct FsckArgs {
    /// The store
    pub store: PathBuf,
    /// Mend what can be mended: sizes, heads, recordings left open by a crash, WAV headers, usage
    #[arg(long)]
    pub repair: bool,
    /// Check a part alone: a path as in the mount
    #[arg(long, value_name = "PATH")]
    pub subtree: Option<PathBuf>,
    /// Take what is at or below PATH as it is, old copies too; `/` takes the whole store
    #[arg(long, value_name = "PATH", conflicts_with_all = ["repair", "subtree"])]
    pub accept: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The key.
    #[command(flatten)]
    pub key: KeyArgs,
}

/// Arguments of `scrub`.
#[derive(Args, Debug)]
pub struct ScrubArgs {
    /// A store, or a directory or recording in a store or a mount
    #[arg(value_name = "STORE|DIR")]
    pub path: PathBuf,
    /// Plaintext bytes read in a second at most, such as 20MiB; 0 = no limit
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub rate: Option<u64>,
    /// Begin anew, also where an earlier run was stopped
    #[arg(long)]
    pub from_start: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The key.
    #[command(flatten)]
    pub key: KeyArgs,
}

/// Arguments of `salvage`.
#[derive(Args, Debug)]
pub struct SalvageArgs {
    /// The recording: in a mount, or its sealed file below the data directory of a store
    pub file: PathBuf,
    /// File to make; one that exists is left alone
    #[arg(short = 'o', long = "output", value_name = "OUT")]
    pub output: PathBuf,
    /// The key.
    #[command(flatten)]
    pub key: KeyArgs,
}

/// The commands of `keys`.
#[derive(Subcommand, Debug)]
pub enum KeysCommand {
    /// List the keys of a store: state, age, recordings under each, whether it was given
    List {
        /// The store, mounted or not.
        #[command(flatten)]
        args: KeysArgs,
    },
    /// Make a new random key, which seals new recordings from now on; the old one still opens
    Add {
        /// The store, mounted or not.
        #[command(flatten)]
        args: KeysArgs,
        /// The key.
        #[command(flatten)]
        new: NewKeyArgs,
    },
    /// Bring recordings under old keys under the current ones; stopped, it goes on when the store is mounted or this is run again
    Rewrap {
        /// The store, mounted or not.
        #[command(flatten)]
        args: KeysArgs,
    },
    /// Make a new key and bring all recordings under it: `add` and `rewrap` in one
    Rotate {
        /// The store, mounted or not.
        #[command(flatten)]
        args: KeysArgs,
        /// The key.
        #[command(flatten)]
        new: NewKeyArgs,
    },
    /// Destroy a key: recordings under it are unreadable for ever
    Destroy {
        /// The store, mounted or not.
        #[command(flatten)]
        args: KeysArgs,
        /// The key's number
        id: u32,
        /// The number again, in place of typing it
        #[arg(long, value_name = "ID")]
        yes_destroy: Option<u32>,
        /// Also where recordings are still under it
        #[arg(long)]
        with_recordings: bool,
    },
    /// Write the keys that were given to a file, to be kept in a safe place
    ExportRecovery {
        /// The store.
        #[command(flatten)]
        args: KeysArgs,
        /// File to make, mode 0400; one that exists is left alone
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// A key that is to be made.
#[derive(Args, Debug)]
pub struct NewKeyArgs {
    /// File to make (default: beside the present one, with the number of the key behind its name)
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Only for recordings of this tenant (its directory, as seen from the mount point)
    #[arg(long, value_name = "PATH")]
    pub tenant: Option<String>,
}

/// Arguments that all commands of `keys` take.
#[derive(Args, Debug)]
pub struct KeysArgs {
    /// The store, or its mount point
    pub store: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Socket of the daemon of a mounted store, where `admin.socket` of its configuration names one
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The key.
    #[command(flatten)]
    pub key: KeyArgs,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_may_follow_the_paths() {
        let words = "tallyfs mount /s /m -o ro --limit 256KiB -o noexec --layout {tenant}/%Y";
        let Command::Mount(mount) = Cli::try_parse_from(words.split(' ')).unwrap().command else {
            panic!("not mount")
        };
        assert_eq!(mount.options, ["ro", "noexec"]);
        assert_eq!(mount.settings.limit, Some(256 << 10));
        assert_eq!(mount.settings.layout, ["{tenant}/%Y"]);
    }

    #[test]
    fn a_limit_that_is_no_byte_count_is_refused() {
        let words = "tallyfs mount /s /m --limit much";
        let error = Cli::try_parse_from(words.split(' ')).unwrap_err();
        assert_eq!(error.exit_code(), super::super::exit::Code::Usage as i32);
    }
}
