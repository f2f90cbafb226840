//! The matrix for people: `docs/faults.md`.

use std::{fmt::Write as _, fs, path::Path};

use crate::faults::{
    cell::{Cell, Phase},
    matrix::rows,
};

const BEGINS: &str =
    "<!-- Written by `UPDATE_DOCS=1 cargo test --all-features --test it faults`. -->\n";
const ENDS: &str = "<!-- Up to here. -->\n";

/// One table for each phase, in which faults that are the same to everybody share a row.
fn tables() -> String {
    let mut text = String::new();
    for phase in Phase::ALL {
        let mut lines: Vec<(Cell, Vec<&str>)> = Vec::new();
        for row in rows() {
            let Some(cell) = row.cells[phase as usize] else {
                continue;
            };
            match lines.iter_mut().find(|(known, _)| *known == cell) {
                Some((_, names)) => names.push(row.name),
                None => lines.push((cell, vec![row.name])),
            }
        }
        write!(
            text,
            "\n# {}\n\n\
             | what goes wrong | the request gets | it waits | sent | token requests | and then \
             | the cache has |\n|---|---|---|---|---|---|---|\n",
            phase.title()
        )
        .unwrap();
        for (cell, names) in lines {
            writeln!(text, "| {} | {cell} |", names.join("<br>")).unwrap();
        }
    }
    text.push('\n');
    text
}

#[test]
fn the_page_has_these_tables() {
    let tables = tables();
    println!("{tables}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/faults.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGINS).expect("where the tables begin");
    let (there, after) = rest.split_once(ENDS).expect("where the tables end");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, [before, BEGINS, &tables, ENDS, after].concat()).unwrap();
        return;
    }
    assert!(
        there == tables,
        "docs/faults.md is not what tests/it/faults/matrix.rs promises: run it with UPDATE_DOCS=1"
    );
}

/// Faults that nobody would find in the table are not promised anything.
#[test]
fn every_row_is_there_in_some_phase_and_no_fault_is_there_twice() {
    let mut seen = Vec::new();
    for row in rows() {
        assert!(row.cells.iter().any(Option::is_some), "{}", row.name);
        assert!(!row.faults.is_empty(), "{}", row.name);
        for fault in row.faults {
            assert!(!seen.contains(&fault), "{fault:?}");
            seen.push(fault);
        }
    }
}
