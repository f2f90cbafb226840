//! Writes and checks `docs/faults.md`.

use std::{fmt::Write as _, fs, path::Path};

use crate::faults::{
    cell::{Cell, Phase},
    matrix::rows,
};

const BEGINS: &str =
    "<!-- Written by `UPDATE_DOCS=1 cargo test --all-features --test it faults`. -->\n";
const ENDS: &str = "<!-- End of the generated part. -->\n";

/// Renders one table for each phase. Faults with the same outcome share a row.
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
            "\n## {}\n\n\
             | fault | the request gets | it waits | sent | token requests | then | cached \
             |\n|---|---|---|---|---|---|---|\n",
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
fn page_has_the_tables_of_the_matrix() {
    let tables = tables();
    println!("{tables}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/faults.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGINS).expect("the start of the tables");
    let (there, after) = rest.split_once(ENDS).expect("the end of the tables");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, [before, BEGINS, &tables, ENDS, after].concat()).unwrap();
        return;
    }
    assert!(
        there == tables,
        "docs/faults.md differs from tests/it/faults/matrix.rs: run this test with UPDATE_DOCS=1"
    );
}

#[test]
fn every_row_has_a_phase_and_every_fault_is_unique() {
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
