//! Settings of long runs, from the environment.

/// A number, or `otherwise` where none is set.
#[expect(
    clippy::disallowed_methods,
    reason = "a test takes its own settings from the environment"
)]
pub fn from_env(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}
