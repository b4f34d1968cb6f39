//! Somebody who gets notices over HTTP: a real socket on this machine, that answers as the test says, and a check of
//! signatures that shares no code with the daemon.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// A secret in the form of Standard Webhooks.
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// How requests are answered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// With this status.
    Status(u16),
    /// Not at all: the connection stays open.
    Nothing,
}

/// One request.
#[derive(Clone)]
pub struct Got {
    headers: Vec<(String, String)>,
    /// As it came.
    pub body: Vec<u8>,
}

impl Got {
    /// A header by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The notice's.
    #[track_caller]
    pub fn id(&self) -> &str {
        self.header("webhook-id").expect("an id")
    }

    /// The body.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// A label of its one alert.
    #[track_caller]
    pub fn label(&self, name: &str) -> String {
        let json = self.json();
        json["alerts"][0]["labels"][name]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Whether the signature is that of [`SECRET`].
    #[track_caller]
    pub fn is_signed(&self) -> bool {
        let key = STANDARD.decode(&SECRET["whsec_".len()..]).expect("base64");
        let at = self.header("webhook-timestamp").expect("a time");
        let mut signed = format!("{}.{at}.", self.id()).into_bytes();
        signed.extend(&self.body);
        let expected = format!("v1,{}", STANDARD.encode(hmac_sha256(&key, &signed)));
        self.header("webhook-signature") == Some(&expected)
    }
}

/// RFC 2104, by its text.
fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let inner = Sha256::new()
        .chain_update(block.map(|byte| byte ^ 0x36))
        .chain_update(message)
        .finalize();
    let outer = Sha256::new()
        .chain_update(block.map(|byte| byte ^ 0x5c))
        .chain_update(inner);
    outer.finalize().to_vec()
}

struct State {
    answer: Answer,
    got: Vec<Got>,
    /// Connections that are never answered.
    hanging: Vec<TcpStream>,
}

/// A listening socket and its thread, which ends with the test's process.
pub struct HttpReceiver {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl HttpReceiver {
    /// At a port of its own.
    #[track_caller]
    pub fn new(answer: Answer) -> Self {
        Self::at("127.0.0.1:0".parse().expect("an address"), answer)
    }

    /// At this address.
    #[track_caller]
    pub fn at(address: SocketAddr, answer: Answer) -> Self {
        let listener = TcpListener::bind(address).expect("the address is free");
        let state = Arc::new(Mutex::new(State {
            answer,
            got: Vec::new(),
            hanging: Vec::new(),
        }));
        let address = listener.local_addr().expect("an address");
        let served = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                serve(stream, &served);
            }
        });
        Self { address, state }
    }

    /// Where nobody listens.
    #[track_caller]
    pub fn nowhere() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address")
    }

    /// For the configuration.
    pub fn url(&self) -> String {
        format!("http://{}/notices?from=tallyfs", self.address)
    }

    /// From the next request on.
    pub fn answer(&self, answer: Answer) {
        self.state.lock().expect("no panic").answer = answer;
    }

    /// All requests so far.
    pub fn got(&self) -> Vec<Got> {
        self.state.lock().expect("no panic").got.clone()
    }

    /// Requests that wait for an answer.
    pub fn hanging_count(&self) -> usize {
        self.state.lock().expect("no panic").hanging.len()
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    let Some(got) = read(&stream) else { return };
    let mut state = state.lock().expect("no panic");
    match state.answer {
        Answer::Nothing => state.hanging.push(stream),
        Answer::Status(status) => {
            // Before the answer, so that what the daemon knows the test knows too.
            if (200..300).contains(&status) {
                state.got.push(got);
            }
            let answer = format!("HTTP/1.1 {status} so\r\nContent-Length: 3\r\nConnection: close\r\n\r\nwhy");
            let _ = stream.write_all(answer.as_bytes());
        }
    }
}

fn read(stream: &TcpStream) -> Option<Got> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    assert_eq!(line, "POST /notices?from=tallyfs HTTP/1.1\r\n");
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length?.1.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some(Got { headers, body })
}
