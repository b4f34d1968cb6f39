//! The signature of a webhook, after Standard Webhooks: who has the secret knows that the notice comes from here and
//! is not an old one. The secret is read for each attempt, so that a file that is mended or changed counts at once, and
//! forgotten after it.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::private_file::{self, read_up_to};

/// What a secret begins with.
const PREFIX: &[u8] = b"whsec_";
/// Bytes of a secret, after Standard Webhooks.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Longest content of the file: prefix, base64 of 64 bytes, carriage return, line feed.
const FILE_BYTES_MAX: usize = PREFIX.len() + 88 + 2;

/// What requests are signed with; zeroed when it is dropped.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// What is wrong, without a byte of the content.
    pub fn read(path: &Path) -> Result<Self, String> {
        let file = private_file::open(path).map_err(|e| e.to_string())?;
        let mut content = Zeroizing::new([0; FILE_BYTES_MAX + 1]);
        let len = read_up_to(&file, &mut *content).map_err(|e| format!("{}: {e}", path.display()))?;
        Self::parse(&content[..len]).ok_or_else(|| {
            format!(
                "{}: no secret; it takes whsec_ and base64 of {} to {} bytes, such as the output of \
                 `echo whsec_$(head -c 32 /dev/urandom | base64)`",
                path.display(),
                SECRET_BYTES.start(),
                SECRET_BYTES.end()
            )
        })
    }

    fn parse(content: &[u8]) -> Option<Self> {
        let text = content.trim_ascii().strip_prefix(PREFIX)?;
        // Room for all of it: no copy is left behind by growing.
        let mut bytes = Zeroizing::new(vec![0; FILE_BYTES_MAX]);
        let len = STANDARD.decode_slice(text, &mut bytes).ok()?;
        bytes.truncate(len);
        SECRET_BYTES.contains(&len).then_some(Self(bytes))
    }

    /// The header `webhook-signature`.
    pub fn signature(&self, id: &str, at_s: u64, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        for part in [id.as_bytes(), b".", at_s.to_string().as_bytes(), b".", body] {
            mac.update(part);
        }
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_signature_is_that_of_the_specification() {
        // The example of Standard Webhooks' libraries.
        let secret = Secret::parse(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let body = br#"{"test": 2432232314}"#;
        assert_eq!(
            secret.signature("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn files_that_hold_no_secret_or_that_others_can_read_are_refused_without_a_word_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let read = |content: &str, mode: u32| {
            let _ = fs::remove_file(&path);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Secret::read(&path).map(|_| ())
        };
        let good = format!("whsec_{}", STANDARD.encode([7; 32]));
        read(&good, 0o400).unwrap();
        read(&format!("{good}\r\n"), 0o600).unwrap();
        assert!(read(&good, 0o440).unwrap_err().contains("chmod 0400"));
        let short = format!("whsec_{}", STANDARD.encode([7; 23]));
        let long = format!("whsec_{}", STANDARD.encode([7; 65]));
        for bad in [
            "",
            "whsec_",
            "hunter2",
            &good[6..],
            &good[..20],
            &short,
            &long,
            &good.repeat(9),
        ] {
            let error = read(bad, 0o400).unwrap_err();
            assert!(error.contains("whsec_ and base64"), "{error}");
            assert!(bad.len() < 7 || !error.contains(bad), "{error}");
        }
        assert!(
            Secret::read(dir.path())
                .map(|_| ())
                .unwrap_err()
                .contains("not a regular file")
        );
    }
}
