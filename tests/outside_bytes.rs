//! Every parser of bytes from outside, fed a committed corpus and thousands of changes of it.
//!
//! `TALLYFS_PARSER_INPUTS=100000 cargo test --test outside_bytes` takes that many changes for each;
//! `TALLYFS_PARSER_SEED` starts at another seed. The fuzz targets in `tests/fuzz` use the same functions.

#[path = "common/env.rs"]
mod env;
mod parsers;
#[path = "common/rng.rs"]
mod rng;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use env::from_env;
use parsers::PARSERS;
use rng::Rng;

/// Longest input that changes make.
const INPUT_BYTES_MAX: usize = 8192;

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fuzz").join(name);
    let mut inputs = Vec::new();
    for entry in std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
        inputs.push(std::fs::read(entry.expect("an entry").path()).expect("an input"));
    }
    assert!(!inputs.is_empty(), "{} is empty", dir.display());
    inputs
}

fn changed(rng: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus[rng.below(corpus.len() as u64) as usize].clone();
    for _ in 0..=rng.below(6) {
        let at = rng.below(input.len() as u64 + 1) as usize;
        let end = input.len().min(at + rng.below(12) as usize);
        match rng.below(6) {
            0 => input.truncate(at),
            1 => drop(input.drain(at..end)),
            2 => input.insert(at, rng.next() as u8),
            3 => {
                let other = &corpus[rng.below(corpus.len() as u64) as usize];
                let from = rng.below(other.len() as u64 + 1) as usize;
                input.splice(at..end, other[from..].iter().copied());
            }
            4 if at < input.len() => input[at] = rng.pick(&[0, 1, 0x7f, 0x80, 0xfe, 0xff, b'0', b'"', b'\n']),
            _ if at < input.len() => input[at] ^= 1 << rng.below(8),
            _ => input.push(rng.next() as u8),
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

#[test]
fn no_bytes_make_a_parser_panic() {
    let (inputs, seed) = (
        from_env("TALLYFS_PARSER_INPUTS", 1500),
        from_env("TALLYFS_PARSER_SEED", 1),
    );
    for parser in &PARSERS {
        let corpus = corpus(parser.name);
        let mut rng = Rng::new(seed);
        // A store is made for each input of this one.
        let inputs = if parser.name == "store" { inputs / 5 } else { inputs };
        let changes = std::iter::repeat_with(|| changed(&mut rng, &corpus)).take(inputs as usize);
        for input in corpus.iter().cloned().chain(changes) {
            let outcome = catch_unwind(AssertUnwindSafe(|| (parser.parse)(&input)));
            let text = String::from_utf8_lossy(&input);
            assert!(outcome.is_ok(), "{}: {input:?} ({text})", parser.name);
        }
    }
}
