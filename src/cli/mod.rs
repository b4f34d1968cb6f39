//! The command line: arguments in, text and an exit code out.
//!
//! Only this module prints, and only it reads the environment.

mod exit;

/// temporary
pub fn main() -> std::process::ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let a: Vec<String> = std::env::args().collect();
    let r = crate::daemon::run(crate::daemon::MountRequest { store: a[2].clone().into(), mount_point: a[3].clone().into(), options: crate::daemon::options::MountOptions::parse::<&str>(&[]).unwrap(), config: crate::config::Config::default(), key: crate::daemon::key_file::KeyChoice::Beside });
    if let Err(e) = r { eprintln!("tallyfs: {e}"); return std::process::ExitCode::from(1); }
    std::process::ExitCode::SUCCESS
}
