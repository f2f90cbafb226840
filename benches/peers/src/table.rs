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
    /// The name, with the version of this build.
    pub fn name(&self) -> Result<String, BoxError> {
        Ok(match self.package {
            Some(package) => format!("{package} {}", facts::version(package)?),
            None => "hand-written".to_owned(),
        })
    }
}

pub fn table(circumstances: &str, rows: &[Row]) -> Result<String, BoxError> {
    let floor = facts::version("tower-http")?;
    let mut table = format!(
        "# bearer-auth and its alternatives\n\
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
         Each has a valid token of 1 KiB in its cache and sends the same request with 4 headers to a \
         service that does nothing, as its users would, on loopback.\n\
         \n\
         - **time**: the time of a request, as a multiple of the least cost of a header: tower-http \
         {floor} `AddAuthorizationLayer` with a fixed value. The median of many rounds in turns.\n\
         - **allocations**: per request, minus those of the same layer.\n\
         - **two threads**: the speed of each of two threads, relative to one alone; 100 % is that \
         of the service that does nothing. The range is in brackets: small differences mean nothing.\n\
         - **token requests**: for {CALLERS} callers that arrive at once without a cached token, at \
         an endpoint that takes {} ms. Without a single flight, as many as arrive before the first \
         answer.\n\
         - **waits**: requests that wait longer than {} ms, per refresh, at {RATE} requests a \
         second: {} are all that arrive during the token request. The lifetime of the tokens is in \
         brackets: the shortest for which the peer refreshes much as it does for an hour.\n\
         \n\
         azure_core has requests of its own kind: its figures are the floor plus the cost of its \
         policy in a pipeline. azure_core, aws-smithy-runtime and the hand-written one get their \
         tokens from a function, as their API requires; it takes as long and counts as much as the \
         endpoint.\n",
        DELAY.as_millis(),
        A_WAIT.as_millis(),
        RATE as u128 * DELAY.as_millis() / 1_000,
    )?;
    table += "\n\
        What bearer-auth does and each of them does not, from the source of this version. Most of \
        them also do what bearer-auth does not: other grants, DPoP, the credentials of a cloud.\n\
        \n\
        | | missing |\n\
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
        0 => "not refreshed".to_owned(),
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
