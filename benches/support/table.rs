//! How figures are printed.

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
