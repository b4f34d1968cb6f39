//! Every parser of bytes that come from outside the program, as functions of nothing but bytes: none may panic, and
//! what was understood must be understood again when it is written down.
//!
//! The ordinary tests feed them a small corpus and changes of it; the fuzz targets in `tests/fuzz` whatever finds
//! new paths.

mod pages;
mod stored;
mod texts;

/// A parser under test.
pub struct Parser {
    pub name: &'static str,
    pub parse: fn(&[u8]),
}

/// All of them.
pub const PARSERS: [Parser; 10] = [
    Parser {
        name: "page",
        parse: pages::page,
    },
    Parser {
        name: "image",
        parse: pages::image,
    },
    Parser {
        name: "keyring",
        parse: texts::keyring,
    },
    Parser {
        name: "config",
        parse: texts::config,
    },
    Parser {
        name: "layout",
        parse: texts::layout,
    },
    Parser {
        name: "units",
        parse: texts::units,
    },
    Parser {
        name: "limits",
        parse: texts::limits,
    },
    Parser {
        name: "options",
        parse: texts::options,
    },
    Parser {
        name: "key",
        parse: texts::key,
    },
    Parser {
        name: "store",
        parse: stored::store,
    },
];

/// Chooses a parser by the first byte.
#[allow(dead_code, reason = "the fuzz target alone needs it")]
pub fn any(bytes: &[u8]) {
    if let Some((which, rest)) = bytes.split_first() {
        (PARSERS[usize::from(*which) % PARSERS.len()].parse)(rest);
    }
}
