//! Asks a running daemon over its Unix socket.

use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::exit::{Code, Failure};
use super::subject::{self, Subject};

/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A daemon that can be asked, and what was named in its mount.
pub struct Client {
    socket: PathBuf,
    /// Relative to the mount; empty for all of it.
    pub below: Vec<u8>,
}

impl Client {
    /// The daemon of a store, or of the mount that a path lies in.
    ///
    /// # Errors
    /// `path` is neither a store nor in one.
    pub fn of(path: &Path, socket: Option<&Path>) -> Result<Self, Failure> {
        let Subject { paths, below } = subject::find(path)?;
        let socket = socket.map_or_else(|| paths.admin_socket(), Path::to_path_buf);
        Ok(Self { socket, below })
    }

    /// One request, and the JSON of its answer.
    ///
    /// # Errors
    /// Nobody answers, or the answer is an error: what it says.
    pub fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let failed =
            |why: &dyn std::fmt::Display| Failure::new(Code::Failed, format!("{}: {why}", self.socket.display()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let answered = runtime
            .map_err(|e| failed(&e))?
            .block_on(self.exchange(method, path, body));
        let (status, answer) = answered.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => failed(
                &"no daemon answers; mount the store, or name its socket with --socket when `admin.socket` is set",
            ),
            io::ErrorKind::PermissionDenied => failed(&"permission denied; ask as root"),
            _ => failed(&e),
        })?;
        let told: Value = serde_json::from_slice(&answer).unwrap_or_default();
        if status.is_success() {
            return Ok(told);
        }
        let detail = told["detail"]
            .as_str()
            .map_or_else(|| status.to_string(), str::to_owned);
        let code = if status == StatusCode::BAD_REQUEST {
            Code::Usage
        } else {
            Code::Failed
        };
        Err(Failure::new(code, detail))
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<&Value>) -> io::Result<(StatusCode, Bytes)> {
        let stream = tokio::net::UnixStream::from_std(connect(&self.socket)?)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        let driver = tokio::spawn(connection);
        let text = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "tallyfs")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(text)))
            .map_err(io::Error::other)?;
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        driver.abort();
        Ok((status, body.map_err(io::Error::other)?.to_bytes()))
    }
}

/// The path of a socket has 108 bytes at most, that of a store need not.
fn connect(socket: &Path) -> io::Result<std::os::unix::net::UnixStream> {
    let (Some(parent), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    let parent = std::fs::File::open(parent)?;
    let near = Path::new("/proc/self/fd")
        .join(parent.as_raw_fd().to_string())
        .join(name);
    let stream = std::os::unix::net::UnixStream::connect(near)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// A path as one part of an address: slashes are escaped too.
pub fn escaped(path: &[u8]) -> String {
    path.iter().fold(String::new(), |mut text, &byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            use std::fmt::Write as _;
            // A String takes all.
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_escaped_with_their_slashes() {
        assert_eq!(
            escaped("we, \"us\"/a%b/\u{e9}".as_bytes()),
            "we%2C%20%22us%22%2Fa%25b%2F%C3%A9"
        );
    }
}
