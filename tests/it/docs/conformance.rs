//! `docs/conformance.md` is complete, and its tests exist.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// A row of the page.
struct Row {
    id: String,
    requirement: String,
    shown_by: String,
}

impl Row {
    /// Returns path and name of the row's tests.
    fn tests(&self) -> Vec<(&str, &str)> {
        let quoted = self.shown_by.split('`').skip(1).step_by(2);
        quoted
            .filter_map(|text| text.split_once("::"))
            .filter(|(path, _)| path.ends_with(".rs"))
            .collect()
    }

    /// Returns the reason for having no test.
    fn reason(&self) -> Option<&str> {
        self.shown_by.strip_prefix('—')?.strip_prefix(", ")
    }
}

/// The ids that the page must have.
fn ids() -> Vec<String> {
    let numbered = |prefix: &'static str, numbers: std::ops::RangeInclusive<u16>| {
        numbers.map(move |number| format!("{prefix}{number}"))
    };
    numbered("S0-", 1..=14)
        .chain(numbered("S1-", 1..=19))
        .chain(numbered("S2-", 1..=9))
        .chain(numbered("S3-", 1..=11))
        .chain(numbered("S4-", 1..=18))
        .chain(numbered("P", 1..=103))
        .chain(numbered("P", 126..=145))
        .chain(numbered("P", 153..=167))
        .chain(numbered("P", 190..=195))
        .chain(numbered("P", 201..=206))
        .chain(numbered("P", 220..=239))
        .chain([1, 2, 4, 6, 8, 10, 11, 13, 14, 23].map(|number| format!("Q{number}")))
        .chain(numbered("C", 1..=27))
        .collect()
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rows() -> Vec<Row> {
    let page = read("docs/conformance.md");
    let tables = page.lines().filter(|line| line.starts_with('|'));
    let rows: Vec<_> = tables
        .filter(|line| !line.starts_with("| id |") && !line.starts_with("|---"))
        .map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [id, requirement, shown_by] = cells[..] else {
                panic!("not three cells: {line}");
            };
            Row {
                id: id.to_owned(),
                requirement: requirement.to_owned(),
                shown_by: shown_by.to_owned(),
            }
        })
        .collect();
    assert!(!rows.is_empty(), "no table was found");
    rows
}

/// Returns the tests in a source file: functions with an attribute that ends in `test]` and that are
/// not ignored, and the entries of `tests!` in `tests/e2e`.
fn tests_in(source: &str) -> BTreeSet<&str> {
    let mut tests = BTreeSet::new();
    let (mut test, mut ignored, mut list) = (false, false, false);
    for line in source.lines().map(str::trim) {
        let line_of_fn = line.strip_prefix("async ").unwrap_or(line);
        if list {
            list = line != "}";
            let name = line
                .rsplit(' ')
                .next()
                .and_then(|name| name.strip_suffix(','));
            tests.extend(name.filter(|name| *name != "child"));
        } else if line == "tests! {" {
            list = true;
        } else if let Some(attribute) = line.strip_prefix("#[") {
            test |= attribute.ends_with("test]") || attribute.starts_with("tokio::test(");
            ignored |= attribute.starts_with("ignore");
        } else if let Some(rest) = line_of_fn.strip_prefix("fn ") {
            if test && !ignored {
                tests.extend(rest.split_once(['(', '<']).map(|(name, _)| name));
            }
            (test, ignored) = (false, false);
        }
    }
    tests
}

/// Returns the ids at the start of a test's name: `s4_13_c2_the_rest` → `S4-13`, `C2`.
fn ids_of(name: &str) -> Vec<String> {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let mut ids = Vec::new();
    let mut parts = name.split('_').peekable();
    while let Some(part) = parts.next() {
        let Some((letter @ ("s" | "p" | "q" | "c"), digits)) = part.split_at_checked(1) else {
            break;
        };
        if !number(digits) {
            break;
        }
        let mut id = part.to_uppercase();
        if letter == "s" {
            match parts.next_if(|part| number(part)) {
                Some(row) => id += &format!("-{row}"),
                None => break,
            }
        }
        ids.push(id);
    }
    ids
}

#[test]
fn every_id_has_exactly_one_row() {
    let mut count = BTreeMap::new();
    for row in rows() {
        *count.entry(row.id).or_insert(0) += 1;
    }
    let twice: Vec<_> = count.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "more than once: {twice:?}");
    let missing: Vec<_> = ids()
        .into_iter()
        .filter(|id| !count.contains_key(id))
        .collect();
    assert!(missing.is_empty(), "no row: {missing:?}");
}

#[test]
fn every_row_has_a_test_or_a_reason() {
    for row in rows() {
        let id = &row.id;
        assert!(!row.requirement.is_empty(), "{id} has no requirement");
        match row.reason() {
            Some(reason) => {
                assert!(
                    reason.len() > 10,
                    "{id}: the reason {reason:?} is too short"
                );
                assert!(row.tests().is_empty(), "{id} has a reason and tests");
            }
            None => assert!(!row.tests().is_empty(), "{id} has no test and no reason"),
        }
    }
}

#[test]
fn every_test_exists_and_is_named_after_its_row() {
    for row in rows() {
        let mut named = row.reason().is_some();
        for (path, name) in row.tests() {
            let source = read(path);
            let exists = tests_in(&source).contains(name);
            assert!(exists, "{}: {path} has no test `{name}`", row.id);
            named |= ids_of(name).contains(&row.id);
        }
        assert!(named, "no test of {} has the id in its name", row.id);
    }
}

/// Each test in `tests/it/conformance` is in the rows of its ids.
#[test]
fn every_conformance_test_is_in_the_rows_of_its_ids() {
    let rows = rows();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/conformance");
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let path = format!("tests/it/conformance/{file}");
        let source = read(&path);
        for name in tests_in(&source) {
            seen += 1;
            let ids = ids_of(name);
            assert!(!ids.is_empty(), "{path}: the name `{name}` has no id");
            for id in ids {
                let listed = rows
                    .iter()
                    .any(|row| row.id == id && row.tests().contains(&(&path, name)));
                assert!(listed, "{path}: `{name}` is not in the row of {id}");
            }
        }
    }
    assert!(seen > 0, "no test was found");
}

#[test]
fn ids_and_test_names_are_parsed() {
    assert_eq!(ids_of("s4_13_errors_are_read"), ["S4-13"]);
    assert_eq!(ids_of("p37_p60_any_case"), ["P37", "P60"]);
    assert_eq!(ids_of("s4_10_p7_c2_x"), ["S4-10", "P7", "C2"]);
    assert!(ids_of("repeated_parameters_keep_their_order").is_empty());
    let source = "#[test]\nfn a() {}\nfn b() {}\n#[tokio::test]\n#[ignore]\nasync fn c() {}";
    assert_eq!(tests_in(source), BTreeSet::from(["a"]));
    let source = "tests! {\n    needs: [Redis];\n    child,\n    a,\n    #[threads(2)] b,\n}\nasync fn c() {}";
    assert_eq!(tests_in(source), BTreeSet::from(["a", "b"]));
}
