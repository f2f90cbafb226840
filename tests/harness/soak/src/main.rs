//! Load for minutes or hours, with an identity provider that fails in every way, and bounds that
//! are checked meanwhile:
//!
//! ```text
//! cargo run --release -p soak -- --minutes 10
//! ```
//!
//! 2,000 requests a second (`--rate`) go through the layer to an API on loopback, each at its time
//! whether or not earlier ones have ended. Meanwhile tokens, which live for some seconds, are
//! revoked, the signing key is rotated, and the token endpoint is slow or down: refused, reset,
//! silent, failing, asking to be left alone. What happens when follows from the seed (`--seed`). After
//! each such phase the load rests. The servers are a process of their own.
//!
//! | it exits with 1 if | |
//! |---|---|
//! | a request fails | while there is a good token, or while the token endpoint gives one to who asks, or after the time when the crate had to ask again |
//! | a request goes out | with a token that is over, or with none |
//! | a token request goes out | while another is under way; before a quarter of the token's life is left, unless it was revoked; or sooner after a failure than the backoff has it |
//! | a token is not renewed ahead | although requests went by |
//! | a request | never ends |
//! | at rest after a phase | there are more tasks than before the first, or 8 KiB more on the heap |
//!
//! None of these depends on how fast the machine is. How late it started requests is reported
//! (*lag*), and times count from when a request was to start. A violation names the command that
//! repeats its plan. The plan is the same then; the crate's own jitter, and the order in which tasks
//! meet, are not.
//!
//! Without arguments: twelve seconds, 200 requests a second.
//!
//! What was taken away from the crate to see it fail, within this minute
//! (`--minutes 1`), and what says so:
//!
//! | without | fails |
//! |---|---|
//! | renewal in the background | renewal ahead |
//! | the end of a token that is over | dead tokens |
//! | the pause after a failure, its doubling, that between attempts, `Retry-After` | token requests |
//! | waiting for a quarter of the life; one flight at a time | token requests |
//! | a pause that ends (five minutes after any failure) | failures |
//! | sending again after a 401; the token in hand when a renewal fails | failures |
//! | waking who waits for a flight that fails | every request ends |
//! | freeing a flight, its task, 64 bytes for each 401, one for each request | heap and tasks |
#![allow(clippy::disallowed_methods, reason = "load in real time")]

mod ledger;
mod level;
mod load;
mod report;
mod schedule;
mod server;
mod wire;

use std::{
    env,
    error::Error,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bearer_auth::{BearerAuthLayer, ClientCredentials, Event, TokenCache};
use tokio::time;
use tower::ServiceBuilder;

use self::{
    ledger::Ledger,
    level::Level,
    load::{AT_ONCE, Histogram, Load},
    report::Report,
    schedule::{Fault, Phase, Schedule, Trouble, WARM_UP},
    server::Server,
    wire::{ToApi, ToIdp},
};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// A seed whose first minute has troubles of all kinds.
const SEED: u64 = 262;
/// Silence costs this much, and not half a minute.
const FETCH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the API takes to refuse a token.
const LATE: Duration = Duration::from_millis(30);

/// Two threads on every machine: what each of them makes for itself is part of the level.
#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    if env::args().nth(1).as_deref() == Some(server::ARGUMENT) {
        return match server::serve().await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: the server: {error}");
                ExitCode::FAILURE
            }
        };
    }
    let soaked = async { soak(Arguments::parse()?).await };
    match soaked.await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all bounds were kept.
async fn soak(arguments: Arguments) -> Outcome<bool> {
    let mut server = Server::start().await?;
    let ledger = Arc::new(Ledger::new());
    let refused = Arc::new(AtomicBool::new(false));
    let waits = Arc::new(Histogram::default());

    let source = ClientCredentials::builder(&server.token_url, "client-id", "client-secret")
        .http_client(ToIdp::new(Arc::clone(&ledger), Arc::clone(&refused)))
        .build()?;
    let told = (Arc::clone(&ledger), Arc::clone(&waits));
    let cache = TokenCache::builder(source)
        .fetch_timeout(FETCH_TIMEOUT)
        .on_event(move |event| match event {
            Event::Requested {
                reason, attempt, ..
            } => told.0.will_ask(*reason, *attempt),
            Event::Waited { took, .. } => told.1.add(*took),
            _ => {}
        })
        .build();
    let auth = BearerAuthLayer::for_api(&server.api_url, cache)?;
    let to_api = ToApi::new(Arc::clone(&ledger));
    let client = ServiceBuilder::new()
        .layer(auth)
        .concurrency_limit(AT_ONCE)
        .service(to_api.clone());
    let uri = format!("{}orders", server.api_url).parse()?;
    let load = Load::new(client, uri, arguments.rate, Arc::clone(&ledger));

    let phases = Schedule::new(arguments.seed).lasting(arguments.duration());
    let mut report = Report::new(
        &arguments,
        Arc::clone(&ledger),
        Arc::clone(load.seen()),
        waits,
    );
    report.begins(phases.len());

    server.lifetime(Duration::from_secs(5)).await?;
    report
        .beside("warming up", load.run(), time::sleep(WARM_UP))
        .await;
    load.ends().await;
    let level = Level::settled().await;
    report.level(level);

    for phase in phases {
        let trouble = async {
            let (ended, end) = tokio::join!(
                cause(phase, &mut server, &ledger, &refused),
                time::sleep(phase.load),
            );
            let () = end;
            ended
        };
        report.beside(phase, load.run(), trouble).await?;
        load.ends().await;
        let rest = level.is_back(&ledger).await;
        report.phase(phase, rest);
        if ledger.is_violated() {
            break;
        }
    }
    Ok(report.ends(server.counts().await?, to_api.sent()))
}

