//! Holds the README to its word: every acceptance case of the limits is a test with its number in its name, and the
//! README says in which file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Q01 to this one.
const CASES: u32 = 56;

type Cases = BTreeMap<String, BTreeSet<u32>>;

/// Numbers at the beginning of the name of each test: `fn q23_q56_a_killed_daemon` is of two cases.
fn cases_in(code: &str) -> BTreeSet<u32> {
    let names = code.split("#[test]").skip(1).filter_map(|rest| {
        let name = rest.split_once("fn ")?.1;
        Some(name.split('(').next().unwrap_or_default())
    });
    names
        .flat_map(|name| {
            name.split('_')
                .map_while(|word| word.strip_prefix('q')?.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}

fn collect(dir: &Path, root: &Path, into: &mut Cases) {
    for entry in fs::read_dir(dir).expect("a directory of the repository") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, root, into);
        } else if path.extension().is_some_and(|kind| kind == "rs") && !path.ends_with(file!()) {
            let cases = cases_in(&fs::read_to_string(&path).expect("source"));
            if !cases.is_empty() {
                let name = path.strip_prefix(root).expect("below the root");
                into.insert(name.display().to_string(), cases);
            }
        }
    }
}

/// Rows such as "| `tests/a.rs` | Q01, Q02 |".
fn told(readme: &str) -> Cases {
    let rows = readme.lines().filter_map(|line| {
        let (file, cases) = line.strip_prefix("| `")?.split_once("` | Q")?;
        let cases = cases.trim_end_matches(" |").split(", Q");
        let cases: Option<BTreeSet<u32>> = cases.map(|case| case.parse().ok()).collect();
        Some((file.to_owned(), cases?))
    });
    rows.collect()
}

#[test]
fn every_acceptance_case_is_a_test_and_the_readme_says_where() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Cases::new();
    for top in ["src", "tests"] {
        collect(&root.join(top), root, &mut found);
    }
    let all: BTreeSet<u32> = found.values().flatten().copied().collect();
    assert_eq!(all, (1..=CASES).collect());
    let readme = fs::read_to_string(root.join("README.md")).expect("README.md");
    assert_eq!(told(&readme), found);
}

#[test]
fn names_and_rows_are_read() {
    let code = "#[test]\nfn q23_q56_killed() {}\n#[test]\n#[ignore]\nfn q07_x() {}\nfn q99_no_test() {}\n#[test]\nfn quota_9() {}";
    assert_eq!(cases_in(code), [7, 23, 56].into());
    let rows = "| tests in | cases |\n| `tests/a.rs` | Q01, Q02 |\n| `df` | Questions |\n";
    assert_eq!(told(rows), [("tests/a.rs".to_owned(), [1, 2].into())].into());
}
