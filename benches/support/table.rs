//! Prints tables of figures.

use super::rounds::{median, percentile};

/// The columns of [`range`].
pub const RANGE: [&str; 3] = ["median", "10 % below", "10 % above"];

/// The median and the range of the figures of many rounds.
pub fn range(figures: &[f64]) -> Vec<String> {
    let figures = [
        median(figures),
        percentile(figures, 10),
        percentile(figures, 90),
    ];
    figures.map(|figure| format!("{figure:.3}")).to_vec()
}

/// Prints a title, a line with the names of the columns, and rows that begin with their subject.
pub fn print(title: &str, columns: &[&str], rows: &[(String, Vec<String>)]) {
    let first = rows.iter().map(|(what, _)| what.chars().count()).max();
    let first = first.unwrap_or(0);
    let line = |what: &str, cells: &[String]| {
        let cells: String = cells.iter().map(|cell| format!("{cell:>14}")).collect();
        println!("  {what:<first$}{cells}");
    };
    println!("\n{title}\n");
    let names: Vec<_> = columns.iter().map(|name| name.to_string()).collect();
    line("", &names);
    for (what, cells) in rows {
        line(what, cells);
    }
}
