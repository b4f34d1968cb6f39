//! Holds the house rules of the code: the layer table, and where what may stand.
//!
//! Every check is a function over the text of one file that returns what is wrong, and has a
//! test of its own with a bad snippet, so that it is known to be able to fail. Comments and string
//! contents are blanked first ([`code_of`]), so only code counts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "tidy/source.rs"]
mod source;

use source::{Source, code_of, line_of, words};

/// Which modules a module may name beside itself. A new module gets a row here.
const LAYERS: &[(&str, &[&str])] = &[
    ("sys", &[]),
    ("units", &[]),
    ("period", &[]),
    ("id", &[]),
    ("private_file", &[]),
    ("clock", &[]),
    ("sync", &[]),
    ("metrics", &[]),
    ("error", &["id", "units"]),
    ("event", &["id", "units"]),
    ("sealed", &["error", "id", "units"]),
    ("quota", &["clock", "error", "id", "period", "sync", "units"]),
    // The checked form holds limits as the ledger takes them.
    ("config", &["error", "id", "period", "quota", "units"]),
    ("audio", &[]),
    ("store", &["clock", "error", "id", "sealed", "sys", "units"]),
    ("db", &["clock", "error", "event", "id", "period", "quota", "units"]),
    (
        "fs",
        &[
            "clock", "config", "error", "event", "id", "metrics", "period", "quota", "sealed", "store", "sync", "sys",
            "units",
        ],
    ),
    (
        "recovery",
        &["clock", "db", "error", "id", "quota", "sealed", "store", "sys", "units"],
    ),
    (
        "mend",
        &[
            "audio", "clock", "db", "error", "id", "recovery", "sealed", "store", "sys", "units",
        ],
    ),
    (
        "alert",
        &[
            "clock",
            "config",
            "db",
            "id",
            "period",
            "private_file",
            "quota",
            "sys",
            "units",
        ],
    ),
    (
        "admin",
        &[
            "alert", "clock", "config", "db", "fs", "id", "metrics", "period", "quota", "sys", "units",
        ],
    ),
    ("fuse", &["clock", "error", "fs", "id", "metrics", "sys", "units"]),
    (
        "daemon",
        &[
            "admin",
            "alert",
            "audio",
            "clock",
            "config",
            "db",
            "error",
            "event",
            "fs",
            "fuse",
            "id",
            "mend",
            "metrics",
            "period",
            "private_file",
            "quota",
            "recovery",
            "sealed",
            "store",
            "sync",
            "sys",
            "units",
        ],
    ),
    (
        "cli",
        &[
            "admin", "alert", "audio", "clock", "config", "daemon", "db", "error", "event", "fs", "fuse", "id", "mend",
            "metrics", "period", "quota", "recovery", "sealed", "store", "sync", "sys", "units",
        ],
    ),
];

/// Words that may stand only in the modules named beside them.
const HOMES: &[(&str, &[&str])] = &[
    ("unsafe", &["sys"]),
    ("println!", &["cli"]),
    ("print!", &["cli"]),
    ("eprintln!", &["cli"]),
    ("eprint!", &["cli"]),
    ("std::env", &["cli"]),
    ("env::var", &["cli"]),
    ("SystemTime::now", &["clock"]),
    ("Instant::now", &["clock"]),
    ("rusqlite", &["db"]),
    ("fuser", &["fuse"]),
];

/// Words that stand nowhere. They are put together here so that this file does not hold them.
const NOWHERE: &[&str] = &[concat!("todo", "!"), concat!("unimplemented", "!"), concat!("dbg", "!")];

/// Left-over marks, looked for in comments too.
const MARKS: &[&str] = &[concat!("FIX", "ME"), concat!("XX", "X")];

/// Hosts of package registries: the repository names packages, never where to get them.
const REGISTRY_HOSTS: &[&str] = &[
    concat!("crates", ".io"),
    concat!("static.", "crates", ".io"),
    concat!("pypi", ".org"),
    concat!("registry.", "npmjs", ".org"),
    concat!("deb.", "debian", ".org"),
    concat!("archive.", "ubuntu", ".com"),
    concat!("proxy.", "golang", ".org"),
];

const FILE_LINES_MAX: usize = 600;
/// Of a file that holds tests and nothing else.
const TEST_FILE_LINES_MAX: usize = 1000;
const FUNCTION_LINES_MAX: usize = 70;