/// The trouble of a phase, from its beginning to its end.
async fn cause(
    phase: Phase,
    server: &mut Server,
    ledger: &Ledger,
    refused: &AtomicBool,
) -> Outcome<()> {
    let begins = Instant::now() + phase.begins;
    let ends = begins + phase.lasts;
    server.lifetime(phase.lifetime).await?;
    time::sleep_until(begins.into()).await;
    match phase.trouble {
        Trouble::Nothing => {}
        Trouble::Outage(fault) => {
            down(fault, server, refused).await?;
            time::sleep_until(ends.into()).await;
        }
        Trouble::Slow { idp, api } => {
            server.well(idp).await?;
            server.api(api).await?;
            time::sleep_until(ends.into()).await;
        }
        Trouble::Revocation => {
            heals(ledger).await;
            // The first 401 brings a new token long before the last one about the old.
            server.api(LATE).await?;
            revoke(ledger.good_tokens(), server, ledger).await?;
            time::sleep_until(ends.into()).await;
        }
        Trouble::Rotation => {
            let of_the_old_key = ledger.good_tokens();
            time::sleep_until(ends.into()).await;
            heals(ledger).await;
            revoke(of_the_old_key, server, ledger).await?;
        }
        Trouble::Storm(fault) => {
            heals(ledger).await;
            down(fault, server, refused).await?;
            revoke(ledger.good_tokens(), server, ledger).await?;
            time::sleep_until(ends.into()).await;
        }
    }
    refused.store(false, Ordering::Relaxed);
    server.well(Duration::ZERO).await?;
    server.api(Duration::ZERO).await?;
    Ok(())
}

async fn down(fault: Fault, server: &mut Server, refused: &AtomicBool) -> Outcome<()> {
    refused.store(matches!(fault, Fault::Refused), Ordering::Relaxed);
    Ok(server.down(fault).await?)
}

async fn revoke(tokens: Vec<String>, server: &mut Server, ledger: &Ledger) -> Outcome<()> {
    ledger.revoked(&tokens);
    Ok(server.revoke(&tokens).await?)
}

/// The plan has the time for it; a machine that stalls may need some more.
async fn heals(ledger: &Ledger) {
    while !ledger.would_heal() {
        time::sleep(Duration::from_millis(10)).await;
    }
}

struct Arguments {
    minutes: f64,
    seed: u64,
    rate: u32,
}

impl Arguments {
    fn parse() -> Outcome<Self> {
        let mut given = env::args().skip(1).peekable();
        let any = given.peek().is_some();
        let mut arguments = Self {
            minutes: if any { 1.0 } else { 0.2 },
            seed: SEED,
            rate: if any { 2_000 } else { 200 },
        };
        while let Some(name) = given.next() {
            let value = given.next().ok_or(USAGE)?;
            match name.as_str() {
                "--minutes" => arguments.minutes = value.parse()?,
                "--seed" => arguments.seed = value.parse()?,
                "--rate" => arguments.rate = value.parse()?,
                _ => return Err(USAGE.into()),
            }
        }
        let possible = arguments.minutes > 0.0 && arguments.minutes < 1e6 && arguments.rate > 0;
        if possible {
            Ok(arguments)
        } else {
            Err(USAGE.into())
        }
    }

    fn duration(&self) -> Duration {
        Duration::from_secs_f64(60.0 * self.minutes)
    }
}

const USAGE: &str = "usage: soak [--minutes MINUTES] [--seed SEED] [--rate REQUESTS_PER_SECOND]";
