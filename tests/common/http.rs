//! Requests to the daemon's interface for programs, in plain text.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::Value;

use super::Mount;

/// What was answered.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// It has this status.
    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}\n{}", self.head, self.body);
        self
    }

    /// One of its headers.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// One request in plain text.
pub fn exchange(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let headers: Vec<String> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: tallyfs\r\nConnection: close\r\n{}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        headers.concat(),
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("the request");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("the answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    // Only long answers come in pieces, and none of those is looked into here.
    Answer {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

/// A connection to the daemon's own socket.
pub fn unix(mount: &Mount) -> UnixStream {
    UnixStream::connect(mount.store().join("admin.sock")).expect("the daemon answers")
}

/// GET there.
pub fn get(mount: &Mount, path: &str) -> Answer {
    exchange(unix(mount), "GET", path, &[], "")
}

/// Any method, with a body.
pub fn send(mount: &Mount, method: &str, path: &str, body: &Value) -> Answer {
    exchange(unix(mount), method, path, &[], &body.to_string())
}

/// POST there.
pub fn post(mount: &Mount, path: &str, body: &Value) -> Answer {
    send(mount, "POST", path, body)
}
