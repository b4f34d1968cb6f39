//! A mounted store that leaves nothing behind, whatever happens to the test.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::command::text;
use super::scan::{self, Totals, Usage};
use super::small_disk::SmallDisk;
use super::wait;

/// How to mount: options of the command line, configuration, who runs the daemon.
#[derive(Clone, Default)]
pub struct Setup {
    arguments: Vec<String>,
    config: Option<String>,
    user: Option<u32>,
    disk_mib: Option<u64>,
    disk_in_memory: bool,
    environment: Vec<(String, String)>,
}

impl Setup {
    pub fn new() -> Self {
        Self::default()
    }

    /// Text of the configuration file.
    pub fn config(mut self, text: impl Into<String>) -> Self {
        self.config = Some(text.into());
        self
    }

    /// More words for the command line.
    pub fn arguments(mut self, words: &[&str]) -> Self {
        self.arguments.extend(words.iter().map(ToString::to_string));
        self
    }

    /// An environment variable of the daemon.
    pub fn environment(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Runs the daemon as this user and group; needs root.
    pub fn user(mut self, id: u32) -> Self {
        self.user = Some(id);
        self
    }

    /// Puts the store on a disk of its own, of this size; needs root.
    pub fn small_disk(mut self, mib: u64) -> Self {
        self.disk_mib = Some(mib);
        self
    }

    /// The same in memory, and it can be made to fail.
    pub fn failing_disk(mut self, mib: u64) -> Self {
        self.disk_in_memory = true;
        self.small_disk(mib)
    }

    /// Makes a new store and mounts it.
    #[track_caller]
    pub fn mount(self) -> Mount {
        let dir = tempfile::Builder::new()
            .prefix("tallyfs-test-")
            .tempdir()
            .expect("a temporary directory");
        let root = dir.path().canonicalize().expect("it is there");
        let make_disk = if self.disk_in_memory {
            SmallDisk::in_memory
        } else {
            SmallDisk::new
        };
        let disk = self.disk_mib.map(|mib| make_disk(&root, mib));
        let mut mount = Mount {
            disk,
            dir,
            root,
            setup: self,
            daemon: None,
        };
        mount.prepare();
        mount.start();
        mount
    }
}

/// Starts the daemon of another user: in a mount namespace of its own with a /dev/fuse that everyone may open, as
/// udev makes it and containers often do not. Arguments: a directory, then the command.
const OWN_NAMESPACE: &str = r#"
mount -t tmpfs -o mode=755 tmpfs "$1"
mknod -m 666 "$1/fuse" c 10 229
mount --bind "$1/fuse" /dev/fuse
shift
exec "$@"
"#;

/// A daemon with its store and mount point in a temporary directory.
pub struct Mount {
    // Dropped after the daemon ended, and before the directory goes.
    disk: Option<SmallDisk>,
    // Dropped last: the mount is gone by then.
    dir: TempDir,
    root: PathBuf,
    setup: Setup,
    daemon: Option<Child>,
}

impl Mount {
    /// A mount without limits or rules.
    #[track_caller]
    pub fn new() -> Self {
        Setup::new().mount()
    }

    /// A mount with this configuration.
    #[track_caller]
    pub fn with_config(text: impl Into<String>) -> Self {
        Setup::new().config(text).mount()
    }

    /// The mount point.
    pub fn point(&self) -> PathBuf {
        self.root.join("mnt")
    }

    /// A path in the mount.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.point().join(relative)
    }

