//! A notice as a mail (RFC 5322). Names of directories may hold anything, line feeds too: what goes into a header is
//! encoded first, and the text is base64, so that no name can add a header or end the message.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use super::attempt::Origin;
use super::notice::{Notice, Status};

/// Longest line of base64 (RFC 2045).
const LINE_CHARS_MAX: usize = 76;
/// Characters of a subject.
const SUBJECT_CHARS_MAX: usize = 200;
/// Bytes of one encoded word: with its frame below the 75 of RFC 2047.
const WORD_BYTES_MAX: usize = 45;

/// The whole message, with line feeds alone, as sendmail takes it.
pub fn message(notice: &Notice, origin: &Origin, id: &str, from: Option<&str>, to: &[String], now_s: u64) -> String {
    let host = host(&origin.instance);
    let from = from.map_or_else(|| format!("tallyfs@{host}"), str::to_owned);
    let state = match notice.status {
        Status::Firing => "",
        Status::Resolved => "over: ",
    };
    let headers = [
        ("From", format!("TallyFS <{from}>")),
        ("To", to.join(",\n ")),
        (
            "Subject",
            subject(&format!("[{}] {state}{}", origin.instance, notice.summary)),
        ),
        ("Date", date(now_s)),
        // The same for each attempt: a reader that gets it twice shows it once.
        ("Message-ID", format!("<{id}@{host}>")),
        ("Auto-Submitted", "auto-generated".to_owned()),
        ("MIME-Version", "1.0".to_owned()),
        ("Content-Type", "text/plain; charset=utf-8".to_owned()),
        ("Content-Transfer-Encoding", "base64".to_owned()),
    ];
    let mut text = String::new();
    for (name, value) in headers {
        // A String takes all.
        let _ = writeln!(text, "{name}: {value}");
    }
    text.push('\n');
    let body = STANDARD.encode(body(notice, origin, id));
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(LINE_CHARS_MAX));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text
}

fn body(notice: &Notice, origin: &Origin, id: &str) -> String {
    let mut text = format!("{}\n\nstore: {}\npath: {}\n", notice.summary, origin.store, notice.path);
    if let Some(tenant) = &notice.tenant {
        let _ = writeln!(text, "tenant: {tenant}");
    }
    if !origin.external_url.is_empty() {
        let _ = writeln!(text, "{}", origin.external_url);
    }
    let _ = writeln!(text, "id: {id}");
    text
}

/// Encoded words (RFC 2047) of whole characters, a line each; plain text stays plain.
fn subject(text: &str) -> String {
    let clean: String = text
        .chars()
        .take(SUBJECT_CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if clean.is_ascii() && !clean.contains("=?") {
        return clean;
    }
    let mut words = vec![String::new()];
    for c in clean.chars() {
        let last = words.last_mut().expect("there is always a word");
        if last.len() + c.len_utf8() > WORD_BYTES_MAX {
            words.push(c.to_string());
        } else {
            last.push(c);
        }
    }
    let encoded = words
        .iter()
        .map(|word| format!("=?UTF-8?B?{}?=", STANDARD.encode(word)));
    encoded.collect::<Vec<_>>().join("\n ")
}

/// What may stand behind the `@`.
fn host(instance: &str) -> String {
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || ".-".contains(*c);
    let host: String = instance.chars().filter(is_plain).collect();
    if host.is_empty() { "localhost".to_owned() } else { host }
}

/// `Sat, 21 Nov 2026 00:00:00 +0000`.
fn date(unix_s: u64) -> String {
    let at = Timestamp::from_second(unix_s.cast_signed()).unwrap_or(Timestamp::UNIX_EPOCH);
    at.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NoticeKind;

    fn sent(summary: &str) -> String {
        let origin = Origin {
            instance: "rec1".to_owned(),
            store: "/var/lib/tallyfs".to_owned(),
            external_url: String::new(),
        };
        let times_s = [1_795_219_200; 2];
        let notice = Notice::of_daemon(NoticeKind::Test, Status::Firing, times_s, summary.to_owned());
        let to = ["ops@example.com".to_owned(), "boss@example.com".to_owned()];
        message(&notice, &origin, "msg_1", None, &to, 1_795_219_200)
    }

    #[test]
    fn a_plain_notice_is_a_plain_message() {
        let sent = sent("'acme': 80 % of the limit");
        let (head, body) = sent.split_once("\n\n").unwrap();
        let lines: Vec<_> = head.lines().collect();
        assert_eq!(
            lines[..6],
            [
                "From: TallyFS <tallyfs@rec1>",
                "To: ops@example.com,",
                " boss@example.com",
                "Subject: [rec1] 'acme': 80 % of the limit",
                "Date: Sat, 21 Nov 2026 00:00:00 +0000",
                "Message-ID: <msg_1@rec1>",
            ]
        );
        let text = STANDARD.decode(body.replace('\n', "")).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.starts_with("'acme': 80 % of the limit\n\nstore: /var/lib/tallyfs\n"),
            "{text}"
        );
    }

    #[test]
    fn no_name_adds_a_header_or_ends_the_message() {
        for evil in [
            "a\nBcc: all@example.com",
            "a\r\n\r\nBcc: all@example.com",
            "\u{e9}\nBcc: all@example.com",
            "=?UTF-8?Q?=0ABcc:_all?=",
            ".\n.\n",
            "a\u{2028}b\u{85}c\0d",
        ] {
            let sent = sent(&evil.repeat(40));
            let (head, body) = sent.split_once("\n\n").unwrap();
            for line in head.lines() {
                let name = line.split_once(": ").map(|(name, _)| name);
                let known = [
                    "From",
                    "To",
                    "Subject",
                    "Date",
                    "Message-ID",
                    "Auto-Submitted",
                    "MIME-Version",
                ];
                let is_known = name.is_some_and(|name| known.contains(&name) || name.starts_with("Content-"));
                assert!(
                    is_known || line.starts_with(" =?UTF-8?B?") || line == " boss@example.com",
                    "{line:?}"
                );
                assert!(
                    line.is_ascii() && !line.contains(['\r', '\0']) && line.len() < 300,
                    "{line:?}"
                );
            }
            assert!(
                body.lines().all(|line| line.len() <= 76 && !line.starts_with('.')),
                "{body}"
            );
        }
    }

    #[test]
    fn other_scripts_are_encoded_by_whole_characters() {
        let encoded = subject(&"\u{1f4de}\u{e9}a".repeat(30));
        let mut decoded = String::new();
        for word in encoded.lines() {
            assert!(word.trim().len() <= 75, "{word}");
            let inside = word
                .trim()
                .strip_prefix("=?UTF-8?B?")
                .unwrap()
                .strip_suffix("?=")
                .unwrap();
            decoded.push_str(&String::from_utf8(STANDARD.decode(inside).unwrap()).unwrap());
        }
        assert_eq!(decoded, "\u{1f4de}\u{e9}a".repeat(30));
    }
}
