//! Where log lines go: to standard error, and from a daemon in the background to the system's log too.
//!
//! Whoever started a daemon in the background reads its standard error until it serves, and is gone then: so every line
//! goes both ways, and a standard error that nobody reads is no failure. Without a system log (`/dev/log`) the lines of a
//! daemon in the background are lost; run it in the foreground to see them.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::sync::OnceLock;

use log::{Level, Log, Metadata, Record};

/// Where syslog listens; journald has it too.
const SYSTEM_LOG_PATH: &str = "/dev/log";
/// Facility "daemon" of RFC 5424, already shifted.
const FACILITY: u8 = 3 << 3;
/// A longer line is cut: the system's log takes no more.
const LINE_BYTES_MAX: usize = 2048;

/// Set when this process runs in the background.
static SYSTEM_LOG: OnceLock<SystemLog> = OnceLock::new();

/// The system's log.
struct SystemLog(UnixDatagram);

/// Where this process's standard error is read, and by whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// By who started it.
    Foreground,
    /// By nobody, once it serves.
    Background,
}

/// Takes log lines from now on.
pub fn start(place: Place) {
    let filter = env_logger::Env::default().default_filter_or("info");
    let lines = env_logger::Builder::from_env(filter)
        .target(env_logger::Target::Stderr)
        .build();
    if place == Place::Background {
        match UnixDatagram::unbound() {
            // A line that the system's log is too slow for is dropped; nothing waits for it.
            Ok(socket) if socket.set_nonblocking(true).is_ok() => _ = SYSTEM_LOG.set(SystemLog(socket)),
            _ => {}
        }
    }
    log::set_max_level(lines.filter());
    // Fails only where a log was set before, and there is one call.
    let _ = log::set_boxed_logger(Box::new(BothWays(lines)));
}

/// Says why the program ends.
pub fn say_failure(text: &str) {
    let _ = writeln!(io::stderr(), "tallyfs: {text}");
    if let Some(system) = SYSTEM_LOG.get() {
        system.send(Level::Error, text);
    }
}

struct BothWays(env_logger::Logger);

impl Log for BothWays {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record) {
        self.0.log(record);
        if let Some(system) = SYSTEM_LOG.get().filter(|_| self.0.matches(record)) {
            system.send(record.level(), &record.args().to_string());
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}

impl SystemLog {
    fn send(&self, level: Level, text: &str) {
        // The place is looked up each time: the system's log may be started anew.
        let _ = self.0.send_to(&line(level, std::process::id(), text), SYSTEM_LOG_PATH);
    }
}

/// As RFC 3164 has it, without the time, which the receiver knows.
fn line(level: Level, pid: u32, text: &str) -> Vec<u8> {
    let severity = match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    let priority = FACILITY | severity;
    let mut line = format!("<{priority}>tallyfs[{pid}]: {}", text.replace('\n', " ")).into_bytes();
    line.truncate(LINE_BYTES_MAX);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_facility_severity_and_process() {
        assert_eq!(line(Level::Error, 7, "it\nfailed"), b"<27>tallyfs[7]: it failed");
        assert_eq!(line(Level::Info, 7, "well"), b"<30>tallyfs[7]: well");
        assert_eq!(line(Level::Warn, 7, &"x".repeat(5000)).len(), LINE_BYTES_MAX);
    }
}