/// The crate's modules that a path after `crate::` (or an equal detour) names, with positions.
fn names_after<'a>(code: &'a str, prefix: &str) -> Vec<(usize, &'a str)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        match rest.trim_start().strip_prefix('{') {
            Some(group) => found.extend(group_heads(group).into_iter().map(|name| (at, name))),
            None => found.push((at, ident(rest.trim_start()))),
        }
    }
    found.retain(|(_, name)| !name.is_empty());
    found
}

fn ident(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

/// First names of the entries of `{a::b, c::{d, e}, f}`, given what follows the first brace.
fn group_heads(group: &str) -> Vec<&str> {
    let mut heads = Vec::new();
    let (mut depth, mut start) = (0_usize, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                heads.push(ident(group[start..at].trim_start()));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                heads.push(ident(group[start..at].trim_start()));
                start = at + 1;
            }
            _ => {}
        }
    }
    heads
}

/// How many `super::` lead out of a file's own module: one for src/x.rs and src/x/mod.rs, two for
/// src/x/y.rs, and so on.
fn detour(path: &Path) -> Option<String> {
    let inside = path.strip_prefix("src").ok()?;
    let is_mod = inside.file_name()? == "mod.rs";
    Some("super::".repeat(inside.iter().count() - usize::from(is_mod)))
}

fn check_layers(source: &Source) -> Vec<String> {
    let Some(module) = source.module() else {
        return Vec::new();
    };
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
        return vec![source.complain(1, format!("module `{module}` has no row in LAYERS"))];
    };
    let code = &source.code;
    let mut names = names_after(code, "crate::");
    // Inside `mod tests { .. }` one `super::` more is needed, so the same words lead nowhere else.
    let tested = source.tested_code();
    names.extend(names_after(tested, &detour(&source.path).unwrap_or_default()));
    names
        .into_iter()
        .filter(|(_, name)| *name != module && !allowed.contains(name))
        .map(|(at, name)| source.complain(line_of(code, at), format!("`{module}` names `{name}`")))
        .collect()
}

fn check_homes(source: &Source) -> Vec<String> {
    let module = source.module().unwrap_or("");
    let mut wrong = Vec::new();
    for (word, homes) in HOMES {
        // Tests and examples may measure, print and set up as they like, but not be unsafe.
        let code = match *word {
            "unsafe" => &source.code,
            _ if source.path.starts_with("examples") => "",
            _ => source.tested_code(),
        };
        if homes.contains(&module) {
            continue;
        }
        for at in words(code, word) {
            let what = format!("`{word}` belongs in {}", homes.join(", "));
            wrong.push(source.complain(line_of(code, at), what));
        }
    }
    wrong
}

fn check_words(source: &Source) -> Vec<String> {
    let mut wrong = Vec::new();
    for word in NOWHERE {
        for at in words(&source.code, word) {
            wrong.push(source.complain(line_of(&source.code, at), format!("`{word}` is left")));
        }
    }
    for mark in MARKS {
        for at in words(&source.text, mark) {
            wrong.push(source.complain(line_of(&source.text, at), format!("`{mark}` is left")));
        }
    }
    let code = source.tested_code();
    for (at, _) in code.match_indices(".unwrap()") {
        wrong.push(source.complain(line_of(code, at), "unwrap outside tests"));
    }
    wrong
}

fn check_head(source: &Source) -> Vec<String> {
    if source.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![source.complain(1, "a file starts with `//!` and why it exists")]
}

fn check_file_length(source: &Source) -> Vec<String> {
    let text = match source.code.find("#[cfg(test)]\nmod ") {
        Some(at) => &source.text[..at],
        None => &source.text,
    };
    let lines = text.lines().count();
    let lines_max = if source.is_test() {
        TEST_FILE_LINES_MAX
    } else {
        FILE_LINES_MAX
    };
    if lines <= lines_max {
        return Vec::new();
    }
    vec![source.complain(lines, format!("{lines} lines before the tests: split the file"))]
}

fn check_function_length(source: &Source) -> Vec<String> {
    let code = &source.code;
    let mut wrong = Vec::new();
    for at in words(code, "fn") {
        let name = ident(code[at + 2..].trim_start());
        if name.is_empty() {
            continue; // a function pointer type
        }
        let lines = function_lines(&code[at..]);
        if lines > FUNCTION_LINES_MAX {
            let what = format!("`{name}` has {lines} lines: split it");
            wrong.push(source.complain(line_of(code, at), what));
        }
    }
    wrong
}

