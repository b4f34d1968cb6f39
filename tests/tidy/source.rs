//! A source file as the checks see it: its code, with comments and string contents blanked.
//!
//! A scanner, not a parser: it knows comments, strings and characters and nothing else of Rust, so
//! positions and line numbers stay those of the file.

use std::path::PathBuf;

/// One Rust file: where it lies, its text, and its code without comments and string contents.
pub struct Source {
    pub path: PathBuf,
    pub text: String,
    pub code: String,
}

impl Source {
    pub fn new(path: impl Into<PathBuf>, text: &str) -> Self {
        Self {
            path: path.into(),
            text: text.to_owned(),
            code: code_of(text),
        }
    }

    /// `fs` for src/fs.rs and src/fs/write.rs; `None` for tests, main and lib.
    pub fn module(&self) -> Option<&str> {
        let mut parts = self.path.strip_prefix("src").ok()?.iter();
        let name = parts.next()?.to_str()?;
        let name = name.strip_suffix(".rs").unwrap_or(name);
        (!matches!(name, "main" | "lib")).then_some(name)
    }

    /// A file of tests alone: under a `tests` directory, or a module that a `#[cfg(test)]` brings in.
    pub fn is_test(&self) -> bool {
        let name = self.path.file_stem().and_then(|n| n.to_str()).unwrap_or("");
        self.path.iter().any(|part| part == "tests") || name == "tests" || name.starts_with("tests_")
    }

    /// The code before the tests.
    pub fn tested_code(&self) -> &str {
        if self.is_test() {
            return "";
        }
        match self.code.find("#[cfg(test)]\nmod ") {
            Some(at) => &self.code[..at],
            None => &self.code,
        }
    }

    pub fn complain(&self, line: usize, what: impl std::fmt::Display) -> String {
        format!("{}:{line}: {what}", self.path.display())
    }
}

/// Replaces comments, and what stands in strings and character literals, by spaces; line feeds
/// stay, so positions and line numbers do too.
pub fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = blank_end(bytes, at);
        match end {
            Some(end) => {
                let end = end.min(bytes.len());
                for byte in &mut code[at..end] {
                    if *byte != b'\n' {
                        *byte = b' ';
                    }
                }
                at = end;
            }
            None => at += 1,
        }
    }
    String::from_utf8(code).expect("whole characters were blanked")
}

/// Where the comment or literal that begins at `at` ends; `None` if none begins there.
fn blank_end(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let is_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    match rest {
        [b'/', b'/', ..] => Some(at + find(rest, b"\n").unwrap_or(rest.len())),
        [b'/', b'*', ..] => Some(at + block_comment_len(rest)),
        [b'"', ..] => Some(at + string_len(rest)),
        [b'r', b'"' | b'#', ..] if !is_word => raw_string_len(rest).map(|len| at + len),
        [b'\'', b'\\', _, ..] => Some(at + 3 + find(&rest[3..], b"'").unwrap_or(0) + 1),
        [b'\'', ..] => char_len(rest).map(|len| at + len),
        _ => None,
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|part| part == what)
}

fn block_comment_len(bytes: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if bytes[at..].starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn string_len(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

/// `r"..."` and `r#"..."#`; `None` for a raw identifier such as `r#type`.
fn raw_string_len(bytes: &[u8]) -> Option<usize> {
    let hashes = bytes[1..].iter().take_while(|b| **b == b'#').count();
    let body = bytes.get(1 + hashes..)?.strip_prefix(b"\"")?;
    let mut end = vec![b'"'];
    end.resize(hashes + 1, b'#');
    Some(2 + hashes + find(body, &end)? + end.len())
}

/// `'x'` with any one character; `None` for a lifetime.
fn char_len(bytes: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(&bytes[1..bytes.len().min(6)]);
    let valid = match &text {
        Ok(text) => text,
        Err(e) => std::str::from_utf8(&bytes[1..=e.valid_up_to()]).ok()?,
    };
    let first = valid.chars().next()?;
    (bytes.get(1 + first.len_utf8()) == Some(&b'\'')).then_some(2 + first.len_utf8())
}

pub fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Where `word` stands with no letter, digit or `_` at either end of it.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    code.match_indices(word).filter_map(move |(at, _)| {
        let before = is_part(code[..at].chars().next_back());
        let after = is_part(code[at + word.len()..].chars().next()) && !word.ends_with('!');
        (!before && !after).then_some(at)
    })
}
