//! One HTTP request with a notice: bounded in time and in what is read of the answer. No redirect is followed, and no
//! connection is kept: notices are rare, and a receiver that moved is the operator's business.

use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::attempt::Failed;
use super::secret::Secret;

/// So much of an answer is read, for the log.
const ANSWER_BYTES_MAX: usize = 1024;
/// Of which so much is told.
const TOLD_CHARS_MAX: usize = 200;

/// Where a notice goes.
pub struct Target<'a> {
    /// `http://` or `https://`.
    pub url: &'a str,
    /// Signs the request.
    pub secret: Option<Secret>,
    /// Certificates that are trusted instead of the system's.
    pub ca_file: Option<&'a Path>,
}

/// What is sent.
pub struct Message<'a> {
    /// The notice's.
    pub id: &'a str,
    /// Now, seconds since 1970.
    pub at_s: u64,
    /// JSON.
    pub body: String,
}

/// Sends it. The caller bounds the time.
///
/// # Errors
/// Nobody has taken it: there was no connection, or another answer than 2xx.
pub async fn post(target: Target<'_>, message: Message<'_>) -> Result<(), Failed> {
    let uri: Uri = target
        .url
        .parse()
        .map_err(|e| Failed::because(&format_args!("url: {e}")))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let is_tls = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let request = request(&uri, &target, message)?;
    let stream = TcpStream::connect((host.as_str(), port))
        .await
        .map_err(|e| Failed::because(&format_args!("{host}:{port}: {e}")))?;
    // One small request: waiting for more to send only costs time.
    let _ = stream.set_nodelay(true);
    if !is_tls {
        return exchange(TokioIo::new(stream), request).await;
    }
    #[cfg(feature = "aws-lc")]
    {
        let stream = super::tls::wrap(stream, &host, target.ca_file)
            .await
            .map_err(|e| Failed::because(&e))?;
        exchange(TokioIo::new(stream), request).await
    }
    #[cfg(not(feature = "aws-lc"))]
    {
        let _ = target.ca_file;
        Err(Failed::because(&"this program was built without TLS"))
    }
}

fn request(uri: &Uri, target: &Target<'_>, message: Message<'_>) -> Result<Request<Full<Bytes>>, Failed> {
    let Message { id, at_s, body } = message;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let mut request = Request::post(path)
        .header(header::HOST, authority)
        .header(header::USER_AGENT, concat!("tallyfs/", env!("CARGO_PKG_VERSION")))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "close")
        .header("webhook-id", id)
        .header("webhook-timestamp", at_s);
    if let Some(secret) = &target.secret {
        request = request.header("webhook-signature", secret.signature(id, at_s, body.as_bytes()));
    }
    request
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| Failed::because(&e))
}

async fn exchange<S>(stream: TokioIo<S>, request: Request<Full<Bytes>>) -> Result<(), Failed>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(stream).await.map_err(|e| Failed::because(&e))?;
    let driver = AbortOnDrop(tokio::spawn(connection));
    let response = sender.send_request(request).await.map_err(|e| Failed::because(&e))?;
    let answer = judge(response).await;
    drop(driver);
    answer
}

/// A connection lives no longer than the attempt, also when that is cut short.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Any 2xx says that it was taken.
async fn judge(response: Response<hyper::body::Incoming>) -> Result<(), Failed> {
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let retry_after = response.headers().get(header::RETRY_AFTER);
    let asked = retry_after
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let read = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let said = read.map(Collected::to_bytes).unwrap_or_default();
    let said: String = String::from_utf8_lossy(&said)
        .chars()
        .filter(|c| !c.is_control())
        .take(TOLD_CHARS_MAX)
        .collect();
    let gap = if said.trim().is_empty() { "" } else { ": " };
    Err(Failed {
        reason: format!("answered {status}{gap}{}", said.trim()),
        retry_after: asked,
        // RFC 9110: it is gone for good. Standard Webhooks asks senders to stop.
        is_final: status == StatusCode::GONE,
    })
}
