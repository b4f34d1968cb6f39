//! `tallyfs token`: a secret for a program that asks over TCP. It is shown once; the configuration gets its hash.

use super::exit::{Code, Failure};
use super::print;
use crate::admin::secret_hash;
use crate::config::{Config, Scope};
use crate::units::hex;

/// Random bytes of a token.
const SECRET_BYTES: usize = 32;
/// What a token begins with, so that scanners for leaked secrets find it.
const PREFIX: &str = "tallyfs_";

/// Makes one.
///
/// # Errors
/// A scope that there is not; no randomness.
pub fn run(name: &str, scopes: &[String], tenant: Option<String>) -> Result<Code, Failure> {
    let known = [Scope::Read, Scope::Quota, Scope::Admin];
    for scope in scopes {
        if !known.iter().any(|known| known.to_string() == *scope) {
            let text = format!("'{scope}' is no scope; allowed: read, quota, admin");
            return Err(Failure::new(Code::Usage, text));
        }
    }
    let mut secret = [0; SECRET_BYTES];
    getrandom::fill(&mut secret).map_err(|e| Failure::new(Code::Failed, format!("no random bytes: {e}")))?;
    let token = format!("{PREFIX}{}", hex(&secret));
    let mut entry = toml::Table::new();
    entry.insert("name".to_owned(), name.into());
    entry.insert("sha256".to_owned(), hex(&secret_hash(&token)).into());
    entry.insert("scopes".to_owned(), scopes.to_vec().into());
    if let Some(tenant) = tenant {
        entry.insert("tenant".to_owned(), tenant.into());
    }
    let lines = format!("[[admin.tokens]]\n{entry}");
    Config::parse("the new token", &lines).map_err(|e| Failure::new(Code::Usage, e))?;
    print(&format!(
        "The token, shown this once:\n\n    {token}\n\nFor the configuration:\n\n{lines}"
    ))
}
