//! Writes man pages and shell completions, made from the command line's own description, into a directory: for packages.
//!
//! `cargo run --example manual -- DIR` makes `DIR/man/*.1`, `DIR/man/*.8` and `DIR/completions/`.

#![expect(clippy::disallowed_methods, reason = "a program of its own, with an argument")]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

fn main() -> io::Result<()> {
    let out = std::env::args_os().nth(1);
    let Some(out) = out.map(PathBuf::from) else {
        return Err(io::Error::other("name the directory to write to"));
    };
    let (man, completions) = (out.join("man"), out.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    let [mut tallyfs, helper] = tallyfs::cli::commands();
    tallyfs.build();
    pages(&man, &tallyfs, "tallyfs")?;
    page(&man, helper, "mount.tallyfs", "8")?;
    fs::write(man.join("mount.fuse.tallyfs.8"), ".so man8/mount.tallyfs.8\n")?;
    for (shell, name) in [
        (Shell::Bash, "tallyfs"),
        (Shell::Zsh, "_tallyfs"),
        (Shell::Fish, "tallyfs.fish"),
    ] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut tallyfs, "tallyfs", &mut text);
        fs::write(completions.join(name), text)?;
    }
    Ok(())
}

/// One page for a command and one for each below it: `tallyfs-quota-get.1`.
fn pages(dir: &Path, command: &Command, name: &str) -> io::Result<()> {
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        pages(dir, below, &format!("{name}-{}", below.get_name()))?;
    }
    page(dir, command.clone(), name, "1")
}

fn page(dir: &Path, command: Command, name: &str, section: &str) -> io::Result<()> {
    let version = concat!("tallyfs ", env!("CARGO_PKG_VERSION"));
    let page = Man::new(command)
        .title(name.to_uppercase())
        .section(section)
        .source(version)
        .manual("TallyFS");
    let mut text = Vec::new();
    page.render(&mut text)?;
    fs::write(dir.join(format!("{name}.{section}")), text)
}
