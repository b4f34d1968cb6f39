//! `tallyfs salvage`: what is left of a damaged recording goes to a new file.

use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use super::args::SalvageArgs;
use super::exit::{Code, Failure};
use super::request::Environment;
use super::subject;
use crate::mend::{self, SalvageError, Salvaged};

/// Runs the command.
///
/// # Errors
/// Nothing could be saved, or not be written; a new file of no use is removed again.
pub fn run(args: &SalvageArgs, environment: Environment) -> Result<Code, Failure> {
    let subject = subject::find(&args.file)?;
    let path = subject
        .paths
        .data()
        .join(Path::new(std::ffi::OsStr::from_bytes(&subject.below)));
    let sealed = open(&path)?;
    let ring = subject::keys(&subject.paths, &args.key, environment)?;
    let mut out = make(&args.output)?;
    let saved = mend::salvage(sealed, Arc::new(ring), &mut out).map_err(|e| {
        // It was made here a moment ago; what is in it is not all that could be saved.
        let _ = fs::remove_file(&args.output);
        match e {
            SalvageError::Unreadable(_) => Failure::new(Code::Damage, format!("{}: {e}", args.file.display())),
            SalvageError::Output(_) => Failure::new(Code::Failed, format!("{}: {e}", args.output.display())),
        }
    })?;
    super::print(&text(args, saved))?;
    Ok(if saved.lost_bytes == 0 {
        Code::Done
    } else {
        Code::Damage
    })
}

fn open(path: &Path) -> Result<File, Failure> {
    let failed = |e: &dyn std::fmt::Display| Failure::new(Code::Failed, format!("{}: {e}", path.display()));
    let file = File::open(path).map_err(|e| failed(&e))?;
    let is_file = file.metadata().map_err(|e| failed(&e))?.is_file();
    is_file
        .then_some(file)
        .ok_or_else(|| failed(&"not a file; name one recording"))
}

fn make(path: &Path) -> Result<File, Failure> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        // Plaintext: for its owner alone, who may open it to others.
        .mode(0o600)
        .open(path);
    made.map_err(|e| {
        let advice = match e.kind() {
            std::io::ErrorKind::AlreadyExists => "; nothing is overwritten, name a new file",
            _ => "",
        };
        Failure::new(Code::Failed, format!("{}: {e}{advice}", path.display()))
    })
}

fn text(args: &SalvageArgs, saved: Salvaged) -> String {
    let header = if saved.header_mended {
        "; the WAV header was given the real length"
    } else {
        ""
    };
    let lost = match saved.lost_bytes {
        0 => "all of it could be read".to_owned(),
        lost => format!("{lost} are silence in {} places", saved.lost_stretches),
    };
    format!(
        "{}: {} bytes, {lost}{header}; written to {}",
        args.file.display(),
        saved.bytes,
        args.output.display()
    )
}
