//! How figures are printed.

use super::rounds::{median, percentile};

/// The columns of [`spread`].
pub const SPREAD: [&str; 3] = ["median", "10 % below", "10 % above"];

/// What there is to say about the figures of many rounds.
pub fn spread(figures: &[f64]) -> Vec<String> {
    let say = [
        median(figures),
        percentile(figures, 10),
        percentile(figures, 90),
    ];
    say.map(|figure| format!("{figure:.3}")).to_vec()
}

/// A headline, a line with the columns' names, and rows that begin with what they are about.
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
