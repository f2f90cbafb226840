//! The chart of bars, in SVG.

use std::fmt::Write as _;

use crate::{BoxError, table::Row};

const WIDTH: f64 = 760.0;
const LABELS: f64 = 350.0;
const FIGURES: f64 = 50.0;
const TOP: f64 = 72.0;
const LINE: f64 = 26.0;
const BAR: f64 = 16.0;

/// The time of a request. The chart has a background of its own, since the page around it may be light
/// or dark.
pub fn chart(rows: &[Row]) -> Result<String, BoxError> {
    let mut rows: Vec<&Row> = rows.iter().collect();
    rows.sort_by(|a, b| a.ratio.total_cmp(&b.ratio));
    let longest = rows.last().map_or(1.0, |row| row.ratio);
    let height = TOP + LINE * rows.len() as f64 + 12.0;
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" aria-label="Time per request of bearer-auth and its alternatives">
<style>
  text {{ font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328 }}
  .title {{ font-size: 16px; font-weight: 600 }}
  .small {{ fill: #59636e }}
  .ours {{ font-weight: 600 }}
  rect {{ fill: #afb8c1 }}
  rect.ours {{ fill: #1a7f37 }}
  line {{ stroke: #59636e; stroke-dasharray: 3 3 }}
  rect.paper {{ fill: #ffffff; stroke: #d1d9e0 }}
  @media (prefers-color-scheme: dark) {{
    text {{ fill: #f0f6fc }}
    .small {{ fill: #9198a1 }}
    rect {{ fill: #656c76 }}
    rect.ours {{ fill: #3fb950 }}
    line {{ stroke: #9198a1 }}
    rect.paper {{ fill: #0d1117; stroke: #3d444d }}
  }}
</style>
<rect class="paper" x="0.5" y="0.5" width="{:.1}" height="{:.1}" rx="6"/>
<text class="title" x="16" y="28">Time to put a cached token on a request</text>
<text class="small" x="16" y="48">As a multiple of a fixed header (dashed), without any handling of expiry. Shorter is better.</text>
"##,
        WIDTH - 1.0,
        height - 1.0,
    );
    let scale = (WIDTH - LABELS - FIGURES) / longest;
    for (at, row) in rows.iter().enumerate() {
        let class = match row.name.starts_with("bearer-auth ") {
            true => r#" class="ours""#,
            false => "",
        };
        let y = TOP + LINE * at as f64;
        let baseline = y + BAR - 3.0;
        let bar = row.ratio * scale;
        writeln!(
            svg,
            r#"<text{class} x="{:.1}" y="{baseline}" text-anchor="end">{}</text><rect{class} x="{LABELS}" y="{y}" width="{bar:.1}" height="{BAR}" rx="2"/><text{class} x="{:.1}" y="{baseline}">{:.1}</text>"#,
            LABELS - 8.0,
            label(row),
            LABELS + bar + 6.0,
            row.ratio,
        )?;
    }
    let one = LABELS + scale;
    let bottom = height - 10.0;
    writeln!(
        svg,
        r#"<line x1="{one:.1}" y1="{}" x2="{one:.1}" y2="{bottom}"/>"#,
        TOP - 6.0
    )?;
    svg += "</svg>\n";
    Ok(svg)
}

/// The name, and the description up to a colon or a comma.
fn label(row: &Row) -> String {
    let what = row.what.split([':', ',']).next().unwrap_or_default();
    let name = &row.name;
    let package = match name.rsplit_once(' ') {
        Some((package, version)) if version.starts_with(|c: char| c.is_ascii_digit()) => package,
        _ => name,
    };
    let label = format!("{package}, {what}").replace('`', "");
    label.replace('&', "&amp;").replace('<', "&lt;")
}