    /// Makes a directory in the mount with all its parents.
    #[track_caller]
    pub fn dir(&self, relative: &str) -> PathBuf {
        let path = self.path(relative);
        fs::create_dir_all(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    }

    /// The directory with the sealed files.
    pub fn store(&self) -> PathBuf {
        let disk = self.disk.as_ref().map(SmallDisk::point);
        disk.unwrap_or(&self.root).join("store")
    }

    /// The disk of the store, if it has one of its own.
    #[track_caller]
    pub fn disk(&self) -> &SmallDisk {
        self.disk.as_ref().expect("set up with a disk")
    }

    /// The key file beside the store.
    pub fn key_file(&self) -> PathBuf {
        self.root.join("store.key")
    }

    /// Everything the daemon printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// A directory on the native file system, removed with the mount.
    #[track_caller]
    pub fn native(&self, name: &str) -> PathBuf {
        let path = self.root.join(name);
        fs::create_dir_all(&path).expect("a native directory");
        path
    }

    /// Live figures of `tallyfs usage`.
    #[track_caller]
    pub fn usage(&self) -> Usage {
        scan::from_json(&super::run(tallyfs(), &["usage", text(&self.point()), "--json"]))
    }

    /// Live figures of one tenant; a tenant that is not listed has used nothing.
    #[track_caller]
    pub fn tenant(&self, name: &str) -> Totals {
        self.usage().tenants.get(name).copied().unwrap_or_default()
    }

    /// Usage, what stat says of every file in the mount, and the expected figures are one.
    #[track_caller]
    pub fn assert_usage_true(&self) -> Usage {
        let usage = self.usage();
        assert_eq!(
            usage,
            scan::tree(&self.point()),
            "usage (left) and the files in the mount (right)"
        );
        usage
    }

    /// Stops the daemon cleanly and mounts the same store again.
    #[track_caller]
    pub fn remount(&mut self) {
        self.stop();
        self.start();
    }

    /// Stops cleanly and mounts again with these words on the command line.
    #[track_caller]
    pub fn remount_as(&mut self, words: &[&str]) {
        self.setup = std::mem::take(&mut self.setup).arguments(words);
        self.remount();
    }

    /// Stops cleanly and mounts again with another configuration.
    #[track_caller]
    pub fn remount_with(&mut self, config: impl Into<String>) {
        self.setup.config = Some(config.into());
        self.stop();
        self.prepare();
        self.start();
    }

    /// Kills the daemon and mounts again.
    #[track_caller]
    pub fn kill9(&mut self) {
        self.kill();
        self.start();
    }

    /// Kills the daemon with SIGKILL and removes the dead mount.
    #[track_caller]
    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().expect("mounted");
        daemon.kill().expect("the daemon can be killed");
        daemon.wait().expect("a killed daemon ends");
        self.detach();
        wait::until("a dead mount goes away", || (!self.is_mounted()).then_some(()));
    }

