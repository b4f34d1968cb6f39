//! A bar on a terminal, for commands that take their time. Nothing where standard error is none.

use std::io::{self, IsTerminal, Write};

const WIDTH: u64 = 30;

/// A line that is drawn again and again.
pub struct Bar {
    is_shown: bool,
}

impl Bar {
    /// Shown on a terminal alone.
    pub fn new() -> Self {
        Self {
            is_shown: io::stderr().is_terminal(),
        }
    }

    /// Whether there is somebody to see it.
    pub fn is_shown(&self) -> bool {
        self.is_shown
    }

    /// Draws it.
    pub fn show(&self, done: u64, total: u64, text: impl FnOnce() -> String) {
        if !self.is_shown {
            return;
        }
        let filled = (u128::from(done) * u128::from(WIDTH) / u128::from(total.max(1))).min(u128::from(WIDTH)) as usize;
        let bar = format!("{}{}", "#".repeat(filled), ".".repeat(WIDTH as usize - filled));
        // A bar that cannot be drawn is not worth a word.
        let _ = write!(io::stderr(), "\r[{bar}] {} ", text());
    }

    /// Goes to the next line.
    pub fn end(&self) {
        if self.is_shown {
            let _ = writeln!(io::stderr());
        }
    }
}