/// Lines from the `fn` to the brace that closes its body; 0 for a declaration without one.
fn function_lines(code: &str) -> usize {
    let (mut depth, mut brackets) = (0_usize, 0_usize);
    for (at, c) in code.char_indices() {
        match c {
            ';' if depth == 0 && brackets == 0 => return 0,
            '[' | '(' => brackets += 1,
            ']' | ')' => brackets = brackets.saturating_sub(1),
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return line_of(code, at);
                }
            }
            _ => {}
        }
    }
    0
}

fn check_hosts(path: &Path, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for host in REGISTRY_HOSTS {
        for (at, _) in text.match_indices(&format!("//{host}")) {
            let line = line_of(text, at);
            wrong.push(format!("{}:{line}: names the registry {host}", path.display()));
        }
    }
    wrong
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files that git knows or would take in.
fn repository_files() -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git is installed");
    assert!(output.status.success(), "git ls-files failed");
    let text = String::from_utf8(output.stdout).expect("names are UTF-8");
    text.lines()
        .map(PathBuf::from)
        .filter(|path| root().join(path).is_file())
        .collect()
}

fn sources() -> Vec<Source> {
    repository_files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .map(|path| {
            let text = fs::read_to_string(root().join(&path)).expect("sources are UTF-8");
            Source::new(path, &text)
        })
        .collect()
}

