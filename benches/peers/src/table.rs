//! The table, in Markdown.

use std::{fmt::Write as _, time::Duration};

use crate::{
    BoxError,
    endpoint::DELAY,
    facts,
    load::{A_WAIT, CALLERS, Crowd, RATE, Stream},
    peers::Entry,
    time::Figures,
};

/// One peer's figures.
pub struct Row {
    pub name: String,
    pub what: &'static str,
    pub ratio: f64,
    pub allocations: f64,
    pub scaling: Figures,
    pub crowd: Crowd,
    pub lifetime: Duration,
    pub stream: Stream,
    pub less: &'static str,
}

impl Entry {
    /// With its version, as built.
    pub fn name(&self) -> Result<String, BoxError> {
        Ok(match self.package {
            Some(package) => format!("{package} {}", facts::version(package)?),
            None => "by hand".to_owned(),
        })
    }
}

pub fn table(circumstances: &str, rows: &[Row]) -> Result<String, BoxError> {
    let floor = facts::version("tower-http")?;
    let mut table = format!(
        "# bearer-auth and what one would use instead\n\
         \n\
         Written by `cargo run --release --manifest-path benches/peers/Cargo.toml`.\n\
         {circumstances}.\n\
         \n\
         | | time | allocations | two threads | token requests | waits |\n\
         |---|---:|---:|---:|---:|---:|\n"
    );
    for row in rows {
        writeln!(
            table,
            "| **{}**<br>{} | {:.1} | {} | {} | {} | {} |",
            row.name,
            row.what,
            row.ratio,
            count(row.allocations),
            percent(&row.scaling),
            crowd(&row.crowd),
            stream(row),
        )?;
    }
    write!(
        table,
        "\n\
         Each with a good token of 1 KiB in its cache and the same request with 4 headers, over a \
         service that does nothing; driven as its users would, on loopback.\n\
         \n\
         - **time**: for a request, as a multiple of the least that a header can \
         cost: tower-http {floor} `AddAuthorizationLayer` with a fixed value. The median of many \
         rounds in turns.\n\
         - **allocations**: for each request, above the same.\n\
         - **two threads**: what each of two threads keeps of the speed of one alone; 100 % is \
         what the service that does nothing keeps by itself. In brackets the range: small differences \
         mean nothing.\n\
         - **token requests**: for {CALLERS} callers that arrive at once with no token in the \
         cache, at an endpoint that takes {} ms. Where each asks for himself, as many as come before the first answer.\n\
         - **waits**: requests that wait longer than {} ms, for each renewal, at {RATE} requests a \
         second: {} is everybody who comes while the endpoint takes its time. In brackets the \
         lifetime of the tokens: the shortest for which the peer renews much as it does for an hour.\n\
         \n\
         azure_core has requests of its own kind: its figures are the floor's and what its policy \
         adds to a pipeline without. azure_core, aws-smithy-runtime and the one by hand get their tokens from a \
         function, which is how these caches are fed; it takes and counts as much as the endpoint.\n",
        DELAY.as_millis(),
        A_WAIT.as_millis(),
        RATE as u128 * DELAY.as_millis() / 1_000,
    )?;
    table += "\n\
        What each does not do of what bearer-auth does, from the source of this version. Most of \
        them do other things besides, which bearer-auth does not: other grants, DPoP, the \
        credentials of a cloud.\n\
        \n\
        | | does less |\n\
        |---|---|\n";
    for row in rows {
        writeln!(table, "| **{}**<br>{} | {} |", row.name, row.what, row.less)?;
    }
    Ok(table)
}

fn count(number: f64) -> String {
    if (number - number.round()).abs() < 0.05 {
        format!("{:.0}", number.round().abs())
    } else {
        format!("{number:.1}")
    }
}

fn percent(figures: &Figures) -> String {
    if figures.0.is_empty() {
        return "not measured: too busy".to_owned();
    }
    format!(
        "{:.0} % ({:.0}–{:.0})",
        figures.median() * 100.0,
        figures.lowest() * 100.0,
        figures.highest() * 100.0
    )
}

fn crowd(crowd: &Crowd) -> String {
    let mut text = crowd.requests.to_string();
    if crowd.token_first {
        text += ", before the first call";
    }
    if crowd.failed > 0 {
        text += &format!("; {} calls failed", crowd.failed);
    }
    text
}

fn stream(row: &Row) -> String {
    let stream = &row.stream;
    let each = |number: usize| number as f64 / stream.renewals as f64;
    let mut text = match stream.renewals {
        0 => "not renewed".to_owned(),
        _ => format!("{:.0}", each(stream.waited)),
    };
    text += &format!(" ({} s)", row.lifetime.as_secs());
    if each(stream.requests) >= 1.5 {
        text += &format!(", with {:.0} token requests", each(stream.requests));
    }
    if stream.failed > 0 {
        text += &format!("; {} failed", stream.failed);
    }
    text
}