    /// Process number of the daemon.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("mounted").id()
    }

    /// Sends the daemon what Ctrl-C sends.
    pub fn interrupt(&self) {
        send(self.daemon.as_ref().expect("mounted"), Signal::INT);
    }

    /// Writes another configuration and has the running daemon read it.
    #[track_caller]
    pub fn reload(&self, config: &str) {
        fs::write(self.config_path(), config).expect("a configuration file");
        send(self.daemon.as_ref().expect("mounted"), Signal::HUP);
    }

    /// Sends the daemon SIGTERM.
    pub fn terminate(&self) {
        send(self.daemon.as_ref().expect("mounted"), Signal::TERM);
    }

    /// Stops the daemon by SIGTERM: it must unmount and end with 0.
    #[track_caller]
    pub fn stop(&mut self) {
        let daemon = self.daemon.as_mut().expect("mounted");
        terminate(daemon);
        let status = exit_status(daemon).unwrap_or_else(|| panic!("the daemon does not end\n{}", self.log()));
        self.daemon = None;
        assert!(status.success(), "{status} after SIGTERM\n{}", self.log());
        assert!(!self.is_mounted(), "still mounted after a clean stop\n{}", self.log());
    }

    /// Waits until the daemon ends by itself.
    #[track_caller]
    pub fn wait_for_end(&mut self) -> ExitStatus {
        let mut daemon = self.daemon.take().expect("mounted");
        exit_status(&mut daemon).unwrap_or_else(|| panic!("the daemon does not end\n{}", self.log()))
    }

    /// Stops cleanly; the stored usage and an independent scan of the store must be one. Gives those figures.
    #[track_caller]
    pub fn finish(mut self) -> Usage {
        self.stop();
        let found = scan::store(&self.store());
        let stored = scan::from_json(&super::run(tallyfs(), &["usage", text(&self.store()), "--json"]));
        assert_eq!(stored, found, "stored usage (left) and a scan of the store (right)");
        found
    }

    /// Starts the daemon on the store and waits until it serves.
    #[track_caller]
    pub fn start(&mut self) {
        assert!(self.daemon.is_none(), "already mounted");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("a log file");
        let mut command = self.command();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
        self.daemon = Some(command.spawn().expect("the daemon starts"));
        let ended = wait::poll(|| {
            let status = self.daemon.as_mut().map(Child::try_wait);
            match status {
                Some(Ok(None)) => self.is_mounted().then_some(None),
                ended => Some(Some(ended)),
            }
        });
        assert!(matches!(ended, Some(None)), "cannot mount: {ended:?}\n{}", self.log());
    }

    fn command(&self) -> Command {
        let mut command = match self.setup.user {
            None => Command::new(tallyfs()),
            Some(id) => {
                let mut command = Command::new("unshare");
                command.args(["--mount", "--propagation", "private", "sh", "-ec", OWN_NAMESPACE, "sh"]);
                command.arg(self.root.join("dev")).arg("setpriv");
                command.args([
                    format!("--reuid={id}"),
                    format!("--regid={id}"),
                    "--clear-groups".into(),
                ]);
                command.arg(self.root.join("tallyfs"));
                command
            }
        };
        command
            .arg("mount")
            .arg(self.store())
            .arg(self.point())
            .args(&self.setup.arguments);
        if self.setup.config.is_some() {
            command.arg("--config").arg(self.config_path());
        }
        command
            .current_dir(&self.root)
            .env("HOME", &self.root)
            .env_remove("ENCRYPTION_KEY")
            .envs(self.setup.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Mount point, configuration and, for another user, a place and a program that it can reach.
    #[track_caller]
    fn prepare(&self) {
        fs::create_dir_all(self.point()).expect("a mount point");
        if let Some(text) = &self.setup.config {
            fs::write(self.config_path(), text).expect("a configuration file");
        }
        let Some(id) = self.setup.user else { return };
        // The build directory may lie where only root can look.
        fs::copy(tallyfs(), self.root.join("tallyfs")).expect("a copy of the program");
        fs::create_dir_all(self.root.join("dev")).expect("a place for a device");
        for path in [self.root.clone(), self.point()] {
            chown(&path, Some(id), Some(id)).expect("root gives directories away");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its own directory");
        }
    }

    fn config_path(&self) -> PathBuf {
        self.root.join("tallyfs.toml")
    }

    fn log_path(&self) -> PathBuf {
        self.root.join("daemon.log")
    }

    fn is_mounted(&self) -> bool {
        match (&self.daemon, self.setup.user) {
            (Some(daemon), Some(_)) => is_mounted_for(&daemon.id().to_string(), &self.point()),
            // Its namespace went with it.
            (None, Some(_)) => false,
            (_, None) => is_mounted(&self.point()),
        }
    }

    fn detach(&self) {
        let point = self.point();
        if self.is_mounted() && unmount(&point, UnmountFlags::DETACH).is_err() {
            // An ordinary user needs the helper.
            super::command::output("fusermount3", &["-u", "-z", text(&point)], Path::new("/"));
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            terminate(&daemon);
            if exit_status(&mut daemon).is_none() {
                let _ = daemon.kill();
                let _ = daemon.wait();
            }
        }
        while self.is_mounted() {
            self.detach();
        }
        if std::thread::panicking() {
            eprintln!("--- daemon log ---\n{}", self.log());
        }
    }
}

/// The program under test.
pub fn tallyfs() -> &'static str {
    env!("CARGO_BIN_EXE_tallyfs")
}

/// Whether this path is a mount point of ours, by the kernel's list.
pub fn is_mounted(point: &Path) -> bool {
    is_mounted_for("self", point)
}

/// The same, as a process sees it.
fn is_mounted_for(process: &str, point: &Path) -> bool {
    // A process that has just ended has no list.
    let mounts = fs::read_to_string(format!("/proc/{process}/mounts")).unwrap_or_default();
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        let here = fields.next() == point.to_str();
        here && fields.next() == Some("fuse.tallyfs")
    })
}

fn terminate(daemon: &Child) {
    send(daemon, Signal::TERM);
}

fn send(daemon: &Child, signal: Signal) {
    if let Some(pid) = Pid::from_raw(daemon.id().cast_signed()) {
        let _ = kill_process(pid, signal);
    }
}

fn exit_status(daemon: &mut Child) -> Option<ExitStatus> {
    wait::poll(|| daemon.try_wait().ok().flatten())
}