#[track_caller]
fn hold(check: impl Fn(&Source) -> Vec<String>) {
    let sources = sources();
    assert!(sources.len() > 5, "the sources were not found");
    let wrong: Vec<_> = sources.iter().flat_map(check).collect();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// That `check` finds `count` things wrong in `text` as the file `path`.
#[track_caller]
fn finds(check: impl Fn(&Source) -> Vec<String>, path: &str, text: &str, count: usize) {
    let wrong = check(&Source::new(path, text));
    assert_eq!(wrong.len(), count, "in {path}:\n{text}\n{wrong:?}");
}

#[test]
fn modules_name_only_what_lies_below() {
    hold(check_layers);
}

#[test]
fn layers_check_can_fail() {
    finds(check_layers, "src/sealed/page.rs", "use crate::store::File;", 1);
    finds(check_layers, "src/sealed/page.rs", "let x = crate::db::open();", 1);
    finds(
        check_layers,
        "src/quota/a.rs",
        "use crate::{id::Ino, fs::{a, db}, cli};",
        2,
    );
    finds(check_layers, "src/quota/mod.rs", "use super::fs::Node;", 1);
    finds(check_layers, "src/quota/a.rs", "use super::super::fs::Node;", 1);
    finds(check_layers, "src/id.rs", "use super::db;", 1);
    finds(check_layers, "src/novel/mod.rs", "", 1);
    finds(check_layers, "src/quota/a.rs", "use super::ledger; // crate::fs", 0);
    finds(
        check_layers,
        "src/fs/a.rs",
        "use crate::quota::Ledger; use crate::fs::b;",
        0,
    );
    finds(
        check_layers,
        "src/sealed/a.rs",
        "pub(crate) fn a() { \"crate::fs\"; }",
        0,
    );
}

#[test]
fn layers_have_no_circles() {
    for (at, (name, allowed)) in LAYERS.iter().enumerate() {
        for below in *allowed {
            let found = LAYERS[..at].iter().any(|(other, _)| other == below)
                || LAYERS.iter().any(|(other, may)| other == below && may.is_empty());
            assert!(found, "`{name}` may name `{below}`, which is not above it in the table");
        }
    }
}

#[test]
fn each_thing_stands_in_its_home() {
    hold(check_homes);
}

#[test]
fn homes_check_can_fail() {
    finds(check_homes, "src/fs/a.rs", "fn a() { unsafe { b() } }", 1);
    finds(check_homes, "tests/a.rs", "fn a() { unsafe { b() } }", 1);
    finds(check_homes, "examples/a.rs", "println!(); unsafe { b() }", 1);
    finds(check_homes, "src/fs/a.rs", "println!(); eprintln!(\"x\");", 2);
    finds(check_homes, "src/db/a.rs", "let now = SystemTime::now();", 1);
    finds(check_homes, "src/db/a.rs", "let a = std::time::Instant::now();", 1);
    finds(check_homes, "src/fs/a.rs", "use rusqlite::Row; use fuser::Reply;", 2);
    finds(check_homes, "src/daemon/a.rs", "use std::env;", 1);
    finds(check_homes, "src/fuse/a.rs", "use fuser::Reply; // unsafe", 0);
    finds(check_homes, "src/cli/a.rs", "println!(\"{}\", std::env::args());", 0);
    finds(
        check_homes,
        "src/fs/a.rs",
        "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { println!() } }",
        0,
    );
    finds(check_homes, "src/fs/a.rs", "#![deny(unsafe_code)] let env = 1;", 0);
}

#[test]
fn nothing_is_left_unfinished() {
    hold(check_words);
}

#[test]
fn words_check_can_fail() {
    for word in NOWHERE {
        finds(check_words, "src/fs/a.rs", &format!("fn a() {{ {word}() }}"), 1);
    }
    for mark in MARKS {
        finds(check_words, "src/fs/a.rs", &format!("// {mark}: later"), 1);
    }
    finds(check_words, "src/fs/a.rs", "fn a() { b().unwrap(); }", 1);
    finds(
        check_words,
        "src/fs/a.rs",
        "fn a() { b().unwrap_or(1); } // .unwrap()",
        0,
    );
    finds(
        check_words,
        "src/fs/a.rs",
        "#[cfg(test)]\nmod tests { fn b() { a().unwrap(); } }",
        0,
    );
    finds(check_words, "tests/a.rs", "fn a() { b().unwrap(); }", 0);
}

#[test]
fn files_say_why_they_exist() {
    hold(check_head);
}

#[test]
fn head_check_can_fail() {
    finds(check_head, "src/a.rs", "use std::fs;", 1);
    finds(check_head, "src/a.rs", "//! Why.", 0);
}

#[test]
fn files_are_short() {
    hold(check_file_length);
}

#[test]
fn file_length_check_can_fail() {
    finds(check_file_length, "src/a.rs", &"a\n".repeat(601), 1);
    finds(check_file_length, "src/a.rs", &"a\n".repeat(600), 0);
    finds(check_file_length, "src/a/tests.rs", &"a\n".repeat(1000), 0);
    finds(check_file_length, "tests/a.rs", &"a\n".repeat(1001), 1);
    let tests = format!("a\n#[cfg(test)]\nmod tests {{\n{}}}", "b\n".repeat(900));
    finds(check_file_length, "src/a.rs", &tests, 0);
}

#[test]
fn functions_are_short() {
    hold(check_function_length);
}

#[test]
fn function_length_check_can_fail() {
    let body = |count| format!("fn a() {{\n{}}}\nfn b() {{}}\n", "    x;\n".repeat(count));
    finds(check_function_length, "src/a.rs", &body(69), 1);
    finds(check_function_length, "src/a.rs", &body(68), 0);
    finds(
        check_function_length,
        "src/a.rs",
        "trait A {\nfn a(x: [u8; 4]) -> u8;\n}\n",
        0,
    );
    let braces = format!("fn a() {{ '{{'; \"{{\"; }}\n{}", "// }\n".repeat(99));
    finds(check_function_length, "src/a.rs", &braces, 0);
}

#[test]
fn no_registry_is_named() {
    let mut wrong = Vec::new();
    for path in repository_files() {
        // The lock file is cargo's own and names its registry.
        if path == Path::new("Cargo.lock") {
            continue;
        }
        let bytes = fs::read(root().join(&path)).expect("a listed file can be read");
        wrong.extend(check_hosts(&path, &String::from_utf8_lossy(&bytes)));
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn hosts_check_can_fail() {
    for host in REGISTRY_HOSTS {
        let text = format!("see https://{host}/tallyfs");
        assert_eq!(check_hosts(Path::new("README.md"), &text).len(), 1, "{host}");
    }
}

#[test]
fn comments_and_strings_are_no_code() {
    let text = r##"a /* b /* c */ d */ e "f \" g" h r#"i " j"# k 'l' '\'' '\u{1f}' m::<'n>() // o"##;
    let code = code_of(text);
    let left: Vec<_> = code.split_whitespace().collect();
    assert_eq!(left, ["a", "e", "h", "k", "m::<'n>()"]);
    assert_eq!(code.len(), text.len());
    assert_eq!(code_of("'ä' \"ö\" x").trim(), "x");
    assert_eq!(code_of("let r#type = 1;"), "let r#type = 1;");
}
